"""The law of Farseer: its formula, the parameters in which it is fitted, and what a fit finds of it."""

import json

import numpy as np
import pandas as pd
import pytest

from rayscale.laws.auto.weights import suited
from rayscale.laws.farseer import FARSEER, farseer
from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.coordinates import Coordinates
from rayscale.laws.fitting.result import Fit
from rayscale.laws.simulation import simulate

TRUTH = {"a1": -0.12, "b1": 0.42, "alpha": 0.12, "a2": 88.0, "b2": -6.3, "beta": -0.1, "a3": -0.021, "b3": -0.09,
         "gamma": 0.17}  # fmt: skip
DESIGN = pd.MultiIndex.from_product(
    [2e8 * 2.0 ** np.arange(6), 2e9 * 2.0 ** np.arange(8), [0, 1]], names=["params", "tokens", "seed"]
).to_frame(index=False)
SIZES = {"params": np.array([1e7, 3e8, 3e8, 9e9]), "data": np.array([1e9, 2e9, 4e11, 1e12])}


def planted(noise, seed=0):
    return simulate("farseer", TRUTH, DESIGN, noise=noise, seed=seed)


def fitted(table, **options):
    return fit_law(table, "farseer", params="params", data="tokens", target="eval_loss", **options)


def points():
    coordinates = Coordinates.of(FARSEER, SIZES, np.array([3.0, 2.5, 2.2, 2.0]))
    starts = coordinates.starts()
    return coordinates, starts + np.random.default_rng(0).normal(0, 0.05, starts.shape)


def test_the_formula_says_what_the_function_computes():
    value = eval(FARSEER.formula, {"exp": np.exp}, {**SIZES, **TRUTH})
    np.testing.assert_allclose(farseer(SIZES, TRUTH), value, rtol=1e-12)


def test_it_is_fitted_in_other_parameters_and_is_the_same_law():
    coordinates, theta = points()
    theta[0, 2] = 1e-5  # a curve that is all but straight in log N
    for row, value in zip(theta, coordinates.value(theta, SIZES), strict=True):
        natural = dict(zip(FARSEER.names, coordinates.natural(row), strict=True))
        np.testing.assert_allclose(farseer(SIZES, natural), value, rtol=1e-6)


def test_a_straight_curve_has_a_value_and_numbers_for_parameters():
    coordinates, theta = points()
    theta[:, [2, 5, 8]] = 0.0
    assert np.isfinite(coordinates.natural(theta)).all()
    near = theta.copy()
    near[:, [2, 5, 8]] = 1e-7
    np.testing.assert_allclose(coordinates.value(theta, SIZES), coordinates.value(near, SIZES), rtol=1e-5)


def test_derivatives_by_complex_step_agree_with_differences():
    coordinates, theta = points()
    theta[0, 2] = 0.0
    _, jacobian = coordinates.jacobian(theta, SIZES)
    for j in range(theta.shape[1]):
        step = 1e-6 * (np.arange(theta.shape[1]) == j)
        up, down = (coordinates.linked(theta + sign * step, SIZES) for sign in (1, -1))
        np.testing.assert_allclose(jacobian[..., j], (up - down) / 2e-6, rtol=1e-4, atol=1e-7)


def test_it_is_found_again_without_noise():
    fit = fitted(planted(0.0), bootstrap=3)
    assert fit.outcome == "converged"
    assert fit.params == pytest.approx(TRUTH, rel=1e-4)
    assert fit.starts_at_best == fit.starts


def test_noise_gives_intervals_around_the_truth_and_a_json_that_predicts_the_same():
    fit = fitted(planted(0.001, seed=1), bootstrap=200)
    inside = [low <= TRUTH[name] <= high for name, (low, high) in fit.intervals.items()]
    assert sum(inside) >= 8
    far = pd.DataFrame({"params": [1.28e10], "tokens": [1e12]})
    predicted = fit.predict(far)
    truth = farseer({"params": np.array([1.28e10]), "data": np.array([1e12])}, TRUTH)
    assert predicted["mean_low"][0] < truth[0] < predicted["mean_high"][0]
    saved = json.loads(json.dumps(fit.to_json(), allow_nan=False))
    pd.testing.assert_frame_equal(Fit.from_json(saved).predict(far), predicted)


def test_what_the_noise_hides_is_said_not_to_be_quoted():
    fit = fitted(planted(0.005), bootstrap=100)
    assert fit.outcome == "flat"
    assert any("do not quote" in warning["message"] for warning in fit.warnings)


def test_the_unit_of_params_changes_a_alone():
    table = planted(0.001)
    fit, other = fitted(table, bootstrap=3), fitted(table.assign(params=table["params"] / 1e6), bootstrap=3)
    for number, power in (("1", "alpha"), ("2", "beta"), ("3", "gamma")):
        assert other.params[power] == pytest.approx(fit.params[power], rel=1e-3)
        assert other.params[f"b{number}"] == pytest.approx(fit.params[f"b{number}"], rel=1e-2, abs=1e-3)
    assert other.params["a3"] == pytest.approx(fit.params["a3"] * 1e6 ** fit.params["gamma"], rel=1e-2)
    assert other.objective == pytest.approx(fit.objective, rel=1e-6)


def test_it_fits_the_chinchilla_runs_better_than_five_parameters_do(shared_data):
    table = pd.read_csv(shared_data / "laws" / "chinchilla_epoch.csv")
    fit = fit_law(table, "farseer", params="N", data="D", target="loss", where="excluded_by_epoch == False",
                  bootstrap=50)  # fmt: skip
    assert fit.outcome in ("converged", "flat")
    assert fit.objective < 0.00080  # chinchilla: 0.00102
    assert fit.starts_at_best == fit.starts


def test_auto_weighs_it_where_there_are_many_sizes_of_just_these_inputs():
    def names(roles, enough):
        return {law.name for law in suited(roles, False, None, enough)}

    assert "farseer" in names(["params", "data"], (5, 27))
    assert "farseer" not in names(["params", "data"], (4, 40))
    assert "farseer" not in names(["params", "data"], (6, 20))
    assert "farseer" not in names(["params", "data", "unique"], (9, 90))
    fit = fit_law(planted(0.001), "auto", params="params", data="tokens", target="eval_loss", bootstrap=50)
    assert fit.weights["farseer"] > 0.05
    few = DESIGN[DESIGN["params"] < 1e9]
    fit = fit_law(simulate("chinchilla", {"A": 60.0, "B": 300.0, "E": 2.5, "alpha": 0.33, "beta": 0.4}, few), "auto",
                  params="params", data="tokens", target="eval_loss", bootstrap=50)  # fmt: skip
    assert "farseer" not in fit.weights
