import json
from dataclasses import FrozenInstanceError

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayscale.errors import InputError, TableError
from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.result import Fit, GroupedFit
from rayscale.laws.simulation import simulate

TRUE = {"A": 60.0, "B": 300.0, "E": 2.5, "alpha": 0.33, "beta": 0.4}
AXES = {"params": "params", "data": "tokens", "target": "eval_loss"}
slow = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))


def grid(sizes=3, steps=4, seeds=1):
    cells = [
        {"params": 8e4 * 3**i, "tokens": 1e5 * 2**j, "seed": s}
        for i in range(sizes)
        for j in range(steps)
        for s in range(seeds)
    ]
    return pd.DataFrame(cells)


def planted(noise=0.01, seed=0, truth=TRUE, **shape):
    return simulate("chinchilla", truth, grid(**shape), noise=noise, seed=seed)


def codes(fit):
    return {each["code"] for each in fit.warnings}


def assert_clean(fit):
    """No NaN, no infinity, and read back it predicts the same; what a notebook shows of it is a line."""
    assert repr(fit).count("\n") == 0
    assert all(f"{name}=" in repr(fit) for name in fit.params)
    saved = json.loads(json.dumps(fit.to_json(), allow_nan=False))
    back = Fit.from_json(saved)
    assert back.to_json() == saved
    if fit.estimate is not None:
        asked = pd.DataFrame({"params": [1e5, 1e6], "tokens": [1e5, 1e7]})
        found = fit.predict(asked)
        assert np.isfinite(found.to_numpy()).all()
        pd.testing.assert_frame_equal(found, back.predict(asked))
        assert (found["low"] <= found["mean_low"]).all()
        assert (found["mean_low"] <= found["predicted"]).all()
        assert (found["predicted"] <= found["mean_high"]).all()
        assert (found["mean_high"] <= found["high"]).all()


def test_the_published_chinchilla_fit(shared_data):
    table = pd.read_csv(shared_data / "laws" / "chinchilla_epoch.csv")
    fit = fit_law(table, "chinchilla", params="N", data="D", target="loss", where="excluded_by_epoch == 0", seed=1)
    assert fit.outcome == "converged"
    assert fit.objective <= 0.00101827402
    published = {"A": 477.8, "B": 2143, "E": 1.8172, "alpha": 0.3473, "beta": 0.3672}
    assert fit.params == pytest.approx(published, rel=0.001)
    errors = {"A": 124.5, "B": 1293, "E": 0.0257, "alpha": 0.0154, "beta": 0.0206}
    assert fit.standard_errors == pytest.approx(errors, rel=0.2)
    assert fit.starts_at_best == fit.starts
    assert fit.rows_used + len(fit.rows_dropped) == len(table)
    assert codes(fit) == {"dropped_rows", "no_replicates"}


@slow
@given(
    e=st.floats(0.5, 3), alpha=st.floats(0.2, 0.8), beta=st.floats(0.2, 0.8), a=st.floats(0.3, 2), b=st.floats(0.3, 2)
)
def test_a_planted_law_is_recovered(e, alpha, beta, a, b):
    design = grid(sizes=5, steps=6)
    middle = np.exp(np.log(design[["params", "tokens"]]).mean())
    truth = {
        "A": a * middle["params"] ** alpha,
        "B": b * middle["tokens"] ** beta,
        "E": e,
        "alpha": alpha,
        "beta": beta,
    }
    fit = fit_law(simulate("chinchilla", truth, design, noise=0.0), "chinchilla", **AXES, bootstrap=2)
    assert fit.params == pytest.approx(truth, rel=1e-3)


@slow
@given(n=st.sampled_from([1e-9, 1e-3, 1e6]), d=st.sampled_from([1e-9, 1e-3, 1e6]), y=st.sampled_from([1e-3, 1.4, 1e5]))
def test_units_change_no_prediction(n, d, y):
    table = planted(seeds=2)
    scaled = table.assign(params=table["params"] * n, tokens=table["tokens"] * d, eval_loss=table["eval_loss"] * y)
    asked = pd.DataFrame({"params": [1e5, 2e6], "tokens": [3e5, 3e6]})
    one = fit_law(table, "chinchilla", **AXES, bootstrap=20).predict(asked)
    other = fit_law(scaled, "chinchilla", **AXES, bootstrap=20).predict(asked * [n, d])
    other.iloc[:, :5] /= y
    pd.testing.assert_frame_equal(one, other, rtol=1e-4)


