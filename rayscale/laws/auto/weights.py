"""Which laws to trust: every suited law foretells the largest scales within the data, and is weighed by how well.

Rolling hold-out: the largest sizes are left out, one cut after another, each law is fitted to the rest and foretells
them. One cut judges one table of one length; several, and all curves together, judge the law. Where there are too few
sizes for a cut, laws are weighed by how they fit, with a penalty for every parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rayscale.errors import InputError
from rayscale.laws.auto.panel import POPULATION, Panel, fit_panel, predict
from rayscale.laws.fitting.coordinates import Coordinates
from rayscale.laws.law import Array, Law, find_registered
from rayscale.system.registry import entries

CUTS = 4  # cuts of each axis, at most
FIRST_CUT = 2 / 3  # share of the sizes below the first cut: with far fewer, another law does well than with all
BINS = 4  # kinds of reach told apart at each cut
SHARPNESS = 2.0  # weights go with the mean squared error to the power of minus this, for many curves
ODD = 5.0  # misses beyond this many robust deviations of all misses of their trial count as this
TRIMMED = 0.1  # share of the curves, rounded up from three curves on, whose drift counts as that of the next largest
TREND = 1.96  # normal quantile from which on a trend is told from luck: a two-sided test at 5%
NEGLIGIBLE = 0.01  # shares below this are set to zero


@dataclass(frozen=True, eq=False)
class HeldOutCut:
    """One cut: `kept` and `asked` rows of the panel, (curves, rows); `asked` counts bins of reach from 0, -1 elsewhere.

    `reach` (curves, rows): the log of how many times a row lies beyond the largest size kept, 0 within.
    `lines`: how many curves of this axis are judged, each combination of the other inputs being one.
    `last` (curves,) is the median log target at the largest size kept: the constant that a law must beat.
    """

    kept: NDArray[np.bool_]
    asked: NDArray[np.int64]
    reach: Array
    lines: int
    last: Array


@dataclass(frozen=True, eq=False)
class Choice:
    """What the hold-out within the data says: `weights` of the laws (law -> share), and how the blend fared there.

    `drift`: the deviation of log target, at one e-fold of reach beyond the data, that the blend missed by there and
    that neither the spread of its laws nor noise explains; it grows with the square of the log reach, as what an
    unknown curvature makes of an extrapolation. `skill` (curves,): its squared error, less what
    noise explains, over that of the last value kept, NaN where a curve was not judged. `cuts`: how many.
    """

    weights: Mapping[str, float]
    drift: float
    skill: Array
    cuts: int


def suited(
    roles: Sequence[str], below_one: bool, trend: Mapping[str, int] | None = None, enough: tuple[int, int] = (0, 0)
) -> list[Law]:
    """The registered laws of exactly these inputs, for a loss, or in log odds where the target is `below_one`.

    A law of one input serves any one size (a power law in N as in D), except that speed over workers and a metric over
    a loss have laws of their own. With three inputs or more, the laws of two or more of them are rivals too.
    `trend` (as `trends` gives it): laws that cannot go that way are left out, unless none is left; what rises below 1
    is a metric, for which only log odds stay below 1. `enough`: how many different sizes of every input, and how many
    configurations, every curve has; laws that need more are left out. Raises InputError where there is no law.
    """
    sole = len(roles) == 1 and not set(roles) & {"gpus", "loss"}
    wanted = {"data"} if sole else set(roles)
    known = [find_registered(entry.name) for entry in entries("rayscale.laws")]
    known = [law for law in known if law.result is None]  # isoflop and auto itself are no curves
    known = [law for law in known if all(need <= count for need, count in zip(law.enough, enough, strict=True))]
    known = [law for law in known if not law.enough[0] or set(law.inputs) == wanted]
    fitting = [law for law in known if set(law.inputs) == wanted or (len(law.inputs) >= 2 and set(law.inputs) < wanted)]
    fitting = [law for law in fitting if law.link != "logit" or below_one]
    usual = [law for law in fitting if law.target == "loss" or law.link == "logit"]
    if not fitting:
        raise InputError(f"no law takes {', '.join(roles)}; name a law or other columns", where="law")
    candidates = usual or fitting
    signs = {"data" if sole else role: sign for role, sign in (trend or {}).items() if sign}
    able = [
        law
        for law in candidates
        if all(role not in law.inputs or sign in _ways(law, role) for role, sign in signs.items())
    ]
    bounded = [law for law in able if law.link == "logit"] if 1 in signs.values() and below_one else []
    return bounded or able or candidates


def trends(curves: Sequence[tuple[Mapping[str, Array], Array]]) -> dict[str, int]:
    """Role -> 1 where the target rises with this size, -1 where it falls, 0 where that cannot be told.

    Mann and Kendall's test of rank correlation along every line (one curve, the other sizes equal), the lines together.
    `curves`: (inputs role -> (n,), target (n,)) of each.
    """
    return {role: _trend(curves, role) for role in (curves[0][0] if curves else ())}


def _trend(curves: Sequence[tuple[Mapping[str, Array], Array]], role: str) -> int:
    score = variance = 0.0
    for inputs, target in curves:
        others = [values for other, values in inputs.items() if other != role]
        stacked = np.stack([*others, np.zeros(len(target))], axis=1)
        _, line = np.unique(stacked, axis=0, return_inverse=True)
        for each in np.unique(line):
            rows = line.ravel() == each
            sizes, which = np.unique(inputs[role][rows], return_inverse=True)
            if (n := len(sizes)) < 2:
                continue
            means = np.bincount(which.ravel(), target[rows]) / np.bincount(which.ravel())  # seeds are one point
            tau = float(stats.kendalltau(sizes, means).statistic)
            score += np.nan_to_num(tau) * n * (n - 1) / 2
            variance += n * (n - 1) * (2 * n + 5) / 18
    return int(np.sign(score)) if abs(score) > TREND * variance**0.5 else 0


@cache
def _ways(law: Law, role: str) -> frozenset[int]:
    """Whether the law can rise (1) and fall (-1) with a size, by trying parameters from all over its bounds."""
    low, high = Coordinates(law, {}, 0.0).bounds()
    tried = low + (high - low) * np.random.default_rng(0).random((200, len(low)))
    parameters = {
        each.name: (column if each.kind == "exponent" else np.exp(column))[:, None]
        for each, column in zip(law.parameters, tried.T, strict=True)
    }
    sizes = np.exp(np.linspace(0.0, 3.0, 7))
    inputs = {each: sizes if each == role else np.ones(7) for each in law.inputs}
    with np.errstate(all="ignore"):
        values = np.asarray(law.fitted(inputs, parameters)) * np.ones((len(tried), 1))
        steps = np.diff(values, axis=1) / values[:, 1:]
    return frozenset(sign for sign in (1, -1) if (sign * steps > 1e-9).any())


def trials(panel: Panel, roles: Sequence[str]) -> list[HeldOutCut]:
    """The cuts of every axis: after each one's kept sizes, all larger ones are asked for."""
    return [cut for role in roles for cut in _cuts(panel, role, [other for other in roles if other != role])]


