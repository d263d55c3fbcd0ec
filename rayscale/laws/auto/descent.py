"""The rows that a batch of curves is fitted to, and the way down from starts of it, all at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayscale.laws.fitting.coordinates import link
from rayscale.laws.law import Array, Law

NEAR = 1.5  # residuals beyond 1.5 deviations count linearly: 96% efficient under normal noise


@dataclass(frozen=True, eq=False)
class Problem:
    """The rows a batch of curves is fitted to; parameters relative to each curve's level."""

    law: Law
    inputs: Mapping[str, Array]  # scaled, (batch, rows)
    linked: Array
    weights: Array
    level: Array
    # From residuals that are correlated to independent ones of deviation 1: (versions, rows, rows), and which (batch,).
    whiten: Array | None = None
    version: NDArray[np.int64] | None = None

    def whitened(self, values: Array) -> Array:
        """Residuals (batch, rows), or their derivatives (batch, rows, p), made independent."""
        if self.whiten is None or self.version is None:
            return values
        made = np.empty_like(values)
        for k in np.unique(self.version):
            at = self.version == k
            made[at] = self.whiten[k] @ values[at] if values.ndim == 3 else values[at] @ self.whiten[k].T
        return made

    def at(self, curves: Any, rows: Any = slice(None)) -> Problem:
        """The problem of these curves, and of these rows of each."""
        inputs = {role: values[curves, rows] for role, values in self.inputs.items()}
        linked, weights, level = self.linked[curves, rows], self.weights[curves, rows], self.level[curves].ravel()
        version = None if self.version is None else self.version[curves].ravel()
        return replace(self, inputs=inputs, linked=linked, weights=weights, level=level, version=version)

    def value(self, theta: Array) -> Array:
        """The law, (batch, rows), at parameters (batch, p)."""
        return self._compute(self._columns(theta))

    def _columns(self, theta: Array) -> dict[str, Any]:
        """Parameter -> (batch, 1), as the law takes it."""
        columns: dict[str, Any] = {}
        for parameter, column in zip(self.law.parameters, theta.T, strict=True):
            shifted = column + self.level if parameter.kind == "coefficient" else column
            columns[parameter.name] = (shifted if parameter.kind == "exponent" else np.exp(shifted))[:, None]
        return columns

    def _compute(self, columns: Mapping[str, Any]) -> Any:
        return np.broadcast_to(self.law.fitted(self.inputs, columns), self.linked.shape)

    def jacobian(self, theta: Array, value: Array | None = None) -> tuple[Array, Array]:
        """The law on the scale of residuals, (batch, rows), and its derivative, (batch, rows, p), by a complex step.

        `value` is what the law is at theta, where that is known.
        """
        columns = self._columns(theta)
        value = self._compute(columns) if value is None else value
        slope = 1e20 / (value * (1 - value)) if self.law.link == "logit" else 1e20 / value
        derivative = np.empty((*value.shape, theta.shape[1]))
        for j, parameter in enumerate(self.law.parameters):
            # Only this parameter is complex: what the law computes from the others stays real and several times faster.
            column = columns[parameter.name]
            step = 1e-20j if parameter.kind == "exponent" else column * 1e-20j
            derivative[..., j] = self._compute({**columns, parameter.name: column + step}).imag * slope
        return np.asarray(link(self.law.link, value)), derivative


def descend(
    problem: Problem,
    start: Array,
    noise: Array,
    mean: Array,
    precision: Array,
    bounds: tuple[Array, Array],
    steps: int,
) -> tuple[Array, Array]:
    """From each start (batch, p) down the Huber sum of residuals over noise plus the prior: (batch, p) and (batch,).

    Damped Gauss-Newton; a parameter at its bound moves only when the slope leads inside.
    """
    low, high = bounds
    theta = np.clip(start, low, high)
    mean, diagonal = np.broadcast_to(mean, theta.shape), np.arange(theta.shape[1])

    def objective(part: Problem, value: Array, off: Array, noise: Array, precision: Array) -> Array:
        size = np.abs(part.whitened(link(part.law.link, value) - part.linked)) / noise[:, None]
        loss = np.where(size <= NEAR, size**2 / 2, NEAR * (size - NEAR / 2))
        total = (part.weights * loss).sum(1) + np.einsum("gp,gpq,gq->g", off, precision, off) / 2
        return np.asarray(np.where(np.isfinite(total), total, np.inf))

    value = problem.value(theta)
    best = objective(problem, value, theta - mean, noise, precision)
    active, going = np.arange(len(theta)), np.isfinite(best)
    here, least, part = theta, best, problem
    damping, idle = np.full(len(theta), 0.1), np.zeros(len(theta), dtype=int)
    for _ in range(steps):
        if not going.all():
            active, part = active[going], part.at(going)
            here, value, least, damping, idle, noise, mean, precision = (
                each[going] for each in (here, value, least, damping, idle, noise, mean, precision)
            )
        if not len(active):
            break
        fitted, derivative = part.jacobian(here, value)
        missed = part.whitened(fitted - part.linked) / noise[:, None]
        derivative = part.whitened(derivative) / noise[:, None, None]
        outer = part.weights * NEAR / np.maximum(np.abs(missed), NEAR)
        slope = np.einsum("gnp,gn->gp", derivative, outer * missed)
        slope += np.einsum("gpq,gq->gp", precision, here - mean)
        matrix = np.swapaxes(derivative * outer[..., None], 1, 2) @ derivative + precision
        free = ~(((here <= low) & (slope > 0)) | ((here >= high) & (slope < 0)))
        matrix = matrix * free[:, :, None] * free[:, None, :]
        scale = np.einsum("gpp->gp", matrix)
        ridge = damping[:, None] * scale + 1e-10 * scale.max(1, keepdims=True) + 1e-300 + ~free
        matrix[:, diagonal, diagonal] += ridge
        usable = np.isfinite(matrix).all((1, 2)) & np.isfinite(slope).all(1)
        matrix[~usable] = np.eye(theta.shape[1])
        step = np.linalg.solve(matrix, (np.where(usable[:, None], slope, 0.0) * free)[..., None])[..., 0]
        moved = np.clip(here - np.clip(step, -2, 2), low, high)
        there = part.value(moved)
        tried = objective(part, there, moved - mean, noise, precision)
        better = tried < least
        gain = np.where(better, least - tried, 0.0)
        idle = np.where(gain <= 1e-6 * least + 1e-9, idle + 1, 0)
        here, value = (np.where(better[:, None], *pair) for pair in ((moved, here), (there, value)))
        least = np.where(better, tried, least)
        damping = np.clip(damping * np.where(better, 0.2, 5.0), 1e-9, 1e6)
        theta[active], best[active] = here, least
        going = idle < 3
    return theta, best
