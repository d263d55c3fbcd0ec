"""Rows that are worth several runs: the objective, the noise, the intervals and what is no weight."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayscale.errors import InputError, TableError
from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.observations import _of_mean_1
from rayscale.laws.fitting.result import Fit

SIZES = 1e4 * 2.0 ** np.arange(10)
AXES = {"data": "data", "target": "loss"}


def loss(data):
    return 1.5 + 60 * data**-0.4


def made(seed=0, noise=0.02, weights=(1.0, 4.0, 16.0, 64.0), curves=1):
    """Two runs at each of ten sizes for each of `curves`, each the mean of `runs` runs."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame([(k, d, s) for k in range(curves) for d in SIZES for s in range(2)],
                         columns=["curve", "data", "seed"])  # fmt: skip
    runs = rng.choice(weights, len(table))
    errors = rng.normal(0, noise, len(table)) / np.sqrt(runs)
    return table.assign(runs=runs, loss=loss(table["data"]) * (1 + table["curve"] / 5) * np.exp(errors))


def facts(fit):
    """All that the fit says, without the time it took."""
    saved = json.loads(json.dumps(fit.to_json(), allow_nan=False))
    for part in saved.get("groups", [saved]):
        for gone in ("seconds", "weighted_by"):
            part.pop(gone, None)
    return saved


@pytest.mark.parametrize(
    ("law", "options"),
    [("power", {}), ("auto", {}), ("auto", {"by": "curve"}), ("power", {"by": "curve", "holdout": "data > 1e6"})],
)
def test_equal_weights_are_no_weights(law, options):
    table = made(curves=3 if options else 1)
    plain = facts(fit_law(table, law, **AXES, **options, bootstrap=60))
    for worth in (1.0, 0.3):
        equal = table.assign(runs=worth)
        assert facts(fit_law(equal, law, **AXES, **options, weights="runs", bootstrap=60)) == plain


@pytest.mark.parametrize("law", ["power", "auto"])
def test_only_the_ratios_of_weights_count(law):
    table, asked = made(), pd.DataFrame({"data": [1e5, 1e8]})
    few, many = (fit_law(table.assign(runs=table["runs"] * times), law, **AXES, weights="runs", bootstrap=60)
                 for times in (1, 1000.0))  # fmt: skip
    assert few.params == pytest.approx(many.params, rel=1e-6)
    pd.testing.assert_frame_equal(few.predict(asked), many.predict(asked), rtol=1e-5)


@given(st.lists(st.floats(1e-300, 1e300), min_size=1, max_size=20))
def test_weights_have_mean_1_whatever_their_scale(weights):
    scaled = _of_mean_1(np.array(weights))
    assert scaled.mean() == pytest.approx(1)
    assert np.isfinite(scaled).all()


@pytest.mark.parametrize("law", ["power", "auto"])
def test_weights_of_any_ratio_fit(law):
    table = made()
    table.loc[[0, 3], "runs"] = 1e-300
    fit = fit_law(table, law, **AXES, weights="runs", bootstrap=50)
    assert fit.outcome.usable
    assert fit.rows_used == len(table)
    json.dumps(fit.to_json(), allow_nan=False)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 1000))
def test_a_row_of_weight_w_fits_as_w_equal_rows(seed):
    table = made(seed, weights=(1.0, 2.0, 5.0))
    copies = table.loc[table.index.repeat(table["runs"].astype(int))].assign(copy=range(int(table["runs"].sum())))
    weighted, repeated = (fit_law(rows, "power", **AXES, bootstrap=2, weights=column)
                          for rows, column in ((table, "runs"), (copies, None)))  # fmt: skip
    assert weighted.params == pytest.approx(repeated.params, rel=1e-4)
    # The objective is per row of mean weight.
    assert weighted.objective * table["runs"].mean() == pytest.approx(repeated.objective, rel=1e-6)


@pytest.mark.parametrize(("law", "studies"), [("power", 20), ("auto", 8)])
def test_weights_bring_the_fit_nearer_to_the_truth_and_the_intervals_hold(law, studies):
    asked = pd.DataFrame({"data": [3e4, 1e7]})
    truth = loss(asked["data"])
    errors, inside = {"runs": [], None: []}, []
    for seed in range(studies):
        for column, missed in errors.items():
            rows = fit_law(made(seed), law, **AXES, weights=column, bootstrap=150).predict(asked)
            missed.append(np.log(rows["predicted"] / truth))
            if column:
                inside += (
                    (rows["mean_low"] <= loss(asked["data"])) & (loss(asked["data"]) <= rows["mean_high"])
                ).tolist()
    weighted, plain = (np.sqrt(np.mean(np.square(missed))) for missed in errors.values())
    assert weighted < 0.85 * plain
    assert np.mean(inside) >= 0.8  # 95% is asked


def test_one_row_of_many_runs_is_no_replicate():
    """Its weight makes it sure of the mean, but says nothing of how runs scatter."""
    table = made(noise=0.05, weights=(1.0,)).drop_duplicates("data")
    heavy = table.assign(runs=np.where(np.arange(len(table)) % 3, 1, 30))
    fit = fit_law(heavy, "auto", **AXES, weights="runs", bootstrap=60)
    assert fit.estimate.degrees <= len(table) - 4  # of the rows, less those that the simplest law takes
    assert fit.estimate.noise > 0.01


def test_a_row_of_weight_0_is_dropped_held_out_rows_count_once_and_the_column_is_saved():
    table = made()
    table.loc[3, "runs"] = 0
    fit = fit_law(table, "power", **AXES, weights="runs", holdout="data > 2e6", bootstrap=60)
    assert {"row": 3, "reason": "runs is zero"} in fit.rows_dropped
    assert fit.rows_used + len(fit.rows_dropped) + fit.held_out["n"] == len(table)
    missed = np.log(fit.predictions["predicted"] / fit.predictions["loss"])
    assert fit.held_out["rmse_log"] == pytest.approx(np.sqrt(np.mean(missed**2)))
    saved = fit.to_json()
    assert saved["weighted_by"] == "runs"
    assert Fit.from_json(saved).weighted_by == "runs"
    assert "weighted_by" not in fit_law(table, "power", **AXES, bootstrap=60).to_json()


@pytest.mark.parametrize(
    ("worth", "message"),
    [
        (-1.0, "column 'runs' must hold weights, but row 5 holds -1; write how many runs"),
        (np.nan, "row 5 holds nothing; write how many runs"),
        (np.inf, "row 5 holds inf; write how many runs"),
        ("x", "column 'runs' must hold numbers, but row 5 holds 'x'; write how many runs"),
    ],
)
def test_what_is_no_weight_is_refused_with_the_fix(worth, message):
    table = made(curves=2).astype({"runs": object})
    table.loc[5, "runs"] = worth
    with pytest.raises(TableError, match=message):
        fit_law(table, "power", **AXES, weights="runs", by="curve", bootstrap=60)
    if not isinstance(worth, str):  # a row that is not used needs no weight
        assert fit_law(table, "power", **AXES, weights="runs", where="index != 5", bootstrap=60).outcome.usable


def test_a_missing_column_and_a_law_without_weights_are_refused():
    with pytest.raises(TableError, match=r"no column 'run'.*did you mean 'runs'"):
        fit_law(made(), "power", **AXES, weights="run")
    table = made().assign(N=1e6, C=1e12)
    with pytest.raises(InputError, match="isoflop takes no weights"):
        fit_law(table, "isoflop", params="N", compute="C", target="loss", weights="runs")
