"""The probability of reaching a target, once the cheapest of many candidates has been chosen.

The cheapest candidate that seems to reach the target is one of those whose estimate erred on the good side, so that it
reaches the target less often than its own estimate says (the winner's curse). How much less is found by doing the whole
choice again: every draw of the laws is taken for the truth in turn, the estimate made from it errs as the laws' draws
scatter, the cheapest candidate that seems sure enough is chosen, and checked against the draw that was the truth.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from rayscale.laws.law import Array

_ASKED = np.linspace(0.02, 0.995, 50)  # probabilities at which the choice is repeated
_STEPS = np.linspace(-4.0, 4.0, 33)  # deviations of a new run at which probabilities are tabled
_FEWEST = 0.1  # share of the choices that must find a candidate
_DRAWS = 300  # that stand for all: their mean probability is off by two points at most


def chances(ahead: Array, noise: Array) -> Array:
    """The probability that a new run of each candidate reaches the target, (candidates,), before any choice.

    `ahead` (draws, candidates): by how much the mean is better than the target; `noise` (candidates,): the deviation of
    a new run, on the same scale.
    """
    return np.asarray(stats.norm.cdf(ahead / noise).mean(axis=0))


def optimism(ahead: Array, noise: Array, cost: Array, seed: int = 0) -> tuple[Array, Array]:
    """Probabilities as `chances` states them, and those with which the candidate chosen by them reaches the target.

    Both ascend; between them the one is the other's calibration. Columns of `ahead` are the candidates to choose from,
    the cheapest by `cost` (candidates,) first.
    """
    order, rng = np.argsort(cost, kind="stable"), np.random.default_rng(seed)
    ahead, noise = ahead[rng.permutation(len(ahead))[:_DRAWS]][:, order], noise[order]
    middle, scatter = ahead.mean(axis=0), np.hypot(ahead.std(axis=0), noise)
    error = ahead[rng.permutation(len(ahead))] - middle
    # The estimate is as wide as it was, about another middle: its probabilities are those of targets moved against it.
    table = np.stack([chances(ahead + step * scatter - middle, noise) for step in _STEPS])
    places = (ahead + error) / scatter
    places = (np.clip(places, _STEPS[0], _STEPS[-1]) - _STEPS[0]) / (_STEPS[1] - _STEPS[0])
    below = np.minimum(places.astype(int), len(_STEPS) - 2)
    part, columns = places - below, np.arange(len(noise))
    seeming = table[below, columns] * (1 - part) + table[below + 1, columns] * part
    real = stats.norm.cdf(ahead / noise)
    stated, realised = [0.0], [0.0]
    for asked in _ASKED:
        sure = seeming >= asked
        rows = np.flatnonzero(sure.any(axis=1))
        if len(rows) < _FEWEST * len(ahead):
            break
        chosen = sure[rows].argmax(axis=1)
        stated.append(asked)
        realised.append(asked - float(np.mean(seeming[rows, chosen] - real[rows, chosen])))
    # What was seldom chosen is corrected as the surest that was; never above what was stated.
    shortfall = max(stated[-1] - realised[-1], 0.0)
    stated, realised = [*stated, 1.0 + 1e-9], [*realised, 1.0 - shortfall]
    return np.array(stated), np.maximum.accumulate(np.clip(realised, 0.0, 1.0))
