"""Minimise the sum of Huber losses on log (or log odds) residuals, for a whole batch of starts or resamples at once.

The sum, not the mean: the mean made published fits stop early (Hoffmann et al. 2022, arXiv 2203.15556; Besiroglu et al.
2024, arXiv 2404.10102).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayscale.laws.fitting.coordinates import Coordinates, link
from rayscale.laws.law import Array

DELTA = 1e-3
PATIENCE = 5  # steps in a row that gained no more than `tolerance` of the objective: settled
CALM = 3  # for how many of these a step counts that, undamped, did not even promise more


def huber(residuals: Array, delta: float = DELTA) -> Array:
    """The Huber loss of every residual: square inside delta, straight outside."""
    size = np.abs(residuals)
    return np.asarray(np.where(size <= delta, size**2 / 2, delta * (size - delta / 2)))


def huber_sum(residuals: Array, weights: Array | float = 1.0, delta: float = DELTA) -> Array:
    """Sum over the last axis of weights * Huber(delta)."""
    return np.asarray((weights * huber(residuals, delta)).sum(-1))


def minimise(
    coordinates: Coordinates,
    inputs: Mapping[str, Array],
    start: Array,
    target: Array,
    weights: Array,
    *,
    steps: int = 2000,
    delta: float = DELTA,
    tolerance: float = 1e-9,
    pinned: NDArray[np.bool_] | None = None,
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """From every row of `start` (batch, p): where it ended, the objective there (batch,), and whether it settled.

    `target` (on the law's scale of residuals) and `weights` are (n,) or (batch, n). A row whose objective is not finite
    at its start stays there. A `pinned` parameter (p,) or (batch, p) keeps its starting value.

    Each step solves with the curvature of the residuals inside delta plus `damping` times the curvature that
    reweighting gives to those outside. At damping 1 this is iteratively reweighted least squares, which goes downhill
    from afar; towards 0 it is Newton's method on the Huber sum, which finishes. The damping falls after a step that
    gained and rises after one that did not. A parameter at its bound moves only when the slope leads inside.
    """
    low, high = coordinates.bounds()
    theta, batch, scale = np.clip(start, low, high), len(start), coordinates.law.link
    target = np.broadcast_to(target, (batch, target.shape[-1]))
    weight = np.broadcast_to(weights, target.shape)
    value = np.broadcast_to(coordinates.value(theta, inputs), target.shape)
    objective = huber_sum(link(scale, value) - target, weight, delta)
    idle = np.zeros(batch, dtype=int)
    # Of the rows that have not settled: where they are, what is there, and how they fare.
    active, going = np.arange(batch), np.isfinite(objective)
    pins = np.broadcast_to(False if pinned is None else pinned, theta.shape)
    here, least, damping, waiting = theta, objective, np.ones(batch), idle
    for _ in range(steps):
        if not going.all():
            state: Any = active, here, value, least, target, weight, damping, waiting, pins
            active, here, value, least, target, weight, damping, waiting, pins = (each[going] for each in state)
        if not len(active):
            break
        fitted, jacobian = coordinates.jacobian(here, inputs, value)
        step, promise = _step(
            fitted - target, jacobian, weight, damping[:, None], delta, here <= low, here >= high, pins
        )
        moved = np.clip(here - step, low, high)
        there = np.broadcast_to(coordinates.value(moved, inputs), target.shape)
        tried = huber_sum(link(scale, there) - target, weight, delta)
        better = tried < least
        gain = np.where(better, least - tried, 0.0)
        enough = tolerance * least
        # A step that fails may be one too long, to be tried again shorter; one that promised nothing is at the end.
        waited = np.where((promise <= enough) & (damping <= 1), CALM, 1)
        waiting = np.where(gain <= enough, waiting + waited, 0)
        here, value = (np.where(better[:, None], *pair) for pair in ((moved, here), (there, value)))
        least = np.where(better, tried, least)
        damping = damping * np.where(better, 0.3, 3.0)
        theta[active], objective[active], idle[active] = here, least, waiting
        going = waiting < PATIENCE
    return theta, objective, idle >= PATIENCE


def _step(
    residual: Array, jacobian: Array, weight: Array, damping: Array, delta: float, at_low: Any, at_high: Any, pins: Any
) -> tuple[Array, Array]:
    """The damped Newton step of every row, (batch, p), and what it promises to gain, (batch,).

    A parameter that is pinned, or pushed over its bound, does not move.
    """
    outer = weight * delta / np.maximum(np.abs(residual), delta)
    slope = np.einsum("bnp,bn->bp", jacobian, outer * residual)
    free = ~((at_low & (slope > 0)) | (at_high & (slope < 0)) | pins)
    jacobian = jacobian * free[:, None, :]
    curvature = np.where(np.abs(residual) <= delta, weight, damping * outer)
    matrix = np.swapaxes(jacobian * curvature[..., None], 1, 2) @ jacobian
    scale = np.einsum("bnp,bn->bp", jacobian**2, outer)
    # The second and third part keep the matrix regular where no residual, or no data at all, speaks of a direction.
    ridge = 1e-3 * damping * scale + 1e-12 * scale.max(-1, keepdims=True) + 1e-300 + ~free
    diagonal = np.arange(matrix.shape[-1])
    matrix[:, diagonal, diagonal] += ridge
    slope = slope * free
    step = np.linalg.solve(matrix, slope[..., None])[..., 0]
    return step, (slope * step).sum(-1) / 2
