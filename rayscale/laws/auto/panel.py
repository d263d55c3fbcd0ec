"""One law fitted to many curves at once, each borrowing from the others what its own points do not say.

Every curve has its own parameters, drawn from a population whose mean and covariance are estimated from all curves
(empirical Bayes, by expectation-maximisation with a normal approximation of each curve's posterior). A curve with many
points keeps its own parameters, one with few is drawn towards its kind. The population is a Student t: an odd curve
neither drags the others along nor is dragged far. Fewer than three curves make no population; a weak prior stands in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayscale.laws.fitting.coordinates import Coordinates, link, scaled
from rayscale.laws.fitting.starts import grid
from rayscale.laws.law import Array, Law

NEAR = 1.5  # residuals beyond 1.5 deviations count linearly: 96% efficient under normal noise
EVEN = 0.7784  # mean of min(z^2, NEAR^2) of a standard normal z: with it a capped scatter is that of the normal part
POPULATION = 3  # curves from which on there is a population to speak of
TAIL = 4.0  # degrees of freedom of the population's t
PSEUDO = 1.0  # curves that the weak prior is worth as the population's covariance
NOISE_PSEUDO = 4.0  # rows of the typical noise that each curve's own noise estimate is blended with
WEAK = (2.0, 1.0)  # deviations of the weak prior, of logarithms and of exponents: about what one row says
STARTED = 0.01  # the noise, on the scale of residuals, from which the estimates of it begin
FLOOR = 1e-6  # noise below a millionth is rounding
KEPT_STARTS = 4  # starts of each curve that are polished


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
    def of(cls, law: Law, curves: list[tuple[Mapping[str, Array], Array, Array]]) -> Panel:
        """From (inputs role -> (n,), target (n,), weights (n,)) of each curve; `law` says which inputs are unscaled."""
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


@dataclass(frozen=True, eq=False)
class _Problem:
    """The rows a batch of curves is fitted to; parameters relative to each curve's level."""

    law: Law
    inputs: Mapping[str, Array]  # scaled, (batch, rows)
    linked: Array
    weights: Array
    level: Array
    whiten: Array | None = None  # (rows, rows): from residuals that are correlated to independent ones of deviation 1

    def whitened(self, values: Array) -> Array:
        """Residuals (batch, rows), or their derivatives (batch, rows, p), made independent."""
        if self.whiten is None:
            return values
        return np.asarray(self.whiten @ values if values.ndim == 3 else values @ self.whiten.T)

    @classmethod
    def of(cls, panel: Panel, law: Law) -> _Problem:
        inputs = scaled(law, panel.inputs, panel.centre)
        return cls(law, inputs, np.asarray(link(law.link, panel.target)), panel.weights, panel.level)

    def at(self, rows: Any) -> _Problem:
        inputs = {role: values[rows] for role, values in self.inputs.items()}
        linked, weights, level = self.linked[rows], self.weights[rows], self.level[rows]
        return replace(self, inputs=inputs, linked=linked, weights=weights, level=level)

    def value(self, theta: NDArray[Any]) -> NDArray[Any]:
        parameters: dict[str, Any] = {}
        for j, parameter in enumerate(self.law.parameters):
            column = theta[:, j] + (self.level if parameter.kind == "coefficient" else 0.0)
            parameters[parameter.name] = (column if parameter.kind == "exponent" else np.exp(column))[:, None]
        return np.asarray(self.law.fitted(self.inputs, parameters)) * np.ones(self.linked.shape)

    def jacobian(self, theta: Array) -> tuple[Array, Array]:
        """The law on the scale of residuals, (batch, rows), and its derivative, (batch, rows, p), by a complex step."""
        value = self.value(theta)
        slope = 1 / (value * (1 - value)) if self.law.link == "logit" else 1 / value
        derivative = np.empty((*value.shape, theta.shape[1]))
        for j in range(theta.shape[1]):
            shifted = theta.astype(complex)
            shifted[:, j] += 1e-20j
            derivative[..., j] = self.value(shifted).imag * 1e20 * slope
        return np.asarray(link(self.law.link, value)), derivative


