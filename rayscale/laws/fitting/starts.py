"""Where a fit starts: variable projection over a coarse grid of the parameters in which a law is not linear.

Given its exponents a law such as E + A N^-alpha + B D^-beta is linear in the rest, and the best A, B and E are one
small least-squares solution. Only the exponents need a grid (Golub & Pereyra 1973).
"""

from __future__ import annotations

import itertools
from itertools import product
from typing import Any

import numpy as np

from rayscale.laws.fitting.coordinates import Coordinates
from rayscale.laws.law import Array, Law, Values

ROUNDS = 6  # of reweighting: rows far from the law lose their say
FLOOR = 1e-2  # residuals below 1% all count alike in a start


def grid(coordinates: Coordinates, inputs: Values, target: Array, worth: Array) -> Array:
    """The starts of a fit, (starts, p): every combination of the non-linear parameters' starts, the linear ones solved.

    `target` (n,) in its own unit, `worth` (n,) how many runs' worth each row is. A law without linear parameters starts
    from all its combinations.
    """
    theta = combinations(coordinates)
    if not coordinates.law.linear:
        return theta
    return solve_linear(
        coordinates.law, coordinates.scaled(inputs), theta, target, worth, np.median(target), coordinates.bounds()
    )


def combinations(coordinates: Coordinates) -> Array:
    """Every combination of the non-linear parameters' starts, (starts, p), the linear ones at their lower bounds."""
    law, (low, _) = coordinates.law, coordinates.bounds()
    choices = [
        [low[j]]
        if parameter.name in law.linear
        else [coordinates.place(parameter, value) for value in parameter.starts]
        for j, parameter in enumerate(law.parameters)
    ]
    return np.array(list(product(*choices)))


def solve_linear(
    law: Law, inputs: Values, theta: Array, target: Array, worth: Array, typical: Any, bounds: tuple[Array, Array]
) -> Array:
    """The combinations `theta` (starts, p) with their linear parameters solved: least squares of relative errors,
    reweighted towards absolute ones, with every linear parameter kept within its bounds.

    `inputs`, scaled, `target` and `worth` are (n,) or (starts, n), the bounds (p,) or (starts, p); a row of worth 0
    does not count. `typical`, the median target (of each start, (starts, 1)): no row weighs more than one there in the
    first round, as one far too small would decide alone.
    """
    (low, high), linear = bounds, [law.names.index(name) for name in law.linear]
    offset, basis = _basis(law, theta, inputs, linear, (len(theta), target.shape[-1]))
    floor, ceiling = np.exp(low[..., linear]), np.exp(high[..., linear])
    root = np.sqrt(worth)
    weights = np.broadcast_to(root / np.maximum(target, typical), offset.shape)
    solved = np.ones((len(theta), len(linear)))
    for _ in range(ROUNDS):
        solved = np.clip(_least_squares(basis, target - offset, weights), floor, ceiling)
        value = np.maximum(offset + np.einsum("gnl,gl->gn", basis, solved), 1e-300)
        missed = np.log(value / target)
        # The error per unit of log error is the logarithmic mean of both: a row a hundred times too small is then as
        # far off as one a hundred times too large.
        mean = np.where(np.abs(missed) > 1e-6, (value - target) / np.where(missed == 0, 1.0, missed), target)
        weights = np.where(root > 0, root / (mean * np.sqrt(np.maximum(np.abs(missed), FLOOR))), 0.0)
    theta[:, linear] = np.log(solved)
    return np.clip(theta, low, high)


def _basis(law: Law, theta: Array, inputs: Values, linear: list[int], shape: tuple[int, ...]) -> tuple[Array, Array]:
    """The law with its linear parameters 0, (starts, n), and what a unit of each adds, (starts, n, linear)."""
    columns: dict[str, Any] = {
        parameter.name: (column if parameter.kind == "exponent" else np.exp(column))[:, None]
        for parameter, column in zip(law.parameters, theta.T, strict=True)
    }
    zero = np.zeros((len(theta), 1))

    def value(one: int | None) -> Array:
        parameters = {**columns, **{law.names[j]: zero + (j == one) for j in linear}}
        return np.broadcast_to(np.asarray(law.fitted(inputs, parameters), dtype=float), shape)

    offset = value(None)
    return offset, np.stack([value(j) - offset for j in linear], axis=-1)


def _least_squares(basis: Array, target: Array, weights: Array) -> Array:
    """The non-negative least squares of every grid point, (grid, linear): the best among all subsets of the terms."""
    weighted = basis * weights[..., None]
    sought = target * weights
    matrix = np.einsum("gnk,gnl->gkl", weighted, weighted)
    right = np.einsum("gnk,gn->gk", weighted, sought)
    count = basis.shape[-1]
    trace = np.einsum("gkk->gk", matrix)
    best, gain = np.zeros(right.shape), np.zeros(len(right))
    for size in range(1, count + 1):
        for subset in itertools.combinations(range(count), size):
            s = list(subset)
            part = matrix[:, s][:, :, s] + 1e-10 * np.maximum(trace[:, s], 1e-300)[:, None, :] * np.eye(size)
            solved = np.linalg.solve(part, right[:, s][..., None])[..., 0]
            explained = np.einsum("gk,gk->g", solved, right[:, s])
            better = (solved >= 0).all(-1) & (explained > gain) & np.isfinite(explained)
            gain = np.where(better, explained, gain)
            full = np.zeros(right.shape)
            full[:, s] = solved
            best = np.where(better[:, None], full, best)
    return best
