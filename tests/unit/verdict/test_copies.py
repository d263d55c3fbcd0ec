"""What a copy is worth: recovered where it is planted, refused where nothing can tell it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import rayscale as rs
from rayscale.plan.simulated_run import run_simulated
from rayscale.report.rebuild import with_sentences
from rayscale.verdict.copies import worth_of_copies
from rayscale.verdict.verdict import conclude

TRUTH = {"B": 8.0, "E": 0.3, "beta": 0.5, "w": 0.4}
FALLING = {"B": 8.0, "E": 0.3, "beta": 0.5, "w": 2.1, "s": -0.3}  # nothing at exp(7) = 1,097 examples


def design(sizes=(250, 500, 1000, 2000), seeds=3, copies=1, models=(1e6,)) -> pd.DataFrame:
    rows = [{"data_requested": size, "seed": seed, "augment": name, "copies": number, "params": params}
            for params in models for size in sizes for seed in range(seeds)
            for name, number in (("none", 0), ("syn", copies))]  # fmt: skip
    return pd.DataFrame(rows)


def found(law, truth, table, *, noise=0.01, seed=0, bootstrap=150):
    trials = rs.simulate(law, truth, table, noise=noise, seed=seed)
    [one] = worth_of_copies(trials, "eval_loss", bootstrap, seed)
    return one


def test_a_planted_worth_is_covered_by_its_interval():
    studies = [found("augmented_power", TRUTH, design(), seed=seed, bootstrap=100) for seed in range(24)]
    covered = [each["low"] <= TRUTH["w"] <= each["high"] for each in studies]
    assert np.mean(covered) >= 0.85
    assert np.median([each["high"] - each["low"] for each in studies]) < 0.5
    assert np.median([each["value"] for each in studies]) == pytest.approx(TRUTH["w"], abs=0.06)


@pytest.mark.parametrize("worth", [-0.5, 0.0, 1.0])
def test_copies_that_harm_do_nothing_or_equal_an_example(worth):
    one = found("augmented_power", {**TRUTH, "w": worth}, design(copies=2), noise=0.004)
    assert one["low"] <= worth <= one["high"]
    assert one["high"] - one["low"] < 0.6
    assert one["copies"] == 2


def test_over_models_the_worth_is_one_number():
    truth = {"A": 30.0, "B": 8.0, "E": 0.3, "alpha": 0.4, "beta": 0.5, "w": 0.4}
    one = found("augmented_chinchilla", truth, design(models=(1e5, 1e6, 1e7)), noise=0.005)
    assert (one["law"], one["model"]) == ("augmented_chinchilla", None)
    assert one["low"] <= 0.4 <= one["high"]


def test_a_worth_that_falls_with_the_data_ends_where_it_was_planted():
    one = found("augmented_power_by_size", FALLING, design((125, 250, 500, 1000, 2000)), noise=0.005)
    end = one["stops_paying"]
    assert end["low"] <= np.exp(7) <= end["high"]
    assert end["value"] == pytest.approx(np.exp(7), rel=0.3)
    values = [each["value"] for each in one["by_size"]]
    assert values == sorted(values, reverse=True)
    assert one["change"]["high"] < 0
    steady = found("augmented_power", TRUTH, design((125, 250, 500, 1000, 2000)), noise=0.005)
    assert steady["stops_paying"] is None


def test_the_verdict_says_it_and_is_plain_json():
    trials = rs.simulate("augmented_power", TRUTH, design(), noise=0.01, seed=3)
    told = conclude(trials, data_axis="examples", target="eval_loss", reach=None, bootstrap=100)
    told = with_sentences(told, "sequence-classification", "examples")
    [sentence] = [each for each in told["verdict"]["sentences"] if "augmented copy" in each]
    assert sentence.startswith("An augmented copy (syn) is worth 0.")
    assert "95% interval 0." in sentence
    assert "by the test loss" in sentence
    json.dumps(told, allow_nan=False)
    assert all(fit["rows_used"] <= 12 for fit in told["fits"])  # the other laws stay those of the plain runs


def test_a_study_that_aims_at_accuracy_hears_of_both():
    trials = rs.simulate("augmented_power", TRUTH, design(), noise=0.01, seed=3)
    error = rs.simulate("augmented_power", {**TRUTH, "E": 0.05, "w": 0.8}, design(), noise=0.01, seed=4)["eval_loss"]
    trials = trials.assign(accuracy=1 - error)
    told = conclude(trials, data_axis="examples", target="accuracy", reach=None, bootstrap=100)
    told = with_sentences(told, "sequence-classification", "examples")
    by_loss, by_errors = told["verdict"]["augmentation"]
    assert (by_loss["target"], by_errors["target"]) == ("eval_loss", "1 - accuracy")
    assert by_loss["low"] <= 0.4 <= by_loss["high"] < by_errors["low"] <= 0.8 <= by_errors["high"]
    assert any("real examples by accuracy" in sentence for sentence in told["verdict"]["sentences"])


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda t: t[t["augment"] != "none"], "no plain cell (augment none) to compare with"),
        (
            lambda t: t.assign(guessing_loss=(t["augment"] == "syn") * 9.0 - 1.0),
            "no plain cell (augment none) counts (no better than guessing)",
        ),
        (
            lambda t: t.assign(guessing_loss=(t["augment"] == "none") * 9.0 - 1.0),
            "no cell with syn counts (no better than guessing)",
        ),
        (
            lambda t: t.assign(status=t["augment"].map({"none": "failed", "syn": "ok"})),
            "no plain cell (augment none) counts (none ended well)",
        ),
        (lambda t: t[t["data_requested"] < 400], "different configurations"),
        (lambda t: t.assign(copies=0, examples=t["data_requested"]), "how many examples"),
    ],
)
def test_what_cannot_be_told_says_why(change, note):
    trials = change(rs.simulate("augmented_power", TRUTH, design(), seed=0)).reset_index(drop=True)
    [one] = worth_of_copies(trials, "eval_loss", 50, 0)
    assert one["value"] is None
    assert note in one["note"]


def test_a_loss_that_does_not_fall_with_the_data_gives_no_number():
    trials = rs.simulate("augmented_power", TRUTH, design((200, 400, 800)), noise=0.03, seed=0)
    # Copies make the smallest set better and the larger ones worse, as where a model grows too sure of itself.
    losses = {("none", 200): 0.65, ("none", 400): 0.48, ("none", 800): 0.54,
              ("syn", 200): 0.54, ("syn", 400): 0.63, ("syn", 800): 0.70}  # fmt: skip
    cells = zip(trials["augment"], trials["data_requested"], strict=True)
    loss = [losses[cell] * (1 + 0.02 * seed) for cell, seed in zip(cells, trials["seed"], strict=True)]
    [one] = worth_of_copies(trials.assign(eval_loss=loss), "eval_loss", 100, 0)
    assert one["value"] is None
    assert one["stops_paying"] is None
    assert "does not determine it" in one["note"]


def test_the_copies_that_were_kept_count_and_plain_tables_have_none():
    trials = rs.simulate("augmented_power", TRUTH, design(), noise=0.003, seed=0)
    kept = np.where(trials["augment"] == "syn", 1.9, 1.0) * trials["data_requested"]
    [one] = worth_of_copies(trials.drop(columns="copies").assign(examples=kept), "eval_loss", 50, 0)
    assert one["copies"] == pytest.approx(0.9)
    assert worth_of_copies(trials[trials["augment"] == "none"], "eval_loss", 50, 0) == []


def test_a_simulated_study_recovers_the_worth(tmp_path: Path):
    rows = "".join(f"text number {i} of {i * i},{i % 2}\n" for i in range(4000))
    (tmp_path / "rows.csv").write_text("text,label\n" + rows)
    (tmp_path / "study.yaml").write_text(
        "name: toy\ntask: {type: sequence-classification, text: text, label: label}\n"
        "data: {train: rows.csv, augment: [none, {name: mix, swap: {}, copies: 2}]}\n"
        "models:\n  - {family: bert, sizes: [1x32]}\n"
        "grid: {examples: [200, 400, 800, 1600], seeds: 3}\nrun: {accelerator: cpu}\n"
    )
    from rayscale.plan.observer import Observer

    planted = "augmented_power:B=8,E=0.3,beta=0.5,w=0.4"
    run = run_simulated(tmp_path / "study.yaml", planted, out=str(tmp_path / "run"), observer=Observer())
    [one] = run.fit["verdict"]["augmentation"]
    assert (one["augment"], one["copies"]) == ("mix", 2.0)
    assert one["low"] <= 0.4 <= one["high"]
    assert set(run.trials["augment"]) == {"none", "mix"}
