"""What the reader of a fit must know: its outcome, its warnings, and which parameters are no number to quote."""

from __future__ import annotations

import numpy as np
from scipy import stats
from scipy.spatial import KDTree

from rayscale.laws.fitting.bootstrap import is_many
from rayscale.laws.fitting.coordinates import Coordinates
from rayscale.laws.fitting.huber import DELTA, huber, minimise
from rayscale.laws.fitting.observations import Observations
from rayscale.laws.fitting.outcome import Outcome
from rayscale.laws.fitting.result import Estimate
from rayscale.laws.law import Array, Parameter

SEVERAL = 3.0  # a parameter that could be this many times as large or small is no number to quote
FEW_DRAWS = 40  # of fewer resamples, none is expected beyond either end of a 95% interval
FEWEST_WAVES = 10  # configurations from which on a wave of residuals can be told from luck
PERMUTATIONS = 300
ONE_SIDED = 1.645  # the normal quantile of a one-sided 5% test


def diagnose(
    estimate: Estimate, observations: Observations, linked: Array, tied: Array, pairs: Array, misfits: bool
) -> tuple[Outcome, list[dict[str, str]]]:
    """The outcome of a fit that settled, and its warnings (code, message).

    `linked` (n,): the target on the law's scale of residuals; `tied` (any, p): the solutions as good as the best;
    `pairs` (2, p): the 95% intervals of the parameters.
    """
    law, theta, groups = estimate.coordinates.law, estimate.theta, observations.configurations
    low, high = estimate.coordinates.bounds()
    m, n = int(groups.max()) + 1, len(observations.target)
    bound = [law.names[j] for j in np.flatnonzero((theta <= low + 1e-9) | (theta >= high - 1e-9))]
    pure = [j for j, parameter in enumerate(law.parameters) if parameter.kind != "coefficient"]
    several = np.where(estimate.coordinates.is_log, np.log(1.1), 0.1 * np.abs(theta))
    is_wide = _is_unsure if law.frame else _is_wide
    loose = [j for j in pure if np.ptp(tied[:, j]) > several[j] or is_wide(law.parameters[j], pairs[:, j])]
    if is_many(groups, len(theta)):
        loose += [j for j in _ridges(estimate.coordinates, observations, linked, theta, pure) if j not in loose]
    limits, them = ("their search limits", "them") if len(bound) > 1 else ("its search limit", "it")
    names = ", ".join(law.names[j] for j in sorted(loose))
    are, it = ("are", "them") if len(loose) > 1 else ("is", "it")
    waves = _misses_alike(observations, estimate.coordinates.linked(theta, observations.inputs) - linked)
    few = [observations.columns[role] for role, values in observations.inputs.items() if len(np.unique(values)) == 2]
    candidates = (
        (few, "few_sizes", f"two values of {', '.join(few)}: three or more distinguish a power law from other curves"),
        (m < 2 * len(theta), "few_points", f"{m} configurations for {len(theta)} parameters, so intervals are wide"),
        (bound, "at_bound", f"{', '.join(bound)} reached {limits}: the data do not determine {them}"),
        (loose, "flat_ridge", f"{names} {are} uncertain by a factor of several; do not quote {it}"),
        (misfits, "misspecified", "deviations from the law exceed seed noise; the intervals include them"),
        (
            not misfits and waves,
            "misspecified",
            "residuals of neighbouring sizes are correlated: the true curve has another shape",
        ),
        (n == m, "no_replicates", "no configuration has two seeds: run-to-run noise is estimated from the residuals"),
    )
    outcome = Outcome.AT_BOUND if bound else Outcome.FLAT if loose else Outcome.CONVERGED
    return outcome, [{"code": code, "message": message} for true, code, message in candidates if true]


