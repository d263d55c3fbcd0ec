"""Counts that may be 0, such as copies, in a blend of laws."""

import json

import numpy as np
import pandas as pd
import pytest

from rayscale.laws.auto.places import may_be_zero, place_of, size_of
from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.result import Fit

WORTH = 0.3


def loss(table, wave=0.0):
    data = table["data"] * (1 + WORTH * table["copies"])
    return 0.6 + 30 * data**-0.5 + wave * np.sin(1.2 * np.log(data))


def made(seed, wave=0.0):
    cells = [(1000 * 2.0**j, copies, s) for j in range(6) for copies in (0, 1, 3) for s in range(2)]
    table = pd.DataFrame(cells, columns=["data", "copies", "seed"])
    errors = np.random.default_rng(seed).normal(0, 0.005, len(table))
    return table.assign(loss=loss(table, wave) * np.exp(errors))


def fitted(table, **options):
    return fit_law(table, "auto", data="data", copies="copies", target="loss", bootstrap=200, **options)


def test_a_count_that_may_be_0_lies_at_the_log_of_one_more():
    assert place_of("copies", np.array([0.0, 1.0])).tolist() == [0, np.log(2)]
    assert size_of("copies", place_of("copies", np.array([0.0, 3.0]))) == pytest.approx([0, 3])
    assert place_of("data", np.array([7.0])).tolist() == [np.log(7)]
    assert may_be_zero(["data", "copies"]) == ("copies",)
    assert may_be_zero(["copies"]) == may_be_zero(["params", "data"]) == ()


def test_rows_without_copies_are_used_and_bias_nothing():
    asked = pd.DataFrame({"data": [1.28e5] * 3 + [4000.0], "copies": [0, 1, 3, 2]})
    inside = []
    for seed in range(5):
        fit = fitted(made(seed))
        assert fit.rows_used == 36
        rows = fit.predict(asked)
        assert np.isfinite(rows.to_numpy()).all()
        assert rows["predicted"].tolist() == pytest.approx(loss(asked).tolist(), rel=0.03)
        inside += ((rows["mean_low"] <= loss(asked)) & (loss(asked) <= rows["mean_high"])).tolist()
        assert fit.intervals["w"][0] < WORTH < fit.intervals["w"][1]
    assert sum(inside) >= 17  # of 20
    pd.testing.assert_frame_equal(Fit.from_json(json.loads(json.dumps(fit.to_json()))).predict(asked), rows, rtol=1e-6)


def test_a_discrepancy_over_copies_is_a_smooth_one_and_the_formula_says_so():
    fit = fitted(made(0, wave=0.05), holdout="data >= 16000")
    assert fit.outcome.usable
    assert fit.held_out["covered"] >= 0.8
    assert fit.formula.endswith(" + smooth discrepancy")
    assert Fit.from_json(json.loads(json.dumps(fit.to_json()))).formula == fit.formula
    between = pd.DataFrame({"data": [3000.0, 6000.0], "copies": [2.0, 2.0]})
    assert fit.predict(between)["predicted"].tolist() == pytest.approx(loss(between, 0.05).tolist(), rel=0.02)