@slow
@given(order=st.permutations(list(range(24))))
def test_the_order_of_rows_changes_nothing(order):
    table = planted(seeds=2)
    one = fit_law(table, "chinchilla", **AXES, bootstrap=20).to_json()
    other = fit_law(table.iloc[order], "chinchilla", **AXES, bootstrap=20).to_json()
    assert {**one, "seconds": 0} == {**other, "seconds": 0}


anything = st.one_of(
    st.floats(), st.sampled_from([0.0, -1.0, 1.0, 2.0, 1e308, 5e-324, np.nan, np.inf]), st.floats(1e-3, 1e3)
)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(anything, anything, anything), max_size=20), law=st.sampled_from(["power", "chinchilla"])
)
def test_garbage_gives_an_outcome_and_never_nan(rows, law):
    table = pd.DataFrame(rows, columns=["params", "tokens", "eval_loss"], dtype=float)
    axes = AXES if law == "chinchilla" else {"data": "tokens", "target": "eval_loss"}
    fit = fit_law(table, law, **axes, bootstrap=5)
    assert fit.rows_used + len(fit.rows_dropped) == len(table)
    assert_clean(fit)


@slow
@given(
    bad=st.lists(st.tuples(st.integers(0, 23), st.sampled_from([np.nan, np.inf, 0.0, -2.0])), min_size=1, max_size=8),
    column=st.sampled_from(["params", "tokens", "eval_loss"]),
)
def test_bad_values_are_dropped_and_listed(bad, column):
    table = planted(seeds=2)
    for row, value in bad:
        table.loc[row, column] = value
    fit = fit_law(table, "chinchilla", **AXES, bootstrap=5)
    assert [each["row"] for each in fit.rows_dropped] == sorted({row for row, _ in bad})
    assert all(each["reason"].startswith(f"{column} is ") for each in fit.rows_dropped)
    assert "dropped_rows" in codes(fit)
    assert_clean(fit)


def test_rows_wrong_a_hundredfold_hardly_move_the_exponents():
    table = planted(sizes=10, steps=11, noise=0.003)
    clean = fit_law(table, "chinchilla", **AXES, bootstrap=2)
    wrong = table.copy()
    wrong.loc[::10, "eval_loss"] *= 100
    dirty = fit_law(wrong, "chinchilla", **AXES, bootstrap=2)
    assert dirty.params["alpha"] == pytest.approx(clean.params["alpha"], rel=0.05)
    assert dirty.params["beta"] == pytest.approx(clean.params["beta"], rel=0.05)


def test_intervals_cover():
    """60 studies of 12 configurations, nominal 95%: at 95%, fewer than 51 of 60 has a probability of 0.0005.

    A new run and the mean at 4 times the data, and what twice the data and twice the model change.
    """

    def truth(params, tokens):
        return TRUE["E"] + TRUE["A"] * params ** -TRUE["alpha"] + TRUE["B"] * tokens ** -TRUE["beta"]

    cell = {"params": 7.2e5, "data": 8e5}
    far = truth(7.2e5, 3.2e6)
    covered = {"new run": 0, "mean": 0, "data": 0, "params": 0}
    for study in range(60):
        fit = fit_law(planted(0.005, study, seeds=2), "chinchilla", **AXES, bootstrap=40, seed=study)
        found = fit.predict(pd.DataFrame({"params": [7.2e5], "tokens": [3.2e6]})).iloc[0]
        run = far * np.exp(np.random.default_rng(1000 + study).normal(0, 0.005))
        covered["new run"] += found["low"] <= run <= found["high"]
        covered["mean"] += found["mean_low"] <= far <= found["mean_high"]
        for role in ("data", "params"):
            after = {**cell, role: 2 * cell[role]}
            _, low, high = fit.change(cell, after)
            covered[role] += low <= truth(*after.values()) / truth(*cell.values()) - 1 <= high
    assert min(covered.values()) >= 51, covered


def test_seeds_that_agree_more_than_configurations_do_are_called_a_misfit():
    table = planted(noise=0.0005, seeds=3)
    bump = 1 + 0.03 * np.sin(np.log(table["tokens"]) * 4)
    fit = fit_law(table.assign(eval_loss=table["eval_loss"] * bump), "chinchilla", **AXES, bootstrap=50)
    assert "misspecified" in codes(fit)
    honest = fit_law(table, "chinchilla", **AXES, bootstrap=50)
    assert "misspecified" not in codes(honest)
    assert fit.estimate.noise > 5 * honest.estimate.noise


@pytest.mark.parametrize("rows", range(5))
def test_too_few_points_are_refused_with_the_minimum(rows):
    fit = fit_law(planted().head(rows), "chinchilla", **AXES)
    assert fit.outcome == "not_identifiable"
    assert "few_points" in codes(fit)
    assert "needs 6" in fit.warnings[0]["message"]
    assert fit.params == {}
    with pytest.raises(InputError, match="predicts nothing"):
        fit.predict(pd.DataFrame({"params": [1.0], "tokens": [1.0]}))


