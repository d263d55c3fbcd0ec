"""Entities and their scores held against seqeval."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rayscale.nn.models.objectives import IGNORED, Inputs, find_objective
from rayscale.nn.ranks import Group
from rayscale.text.tasks.entities import SCHEMES, entities, scheme_of, scheme_text, signature

TAGS = ["O", *(f"{mark}-{kind}" for mark in "BIES" for kind in ("PER", "LOC", "A-B"))]


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("B-X I-X O I-Y", {("X", 0, 1), ("Y", 3, 3)}),
        ("I-X I-Y B-Y B-Y", {("X", 0, 0), ("Y", 1, 1), ("Y", 2, 2), ("Y", 3, 3)}),
        ("O O", set()),
    ],
)
def test_entities_by_hand(tags: str, found: set) -> None:
    assert entities(tags.split(), SCHEMES[0]) == found


@pytest.mark.parametrize("scheme", SCHEMES[2:], ids=lambda scheme: scheme.name)
def test_schemes_that_mark_ends_count_whole_entities_alone(scheme: Any) -> None:
    begin, inside, end, single = (next(own for own, mark in scheme.marks.items() if mark == each) for each in "BIES")
    tags = [f"{single}-X", f"{begin}-X", f"{inside}-X", f"{end}-X", f"{inside}-X", f"{begin}-X", f"{end}-Y", "O"]
    labels = ["O", *(f"{mark}-{kind}" for mark in scheme.marks for kind in "XY")]
    assert scheme_of(labels) == scheme
    assert scheme.name in scheme_text(labels)
    assert signature(scheme) == f"entities|{scheme.name}|strict"
    assert entities(tags, scheme) == {("X", 0, 0), ("X", 1, 3)}


def test_other_tags_are_no_entities() -> None:
    assert scheme_of(["O", "B-X"]) == SCHEMES[0]
    assert scheme_of(["O", "I-X", "E-X"]) == SCHEMES[1]
    for labels in (["NN", "B-X"], ["O"], ["O", "Q-X", "B-X"], ["O", "B-"], ["B-X", "U-X", "S-X"]):
        assert scheme_of(labels) is None
    assert "single tags" in scheme_text(["NN", "V"])


def _score(labels: list[str], true: list[list[str]], predicted: list[list[str]]) -> Any:
    """As the objective scores these tags; every other place carries none."""
    width = 2 * max(map(len, true))
    wanted, logits = torch.full((len(true), width), IGNORED), torch.zeros(len(true), width, len(labels))
    for row, tags in enumerate(true):
        wanted[row, 1 : 2 * len(tags) : 2] = torch.tensor([labels.index(tag) for tag in tags])
        for place, tag in enumerate(predicted[row]):
            logits[row, 2 * place + 1, labels.index(tag)] = 1.0
    tally = find_objective("token-classification").tally(SimpleNamespace(labels=labels), None)  # type: ignore[arg-type]
    inputs = Inputs(wanted, None, None, {"targets": wanted})
    tally.add(torch.nn.Identity(), inputs, logits, np.arange(len(true)))
    return tally.finish(Group.join(0, 1, "cpu"), 1.0)


def test_as_seqeval() -> None:
    draw = np.random.default_rng(5)
    lengths = draw.integers(1, 9, 40)
    true = [[TAGS[n] for n in draw.integers(0, 7, length)] for length in lengths]
    predicted = [[tag if draw.random() < 0.6 else TAGS[draw.integers(0, 7)] for tag in tags] for tags in true]
    score = _score(TAGS[:7], true, predicted)
    # seqeval 1.2.2 on the same tags (it agrees on 20,000 random sentences, too)
    wanted = {"precision_macro": 0.6142676767676768, "recall_macro": 0.6529654654654654,
              "f1_micro": 0.6300366300366301, "f1_macro": 0.6319444444444443,
              "f1_weighted": 0.6290726817042606}  # fmt: skip
    assert {name: score.metrics[name] for name in wanted} == pytest.approx(wanted, abs=1e-12)
    assert [(row["label"], row["support"]) for row in score.classes[:3]] == [("A-B", 37), ("LOC", 48), ("PER", 48)]
    assert score.classes[0]["recall"] == pytest.approx(0.729729729730)
    # With tags that mark ends: mode="strict", scheme=IOBES.
    true = [[TAGS[n] for n in draw.integers(0, 13, length)] for length in lengths]
    predicted = [[tag if draw.random() < 0.6 else TAGS[draw.integers(0, 13)] for tag in tags] for tags in true]
    wanted = {"precision_macro": 0.6009615384615384, "recall_macro": 0.5482654600301659,
              "f1_micro": 0.5714285714285715, "f1_macro": 0.5721315721315722,
              "f1_weighted": 0.5707070707070707}  # fmt: skip
    score = _score(TAGS, true, predicted)
    assert {name: score.metrics[name] for name in wanted} == pytest.approx(wanted, abs=1e-12)


def test_tags_without_marks_are_scored_one_by_one() -> None:
    score = _score(["N", "V"], [["N", "V", "N"], ["V"]], [["N", "N", "N"], ["V"]])
    assert score.metrics["accuracy"] == score.metrics["f1_micro"] == 0.75
    assert score.metrics["f1_macro"] == pytest.approx((4 / 5 + 2 / 3) / 2)
