"""Compute-optimal sizes from runs at fixed budgets: the planted exponents, coverage, and every refusal."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rayscale.errors import InputError, TableError
from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.isoflop import IsoFlop
from rayscale.laws.fitting.result import Fit

E, A, B, ALPHA, BETA = 1.69, 406.4, 410.7, 0.34, 0.28
TRUE_A = BETA / (ALPHA + BETA)
COLUMNS = {"compute": "C", "params": "N", "data": "D"}


def best_size(compute):
    """The minimum of E + A / N^alpha + B / D^beta at compute = 6 N D, in closed form (Hoffmann et al. 2022)."""
    return (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (compute / 6) ** TRUE_A


def study(budgets=5, sizes=7, noise=0.004, seed=0, reach=5.0, shift=1.0):
    rng = np.random.default_rng(seed)
    compute = np.repeat(1e18 * 3.0 ** np.arange(budgets), sizes)
    params = best_size(compute) * shift * np.tile(np.geomspace(1 / reach, reach, sizes), budgets)
    data = compute / 6 / params
    loss = (E + A / params**ALPHA + B / data**BETA) * np.exp(rng.normal(0, noise, len(compute)))
    return pd.DataFrame({"C": compute, "N": params, "D": data, "loss": loss})


def fit(table, **more):
    return IsoFlop.fit(table, target="loss", columns=COLUMNS, **{"bootstrap": 200, **more})


def codes(found):
    return {each["code"] for each in found.warnings}


def test_the_planted_exponents_and_optima_are_found():
    found = fit(study(noise=0.0005))
    assert found.outcome == "converged"
    assert found.params["a"] == pytest.approx(TRUE_A, abs=0.005)
    assert found.params["a"] + found.params["b"] == pytest.approx(1)
    for budget in found.budgets:
        assert budget.params == pytest.approx(best_size(budget.compute), rel=0.05)
        assert budget.low < budget.params < budget.high
    row = found.predict(pd.DataFrame({"C": [1e21]})).iloc[0]
    assert row["predicted"] * row["data"] * 6 == pytest.approx(1e21)
    assert row["data_low"] < row["data"] < row["data_high"]
    assert row["extrapolation"] == pytest.approx(1e21 / 8.1e19)


def test_intervals_cover():
    """60 studies, nominal 95%: fewer than 51 has a probability of 0.0005."""
    far = 1e18 * 3**5
    covered = {"a": 0, "mean": 0}
    for seed in range(60):
        found = fit(study(budgets=4, sizes=6, seed=seed), seed=seed)
        low, high = found.intervals["a"]
        covered["a"] += low <= TRUE_A <= high
        row = found.predict(pd.DataFrame({"C": [far]})).iloc[0]
        covered["mean"] += row["mean_low"] <= best_size(far) <= row["mean_high"]
    assert min(covered.values()) >= 51, covered


@pytest.mark.parametrize(("n", "c"), [(1e-6, 1e9), (1e3, 1e-18)])
def test_units_and_the_order_of_rows_change_nothing(n, c):
    table = study()
    one = fit(table).predict(table)
    scaled = table.assign(N=table["N"] * n, C=table["C"] * c).sample(frac=1, random_state=0)
    other = fit(scaled).predict(scaled).sort_index()
    np.testing.assert_allclose(one["predicted"] * n, other["predicted"], rtol=1e-6)


def test_rows_wrong_a_hundredfold_hardly_move_the_exponent():
    table = study(sizes=10, budgets=10)
    clean = fit(table).params["a"]
    for first in (0, 3, 9):  # the smallest size of every budget, one in the middle, the largest
        wrong = table.copy()
        wrong.loc[first::10, "loss"] *= 100
        assert fit(wrong).params["a"] == pytest.approx(clean, rel=0.05)


def test_saved_and_read_back_it_predicts_the_same():
    found = fit(study())
    saved = json.loads(json.dumps(found.to_json(), allow_nan=False))
    back = IsoFlop.from_json(saved)
    assert back.to_json() == saved
    asked = pd.DataFrame({"C": [1e17, 1e22]})
    pd.testing.assert_frame_equal(found.predict(asked), back.predict(asked))
    for broken in ({}, {**saved, "law": "power"}, {**saved, "estimate": {"draws": 3}}):
        with pytest.raises(InputError, match="not a fit saved by rayscale"):
            IsoFlop.from_json(broken)


@pytest.mark.parametrize(
    ("table", "code", "message"),
    [
        (study(budgets=1), "one_size", "1 compute budgets"),
        (study(sizes=2), "few_points", "0 compute budgets"),
        (study(budgets=2, sizes=3), "few_points", "the noise is unknown"),
        (study(shift=30.0), "few_points", "the best model size lies outside the sizes that were run"),
        (study().head(0), "few_points", "0 compute budgets"),
    ],
)
def test_what_gives_no_law_is_refused_with_the_reason(table, code, message):
    found = fit(table)
    assert found.outcome == "not_identifiable"
    assert found.params == {}
    assert code in codes(found)
    assert message in " ".join(each["message"] for each in found.warnings)
    assert found.rows_used + len(found.rows_dropped) == len(table)
    json.dumps(found.to_json(), allow_nan=False)
    with pytest.raises(InputError, match="predicts nothing"):
        found.predict(table)


def test_a_budget_whose_best_size_was_not_run_is_left_out_by_name():
    table = study(noise=0.0005)
    outside = (table["C"] < 1.1e18) & (table["N"] < best_size(1e18) * 1.2)
    found = fit(table[~outside].reset_index(drop=True))
    assert len([each for each in found.budgets if each.fault]) == 1
    assert {"at_bound", "dropped_rows"} <= codes(found)
    assert all("at compute 1e+18" in each["reason"] for each in found.rows_dropped)
    assert found.params["a"] == pytest.approx(TRUE_A, abs=0.01)


def test_fit_law_takes_it_by_name_with_groups_and_held_out_budgets():
    table = study(noise=0.001).assign(kind="all")
    named = {"target": "loss", "compute": "C", "params": "N", "bootstrap": 100}
    found = fit_law(table, "isoflop", holdout="C > 5e19", **named)
    assert isinstance(found, IsoFlop)
    assert found.rows_used == 28
    assert (found.held_out["n"], found.held_out["budgets"]) == (7, 1)
    assert found.rows_used + found.held_out["n"] + len(found.rows_dropped) == len(table)
    none = fit_law(table, "isoflop", holdout="C > 1e90", **named).held_out
    assert none == {"n": 0, "budgets": 0, "rmse_log": None, "mape": None, "r2": None, "covered": None}
    assert found.held_out["rmse_log"] < 0.1
    assert isinstance(Fit.from_json(found.to_json()), IsoFlop)
    table.loc[5, "loss"] = np.nan
    grouped = fit_law(table, "isoflop", by="kind", where="C < 5e19", **named).groups[0]
    assert grouped.by == {"kind": "all"}
    assert [each["row"] for each in grouped.rows_dropped if "missing" in each["reason"]] == [5]


def test_two_budgets_are_said_to_test_nothing():
    assert "few_sizes" in codes(fit(study(budgets=2)))


def test_a_wrong_table_is_named():
    with pytest.raises(TableError, match="no column 'N'"):
        fit(study().drop(columns="N"))
    with pytest.raises(TableError, match="C is -1; it must be positive"):
        fit(study()).predict(pd.DataFrame({"C": [-1.0]}))


anything = st.one_of(st.floats(), st.sampled_from([0.0, -1.0, 1.0, 2.0, 1e308, 5e-324]), st.floats(0.5, 2))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1.0, 1.05, 7.0, 1e300]), anything, anything), max_size=20))
@example(
    [
        (1.0, 1.0, 1.0),
        (1.0, 2.0, 1.0),
        (1.0, 3.0, 2.0),
        (1.0, 1.5, 1.0),
        (1.0, 6.748370691698579e161, 1.0),
        (1.0, 0.5, 3.0),
    ]
)
def test_garbage_gives_an_outcome_and_never_nan(rows):
    table = pd.DataFrame(rows, columns=["C", "N", "loss"], dtype=float)
    found = IsoFlop.fit(table, target="loss", columns={"compute": "C", "params": "N"}, bootstrap=20)
    assert found.rows_used + len(found.rows_dropped) == len(table)
    json.dumps(found.to_json(), allow_nan=False)
    if found.params:
        assert np.isfinite(found.predict(pd.DataFrame({"C": [1.0, 1e9]})).to_numpy()).all()