def fit_panel(panel: Panel, law: Law, rounds: int = 30) -> PanelFit:
    """Fit the law to every curve of the panel, with the population of the curves where there is one."""
    problem = _Problem.of(panel, law)
    logs = np.array([parameter.kind != "exponent" for parameter in law.parameters])
    neutral = Coordinates(law, {}, 0.0)
    bounds = neutral.bounds()
    middle = np.array([np.mean([neutral.place(p, value) for value in p.starts]) for p in law.parameters])
    curves, p = len(panel.level), len(law.parameters)
    weak = np.diag(np.where(logs, *WEAK) ** 2)
    mean, spread = middle, weak
    with np.errstate(all="ignore"):  # a far step may overflow; it is then not taken
        theta, starts, at_best = _started(panel, problem, bounds, mean, np.linalg.inv(spread))
        noise, odd = np.full(curves, STARTED), np.ones(curves)
        shared = curves >= POPULATION
        if shared:
            mean = np.median(theta, axis=0)  # and the weak spread: from a narrow one the population would never widen
        for _ in range(rounds):
            before = theta.copy()
            precision = np.linalg.inv(spread)
            theta, _ = _descend(problem, theta, noise, mean, odd[:, None, None] * precision, bounds, 10)
            fitted, derivative = problem.jacobian(theta)
            missed = fitted - problem.linked
            outer = problem.weights * NEAR / np.maximum(np.abs(missed) / noise[:, None], NEAR)
            curvature = np.swapaxes(derivative * outer[..., None], 1, 2) @ derivative / noise[:, None, None] ** 2
            posterior = np.linalg.inv(curvature + odd[:, None, None] * precision + 1e-9 * np.eye(p))
            unsure = np.einsum("gnp,gpq,gnq->gn", derivative, posterior, derivative)
            # What the residuals are too small by, because the law was fitted to them, is what the fit is unsure of.
            # Capped (Huber's proposal 2): one row in ten that is wrong by any factor makes the noise no third larger.
            capped = np.minimum(missed**2, (NEAR * noise[:, None]) ** 2) / EVEN
            squares = (problem.weights * capped + outer * unsure).sum(1)
            rows = np.maximum(problem.weights.sum(1), 1e-300)
            typical = float(np.median(squares / rows))
            noise = np.sqrt(np.maximum((squares + NOISE_PSEUDO * typical) / (rows + NOISE_PSEUDO), FLOOR**2))
            if shared:
                off = theta - mean
                far = np.einsum("gp,pq,gq->g", off, precision, off) + np.einsum("pq,gqp->g", precision, posterior)
                odd = (TAIL + p) / (TAIL + far)
                mean = (odd[:, None] * theta).sum(0) / odd.sum()
                off = theta - mean
                total = np.einsum("g,gp,gq->pq", odd, off, off) + np.einsum("g,gpq->pq", odd, posterior)
                spread = (total + PSEUDO * weak) / (curves + PSEUDO)
            if np.max(np.abs(theta - before)) < 1e-3:
                break
    theta = theta + np.outer(panel.level, is_coefficient(law))
    return PanelFit(law, panel.centre, theta, posterior, noise, mean, spread / odd[:, None, None], starts, at_best)


