"""Speed: which cells are timed, and what the verdict says where models differ."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from rayscale.forecast import conclude
from rayscale.machine import Machine
from rayscale.plan import PAIR_SECONDS, Supply, make_plan
from rayscale.simulate import simulate
from rayscale.speedup import speed_steps
from rayscale.study import load_study

TRUTH = {"A": 20.0, "B": 30.0, "E": 0.8, "alpha": 0.3, "beta": 0.35}


def runs(**gain: float) -> pd.DataFrame:
    """Three models at one and two GPUs; `gain` is by how many times two are faster."""
    design = pd.DataFrame(
        [
            {"params": 10.0**place, "data_requested": size, "gpus": gpus, "seed": 0, "model": model}
            for place, model in enumerate(gain, 4)
            for size in (1000, 2000, 4000, 8000)
            for gpus in (1, 2)
        ]
    )
    trials = simulate("chinchilla", TRUTH, design)
    ratio = trials["model"].map(gain).where(trials["gpus"] == 2, 1.0)
    return trials.assign(examples_per_second=100.0 * ratio)


def said(trials: pd.DataFrame) -> str:
    found = conclude(trials, task_type="causal-lm", data_axis="tokens", target="eval_loss", reach=None, bootstrap=5)
    return next(line for line in found["verdict"]["sentences"] if "GPUs" in line and "per second" in line)


def test_the_ratio_of_each_model_is_kept() -> None:
    (step,) = speed_steps(runs(small=0.8, middle=1.2, large=1.7))
    assert [(each["model"], round(each["value"], 3)) for each in step["models"]] == [
        ("small", 0.8), ("middle", 1.2), ("large", 1.7),
    ]  # fmt: skip
    assert step["largest_model"] == pytest.approx(1.7)


def test_the_sentence_names_the_largest_model_where_models_differ() -> None:
    assert "from 0.8 times for small to 1.7 times for large, the largest." in said(runs(small=0.8, mid=1.2, large=1.7))
    text = said(runs(small=0.8, mid=1.7, large=1.4))
    assert "to 1.7 times for mid; 1.4 for large, the largest." in text
    assert "differ" not in said(runs(small=1.70, mid=1.75, large=1.72))


def test_pairs_are_the_longest_cells_of_a_few_seconds(study_file: Path) -> None:
    sizes = [1000, 2000, 4000, 8000, 16000, 32000]
    text = study_file.read_text().replace("gpus: [1]", "gpus: [1, 2]").replace("{20: 2}", "1")
    study_file.write_text(text.replace("[20, 40, 80]", str(sizes)).replace("2x64", "8x512"))
    plan = make_plan(load_study(study_file), Machine("cpu", 4, "x", "this machine"), Supply("f", 40_000, 12.0, 2))
    for model in ("bert-1x32", "bert-8x512"):
        own = [p for p in plan.trials if p.trial.model.name == model]
        pair = {p.trial.data_requested for p in own if p.alone}
        short = [p.trial.data_requested for p in own if p.trial.gpus == 2 and p.seconds <= PAIR_SECONDS]
        assert pair == {max(short, default=sizes[0])}
        assert {p.trial.gpus for p in own if p.alone} == {1, 2}
    assert PAIR_SECONDS >= 8