def _misses_alike(observations: Observations, residual: Array) -> bool:
    """Whether configurations miss the law as their neighbours do, more than chance explains and more than by half.

    A rank form of von Neumann's ratio (Bartels 1982) over the nearest sizes, tested by permutation: noise has none of
    it, a law of another shape leaves waves. Half: the law's own error is then as large as the noise.
    """
    groups = observations.configurations
    count = int(groups.max()) + 1
    if count < FEWEST_WAVES:
        return False
    means = np.bincount(groups, observations.weights * residual) / np.bincount(groups, observations.weights)
    first = np.unique(groups, return_index=True)[1]
    # By their place among the sizes, so that every step of an axis is as long.
    places = np.stack(
        [np.unique(values, return_inverse=True)[1][first] for values in observations.inputs.values()], axis=1
    )
    near = 2 * places.shape[1]  # the one before and the one after on every axis
    others = KDTree(places).query(places, k=near + 1)[1][:, 1:]
    ranks = stats.rankdata(means)
    rng = np.random.default_rng(0)
    shuffled = np.array([ranks, *(rng.permutation(ranks) for _ in range(PERMUTATIONS))])
    ratio = ((shuffled[:, :, None] - shuffled[:, others]) ** 2).mean((1, 2)) / (2 * ranks.var())
    return bool(ratio[0] < 0.5 and (ratio[1:] <= ratio[0]).mean() < 0.01)


def few_resamples(count: int) -> list[dict[str, str]]:
    """That `count` resamples are too few for the ends of an interval, where they are."""
    text = f"{count} resamples: a 95% interval needs {FEW_DRAWS} or more, preferably 1000 (--bootstrap)"
    return [{"code": "few_resamples", "message": text}] if count < FEW_DRAWS else []


def _is_wide(parameter: Parameter, pair: Array) -> bool:
    """Whether a 95% interval spans ten times, or half the search where the parameter may be 0 or negative."""
    if parameter.low > 0:
        return bool(pair[1] > 10 * pair[0])
    return bool(pair[1] - pair[0] > (parameter.high - parameter.low) / 2)


def _is_unsure(parameter: Parameter, pair: Array) -> bool:
    """The same of a parameter of a formula that is fitted in others, whose bounds say nothing of it: ten times, or of
    unknown sign. The values of curves in log (of kinds other than "exponent") are numbers near 0, and never so.
    """
    least, most = np.sort(np.abs(pair))
    return parameter.kind == "exponent" and bool(pair[0] * pair[1] <= 0 or most > 10 * least)


def _ridges(
    coordinates: Coordinates, observations: Observations, linked: Array, theta: Array, among: list[int]
) -> list[int]:
    """The parameters that could be SEVERAL times as large, or as small, without telling from the rows.

    A profile: the parameter is held there and the others fitted anew. Whether the best fit then predicts the rows
    better is tested pairwise, configuration by configuration (Vuong 1989): what independent noise of known shape would
    call decided, rows that miss the law in company do not decide.
    """
    low, high = coordinates.bounds()
    held, starts = [], []
    for j in among:
        for factor in (SEVERAL, 1 / SEVERAL):
            value = theta[j] + np.log(factor) if coordinates.is_log[j] else theta[j] * factor
            if low[j] <= value <= high[j] and theta[j] != value:
                held.append(j)
                starts.append(np.where(np.arange(len(theta)) == j, value, theta))
    if not held:
        return []
    worth = observations.weights
    ends, pinned = np.array(starts), np.array(held)[:, None] == np.arange(len(theta))
    for delta in (0.1, 0.01, DELTA):
        ends, _, _ = minimise(coordinates, observations.inputs, ends, linked, worth, delta=delta, pinned=pinned,
                              tolerance=1e-6)  # fmt: skip
    best = huber(coordinates.linked(theta, observations.inputs) - linked)
    worse = worth * (huber(coordinates.linked(ends, observations.inputs) - linked) - best)
    groups = observations.configurations
    by_configuration = np.array([np.bincount(groups, each) for each in worse])
    count = by_configuration.shape[1]
    scatter = by_configuration.std(axis=1) * count**0.5
    undecided = by_configuration.sum(axis=1) < ONE_SIDED * scatter
    return sorted({held[k] for k in np.flatnonzero(undecided)})
