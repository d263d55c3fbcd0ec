"""The well-conditioned coordinates in which a law is fitted, and its derivatives there, by a complex step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayscale.laws.law import Array, Law, Parameter, Values


def link(kind: str, value: Any) -> Any:
    """The scale of residuals: the logarithm, or the log odds of a value between 0 and 1."""
    return np.log(value) - np.log1p(-value) if kind == "logit" else np.log(value)


def log_odds(logs: Any) -> Array:
    """Log odds of fractions given by their logs, of any shape; finite up to 1."""
    logs = np.minimum(logs, -1e-12)
    return np.asarray(logs - np.log(-np.expm1(logs)))


def unlink(kind: str, linked: Any) -> Any:
    """From the scale of residuals back to the target's unit; finite for whatever is not NaN."""
    # Clipped at e**700, so that an absurdly wide interval stays a finite number.
    grown = np.exp(np.clip(linked, -700, 700))
    return grown / (1 + grown) if kind == "logit" else grown


def log_fraction(odds: Any) -> Array:
    """The inverse of `log_odds`: logs of the fractions of these log odds."""
    return np.asarray(-np.logaddexp(0, -odds))


def scaled(law: Law, inputs: Values, centre: Mapping[str, float]) -> dict[str, Any]:
    """The inputs over their geometric means, role -> (...); of a law in a frame of its own, the logs of these too."""
    values: dict[str, Any] = {role: inputs[role] / np.exp(centre[role]) for role in law.inputs}
    if law.frame:
        values |= {f"{role}_centre": np.full_like(values[role], centre[role]) for role in law.inputs}
    return values


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

    @classmethod
    def of(cls, law: Law, inputs: Mapping[str, Array], target: Array) -> Coordinates:
        """The coordinates for a table: inputs role -> (n,), positive or 0 where the law allows it; target (n,) > 0."""
        centre = dict.fromkeys(law.inputs, 0.0)
        for role in law.inputs:
            positive = inputs[role][inputs[role] > 0]
            if role not in law.unscaled and len(positive):
                centre[role] = float(np.log(positive).mean())
        if "unique" in centre and "data" in centre:
            centre["unique"] = centre["data"]  # both count the same thing, and a law may divide one by the other
        return cls(law, centre, float(np.median(np.log(target))))

    @cached_property
    def is_log(self) -> NDArray[np.bool_]:
        """Which parameters are fitted as logarithms, (p,)."""
        return np.array([parameter.kind != "exponent" for parameter in self.law.parameters])

    @property
    def is_positive(self) -> NDArray[np.bool_]:
        """Which parameters of the formula are positive numbers, with intervals in their logarithms, (p,)."""
        return self.is_log if self.law.frame is None else np.zeros(len(self.law.names), dtype=bool)

    def place(self, parameter: Parameter, value: float) -> float:
        """A bound or start of a parameter in these coordinates."""
        if parameter.kind == "exponent":
            return value
        return float(np.log(value)) + (self.level if parameter.kind == "coefficient" else 0.0)

    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper bounds, each (p,)."""
        parameters = self.law.parameters
        return (
            np.array([self.place(each, each.low) for each in parameters]),
            np.array([self.place(each, each.high) for each in parameters]),
        )

    def starts(self) -> Array:
        """Every combination of the parameters' starts, (starts, p)."""
        return np.array(list(product(*[[self.place(p, value) for value in p.starts] for p in self.law.parameters])))

    def value(self, theta: Array, inputs: Values) -> Array:
        """The law at theta (..., p) and inputs in natural units (n,): (..., n), in the target's unit."""
        return np.asarray(self.law.fitted(self.scaled(inputs), self._columns(theta)))

    def scaled(self, inputs: Values) -> dict[str, Any]:
        """The inputs as the fitted law takes them, role -> (n,)."""
        return scaled(self.law, inputs, self.centre)

    def _columns(self, theta: Array) -> dict[str, Any]:
        named = enumerate(zip(self.law.names, self.is_log, strict=True))
        return {name: np.exp(theta[..., j, None]) if log else theta[..., j, None] for j, (name, log) in named}

    def linked(self, theta: Array, inputs: Values) -> Array:
        """The law on the scale of residuals, (..., n)."""
        return np.asarray(link(self.law.link, self.value(theta, inputs)))

    def jacobian(self, theta: Array, inputs: Values, value: Array | None = None) -> tuple[Array, Array]:
        """The law on the scale of residuals, (..., n), and its derivative, (..., n, p), exact by a complex step.

        `value` is what the law is at theta, where that is known.
        """
        centred, columns = self.scaled(inputs), self._columns(theta)
        value = np.asarray(self.law.fitted(centred, columns)) if value is None else value
        slope = 1e20 / (value * (1 - value)) if self.law.link == "logit" else 1e20 / value
        derivative = np.empty((*value.shape, theta.shape[-1]))
        for j, (name, log) in enumerate(zip(self.law.names, self.is_log, strict=True)):
            # Only this parameter is complex: what the law computes from the others stays real and several times faster.
            step = columns[name] * 1e-20j if log else 1e-20j
            shifted = np.asarray(self.law.fitted(centred, {**columns, name: columns[name] + step}))
            derivative[..., j] = shifted.imag * slope
        return np.asarray(link(self.law.link, value)), derivative

    def _exponent(self, theta: Array, exponent: str | float | Callable[[Values], Any]) -> Any:
        if callable(exponent):
            return exponent(dict(zip(self.law.names, np.moveaxis(theta, -1, 0), strict=True)))
        if not isinstance(exponent, str):
            return exponent
        value = theta[..., self.law.names.index(exponent.removeprefix("-"))]
        return -value if exponent.startswith("-") else value

    def natural(self, theta: Array) -> Array:
        """Parameters in the units of the table, (..., p), from theta (..., p)."""
        if self.law.frame:
            fitted = {name: column[..., 0] for name, column in self._columns(theta).items()}
            formula = self.law.frame.natural(fitted, self.centre)
            return np.stack([np.asarray(formula[name]) for name in self.law.names], axis=-1)
        shifted = theta.copy()
        for j, parameter in enumerate(self.law.parameters):
            for role, exponent in parameter.unit:
                shifted[..., j] += self._exponent(theta, exponent) * self.centre[role]
        return np.where(self.is_log, np.exp(np.where(self.is_log, shifted, 0.0)), shifted)
