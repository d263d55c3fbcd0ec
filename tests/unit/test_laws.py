import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayscale.catalogue import CHINCHILLA, POWER
from rayscale.coordinates import Coordinates
from rayscale.errors import InputError
from rayscale.laws import find_law

SIZES = {"params": np.array([1e6, 4e6, 9e7]), "data": np.array([1e5, 1e7, 3e8])}


def test_the_formulas_say_what_the_functions_compute():
    parameters = {"A": 400.0, "B": 2000.0, "E": 1.8, "alpha": 0.35, "beta": 0.37}
    expected = 1.8 + 400 * SIZES["params"] ** -0.35 + 2000 * SIZES["data"] ** -0.37
    np.testing.assert_allclose(CHINCHILLA.function(SIZES, parameters), expected)
    assert eval(CHINCHILLA.formula, {}, {**SIZES, **parameters}) == pytest.approx(expected)
    assert eval(POWER.formula, {}, {**SIZES, **parameters}) == pytest.approx(POWER.function(SIZES, parameters))


@pytest.mark.parametrize("law", [POWER, CHINCHILLA])
def test_derivatives_by_complex_step_agree_with_differences(law):
    coordinates = Coordinates(law, {role: float(np.log(SIZES[role]).mean()) for role in law.inputs}, 0.7)
    theta = coordinates.starts()[:4]
    value, jacobian = coordinates.jacobian(theta, SIZES)
    for j in range(theta.shape[1]):
        step = np.zeros(theta.shape[1])
        step[j] = 1e-6
        up, down = (np.log(coordinates.value(theta + sign * step, SIZES)) for sign in (1, -1))
        np.testing.assert_allclose(jacobian[..., j], (up - down) / 2e-6, rtol=1e-6, atol=1e-9)
    assert value.shape == (4, 3)


@pytest.mark.parametrize("law", [POWER, CHINCHILLA])
def test_starts_lie_inside_the_bounds(law):
    coordinates = Coordinates(law, dict.fromkeys(law.inputs, 12.0), -0.3)
    low, high = coordinates.bounds()
    assert ((coordinates.starts() > low) & (coordinates.starts() < high)).all()


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
        find_law("chinchila")
    assert caught.value.exit_code == 2
    assert find_law(POWER) is find_law("power") is POWER