def test_one_size_is_not_identifiable_and_two_are_flat():
    one = fit_law(planted(sizes=1, steps=8), "chinchilla", **AXES)
    assert (one.outcome, "one_size" in codes(one)) == ("not_identifiable", True)
    two = fit_law(planted(sizes=2, steps=5, seeds=2), "chinchilla", **AXES, bootstrap=100)
    assert two.outcome in ("flat", "at_bound")
    assert {"few_sizes", "flat_ridge"} <= codes(two)
    within, beyond = (two.predict(pd.DataFrame({"params": [n], "tokens": [4e5]})).iloc[0] for n in (2.4e5, 2.4e7))
    assert beyond["mean_high"] - beyond["mean_low"] > 3 * (within["mean_high"] - within["mean_low"])


def test_a_constant_target_is_refused():
    fit = fit_law(planted().assign(eval_loss=2.0), "chinchilla", **AXES)
    assert (fit.outcome, codes(fit)) == ("not_identifiable", {"constant_target"})


def test_an_asymptote_of_zero_is_said_to_be_at_its_bound():
    table = simulate("power", {"B": 30.0, "E": 0.0, "beta": 0.2}, grid(sizes=1, steps=9), noise=0.001)
    fit = fit_law(table, "power", data="tokens", target="eval_loss", bootstrap=50)
    assert fit.outcome == "at_bound"
    assert any("E " in each["message"] for each in fit.warnings if each["code"] == "at_bound")
    assert fit.params["beta"] == pytest.approx(0.2, rel=0.05)


def test_power_takes_the_model_size_as_its_input_when_that_is_named():
    truth = {"B": 30.0, "E": 1.0, "beta": 0.3}
    table = pd.DataFrame({"N": np.geomspace(1e5, 1e8, 8)})
    table["loss"] = 1.0 + 30 * table["N"] ** -0.3
    assert fit_law(table, "power", params="N", target="loss", bootstrap=5).params == pytest.approx(truth, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (
            {},
            {"target": "eval_los"},
            r"no column 'eval_los' in the table; did you mean 'eval_loss'\?.*it has: .*tokens",
        ),
        ({}, {"params": "N"}, "no column 'N'"),
        ({"eval_loss": "high"}, {}, "column 'eval_loss' must hold numbers, but row 0 holds 'high'"),
        ({"tokens": True}, {}, "column 'tokens' must hold numbers"),
        ({"tokens": pd.Timestamp("2026-01-01")}, {}, "column 'tokens' must hold numbers"),
        ({}, {"where": "nothing == 1"}, "where 'nothing == 1' is not a valid query"),
        ({}, {"holdout": "tokens >="}, "holdout 'tokens >=' is not a valid query"),
        ({}, {"by": "dataset"}, "no column 'dataset'"),
        ({}, {"target": "tokens"}, "both the target and an input"),
    ],
)
def test_a_wrong_table_is_named(change, arguments, message):
    with pytest.raises(TableError, match=message) as caught:
        fit_law(planted().assign(**change), "chinchilla", **{**AXES, **arguments})
    assert caught.value.exit_code == 2


