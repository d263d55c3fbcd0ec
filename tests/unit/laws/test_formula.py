"""A user's own law: what a formula means, in any unit, and what is said of a wrong one."""

from __future__ import annotations

import json
import pickle
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayscale.errors import InputError
from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.coordinates import Coordinates
from rayscale.laws.fitting.result import Fit
from rayscale.laws.formula import find_law, read_formula, read_laws
from rayscale.laws.law import find_registered as find_registered
from rayscale.laws.simulation import simulate

SIZES = {
    "params": np.array([1e6, 4e6, 9e7]),
    "data": np.array([1e5, 1e7, 3e8]),
    "unique": np.array([1e5, 4e6, 1e8]),
    "compute": np.array([1e15, 1e18, 1e17]),
    "gpus": np.array([1.0, 2.0, 8.0]),
    "loss": np.array([3.0, 2.5, 2.2]),
}
FORMULAS = [
    "E + B * data ** -beta",
    "E + A * params ** -alpha + B * data ** -beta",
    "E + A * params ** -alpha * data ** -beta",
    "E + B / (D0 + data ** beta)",
    "E + B * (data + D0) ** -beta",
    "k * data ** a * params ** b",
    "E + B * exp(-data / k)",
    "B * log(D0 / data) + E",
    "E + (A / params ** a + B / data ** b) ** g",
    "E + A * data ** -c0 * (1 + (data / d1) ** (1 / f1)) ** (-c1 * f1)",
    "E + B * (unique * (1 + R * (1 - exp((1 - data / unique) / R)))) ** -beta",
    "max(E, B * data ** -beta)",
    "1 - A * params ** -a",
    "E + sqrt(B / data)",
    "E + A * compute ** -c",
    "X1 * gpus / (1 + s * (gpus - 1))",
    "F + G0 * exp(-k * loss)",
]


@pytest.mark.parametrize("name", ["power", "chinchilla", "rectified", "shifted", "multiplicative"])
def test_the_formula_of_a_built_in_law_is_that_law(name):
    law = find_registered(name)
    own = read_formula(law.formula)
    values = dict(zip(law.names, np.random.default_rng(1).uniform(0.2, 0.9, len(law.names)), strict=True))
    np.testing.assert_allclose(own.function(SIZES, values), law.function(SIZES, values))
    assert (own.inputs, own.zero, set(own.linear)) == (law.inputs, law.zero, set(law.linear))
    assert {each.name: (each.kind, set(each.unit)) for each in own.parameters} == {
        each.name: (each.kind, set(each.unit)) for each in law.parameters
    }


@pytest.mark.parametrize("formula", FORMULAS)
def test_natural_parameters_say_in_any_unit_what_the_coordinates_say(formula):
    law = read_formula(formula)
    rng = np.random.default_rng(0)
    theta = rng.uniform(0.2, 1.2, (4, len(law.names)))
    centre = {role: 0.0 if role in law.unscaled else rng.uniform(-3, 3) for role in law.inputs}
    if {"data", "unique"} <= set(law.inputs):
        centre["unique"] = centre["data"]
    inputs = {role: np.exp(centre[role]) * np.array([0.5, 1.0, 3.0]) for role in law.inputs}
    coordinates = Coordinates(law, centre, 0.0)
    natural = dict(zip(law.names, np.moveaxis(coordinates.natural(theta), -1, 0)[..., None], strict=True))
    np.testing.assert_allclose(law.function(inputs, natural), coordinates.value(theta, inputs), rtol=1e-8)


@pytest.mark.parametrize("formula", FORMULAS)
def test_derivatives_by_complex_step_agree_with_differences(formula):
    law = read_formula(formula)
    coordinates = Coordinates(law, dict.fromkeys(law.inputs, 0.0), 0.0)
    inputs = {role: np.array([0.5, 1.0, 3.0]) for role in law.inputs}
    theta = np.random.default_rng(2).uniform(-0.9, -0.2, (1, len(law.names)))
    theta = np.where(coordinates.is_log, theta, -theta)
    value = coordinates.value(theta, inputs)
    for j in range(theta.shape[1]):
        step = np.zeros(theta.shape[1])
        step[j] = 1e-6
        up, down = (coordinates.value(theta + sign * step, inputs) for sign in (1, -1))
        exact = coordinates.value(theta.astype(complex) + 1e-14j * step, inputs).imag * 1e20
        np.testing.assert_allclose(exact, (up - down) / 2e-6, rtol=1e-5, atol=1e-7)
    assert value.shape == (1, 3)


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_law_reads_back_from_its_own_formula_and_travels_between_processes(formula):
    law = read_formula(formula, "mine")
    again = read_formula(law.formula, "mine")
    moved = pickle.loads(pickle.dumps(law))
    values = dict.fromkeys(law.names, 0.7)
    for other in (again, moved):
        assert (other.names, other.linear, other.zero) == (law.names, law.linear, law.zero)
        np.testing.assert_array_equal(other.function(SIZES, values), law.function(SIZES, values))