def _cuts(panel: Panel, role: str, others: Sequence[str]) -> list[HeldOutCut]:
    known, sizes = panel.weights > 0, panel.inputs[role]
    curves = np.broadcast_to(np.arange(len(sizes))[:, None], sizes.shape)
    line = np.stack([curves, *[panel.inputs[other] for other in others]], axis=-1)
    distinct = [np.unique(row[rows]) for row, rows in zip(sizes, known, strict=True)]
    # Every curve by its own sizes: the same share of them is kept, whatever their number.
    kept = [_kept_counts(len(values)) for values in distinct]
    cuts = []
    for cut in range(max(map(len, kept), default=0)):
        keep, ask, last = known.copy(), np.full(known.shape, -1), np.full(len(sizes), np.nan)
        beyond = np.zeros(known.shape)
        for curve, (values, counts) in enumerate(zip(distinct, kept, strict=True)):
            if cut >= len(counts):
                continue
            later = known[curve] & (sizes[curve] > values[counts[cut] - 1])
            rank = np.searchsorted(values[counts[cut] :], sizes[curve][later])
            ask[curve, later] = rank * BINS // max(BINS, len(values) - counts[cut])
            keep[curve] &= ~later
            beyond[curve, later] = np.log(sizes[curve][later] / values[counts[cut] - 1])
            at_last = keep[curve] & (sizes[curve] == values[counts[cut] - 1])
            last[curve] = np.median(np.log(panel.target[curve][at_last]))
        cuts.append(HeldOutCut(keep, ask, beyond, len(np.unique(line[ask >= 0], axis=0)), last))
    return cuts


