"""The claim that accuracy is proportional to data over GPUs, against its rivals; and whether GPUs change quality."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import rayscale as rs
from rayscale.errors import TableError
from rayscale.report.sentences import claim_rows, claim_sentences
from rayscale.verdict.claim import study_claim
from rayscale.verdict.speedup import paired_change


def grid(truth, noise=0.002, seed=0, sizes=(500, 1000, 2000, 4000), gpus=(1, 2), seeds=2):
    """A grid of runs; `truth(data, gpus)` is the quality, the error belongs to data and seed, not to GPUs."""
    rng = np.random.default_rng(seed)
    rows = []
    for data in sizes:
        for each in range(seeds):
            error = rng.normal(0, noise)
            for count in gpus:
                wobble = rng.normal(0, noise / 20)
                value = truth(data, count) * np.exp(error + wobble)
                rows.append({"model": "m", "seed": each, "data_requested": data, "gpus": count, "accuracy": value})
    return pd.DataFrame(rows)


def learning(data, gpus):
    return 0.95 - 3 * data**-0.5


def weigh(table, **more):
    claim = rs.test_claim(table, **more)
    json.dumps(claim, allow_nan=False)
    text = " ".join(claim_sentences(claim))
    assert not {"None", "nan"} & set(text.split()), text
    assert len(claim_rows(claim)) == len(claim["slopes"])
    return claim


def test_the_claim_in_words():
    claim = weigh(grid(learning, sizes=(500, 1000, 2000, 4000, 8000, 16000)))
    first, errors, gpus = claim_sentences(claim)
    assert first.startswith("The claim: accuracy is proportional to data over GPUs, so twice the data doubles it")
    assert first.endswith("halve it. False in these trials.")
    assert errors.startswith("Errors when each data size is predicted from the others: a power law of the log odds 0.")
    assert "speed changes, quality does not" in gpus
    assert [row[:2] for row in claim_rows(claim)] == [("Twice the data", "×2"), ("Twice the GPUs", "×0.5")]


def test_a_learning_curve_refutes_the_claim_and_gpus_are_equivalent():
    claim = weigh(grid(learning, sizes=(500, 1000, 2000, 4000, 8000, 16000)))
    assert (claim["verdict"], claim["quality"], claim["cells"]) == ("false", "accuracy", 12)
    assert claim["rivals"][0]["law"] == "logit_power"
    assert {rival["law"] for rival in claim["rivals"]} == {"ratio", "logit_power", "logit_line", "constant"}
    assert (claim["equivalence"]["verdict"], claim["equivalence"]["pairs"]) == ("equivalent", 12)
    assert claim["slopes"]["gpus"]["low"] <= 0 <= claim["slopes"]["gpus"]["high"]


def test_where_the_claim_is_true_it_is_supported_and_gpus_differ():
    claim = weigh(grid(lambda data, gpus: 1e-4 * data / gpus))
    assert claim["verdict"] == "true"
    assert claim["rivals"][0]["law"] == "ratio"
    assert claim["equivalence"]["verdict"] == "different"
    assert claim["equivalence"]["value"] == pytest.approx(-50, abs=1)
    assert claim["slopes"]["data"]["value"] == pytest.approx(1, abs=0.02)


def test_of_a_loss_the_inverse_is_tested():
    sizes = [500 * 2**k for k in range(6)]
    loss = grid(lambda data, gpus: 0.3 + 30 * data**-0.5, sizes=sizes).rename(columns={"accuracy": "eval_loss"})
    claim = weigh(loss)
    assert (claim["verdict"], claim["quality"], claim["rivals"][0]["law"]) == ("false", "1 / eval_loss", "power")
    true = grid(lambda data, gpus: gpus / data).rename(columns={"accuracy": "eval_loss"})
    assert weigh(true)["verdict"] == "true"
    assert weigh(loss.assign(accuracy=0.5))["quality"] == "accuracy"
    with pytest.raises(TableError, match="no metric"):
        weigh(loss.drop(columns="eval_loss"))


def test_too_much_scatter_decides_nothing_about_gpus():
    rng = np.random.default_rng(3)
    table = grid(learning, seeds=1)
    table["accuracy"] *= np.exp(rng.normal(0, 0.05, len(table)))
    change = weigh(table)["equivalence"]
    assert change["verdict"] == "undecided"
    assert change["smallest_margin"] > 1


def test_the_equivalence_test_keeps_its_level():
    """Changes of exactly the margin are called equivalent in 5% of studies: 25 or more of 200 has probability 3e-5."""
    wrong = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        pairs = pd.DataFrame({"data_requested": np.repeat(np.arange(1, 9), 2), "gpus": [1, 2] * 8, "accuracy": 0.5})
        pairs.loc[1::2, "accuracy"] = 0.505 * np.exp(rng.normal(0, 0.005, 8))
        wrong += paired_change(pairs, "accuracy", "gpus", ["data_requested"])["verdict"] == "equivalent"
    assert wrong < 25


@pytest.mark.parametrize(
    ("table", "codes", "verdict"),
    [
        (grid(learning).head(0), {"few_sizes", "one_size"}, "unknown"),
        (grid(learning, sizes=(500, 1000)), {"few_sizes"}, "false"),
        (grid(learning, gpus=(1,)), {"one_size"}, "false"),
        (grid(lambda data, gpus: 1e-4 * data, gpus=(1,)), {"one_size"}, "unknown"),
        (grid(learning, sizes=(500,), gpus=(1,)), {"few_sizes", "one_size"}, "unknown"),
        (grid(learning).assign(accuracy=np.nan), {"dropped_rows", "few_sizes", "one_size"}, "unknown"),
        (grid(learning).assign(accuracy=0.0), {"dropped_rows", "few_sizes", "one_size"}, "unknown"),
    ],
)
def test_what_cannot_be_tested_is_said(table, codes, verdict):
    claim = weigh(table, quality="accuracy")
    assert {warning["code"] for warning in claim["warnings"]} == codes
    assert claim["verdict"] == verdict


def test_only_ok_runs_count_and_a_missing_column_is_named():
    table = grid(learning).assign(status="ok")
    table.loc[0, "status"] = "failed"
    assert "1 rows" in weigh(table)["warnings"][0]["message"]
    with pytest.raises(TableError, match="no column 'gpus'"):
        weigh(table.drop(columns="gpus"))


def test_a_study_needs_both_axes_and_three_cells():
    table = grid(learning).assign(status="ok", augment="none", f1_macro=0.5, eval_loss=1.0)
    assert study_claim(table, "f1_macro")["quality"] == "f1_macro"
    assert study_claim(table, "eval_loss")["quality"] == "accuracy"
    assert study_claim(table.drop(columns=["accuracy", "f1_macro"]), "eval_loss")["quality"] == "1 / eval_loss"
    assert study_claim(table[table["gpus"] == 1], "accuracy") is None
    assert study_claim(table[table["data_requested"] == 500], "accuracy") is None
    assert study_claim(table.assign(status="failed"), "accuracy") is None
