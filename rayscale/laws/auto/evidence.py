"""Which laws to trust on a lone table, with how much noise and discrepancy: each is weighed by its evidence.

The evidence is that of the law linearised at its fit, parameters under their weak prior, the discrepancy a Gaussian
process: normal with covariance J S J' + discrepancy + noise; the scatter within configurations is noise alone. What is
asked for is an extrapolation. So the smaller configurations only train, and the larger ones are what must be likely
given these (a partial Bayes factor, O'Hagan 1995): log p(all) - log p(smaller). A law that fits well within and goes
wrong beyond then weighs little, and how weak the prior is hardly matters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import qmc

from rayscale.laws.auto.discrepancy import Rows, Setting, linearise
from rayscale.laws.auto.panel import Panel, PanelFit, is_coefficient
from rayscale.laws.law import Array

NOISES = np.geomspace(1e-4, 3.0, 36)  # deviations of a run's log target that are weighed
SETTINGS = 128  # sizes of the discrepancy that are weighed: points spread evenly (Sobol) over their levels' weights
FIRST = 16  # settings by which a law is given up that makes the rows less likely than another by UNLIKELY
UNLIKELY = 1e-6
TRAINING = 0.6  # share of the configurations, the smaller ones by the product of their sizes, that only train
FEWEST = 8  # configurations for each axis from which on some only train
ABSURD = 1e12  # a variance of log targets that no table has
VERSIONS = 48  # of law, noise and discrepancy that predictions are drawn from
Levels = tuple[tuple[tuple[float, float], ...], ...]


def weigh(
    panel: Panel, curve: int, members: Sequence[PanelFit], rows: Rows, within: float, degrees: float
) -> tuple[list[tuple[int, Setting, float]], float]:
    """Laws (by their place among the members) with settings and shares, the heaviest first; shares add up to 1.

    And the Bayes factor of a discrepancy against none: how much more likely it makes the rows. `within` and `degrees`:
    the sum of squares within configurations and its degrees of freedom.
    """
    settings, prior = settings_of(rows.levels)
    by_seeds = -degrees * np.log(NOISES) - within / (2 * NOISES**2)
    root, training = np.sqrt(rows.weights), _training(rows.places)
    scores = np.full((len(members), len(settings), len(NOISES)), -np.inf)
    parts = [_left_by(panel, curve, member, rows, root) for member in members]
    smooth = [rows.smooth(sizes) * root[:, None] * root for sizes in settings]

    def score(place: int, tried: range) -> None:
        left, of_law = parts[place]
        for k in tried:
            matrix = of_law + smooth[k]
            if np.isfinite(matrix).all() and np.abs(matrix).max() < ABSURD:
                log = by_seeds + _evidence(matrix, left) + np.log(prior[k])
                if len(training):  # over all deviations of the noise, which all rows tell
                    log -= logsumexp(by_seeds + _evidence(matrix[np.ix_(training, training)], left[training]))
                scores[place, k] = np.nan_to_num(log, nan=-np.inf, posinf=-np.inf, neginf=-np.inf)

    for place in range(len(members)):
        score(place, range(min(FIRST, len(settings))))
    best = scores.max((1, 2), initial=-np.inf)
    for place in np.flatnonzero(best > best.max() + np.log(UNLIKELY)).tolist():
        score(place, range(FIRST, len(settings)))
    if not np.isfinite(scores).any():
        return [], 0.0
    shares = np.exp(scores - scores.max())
    # As many versions as can be drawn from, each as often as its share says (systematic resampling).
    order = np.argsort(-shares, axis=None, kind="stable")
    reached = np.cumsum(shares.ravel()[order])
    picked = np.searchsorted(reached, (np.arange(VERSIONS) + 0.5) / VERSIONS * reached[-1])
    versions, times = np.unique(order[picked], return_counts=True)
    without = float(shares[:, 0].sum() / prior[0])
    factor = float(shares[:, 1:].sum() / prior[1:].sum()) / max(without, 1e-300)
    weighed = [
        (int(member), Setting(float(NOISES[noise]), settings[k]), float(count) / VERSIONS)
        for count, member, k, noise in zip(times, *np.unravel_index(versions, shares.shape), strict=True)
    ]
    return sorted(weighed, key=lambda version: -version[2]), factor


def _training(places: Array) -> NDArray[np.int64]:
    """The configurations that only train; none where there are few."""
    size = places.sum(1)
    few = len(size) < FEWEST * places.shape[1]
    return np.flatnonzero(np.zeros(len(size), dtype=bool) if few else size <= np.quantile(size, TRAINING))


def _left_by(panel: Panel, curve: int, member: PanelFit, rows: Rows, root: Array) -> tuple[Array, Array]:
    """What the middle of a law's prior leaves of the rows, (m,), and the covariance by its parameters, (m, m); both in
    units of a row's weight, `root` (m,)."""
    fitted, slope = linearise(panel, curve, member, rows)
    shift = panel.level[curve] * is_coefficient(member.law)
    left = rows.target - fitted - slope @ (member.mean + shift - member.theta[curve])
    return root * left, root[:, None] * (slope @ member.prior[curve] @ slope.T) * root


def _evidence(matrix: Array, left: Array) -> Array:
    """The log density of `left` (m,), but for a constant, for each noise in addition to the covariance `matrix`."""
    values, vectors = np.linalg.eigh(matrix)
    variance = np.maximum(values, 0.0) + NOISES[:, None] ** 2
    return np.asarray(-((vectors.T @ left) ** 2 / variance + np.log(variance)).sum(1) / 2)


@cache
def settings_of(levels: Levels) -> tuple[list[tuple[float, ...]], Array]:
    """The sizes of the parts of a discrepancy that are weighed and the weight of each; first that of none at all."""
    points = qmc.Sobol(len(levels), scramble=True, rng=0).random(SETTINGS)
    columns = []
    for part, column in zip(levels, points.T, strict=True):
        sizes, weights = np.array(part).T
        columns.append(sizes[np.searchsorted(np.cumsum(weights)[:-1], column, side="right")].tolist())
    counts = Counter(zip(*columns, strict=True))
    nothing = (0.0,) * len(levels)
    counts.pop(nothing, None)
    none = float(np.prod([part[0][1] for part in levels]))
    weights = (1 - none) * np.array(list(counts.values())) / sum(counts.values())
    return [nothing, *counts], np.array([none, *weights])