def _kept_counts(sizes: int) -> list[int]:
    """How many of a curve's sizes each cut keeps; none with three sizes or fewer, where too little would be left."""
    first = max(3, int(FIRST_CUT * sizes))
    return sorted(set(np.linspace(first, sizes - 1, CUTS).round().astype(int).tolist())) if sizes > first else []


def choose(panel: Panel, laws: Sequence[Law], roles: Sequence[str], noise: Array) -> Choice:
    """Weigh the laws; `noise` (curves,) is the deviation of a row's log target, below which errors mean nothing."""
    asked = trials(panel, roles)
    if not asked:
        shares = dict(zip((law.name for law in laws), _by_fit(panel, laws, noise).tolist(), strict=True))
        return Choice(shares, 0.0, np.full(len(panel.level), np.nan), 0)
    logs = np.log(panel.target)
    errors, spreads = [], []  # per trial: (laws, curves, rows)
    for trial in asked:
        part = panel.keep(laws[0], trial.kept)
        foretold = [predict(part, fit_panel(part, law)) for law in laws]
        missed = np.array([mean for mean, _ in foretold]) - logs
        missed = np.where(np.isfinite(missed), np.clip(missed, -100, 100), 100.0)
        errors.append(_winsorised(missed, trial.asked >= 0, noise))
        spreads.append(np.minimum(np.nan_to_num(np.array([each for _, each in foretold]), nan=1e4), 1e4))
    weights = _weigh(asked, errors, noise, panel.weights)
    drift, skill = _judge(asked, errors, spreads, weights, noise, logs, panel.weights)
    return Choice(dict(zip((law.name for law in laws), weights.tolist(), strict=True)), drift, skill, len(asked))


def _winsorised(missed: Array, rows: NDArray[np.bool_], noise: Array) -> Array:
    """The misses (laws, curves, rows), each law's odd ones, for `rows` that are asked for, drawn in to the limit."""
    typical = 1.4826 * np.median(np.abs(missed[:, rows]), axis=1)
    limit = ODD * np.maximum(typical[:, None], noise)[..., None]
    return np.asarray(np.clip(missed, -limit, limit))


def _weigh(asked: Sequence[HeldOutCut], errors: Sequence[Array], noise: Array, worth: Array) -> Array:
    """The laws' shares, (laws,): inverse powers of their mean squared errors, each row counting as it is `worth`.

    The mean over kinds of reach is that of the logarithms, so that the farthest, with the largest errors, does not
    decide alone. The measurements' own noise is added: to be nearer than that is luck. With few curves (lines of an
    axis) there are few independent errors, and the weights stay nearer to equal.
    """
    cells = []
    for trial, missed in zip(asked, errors, strict=True):
        for kind in range(BINS):
            rows = (trial.asked == kind) * worth
            count = rows.sum(1)
            if not (judged := count > 0).any():
                continue
            squares = (missed**2 * rows).sum(2)[:, judged] / count[judged]
            cells.append(np.log((squares + noise[judged] ** 2).mean(1)))
    lines = max(trial.lines for trial in asked)
    score = np.mean(cells, axis=0)
    return _shares(-SHARPNESS * lines / (lines + 1) * score)


