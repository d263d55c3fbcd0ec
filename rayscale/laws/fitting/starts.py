"""Where a fit starts: variable projection over a coarse grid of the parameters in which a law is not linear.

Given its exponents a law such as E + A N^-alpha + B D^-beta is linear in the rest, and the best A, B and E are one
small least-squares solution. Only the exponents need a grid (Golub & Pereyra 1973).
"""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import numpy as np

from rayscale.laws.fitting.coordinates import Coordinates
from rayscale.laws.law import Array, Values

ROUNDS = 6  # of reweighting: rows far from the law lose their say
FLOOR = 1e-2  # residuals below 1% all count alike in a start


def grid(coordinates: Coordinates, inputs: Values, target: Array) -> Array:
    """The starts of a fit, (starts, p): every combination of the non-linear parameters' starts, the linear ones solved.

    `target` (n,) in its own unit. The least squares are of relative errors, reweighted towards absolute ones, with
    every linear parameter kept within its bounds. A law without linear parameters starts from all its combinations.
    """
    law, (low, high) = coordinates.law, coordinates.bounds()
    linear = [law.names.index(name) for name in law.linear]
    if not linear:
        return coordinates.starts()
    choices = [
        [low[j]] if j in linear else [coordinates.place(parameter, value) for value in parameter.starts]
        for j, parameter in enumerate(law.parameters)
    ]
    theta = np.array(list(product(*choices)))
    offset, basis = _basis(coordinates, theta, inputs, linear)
    floor, ceiling = np.exp(low[linear]), np.exp(high[linear])
    # By relative error, but no row weighs more than one at the median: one far too small would decide alone.
    weights = np.broadcast_to(1 / np.maximum(target, np.median(target)), (len(theta), len(target)))
    solved = np.ones((len(theta), len(linear)))
    for _ in range(ROUNDS):
        solved = np.clip(_least_squares(basis, target - offset, weights), floor, ceiling)
        value = np.maximum(offset + np.einsum("gnl,gl->gn", basis, solved), 1e-300)
        missed = np.log(value / target)
        # The error per unit of log error is the logarithmic mean of both: a row a hundred times too small is then as
        # far off as one a hundred times too large.
        mean = np.where(np.abs(missed) > 1e-6, (value - target) / np.where(missed == 0, 1.0, missed), target)
        weights = 1 / (mean * np.sqrt(np.maximum(np.abs(missed), FLOOR)))
    theta[:, linear] = np.log(solved)
    return np.clip(theta, low, high)


def _basis(coordinates: Coordinates, theta: Array, inputs: Values, linear: list[int]) -> tuple[Array, Array]:
    """The law with its linear parameters 0, (grid, n), and what a unit of each adds, (grid, n, linear)."""
    law = coordinates.law
    scaled = coordinates.scaled(inputs)
    is_log = coordinates.is_log
    columns: dict[str, Any] = {
        name: (np.exp(theta[:, j]) if is_log[j] else theta[:, j])[:, None] for j, name in enumerate(law.names)
    }
    zero = np.zeros((len(theta), 1))
    shape = (len(theta), len(next(iter(scaled.values()))))

    def value(one: int | None) -> Array:
        parameters = {**columns, **{law.names[j]: zero + (j == one) for j in linear}}
        return np.broadcast_to(np.asarray(law.fitted(scaled, parameters), dtype=float), shape)

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
        for subset in combinations(range(count), size):
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