def test_a_column_that_the_law_does_not_take_is_refused_and_not_ignored():
    with pytest.raises(TableError, match="power takes data; leave params out, or make groups: by='params'"):
        fit_law(planted(), "power", **AXES)
    with pytest.raises(TableError, match="power takes data; leave params out"):
        fit_law(planted(), "power", target="eval_loss", params="params", compute="tokens")
    with pytest.raises(TableError, match="chinchilla takes params, data; leave compute out"):
        fit_law(planted(), "chinchilla", **AXES, compute="tokens")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed is -1; it must be a whole number"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"bootstrap": 1}, "needs at least 2 resamples"),
        ({"bootstrap": "many"}, "needs at least 2 resamples"),
        ({"by": []}, "names no column"),
        ({"by": ""}, "names no column"),
        ({"table": {"params": [1.0]}}, "found dict; a law is fitted to a pandas DataFrame"),
        (
            {"table": planted().assign(predicted=1.0), "holdout": "tokens > 1e6"},
            "column 'predicted' where the predictions would go",
        ),
    ],
)
@pytest.mark.parametrize("law", ["chinchilla", "auto"])
def test_wrong_arguments_are_named(law, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        fit_law(**{"table": planted(), "law": law, **AXES, **arguments})
    assert caught.value.exit_code == 2


def test_numbers_written_as_text_and_missing_whole_numbers_are_read():
    table = planted(seeds=2)
    table["params"] = table["params"].astype("Int64")
    table.loc[0, "params"] = pd.NA
    fit = fit_law(table.assign(tokens=table["tokens"].astype(str)), "chinchilla", **AXES, bootstrap=5)
    assert fit.rows_dropped == ({"row": 0, "reason": "params is missing"},)


def test_only_ok_trials_are_used():
    table = planted(seeds=2)
    table.loc[3, "status"] = "diverged"
    fit = fit_law(table, "chinchilla", **AXES, bootstrap=5)
    assert fit.rows_dropped == ({"row": 3, "reason": "status diverged"},)


@pytest.mark.parametrize("law", ["chinchilla", "auto"])
def test_few_resamples_are_said_to_be_few(law):
    assert "few_resamples" in codes(fit_law(planted(), law, **AXES, bootstrap=2))
    assert "few_resamples" not in codes(fit_law(planted(), law, **AXES, bootstrap=40))
    assert "few_resamples" not in codes(fit_law(planted().head(3), law, **AXES, bootstrap=2))


def test_a_status_of_the_tables_own_is_no_reason_to_drop_its_rows():
    table = planted()[["params", "tokens", "eval_loss"]].assign(status="finished")
    assert fit_law(table, "chinchilla", **AXES, bootstrap=5).rows_used == len(table)


def test_held_out_rows_are_predicted_and_scored():
    table = planted(sizes=4, steps=6)
    fit = fit_law(table, "chinchilla", **AXES, holdout="tokens >= 3.2e6", bootstrap=100)
    assert fit.rows_used + len(fit.predictions) == len(table)
    assert fit.held_out["n"] == 4
    assert fit.held_out["rmse_log"] < 0.05
    assert set(fit.predictions) == {*table, "predicted", "low", "high", "mean_low", "mean_high", "extrapolation"}
    assert fit.predictions["extrapolation"].tolist() == [2.0] * 4


def test_groups_are_fitted_apart_and_name_rows_of_the_whole_table():
    table = planted(sizes=3, steps=6)
    table.loc[7, "eval_loss"] = np.nan
    found = fit_law(table, "power", data="tokens", target="eval_loss", by="model", holdout="tokens > 2e6", bootstrap=20)
    assert isinstance(found, GroupedFit)
    assert [each.by["model"] for each in found.groups] == sorted(table["model"].unique())
    assert [each["row"] for fit in found.groups for each in fit.rows_dropped] == [7]
    assert found.held_out["n"] == 3
    json.dumps(found.to_json(), allow_nan=False)


def test_a_fit_is_frozen_and_a_foreign_json_is_refused():
    fit = fit_law(planted(), "chinchilla", **AXES, bootstrap=5)
    with pytest.raises(FrozenInstanceError):
        fit.outcome = "failed"
    with pytest.raises(InputError, match="not a fit saved by rayscale"):
        Fit.from_json({"law": "chinchilla", "target": "loss"})
    with pytest.raises(TableError, match="must be positive"):
        fit.predict(pd.DataFrame({"params": [1e5], "tokens": [-1.0]}))
    with pytest.raises(InputError, match="bootstrap is 1"):
        fit_law(planted(), "chinchilla", **AXES, bootstrap=1)


def test_a_thousand_resamples_of_36_rows_take_seconds():
    assert fit_law(planted(seeds=3), "chinchilla", **AXES, bootstrap=1000).seconds < 10


@pytest.mark.parametrize("law", ["chinchilla", "auto"])
def test_a_row_written_twice_is_one_run(law):
    table = planted().assign(note=[["a list"], None] * 6)
    given = {**AXES, "bootstrap": 50}
    once, twice = (fit_law(rows, law, **given) for rows in (table, pd.concat([table, table])))
    assert twice.rows_dropped == tuple(
        {"row": 12 + k, "reason": "the same as an earlier row", "same_as": k} for k in range(12)
    )
    assert {each.pop("code") for each in map(dict, twice.warnings)} == {*codes(once), "dropped_rows"}
    assert (twice.standard_errors, twice.rows_used) == (once.standard_errors, 12)
    grouped = fit_law(pd.concat([table.assign(set=name) for name in "aabb"]), law, **given, by="set")
    assert [each.rows_dropped[0] for each in grouped.groups] == [
        {"row": 12, "reason": "the same as an earlier row", "same_as": 0},
        {"row": 36, "reason": "the same as an earlier row", "same_as": 24},
    ]
    seeds = fit_law(pd.concat([table.assign(seed=seed) for seed in (0, 1)]), law, **given)
    assert (seeds.rows_used, seeds.rows_dropped) == (24, ())