def _shares(logs: Array) -> Array:
    """Shares, (laws,), in proportion to the exponentials, without the negligible."""
    shares = np.exp(logs - logs.max())
    shares = np.where(shares < NEGLIGIBLE * shares.sum(), 0.0, shares)
    return np.asarray(shares / shares.sum())


def _by_fit(panel: Panel, laws: Sequence[Law], noise: Array) -> Array:
    """The laws' shares, (laws,), by how they fit all rows, with Schwarz's penalty for every parameter.

    A configuration is one point, however many seeds it has. A curve of a population has as many parameters as its own
    rows decide, the trace of its hat matrix; the population has those of the law once more.
    """
    sizes = np.stack([np.log(np.maximum(values, 1e-300)) for values in panel.inputs.values()], axis=-1)
    known = panel.weights > 0
    points = np.array([len(np.unique(each[rows], axis=0)) for each, rows in zip(sizes, known, strict=True)])
    rows, scores = panel.weights.sum(1), []
    for law in laws:
        fit = fit_panel(panel, law)
        mean, variance = predict(panel, fit)
        missed = np.clip(np.nan_to_num(mean - np.log(panel.target), nan=100.0), -100, 100)
        squares = (panel.weights * missed**2).sum(1) / rows + noise**2
        most = float(len(law.names) * len(points))
        spent = np.nan_to_num((panel.weights * variance).sum(1) / np.maximum(fit.noise, 1e-12) ** 2, nan=most)
        count = min(float(spent.sum()), most) + len(law.names) if len(points) >= POPULATION else most
        scores.append(float((points * np.log(squares)).sum() + count * np.log(points.sum())) / 2)
    return _shares(-np.array(scores))


def _judge(
    asked: Sequence[HeldOutCut],
    errors: Sequence[Array],
    spreads: Sequence[Array],
    weights: Array,
    noise: Array,
    logs: Array,
    worth: Array,
) -> tuple[float, Array]:
    """The blend's drift, and its squared error over that of the last value kept, (curves,), NaN where not judged."""
    count, squares, constant = (np.zeros(len(logs)) for _ in range(3))
    excess, lever = np.zeros(len(logs)), np.zeros(len(logs))
    share = weights[:, None, None]
    for trial, missed, spread in zip(asked, errors, spreads, strict=True):
        asked_for = trial.asked >= 0
        rows = asked_for * worth
        blend = (share * missed).sum(0)
        explained = (share * (spread + (missed - blend) ** 2)).sum(0) + noise[:, None] ** 2
        excess += (rows * (blend**2 - explained)).sum(1)
        lever += (rows * trial.reach**4).sum(1)
        count += rows.sum(1)
        squares += (rows * blend**2).sum(1)
        from_last = (logs - np.nan_to_num(trial.last)[:, None])[None]
        constant += (rows * _winsorised(from_last, asked_for, noise)[0] ** 2).sum(1)
    judged = count > 0
    ratio = np.maximum(excess[judged], 0.0) / np.maximum(lever[judged], 1e-12)
    # Divided by one more than the curves: a lone curve's excess is mostly its luck.
    odd = int(np.ceil(TRIMMED * len(ratio))) if len(ratio) >= POPULATION else 0
    ratio = np.minimum(ratio, np.sort(ratio)[-1 - odd]) if len(ratio) else ratio
    drift = float(np.sqrt(ratio.sum() / (judged.sum() + 1)))
    # Within twice the noise nothing can be told; a curve so flat that the constant misses by no more is not judged.
    luck = 4 * noise**2 * count
    decided = judged & (constant > luck)
    skill = np.where(decided, np.maximum(squares - luck, 0.0) / np.where(decided, constant, 1.0), np.nan)
    return drift, skill
