"""The laws that ship, each a value: formula, parameters with bounds, starts and units, inputs and source."""

from __future__ import annotations

from typing import Any

import numpy as np

from rayscale.laws import Law, Parameter, Values


def _term(coefficient: Any, size: Any, exponent: Any) -> Any:
    # exp of a log, not a power: a real base to a complex exponent is many times slower in numpy.
    return coefficient * np.exp(-exponent * np.log(size))


def power(inputs: Values, parameters: Values) -> Any:
    """E + B / D^beta, in the target's unit (Kaplan et al. 2020, arXiv 2001.08361, with an asymptote)."""
    return parameters["E"] + _term(parameters["B"], inputs["data"], parameters["beta"])


def chinchilla(inputs: Values, parameters: Values) -> Any:
    """E + A / N^alpha + B / D^beta, in the target's unit (Hoffmann et al. 2022, arXiv 2203.15556)."""
    by_params = _term(parameters["A"], inputs["params"], parameters["alpha"])
    return parameters["E"] + by_params + _term(parameters["B"], inputs["data"], parameters["beta"])


# Beyond 0.01 and 4 an exponent is a constant or a step, no scaling law; the fit then says at_bound.
_ASYMPTOTE = Parameter("E", "coefficient", 1e-4, 10.0, (0.1, 0.5, 0.8))
_A = Parameter("A", "coefficient", 1e-5, 100.0, (0.2,), (("params", "alpha"),))
_B = Parameter("B", "coefficient", 1e-5, 100.0, (0.2,), (("data", "beta"),))
_ALPHA = Parameter("alpha", "exponent", 0.01, 4.0, (0.15, 0.5, 1.2))
_BETA = Parameter("beta", "exponent", 0.01, 4.0, (0.15, 0.5, 1.2))

POWER = Law(
    "power",
    "E + B * data ** -beta",
    power,
    (_B, _ASYMPTOTE, _BETA),
    ("data",),
    "loss",
    "Kaplan et al. 2020, arXiv 2001.08361",
    linear=("B", "E"),
)
CHINCHILLA = Law(
    "chinchilla",
    "E + A * params ** -alpha + B * data ** -beta",
    chinchilla,
    (_A, _B, _ASYMPTOTE, _ALPHA, _BETA),
    ("params", "data"),
    "loss",
    "Hoffmann et al. 2022, arXiv 2203.15556",
    linear=("A", "B", "E"),
)