def grid(noise=0.002):
    design = pd.DataFrame([{"params": 1e6 * 4**i, "tokens": 1e6 * 4**j} for i in range(5) for j in range(6)])
    truth = {"E": 1.8, "A": 400.0, "alpha": 0.4, "B": 900.0, "beta": 0.4}
    return simulate("chinchilla", truth, design, noise=noise, seed=1)


AXES = {"params": "params", "data": "tokens", "target": "eval_loss", "bootstrap": 20}


def test_a_formula_is_fitted_as_the_built_in_law_is():
    table = grid()
    own = fit_law(table, read_formula("E + A * params ** -alpha + B * data ** -beta", "mine"), **AXES)
    built_in = fit_law(table, "chinchilla", **AXES)
    assert own.outcome == built_in.outcome == "converged"
    assert dict(own.params) == pytest.approx(dict(built_in.params), rel=1e-4)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    formula=st.sampled_from(["E + (A / params ** a + B / data ** b) ** g", "E + B * (data + D0) ** -beta"]),
    n=st.sampled_from([1e-9, 1e-3, 1e6]),
    d=st.sampled_from([1e-9, 1e6]),
)
def test_a_change_of_units_changes_no_prediction(formula, n, d):
    table, law = grid(), read_formula(formula)
    axes = AXES if "params" in law.inputs else {**AXES, "params": None}
    scaled = table.assign(params=table["params"] * n, tokens=table["tokens"] * d)
    asked = pd.DataFrame({"params": [1e5, 2e9], "tokens": [3e6, 3e9]})
    one = fit_law(table, law, **axes).predict(asked)
    other = fit_law(scaled, law, **axes).predict(asked * [n, d])
    np.testing.assert_allclose(one["predicted"], other["predicted"], rtol=1e-4)


def test_a_fit_of_a_formula_is_saved_and_read_back():
    table = grid()
    fit = fit_law(table, "mine = E + A * params ** -alpha + B * data ** -beta; beta = 0.4", **AXES)
    assert fit.law.name == "mine"
    back = Fit.from_json(json.loads(json.dumps(fit.to_json(), allow_nan=False)))
    pd.testing.assert_frame_equal(fit.predict(table), back.predict(table))


def test_bounds_hold_in_the_tables_units_and_equal_ones_fix_a_parameter():
    table = grid()
    own = read_formula(
        "E + A * params ** -alpha + B * data ** -beta", "mine", {"A": [300, 500], "E": (1.7, 1.9), "beta": [0.4, 0.4]}
    )
    assert own.formula.endswith("; A in [300.0, 500.0]; E in [1.7, 1.9]; beta = 0.4")
    fit = fit_law(table, own, **AXES)
    assert set(fit.params) == {"A", "B", "E", "alpha"}
    assert fit.params["A"] == pytest.approx(400, rel=0.15)
    assert fit.params["B"] == pytest.approx(900, rel=0.05)
    tight = fit_law(table, read_formula("E + A * params ** -alpha + B * data ** -beta; A in [500, 600]"), **AXES)
    assert 500 - 1e-6 <= tight.params["A"] <= 600


