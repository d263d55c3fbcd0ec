import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayscale.errors import InputError
from rayscale.laws import catalogue
from rayscale.laws.catalogue import CHINCHILLA, POWER
from rayscale.laws.fitting.coordinates import Coordinates, link, unlink
from rayscale.laws.law import Law, find_registered

KINDS = ("coefficient", "positive", "exponent")
LINKS = ("log", "logit")

LAWS = [value for value in vars(catalogue).values() if isinstance(value, Law)]
SIZES = {
    "params": np.array([1e6, 4e6, 9e7, 9e7]),
    "data": np.array([1e5, 1e7, 3e8, 3e8]),
    "unique": np.array([1e5, 2e6, 3e6, 3e8]),
    "compute": np.array([1e15, 1e16, 1e18, 1e17]),
    "gpus": np.array([1.0, 2.0, 8.0, 8.0]),
    "loss": np.array([4.0, 3.0, 2.0, 2.5]),
}


def coordinates_of(law):
    return Coordinates.of(law, {role: SIZES[role] for role in law.inputs}, np.array([0.5, 0.4, 0.3, 0.3]))


def points(law, count=6, seed=0):
    """Points between the bounds, in the law's coordinates: near its starts, where its value is no extreme."""
    coordinates = coordinates_of(law)
    starts = coordinates.starts()
    rng = np.random.default_rng(seed)
    return coordinates, starts[rng.integers(0, len(starts), count)] + rng.normal(0, 0.02, (count, starts.shape[1]))


def evaluate(formula, names):
    """The value of a formula, and of the `name = expression` after its comma, if it has one."""
    text, *rest = formula.split(", best = ")
    functions = {"exp": np.exp, "log": np.log, "minimum": np.minimum}
    known = {**functions, **names}
    best = eval(rest[0], {}, known) if rest else None
    return eval(text, {}, {**known, "best": best})


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_the_formula_says_what_the_function_computes(law):
    coordinates, theta = points(law)
    for row in theta:
        parameters = dict(zip(law.names, coordinates.natural(row), strict=True))
        found = law.function(SIZES, parameters)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(evaluate(law.formula, {**SIZES, **parameters}), found, rtol=1e-9)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_derivatives_by_complex_step_agree_with_differences(law):
    coordinates, theta = points(law)
    value, jacobian = coordinates.jacobian(theta, SIZES)
    np.testing.assert_allclose(value, coordinates.linked(theta, SIZES))
    for j in range(theta.shape[1]):
        step = np.zeros(theta.shape[1])
        step[j] = 1e-6
        up, down = (coordinates.linked(theta + sign * step, SIZES) for sign in (1, -1))
        np.testing.assert_allclose(jacobian[..., j], (up - down) / 2e-6, rtol=1e-5, atol=1e-8)
    assert value.shape == (len(theta), 4)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_a_change_of_units_changes_the_numbers_and_not_the_law(law):
    """Natural parameters of the scaled table predict, at the scaled sizes, what the coordinates predict at the old."""
    coordinates, theta = points(law)
    factors = {"params": 1e-6, "compute": 1e-9, "data": 1e-3, "unique": 1e-3, "loss": 1.4, "gpus": 1.0}
    scaled = {role: values * factors[role] for role, values in SIZES.items()}
    other = Coordinates.of(law, scaled, np.array([0.5, 0.4, 0.3, 0.3]))
    expected = coordinates.value(theta, SIZES)
    np.testing.assert_allclose(other.value(theta, scaled), expected, rtol=1e-9)
    for row, values in zip(theta, expected, strict=True):
        parameters = dict(zip(law.names, other.natural(row), strict=True))
        np.testing.assert_allclose(law.function(scaled, parameters), values, rtol=1e-9)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_a_law_is_linear_in_what_it_says(law):
    coordinates, theta = points(law, 1)
    parameters = dict(zip(law.names, coordinates.natural(theta[0]), strict=True))
    nothing = {**parameters, **dict.fromkeys(law.linear, 0.0)}
    parts = [law.function(SIZES, {**nothing, name: parameters[name]}) - law.function(SIZES, nothing)
             for name in law.linear]  # fmt: skip
    if law.linear:
        np.testing.assert_allclose(law.function(SIZES, nothing) + sum(parts), law.function(SIZES, parameters))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_a_law_is_complete(law):
    coordinates = coordinates_of(law)
    low, high = coordinates.bounds()
    assert ((coordinates.starts() > low) & (coordinates.starts() < high)).all()
    assert len(coordinates.starts()) <= 500
    assert law.link in LINKS
    assert {each.kind for each in law.parameters} <= set(KINDS)
    assert {*law.linear} <= {*law.names}
    assert {*law.zero, *law.unscaled} <= {*law.inputs}
    assert law.source
    assert law.units
    assert law.function.__doc__
    assert find_registered(law.name) is law


@pytest.mark.parametrize("name", ["rectified", "shifted"])
def test_zero_data_is_a_size_like_others_where_the_law_takes_it(name):
    law = find_registered(name)
    coordinates, theta = points(law)
    value, jacobian = coordinates.jacobian(theta, {"data": np.array([0.0, 1e-290, 1e6])})
    assert np.isfinite(jacobian).all()
    np.testing.assert_allclose(value[:, 0], value[:, 1])


def test_repetition_costs_nothing_once_and_everything_for_ever():
    law = find_registered("repeated_data")
    parameters = {"A": 400.0, "B": 2000.0, "E": 1.8, "alpha": 0.35, "beta": 0.37, "RD": 15.0, "RN": 1e4}
    sizes = {"params": np.full(3, 1e6), "unique": np.array([1e8, 1e8, 1e8]), "data": np.array([1e8, 1.01e8, 1e14])}
    once, little, forever = law.function(sizes, parameters)
    plain = {**parameters}
    fresh = CHINCHILLA.function({"params": 1e6, "data": np.array([1e8, 1.01e8, 1e8 * 16])}, plain)
    assert once == pytest.approx(fresh[0])
    assert little == pytest.approx(fresh[1], rel=1e-5)
    assert forever == pytest.approx(fresh[2])


@pytest.mark.parametrize("kind", LINKS)
def test_links_are_undone_and_stay_finite(kind):
    values = np.array([1e-6, 0.3, 0.999])
    np.testing.assert_allclose(unlink(kind, link(kind, values)), values)
    assert np.isfinite(unlink(kind, np.array([-1e5, 1e5]))).all()


@settings(deadline=None)
@given(centre=st.floats(-20, 40), theta=st.lists(st.floats(-3, 3), min_size=5, max_size=5))
def test_natural_parameters_predict_what_the_coordinates_predict(centre, theta):
    coordinates = Coordinates(CHINCHILLA, {"params": centre, "data": centre / 2}, 0.0)
    sizes = {"params": np.exp(np.array([centre - 1, centre + 2])), "data": np.exp(np.array([1.0, 2.0]) + centre / 2)}
    natural = dict(zip(CHINCHILLA.names, coordinates.natural(np.array(theta)), strict=True))
    np.testing.assert_allclose(
        CHINCHILLA.function(sizes, natural), coordinates.value(np.array(theta), sizes), rtol=1e-9
    )


def test_an_unknown_law_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="chinchilla") as caught:
        find_registered("chinchila")
    assert caught.value.exit_code == 2
    assert find_registered(POWER) is find_registered("power") is POWER
