"""Scaling laws as values: what a law says, in which parameters, and where a fit may look for them.

A law's function works on numpy arrays of any broadcastable shape and must be analytic (no abs, no comparisons): fits
take its derivatives by a complex step, so a law never carries a hand-written gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayscale.registry import resolve

Values = Mapping[str, Any]  # name -> array (or number)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a law.

    A "coefficient" is positive and fitted as its logarithm. Its bounds and starts are multiples of the median target
    and hold where every input is at its geometric mean, so they mean the same in any unit. `scales_with` names the
    input and the exponent that carry its unit, as A of A * N ** -alpha carries N ** alpha.
    An "exponent" has no unit; its bounds and starts are plain numbers.
    """

    name: str
    kind: str
    low: float
    high: float
    starts: tuple[float, ...]
    scales_with: tuple[str, str] | None = None


@dataclass(frozen=True)
class Law:
    """A scaling law: `function(inputs, parameters)` gives the target, both arguments keyed by name, in natural units.

    `inputs` are roles: "params" (model parameters N), "data" (examples or tokens D), "gpus" (workers).
    `target` is the quantity the law was made for; a fit may name any positive column.
    """

    name: str
    formula: str
    function: Callable[[Values, Values], Any]
    parameters: tuple[Parameter, ...]
    inputs: tuple[str, ...]
    target: str
    source: str

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters' names, in the order of every parameter vector."""
        return tuple(parameter.name for parameter in self.parameters)


@dataclass(frozen=True)
class Coordinates:
    """The well-conditioned coordinates in which a law is fitted to one table.

    Inputs are divided by their geometric means (`centre`: role -> log of it), coefficients are logarithms. This takes
    the condition number of the five-parameter problem from 1e11 to about 10, and a change of units changes nothing.
    `level` is the median log target, against which coefficients' bounds and starts are stated.
    """

    law: Law
    centre: Mapping[str, float]
    level: float

    @property
    def is_log(self) -> NDArray[np.bool_]:
        return np.array([parameter.kind == "coefficient" for parameter in self.law.parameters])

    def _place(self, parameter: Parameter, value: float) -> float:
        return float(np.log(value)) + self.level if parameter.kind == "coefficient" else value

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper bounds, each (p,)."""
        parameters = self.law.parameters
        return (
            np.array([self._place(each, each.low) for each in parameters]),
            np.array([self._place(each, each.high) for each in parameters]),
        )

    def starts(self) -> NDArray[np.float64]:
        """Every combination of the parameters' starts, (starts, p)."""
        return np.array(list(product(*[[self._place(p, value) for value in p.starts] for p in self.law.parameters])))

    def value(self, theta: NDArray[Any], inputs: Values) -> NDArray[Any]:
        """The law at theta (..., p) and inputs in natural units (n,): (..., n), in the target's unit."""
        scaled = {role: inputs[role] / np.exp(self.centre[role]) for role in self.law.inputs}
        columns = np.moveaxis(theta, -1, 0)[..., None]
        parameters = {
            name: np.exp(column) if log else column
            for name, column, log in zip(self.law.names, columns, self.is_log, strict=True)
        }
        return np.asarray(self.law.function(scaled, parameters))

    def log_jacobian(self, theta: NDArray[np.float64], inputs: Values) -> tuple[NDArray[Any], NDArray[Any]]:
        """Log of the law, (..., n), and its derivative, (..., n, p), exact by a complex step."""
        value = self.value(theta, inputs)
        derivative = np.empty((*value.shape, theta.shape[-1]))
        for j in range(theta.shape[-1]):
            shifted = theta.astype(complex)
            shifted[..., j] += 1e-20j
            derivative[..., j] = self.value(shifted, inputs).imag * 1e20 / value
        return np.log(value), derivative

    def natural(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Parameters in the units of the table, (..., p), from theta (..., p)."""
        found = theta.copy()
        for j, parameter in enumerate(self.law.parameters):
            if parameter.scales_with is not None:
                role, exponent = parameter.scales_with
                found[..., j] += theta[..., self.law.names.index(exponent)] * self.centre[role]
        return np.where(self.is_log, np.exp(np.where(self.is_log, found, 0.0)), found)


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
_A = Parameter("A", "coefficient", 1e-5, 100.0, (0.2,), ("params", "alpha"))
_B = Parameter("B", "coefficient", 1e-5, 100.0, (0.2,), ("data", "beta"))
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
)
CHINCHILLA = Law(
    "chinchilla",
    "E + A * params ** -alpha + B * data ** -beta",
    chinchilla,
    (_A, _B, _ASYMPTOTE, _ALPHA, _BETA),
    ("params", "data"),
    "loss",
    "Hoffmann et al. 2022, arXiv 2203.15556",
)


def find_law(law: str | Law) -> Law:
    """The law itself, or the one registered under that name; raises InputError naming those there are."""
    return law if isinstance(law, Law) else resolve("rayscale.laws", law)
