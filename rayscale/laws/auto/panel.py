"""One law fitted to many curves at once, each borrowing from the others what its own points do not say.

Every curve has its own parameters, drawn from a population whose mean and covariance are estimated from all curves
(empirical Bayes, by expectation-maximisation with a normal approximation of each curve's posterior). A curve with many
points keeps its own parameters, one with few is drawn towards its kind. The population is a Student t: an odd curve
neither drags the others along nor is dragged far. Fewer than three curves make no population; a weak prior stands in,
a Student t of each parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rayscale.laws.auto.descent import NEAR, Problem, descend
from rayscale.laws.fitting.coordinates import Coordinates, link, scaled
from rayscale.laws.fitting.starts import combinations, solve_linear
from rayscale.laws.law import Array, Law

EVEN = 0.7784  # mean of min(z^2, NEAR^2) of a standard normal z: with it a capped scatter is that of the normal part
POPULATION = 3  # curves from which on there is a population to speak of
TAIL = 4.0  # degrees of freedom of the population's t
PSEUDO = 1.0  # curves that the weak prior is worth as the population's covariance
NOISE_PSEUDO = 4.0  # rows of the typical noise that each curve's own noise estimate is blended with
WEAK = (2.0, 1.0)  # deviations of the weak prior, of logarithms and of exponents: about what one row says
STARTED = 0.01  # the noise, on the scale of residuals, from which the estimates of it begin
FLOOR = 1e-6  # noise below a millionth is rounding
KEPT_STARTS = 4  # starts of each curve that are polished
BATCH_VALUES = 60_000  # rows x parameter sets at once: more leave the processor's cache

Curve = tuple[Mapping[str, Array], Array, Array]  # inputs role -> (n,), target (n,) and weights (n,) of its rows


@dataclass(frozen=True, eq=False)
class Panel:
    """Curves side by side, padded to one length: inputs role -> (curves, rows), target and weights (curves, rows).

    A padded or left-out row has weight 0 (and inputs and a target of its curve, so that everything stays finite).
    `centre` is common to all curves, so that their parameters compare; `level` (curves,) is each one's median log
    target, so that a curve's scale does not matter.
    """

    inputs: Mapping[str, Array]
    target: Array
    weights: Array
    centre: Mapping[str, float]
    level: Array

    @classmethod
    def of(cls, law: Law, curves: list[Curve]) -> Panel:
        """The curves side by side; `law` says which inputs are unscaled."""
        longest = max(len(target) for _, target, _ in curves)

        def pad(values: Array, fill: float) -> Array:
            return np.concatenate([values, np.full(longest - len(values), fill)])

        inputs = {role: np.array([pad(each[0][role], each[0][role][0]) for each in curves]) for role in curves[0][0]}
        target = np.array([pad(each[1], each[1][0]) for each in curves])
        weights = np.array([pad(each[2], 0.0) for each in curves])
        return cls(inputs, target, weights, {}, np.zeros(len(curves))).keep(law, np.ones(weights.shape, dtype=bool))

    def keep(self, law: Law, rows: NDArray[np.bool_]) -> Panel:
        """The panel with only these rows (curves, rows) in it; centre and levels are those of the rows kept."""
        weights = self.weights * rows
        known = weights > 0
        pooled = {role: values[known] for role, values in self.inputs.items()}
        centre = Coordinates.of(replace(law, inputs=tuple(pooled)), pooled, self.target[known]).centre
        masked = np.where(known, np.log(self.target), np.nan)
        return Panel(self.inputs, self.target, weights, centre, np.nanmedian(masked, axis=1))

    def problem(self, law: Law) -> Problem:
        """The rows that this law is fitted to."""
        inputs = scaled(law, self.inputs, self.centre)
        return Problem(law, inputs, np.asarray(link(law.link, self.target)), self.weights, self.level)

    def coordinates(self, law: Law, curve: int) -> Coordinates:
        """The coordinates in which a curve of this panel is fitted."""
        return Coordinates(law, {role: self.centre[role] for role in law.inputs}, float(self.level[curve]))


@dataclass(frozen=True, eq=False)
class PanelFit:
    """A law on every curve of a panel: `theta` (curves, p) in each curve's coordinates, its posterior `covariance`
    (curves, p, p), and `noise` (curves,), the deviation of a row on the law's scale of residuals.

    `mean` (p,) and `prior` (curves, p, p), its covariance, are what each curve borrows, relative to its level.
    """

    law: Law
    centre: Mapping[str, float]
    theta: Array
    covariance: Array
    noise: Array
    mean: Array
    prior: Array
    polished: int  # starts of each curve that were polished, the best of its grid
    at_best: NDArray[np.int64]  # (curves,): how many of these ended at the best


def fit_panel(panel: Panel, law: Law, rounds: int = 30) -> PanelFit:
    """Fit the law to every curve of the panel, with the population of the curves where there is one."""
    problem = panel.problem(law)
    logs = np.array([parameter.kind != "exponent" for parameter in law.parameters])
    neutral = Coordinates(law, {}, 0.0)
    bounds = neutral.bounds()
    middle = np.array([np.mean([neutral.place(p, value) for value in p.starts]) for p in law.parameters])
    curves, p = len(panel.level), len(law.parameters)
    weak = np.diag(np.where(logs, *WEAK) ** 2)
    mean, spread = middle, weak
    with np.errstate(all="ignore"):  # a far step may overflow; it is then not taken
        theta, starts, at_best = _started(panel, problem, bounds, mean, np.linalg.inv(spread))
        noise, odd = np.full(curves, STARTED), np.ones((curves, p))
        shared = curves >= POPULATION
        if shared:
            mean = np.median(theta, axis=0)  # and the weak spread: from a narrow one the population would never widen
        for _ in range(rounds):
            before = theta.copy()
            precision = np.linalg.inv(spread)
            tails = np.sqrt(odd[:, :, None] * odd[:, None, :])
            theta, _ = descend(problem, theta, noise, mean, tails * precision, bounds, 10)
            fitted, derivative = problem.jacobian(theta)
            missed = fitted - problem.linked
            outer = problem.weights * NEAR / np.maximum(np.abs(missed) / noise[:, None], NEAR)
            curvature = np.swapaxes(derivative * outer[..., None], 1, 2) @ derivative / noise[:, None, None] ** 2
            posterior = np.linalg.inv(curvature + tails * precision + 1e-9 * np.eye(p))
            unsure = np.einsum("gnp,gpq,gnq->gn", derivative, posterior, derivative)
            # What the residuals are too small by, because the law was fitted to them, is what the fit is unsure of.
            # Capped (Huber's proposal 2): one row in ten that is wrong by any factor makes the noise no third larger.
            capped = np.minimum(missed**2, (NEAR * noise[:, None]) ** 2) / EVEN
            squares = (problem.weights * capped + outer * unsure).sum(1)
            rows = np.maximum(problem.weights.sum(1), 1e-300)
            typical = float(np.median(squares / rows))
            noise = np.sqrt(np.maximum((squares + NOISE_PSEUDO * typical) / (rows + NOISE_PSEUDO), FLOOR**2))
            off = theta - mean
            if shared:
                far = np.einsum("gp,pq,gq->g", off, precision, off) + np.einsum("pq,gqp->g", precision, posterior)
                weight = (TAIL + p) / (TAIL + far)
                mean = (weight[:, None] * theta).sum(0) / weight.sum()
                off = theta - mean
                total = np.einsum("g,gp,gq->pq", weight, off, off) + np.einsum("g,gpq->pq", weight, posterior)
                spread = (total + PSEUDO * weak) / (curves + PSEUDO)
                odd = np.repeat(weight[:, None], p, axis=1)
            else:  # each parameter has a t of its own: one that the rows put far off is not drawn back
                far = (off**2 + np.einsum("gpp->gp", posterior)) / np.diag(weak)
                odd = (TAIL + 1) / (TAIL + far)
            if np.max(np.abs(theta - before)) < 1e-3:
                break
    theta = theta + np.outer(panel.level, is_coefficient(law))
    prior = spread / np.sqrt(odd[:, :, None] * odd[:, None, :])
    return PanelFit(law, panel.centre, theta, posterior, noise, mean, prior, starts, at_best)


def draw(
    panel: Panel, fit: PanelFit, curves: Sequence[int], counts: Sequence[int], rngs: Sequence[np.random.Generator]
) -> list[Array]:
    """Parameters as likely as the fitted ones, (count, p) for each of these curves, in its coordinates.

    Each draw is the fit to the rows and the prior mean, both disturbed as they are unsure (randomise, then optimise;
    Bardsley et al. 2014): unlike a normal approximation it stays on a curved ridge, where the rows still fit.
    Every curve has a generator of its own, so that its draws do not depend on which others there are.
    """
    values = np.cumsum(np.asarray(counts) * (panel.weights[curves] > 0).sum(1))
    batches = np.split(np.arange(len(curves)), np.flatnonzero(np.diff(values // BATCH_VALUES)) + 1)
    return [
        sample
        for batch in batches
        for sample in _draw_batch(panel, fit, *([each[k] for k in batch] for each in (curves, counts, rngs)))
    ]


def _draw_batch(
    panel: Panel, fit: PanelFit, curves: Sequence[int], counts: Sequence[int], rngs: Sequence[np.random.Generator]
) -> list[Array]:
    law, which = fit.law, np.repeat(np.arange(len(curves)), counts)
    known = panel.weights[curves] > 0
    # The rows that count come first, and no more columns are kept than the longest curve has of them.
    order = np.argsort(~known, axis=1, kind="stable")[:, : known.sum(1).max()]
    part = panel.problem(law).at(np.asarray(curves)[:, None], order)
    roots, precision = np.linalg.cholesky(fit.prior[curves]), np.asarray(np.linalg.inv(fit.prior[curves]))
    disturbed, means = [], []
    for k, (curve, count, rng) in enumerate(zip(curves, counts, rngs, strict=True)):
        rows = int(known[k].sum())
        linked = np.tile(part.linked[k], (count, 1))
        # A row of weight w stands for w rows: its mean is unsure by noise / sqrt(w).
        linked[:, :rows] += rng.normal(0, 1, (count, rows)) * fit.noise[curve] / np.sqrt(part.weights[k, :rows])
        disturbed.append(linked)
        means.append(fit.mean + rng.normal(0, 1, (count, len(fit.mean))) @ roots[k].T)
    shift = np.outer(panel.level[curves], is_coefficient(law))
    problem, start = replace(part.at(which), linked=np.concatenate(disturbed)), (fit.theta[curves] - shift)[which]
    with np.errstate(all="ignore"):
        ends, _ = descend(problem, start, fit.noise[curves][which], np.concatenate(means), precision[which],
                           Coordinates(law, {}, 0.0).bounds(), 12)  # fmt: skip
    return np.split(ends + shift[which], np.cumsum(counts)[:-1])


def draw_correlated(
    panel: Panel, fit: PanelFit, curve: int, inputs: Mapping[str, Array], target: Array, scale: str,
    covariances: Sequence[Array], counts: Sequence[int], rng: np.random.Generator,
) -> list[tuple[Array, Array]]:  # fmt: skip
    """For each covariance, the parameters (p,) of a lone curve and `count` draws of them (count, p).

    `inputs` role -> (n,), `target` (n,) on the `scale` log or logit; `covariances` (n, n) of what the law leaves of it.
    """
    law, roots = replace(fit.law, link=scale), [np.linalg.cholesky(covariance) for covariance in covariances]
    first = np.cumsum([0, *(count + 1 for count in counts)])  # the first of each is not disturbed
    rows = int(first[-1])
    version = np.repeat(np.arange(len(counts)), np.diff(first))
    tiled = {role: np.tile(values, (rows, 1)) for role, values in scaled(law, inputs, fit.centre).items()}
    errors = rng.normal(0, 1, (rows, len(target)))
    for k, root in enumerate(roots):
        errors[first[k] : first[k + 1]] = errors[first[k] : first[k + 1]] @ root.T
    means = fit.mean + rng.normal(0, 1, (rows, len(fit.mean))) @ np.linalg.cholesky(fit.prior[curve]).T
    errors[first[:-1]], means[first[:-1]] = 0.0, fit.mean
    whiten = np.array([np.linalg.inv(root) for root in roots])
    problem = Problem(law, tiled, target + errors, np.ones(errors.shape), np.full(rows, panel.level[curve]),
                       whiten, version)  # fmt: skip
    shift = panel.level[curve] * is_coefficient(law)
    precision = np.broadcast_to(np.linalg.inv(fit.prior[curve]), (rows, *fit.prior[curve].shape))
    start = np.broadcast_to(fit.theta[curve] - shift, means.shape)
    with np.errstate(all="ignore"):
        ends, _ = descend(problem, start, np.ones(rows), means, precision, Coordinates(law, {}, 0.0).bounds(), 15)
    ends = ends + shift
    return [(ends[begin], ends[begin + 1 : end]) for begin, end in pairwise(first)]


def is_coefficient(law: Law) -> NDArray[np.bool_]:
    """Which parameters are coefficients, (p,): those that the level of a curve shifts."""
    return np.array([parameter.kind == "coefficient" for parameter in law.parameters])


def predict(panel: Panel, fit: PanelFit) -> tuple[Array, Array]:
    """Log target at every row of a panel of the same curves, left-out rows too, and its variance, (curves, rows).

    The variance is that of the mean, by the delta method.
    """
    law = fit.law
    inputs = scaled(law, panel.inputs, fit.centre)
    zeros = np.zeros(len(panel.level))
    problem = Problem(law, inputs, np.zeros(panel.target.shape), panel.weights, zeros)
    with np.errstate(all="ignore"):
        value = problem.value(fit.theta)
        _, derivative = problem.jacobian(fit.theta)
        if law.link == "logit":
            derivative = derivative * (1 - value)[..., None]
        variance = np.einsum("gnp,gpq,gnq->gn", derivative, fit.covariance, derivative)
    return np.log(value), variance


def _started(
    panel: Panel, problem: Problem, bounds: tuple[Array, Array], mean: Array, precision: Array
) -> tuple[Array, int, NDArray[np.int64]]:
    """The best end of each curve's best few starts, on its own, under the weak prior; how many starts were polished,
    and how many of these end there."""
    law, curves, shift = problem.law, np.arange(len(panel.level)), is_coefficient(problem.law)
    neutral = Coordinates(law, {}, 0.0)
    tried, rows = combinations(neutral), panel.weights > 0
    kept = min(KEPT_STARTS, len(tried))
    chosen = np.empty((len(curves), kept, len(shift)))
    for some in np.array_split(curves, min(len(curves), -(-len(curves) * len(tried) * rows.shape[1] // BATCH_VALUES))):
        which = np.repeat(some, len(tried))
        part, theta = problem.at(which), np.tile(tried, (len(some), 1))
        if law.linear:
            levels = np.outer(part.level, shift)
            low, high = (limit + levels for limit in bounds)
            medians = np.nanmedian(np.where(rows[some], panel.target[some], np.nan), axis=1)
            theta = solve_linear(law, part.inputs, theta + levels, panel.target[which], part.weights,
                                 np.repeat(medians, len(tried))[:, None], (low, high)) - levels  # fmt: skip
        missed = np.abs(link(law.link, part.value(theta)) - part.linked)
        missed = np.where(rows[which], part.weights * missed, 0.0).sum(1)
        missed = np.where(np.isfinite(missed), missed, np.inf).reshape(len(some), -1)
        best = np.argsort(missed, axis=1, kind="stable")[:, :kept]
        chosen[some] = np.take_along_axis(theta.reshape(len(some), len(tried), -1), best[..., None], 1)
    stacked = chosen.reshape(-1, len(shift))
    many = problem.at(np.repeat(curves, kept))
    noise = np.full(len(stacked), STARTED)
    weak = np.broadcast_to(precision, (len(stacked), *precision.shape))
    ends, objective = descend(many, stacked, noise, mean, weak, bounds, 40)
    ends, objective = ends.reshape(chosen.shape), objective.reshape(len(curves), kept)
    at_best = (objective <= objective.min(1, keepdims=True) * 1.001 + 1e-6).sum(1)
    return ends[curves, objective.argmin(1)], kept, at_best
