"""Speed: which cells are timed, and what the verdict says where models differ."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from rayscale.laws.simulation import simulate
from rayscale.plan.plan import PAIR_SECONDS, Supply, make_plan
from rayscale.report.rebuild import with_sentences
from rayscale.report.sentences import quality_text
from rayscale.study.study import load_study
from rayscale.system.machine import Machine
from rayscale.verdict.speedup import quality_change, speed_steps
from rayscale.verdict.verdict import conclude

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
    found = conclude(trials, data_axis="tokens", target="eval_loss", reach=None, bootstrap=5)
    found = with_sentences(found, "causal-lm", "tokens")
    return next(line for line in found["verdict"]["sentences"] if "GPUs" in line and "per second" in line)


def test_the_ratio_of_each_model_is_kept() -> None:
    (step,) = speed_steps(runs(small=0.8, middle=1.2, large=1.7))
    assert [(each["model"], round(each["value"], 3)) for each in step["models"]] == [
        ("small", 0.8), ("middle", 1.2), ("large", 1.7),
    ]  # fmt: skip
    assert step["largest_model"] == pytest.approx(1.7)


def test_the_sentence_names_the_largest_model_where_models_differ() -> None:
    assert "Models differ: 0.8 for small, 1.7 for large (the largest)." in said(runs(small=0.8, mid=1.2, large=1.7))
    text = said(runs(small=0.8, mid=1.7, large=1.4))
    assert "Models differ: 0.8 for small, 1.7 for mid, 1.4 for large (the largest)." in text
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


def pairs(*changes: float) -> pd.DataFrame:
    """A run on one GPU and one on two for each change of the loss, in percent."""
    rows = [{"status": "ok", "model": "m", "data_requested": 1000, "augment": "none", "seed": seed, "gpus": gpus,
             "eval_loss": 0.3 * (1 + change / 100 * (gpus - 1))}
            for seed, change in enumerate(changes) for gpus in (1, 2)]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ((0.0, 0.0, 1e-5), "equivalent", "by less than 0.001% (3 pairs): speed changes, quality does not."),
        ((0.1, 0.2, 0.15, 0.12), "equivalent", "quality does not (equal within 1%, p ="),
        # Zero is in the interval, and so is nearly everything else: nothing is known.
        (
            (38.7, -4.1, -14.0, 23.0, 2.0),
            "undecided",
            "a change of more than 1% is not ruled out; more seeds would tell.",
        ),
        ((2.0, 2.1, 1.9), "different", "quality changes, which it should not; look into it."),
        ((0.0,), "undecided", "one pair cannot show whether quality changes."),
        ((7.0,), "undecided", "by +7.0% in the only pair of runs; one pair cannot show"),
    ],
)
def test_that_quality_stays_is_said_after_a_test_of_equivalence_only(
    changes: tuple[float, ...], verdict: str, words: str
) -> None:
    found = quality_change(pairs(*changes))
    assert found is not None
    assert found["verdict"] == verdict
    assert words in quality_text(found)
    assert ("quality does not" in quality_text(found)) == (verdict == "equivalent")


def test_a_run_at_three_gpu_counts_is_one_pair() -> None:
    table = pd.concat([pairs(1.0, 2.0), pairs(1.0, 2.0).query("gpus == 2").assign(gpus=4)], ignore_index=True)
    found = quality_change(table)
    assert found is not None
    assert found["pairs"] == 2
    assert quality_change(pairs(1.0, 2.0).query("gpus == 1")) is None