def draw(panel: Panel, fit: PanelFit, curve: int, count: int, rng: np.random.Generator) -> Array:
    """Parameters as likely as the fitted ones, (count, p), in the curve's coordinates.

    Each draw is the fit to the rows and the prior mean, both disturbed as they are unsure (randomise, then optimise;
    Bardsley et al. 2014): unlike a normal approximation it stays on a curved ridge, where the rows still fit.
    """
    law, rows = fit.law, np.flatnonzero(panel.weights[curve] > 0)
    whole = _Problem.of(panel, law).at(np.full(count, curve))
    part = _Problem(law, {role: values[:, rows] for role, values in whole.inputs.items()}, whole.linked[:, rows],
                    whole.weights[:, rows], whole.level)  # fmt: skip
    # A row of weight w stands for w rows: its mean is unsure by noise / sqrt(w).
    disturbed = part.linked + rng.normal(0, 1, part.linked.shape) * fit.noise[curve] / np.sqrt(part.weights)
    root = np.linalg.cholesky(fit.prior[curve])
    means = fit.mean + rng.normal(0, 1, (count, len(fit.mean))) @ root.T
    precision = np.broadcast_to(np.linalg.inv(fit.prior[curve]), (count, *root.shape))
    shift = panel.level[curve] * is_coefficient(law)
    start = np.broadcast_to(fit.theta[curve] - shift, means.shape)
    with np.errstate(all="ignore"):
        ends, _ = _descend(replace(part, linked=disturbed), start, np.full(count, fit.noise[curve]), means, precision,
                           Coordinates(law, {}, 0.0).bounds(), 12)  # fmt: skip
    return ends + shift


def draw_correlated(
    panel: Panel, fit: PanelFit, curve: int, inputs: Mapping[str, Array], target: Array, scale: str, covariance: Array,
    count: int, rng: np.random.Generator,
) -> tuple[Array, Array]:  # fmt: skip
    """The parameters (p,) of a lone curve and draws of them (count, p), from targets whose errors are correlated.

    `inputs` role -> (n,), `target` (n,) on the `scale` log or logit, `covariance` (n, n) of what the law leaves of it.
    """
    law, root = replace(fit.law, link=scale), np.linalg.cholesky(covariance)
    rows = count + 1  # the first is not disturbed
    tiled = {role: np.tile(values, (rows, 1)) for role, values in scaled(law, inputs, fit.centre).items()}
    errors = rng.normal(0, 1, (rows, len(target))) @ root.T
    means = fit.mean + rng.normal(0, 1, (rows, len(fit.mean))) @ np.linalg.cholesky(fit.prior[curve]).T
    errors[0], means[0] = 0.0, fit.mean
    problem = _Problem(law, tiled, target + errors, np.ones(errors.shape), np.full(rows, panel.level[curve]),
                       np.linalg.inv(root))  # fmt: skip
    shift = panel.level[curve] * is_coefficient(law)
    precision = np.broadcast_to(np.linalg.inv(fit.prior[curve]), (rows, *fit.prior[curve].shape))
    start = np.broadcast_to(fit.theta[curve] - shift, means.shape)
    with np.errstate(all="ignore"):
        ends, _ = _descend(problem, start, np.ones(rows), means, precision, Coordinates(law, {}, 0.0).bounds(), 15)
    return ends[0] + shift, ends[1:] + shift


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
    problem = _Problem(law, inputs, np.zeros(panel.target.shape), panel.weights, zeros)
    with np.errstate(all="ignore"):
        value = problem.value(fit.theta)
        _, derivative = problem.jacobian(fit.theta)
        if law.link == "logit":
            derivative = derivative * (1 - value)[..., None]
        variance = np.einsum("gnp,gpq,gnq->gn", derivative, fit.covariance, derivative)
    return np.log(value), variance


