"""The ratio claim against its rivals, and whether GPUs change quality."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from rayscale.errors import TableError
from rayscale.verdict.ratio import weigh_claim
from rayscale.verdict.speedup import pair


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
    found = weigh_claim(table, quality="accuracy", **more)
    json.dumps(found.to_json(), allow_nan=False)
    return found


def test_a_learning_curve_refutes_the_claim_and_gpus_are_equivalent():
    found = weigh(grid(learning, sizes=(500, 1000, 2000, 4000, 8000, 16000)))
    assert found.verdict == "refuted"
    assert found.rivals[0].law == "logit_power"
    assert {each.law for each in found.rivals} == {"ratio", "logit_power", "logit_line", "constant"}
    assert found.equivalence.verdict == "equivalent"
    assert found.equivalence.pairs == 12
    assert found.slopes["gpus"][1] <= 0 <= found.slopes["gpus"][2]
    assert "refuted" in found.sentences[-1]
    assert "equivalent within 1%" in " ".join(found.sentences)


def test_where_the_claim_is_true_it_is_supported_and_gpus_differ():
    found = weigh(grid(lambda data, gpus: 1e-4 * data / gpus))
    assert found.verdict == "supported"
    assert found.rivals[0].law == "ratio"
    assert found.equivalence.verdict == "different"
    assert found.equivalence.value == pytest.approx(-0.5, abs=0.01)
    assert found.slopes["data"][0] == pytest.approx(1, abs=0.02)


def test_too_much_scatter_decides_nothing_about_gpus():
    rng = np.random.default_rng(3)
    table = grid(learning, seeds=1)
    table["accuracy"] *= np.exp(rng.normal(0, 0.05, len(table)))
    found = weigh(table)
    assert found.equivalence.verdict == "undecided"
    assert found.equivalence.smallest_margin > 0.01
    assert "not ruled out" in " ".join(found.sentences)


def test_the_equivalence_test_keeps_its_level():
    """Changes of exactly the margin are called equivalent in 5% of studies: 25 or more of 200 has probability 3e-5."""
    wrong = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        pairs = pd.DataFrame({"data_requested": np.repeat(np.arange(1, 9), 2), "gpus": [1, 2] * 8, "accuracy": 0.5})
        pairs.loc[1::2, "accuracy"] = 0.505 * np.exp(rng.normal(0, 0.005, 8))
        wrong += pair(pairs, "accuracy", "gpus", ("data_requested",), 0.01).verdict == "equivalent"
    assert wrong < 25


@pytest.mark.parametrize(
    ("table", "codes", "verdict"),
    [
        (grid(learning).head(0), {"few_sizes", "one_size"}, "untested"),
        (grid(learning, sizes=(500, 1000)), {"few_sizes"}, "refuted"),
        (grid(learning, gpus=(1,)), {"one_size"}, "refuted"),
        (grid(learning, sizes=(500,), gpus=(1,)), {"few_sizes", "one_size"}, "untested"),
        (grid(learning).assign(accuracy=np.nan), {"dropped_rows", "few_sizes", "one_size"}, "untested"),
        (grid(learning).assign(accuracy=0.0), {"dropped_rows", "few_sizes", "one_size"}, "untested"),
    ],
)
def test_what_cannot_be_tested_is_said(table, codes, verdict):
    found = weigh(table)
    assert {each["code"] for each in found.warnings} == codes
    assert found.verdict == verdict


def test_only_ok_runs_count_and_a_missing_column_is_named():
    table = grid(learning).assign(status="ok")
    table.loc[0, "status"] = "failed"
    assert "1 rows" in weigh(table).warnings[0]["message"]
    with pytest.raises(TableError, match="no column 'gpus'"):
        weigh(table.drop(columns="gpus"))