def test_what_is_linear_and_where_zero_is_allowed_is_found():
    assert read_formula("E + B / (D0 + data ** beta)").linear == ("E", "B")
    assert read_formula("E + B / (D0 + data ** beta)").zero == ("data",)
    assert read_formula("max(E, B * data ** -beta)").linear == ()
    assert read_formula("A * B * data ** -beta").linear == ("A",)
    assert read_formula("1 - A * params ** -a").linear == ()
    at_zero = ({"data": np.zeros(1)}, {"B": 0.5, "E": 0.7, "D0": 0.2, "beta": 0.4})
    own = read_formula("E + B / (D0 + data ** beta)")
    assert own.function(*at_zero) == find_registered("rectified").function(*at_zero)


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("E + B * data ^ -beta", 14, r"write \*\* for a power"),
        ("E + B * D ** -beta", 9, "'D' is not an input; write data"),
        ("E + B * tokens ** -beta", 9, "write data"),
        ("E + B * dat ** -beta", 1, "none of the inputs params, data.*did you mean 'data'"),
        ("E + B * data ** -beta )", 23, "unmatched"),
        ("E + B * data **", 15, "cannot be read"),
        ("E + ln(data / D0)", 5, "no function ln; write log"),
        ("E + exp(data, B)", 5, "exp takes 1 argument"),
        ("E + exp * data", 5, "exp needs its argument in parentheses"),
        ("E + B * log(data)", 9, r"'log\(data\)' depends on the unit of data; divide data by a parameter"),
        ("E + B * (1 + data / 1e6) ** -beta", 10, "depends on the unit of data"),
        ("E + 406.4 * params ** -alpha", 1, "depends on the unit of params"),
        ("data ** 2", 1, "no parameter to fit"),
        ("E + data.real", 5, "not allowed in a formula"),
        ("E + __import__('os').system('ls') * data", 5, "no function"),
        ("(lambda: E)() * data", 1, "no function"),
        ("E + [data][0]", 5, "not allowed"),
        ("E if data else B", 1, "not allowed"),
        ("E + data * True", 12, "not a real number"),
        ("E + data * 2j", 12, "not a real number"),
        ("E * data ** 1e400", 13, "too large"),
        ("E * data ** 9 ** 9 ** 9 ** 9", 13, "too large"),
        ("E + B * data ** -bêta", 19, "plain ASCII"),
        ("", 1, "it is empty"),
        ("exp(" * 60 + "data * E" + ")" * 60, 1, "nested more than 40"),
        ("(" * 240 + "data * E" + ")" * 240, 1, "cannot be read"),
        ("-" * 300 + "data * E", 41, "nested more than 40"),
        ("E + data * B" + " " * 600, 500, "at most 500"),
        (" + ".join(f"A{i} * data ** -b{i}" for i in range(9)), 1, "18 parameters; a fit takes at most 12"),
        ("E + B * data ** -beta; beta in [0.1", 23, "not a bound; write beta in"),
        ("E + B * data ** -beta; beta = 0.1; beta = 0.2", 35, "has two bounds"),
        ("E + B * data ** -beta; bta = 0.1", 1, "not one of its parameters; did you mean 'beta'"),
        ("E + B * data ** -beta; beta in [1, 0.1]", 1, "the lower one first"),
        ("E + B * data ** -beta; B in [-1, 0.1]", 1, "write its sign into the formula"),
        ("E + B * data ** -beta; B in [nan, 0.1]", 1, "write B: "),
        ("E * data; E = 1", 1, "every parameter is fixed"),
    ],
)
def test_a_wrong_formula_is_refused_with_position_and_mend(text, position, message):
    with pytest.raises(InputError, match=message) as caught:
        read_formula(text)
    assert caught.value.exit_code == 2
    assert caught.value.code == "invalid_formula"
    if len(text) < 80:
        assert f"position {position}:" in str(caught.value)


PIECES = [*"EB*/+-().,;=[]", "data", "params", "gpus", "**", "-beta", "2", "1e9", "exp(", "log(", "max(", "in", "'x'"]


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(max_size=60),
        st.lists(st.sampled_from(PIECES), max_size=14).map(" ".join),
    )
)
def test_no_text_gives_anything_but_a_law_or_a_named_refusal(text):
    refused = None
    try:
        law = read_formula(text)
    except InputError as error:
        refused = str(error)
    if refused is not None:
        assert re.search(r"position \d+: ", refused)
    else:
        assert law.names
        assert set(law.inputs) <= set(SIZES)


def test_a_law_is_found_by_name_by_formula_and_by_name_and_formula():
    assert find_law("power") is find_registered("power")
    assert find_law("E + B * data ** -beta").name == "formula"
    own = find_law("mine = E + B * data ** -beta; beta = 0.5")
    assert (own.name, own.names) == ("mine", ("E", "B"))
    assert find_law(own) is own
    with pytest.raises(InputError, match="'power' is the name of a built-in law"):
        find_law("power = E + B * data")
    with pytest.raises(InputError, match="'chinchila' is not registered"):
        find_law("chinchila")
    with pytest.raises(InputError, match="'my law' is not a valid name"):
        find_law("my law = E + B * data")


def test_the_laws_of_a_study():
    assert read_laws("auto") is None
    assert [law.name for law in read_laws(["power", "shifted"])] == ["power", "shifted"]
    (own,) = read_laws({"mine": {"formula": "E + B * data ** -beta", "bounds": {"beta": [0.1, 1]}}})
    assert own.parameters[-1].high == 1