def _started(
    panel: Panel, problem: _Problem, bounds: tuple[Array, Array], mean: Array, precision: Array
) -> tuple[Array, int, NDArray[np.int64]]:
    """The best end of each curve's best few starts, on its own, under the weak prior; how many starts were polished,
    and how many of these end there."""
    best = []
    for curve in range(len(panel.level)):
        rows = np.flatnonzero(panel.weights[curve] > 0)
        coordinates = panel.coordinates(problem.law, curve)
        inputs = {role: panel.inputs[role][curve, rows] for role in problem.law.inputs}
        starts = grid(coordinates, inputs, panel.target[curve, rows])
        missed = np.abs(coordinates.linked(starts, inputs) - problem.linked[curve, rows]).sum(1)
        missed = np.where(np.isfinite(missed), missed, np.inf)
        best.append(starts[np.argsort(missed, kind="stable")[:KEPT_STARTS]])
    kept = len(best[0])
    stacked = np.concatenate(best) - np.outer(np.repeat(panel.level, kept), is_coefficient(problem.law))
    many = problem.at(np.repeat(np.arange(len(panel.level)), kept))
    noise = np.full(len(stacked), STARTED)
    weak = np.broadcast_to(precision, (len(stacked), *precision.shape))
    ends, objective = _descend(many, stacked, noise, mean, weak, bounds, 40)
    ends, objective = ends.reshape(len(best), kept, -1), objective.reshape(len(best), kept)
    at_best = (objective <= objective.min(1, keepdims=True) * 1.001 + 1e-6).sum(1)
    return ends[np.arange(len(best)), objective.argmin(1)], kept, at_best


def _descend(
    problem: _Problem,
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
    mean = np.broadcast_to(mean, theta.shape)

    def objective(part: _Problem, theta: Array, rows: Any) -> Array:
        size = np.abs(part.whitened(link(part.law.link, part.value(theta)) - part.linked)) / noise[rows, None]
        loss = np.where(size <= NEAR, size**2 / 2, NEAR * (size - NEAR / 2))
        off = theta - mean[rows]
        total = (part.weights * loss).sum(1) + np.einsum("gp,gpq,gq->g", off, precision[rows], off) / 2
        return np.asarray(np.where(np.isfinite(total), total, np.inf))

    everything = np.arange(len(theta))
    best = objective(problem, theta, everything)
    damping, idle = np.full(len(theta), 0.1), np.zeros(len(theta), dtype=int)
    active = everything[np.isfinite(best)]
    for _ in range(steps):
        if not len(active):
            break
        part, here = problem.at(active), theta[active]
        fitted, derivative = part.jacobian(here)
        missed = part.whitened(fitted - part.linked) / noise[active, None]
        derivative = part.whitened(derivative) / noise[active, None, None]
        outer = part.weights * NEAR / np.maximum(np.abs(missed), NEAR)
        slope = np.einsum("gnp,gn->gp", derivative, outer * missed)
        slope += np.einsum("gpq,gq->gp", precision[active], here - mean[active])
        matrix = np.swapaxes(derivative * outer[..., None], 1, 2) @ derivative + precision[active]
        free = ~(((here <= low) & (slope > 0)) | ((here >= high) & (slope < 0)))
        matrix = matrix * free[:, :, None] * free[:, None, :]
        scale = np.einsum("gpp->gp", matrix)
        ridge = damping[active, None] * scale + 1e-10 * scale.max(1, keepdims=True) + 1e-300 + ~free
        matrix[:, np.arange(theta.shape[1]), np.arange(theta.shape[1])] += ridge
        usable = np.isfinite(matrix).all((1, 2)) & np.isfinite(slope).all(1)
        matrix[~usable] = np.eye(theta.shape[1])
        step = np.linalg.solve(matrix, (np.where(usable[:, None], slope, 0.0) * free)[..., None])[..., 0]
        moved = np.clip(here - np.clip(step, -2, 2), low, high)
        tried = objective(part, moved, active)
        better = tried < best[active]
        gain = np.where(better, best[active] - tried, 0.0)
        idle[active] = np.where(gain <= 1e-6 * best[active] + 1e-9, idle[active] + 1, 0)
        theta[active] = np.where(better[:, None], moved, here)
        best[active] = np.where(better, tried, best[active])
        damping[active] = np.clip(damping[active] * np.where(better, 0.2, 5.0), 1e-9, 1e6)
        active = active[idle[active] < 3]
    return theta, best
