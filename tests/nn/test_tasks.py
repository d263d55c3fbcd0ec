"""From a file of each task to its scores: prepared, trained for a little, saved, loaded again."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import plainly
import pytest

from rayscale.nn.training.train import train_trial
from rayscale.plan.draft import draft_plan
from rayscale.plan.starter import write_starter
from rayscale.study.study import load_study
from rayscale.system.machine import Machine
from rayscale.system.storage import Store
from rayscale.text.preparation import Here, prepare
from rayscale.text.tokens.encode import spec_of

MACHINE = Machine("cpu", 2, "x", "this machine")
ANIMALS = ("cat", "dog", "owl", "fox")
PLACES = ("barn", "wood", "city", "park")


def _pairs(draw: np.random.Generator) -> dict[str, Any]:
    """Whether both texts speak of the same animal: neither text alone tells."""
    one, other = draw.choice(ANIMALS, 2)
    other = one if draw.random() < 0.5 else other
    return {"premise": f"a {one} {draw.integers(99)} runs", "hypothesis": f"it was a {other} {draw.integers(99)}",
            "label": int(one == other)}  # fmt: skip


def _topics(draw: np.random.Generator) -> dict[str, Any]:
    seen = [animal for animal in ANIMALS if draw.random() < 0.4]
    return {"text": f"day {draw.integers(9999)}: {' '.join(seen) or 'nothing'} in the {draw.choice(PLACES)}",
            "topics": seen}  # fmt: skip


def _tags(draw: np.random.Generator) -> dict[str, Any]:
    animal, place = draw.choice(ANIMALS), draw.choice(PLACES)
    tokens = ["the", animal, str(draw.integers(99)), "saw", "old", place, str(draw.integers(99))]
    return {"tokens": tokens, "tags": ["O", "B-BEAST", "O", "O", "B-PLACE", "I-PLACE", "O"]}


def _turned(draw: np.random.Generator) -> dict[str, Any]:
    """Words with their translation, in the same order."""
    words = draw.integers(0, 4, draw.integers(1, 5))
    numbers = draw.integers(10)
    return {"en": " ".join(ANIMALS[word] for word in words) + f" {numbers}",
            "de": " ".join(("Katze", "Hund", "Eule", "Fuchs")[word] for word in words) + f" {numbers}"}  # fmt: skip


def _asked(draw: np.random.Generator) -> dict[str, Any]:
    """Who it was, and where; nobody says why."""
    beast, place = draw.choice(ANIMALS), draw.choice(PLACES)
    context = f"on day {draw.integers(999)} a {beast} was in the {place} with {draw.integers(99)} others"
    question, there = [("who was it?", [beast]), ("where was it?", [place]), ("why?", [])][draw.integers(3)]
    answers = {"text": there, "answer_start": [context.index(each) for each in there]}
    return {"question": question, "context": context, "answers": answers}


CASES: dict[str, tuple[Callable[[np.random.Generator], dict[str, Any]], str, float]] = {
    "sequence-classification": (_pairs, "accuracy", 0.6),
    "multi-label": (_topics, "f1_micro", 0.9),
    "token-classification": (_tags, "f1_micro", 0.9),
    "seq2seq": (_turned, "chrf", 40.0),
    "question-answering": (_asked, "exact_match", 0.9),
}


#: What the model, loaded plainly, has right is this score.
RIGHT = {
    "sequence-classification": "accuracy",
    "multi-label": "exact_match",
    "token-classification": "accuracy",
    "seq2seq": "exact_match",
}


@pytest.mark.parametrize("task", CASES)
def test_a_task_from_a_file_to_its_scores(task: str, tmp_path: Path) -> None:
    make, metric, least = CASES[task]
    draw = np.random.default_rng(1)
    rows = list({json.dumps(make(draw)): None for _ in range(900)})[:550]
    for name, part in (("rows", rows[:500]), ("test", rows[500:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(part))
    rows = [json.loads(row) for row in rows]
    write_starter(task, tmp_path / "rows.jsonl", tmp_path / "study.yaml")
    text = (tmp_path / "study.yaml").read_text()
    text = text.replace("[1x32, 2x64, 3x128], vocabulary: 2048", "[2x32], vocabulary: 300")
    text = text.replace("  test_fraction: 0.1\n", "  near_duplicates: null\n").replace("test: null", "test: test.jsonl")
    usual = r"epochs: \d+, global_batch: \d+, learning_rate: auto"
    # Whether two texts agree takes longer to learn than what one says.
    pace = "30, global_batch: 8, learning_rate: 1e-3" if make is _pairs else "8, global_batch: 8, learning_rate: 3e-3"
    text, found = re.subn(usual, f"epochs: {pace}", text)
    assert found == 1
    (tmp_path / "study.yaml").write_text(text)
    study = load_study(tmp_path / "study.yaml")
    planned = draft_plan(study, MACHINE, Store.open(tmp_path / "run")).trials
    trial = max((each.trial for each in planned), key=lambda trial: trial.data_requested)
    (prepared,) = prepare(study, [spec_of(trial.model)], [0, 1], Here()).values()
    result = train_trial(trial, prepared, save_to=tmp_path / "model")
    assert result["status"] == "ok"
    assert math.isfinite(result["eval_loss"])
    assert result["params"] == next(each.params for each in planned if each.trial == trial)
    assert result[metric] >= least, result
    found = plainly.measure(tmp_path / "model", task, rows[500:])
    assert found["eval_loss"] == pytest.approx(result["eval_loss"], rel=1e-4)
    if task in RIGHT:
        assert found["right"] == pytest.approx(result[RIGHT[task]], abs=1e-9)
    if not prepared.labels:
        return
    assert [row["label"] for row in result["classes"]][-3:] == ["micro", "macro", "weighted"]
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert sorted(config["label2id"]) == sorted(prepared.labels)
