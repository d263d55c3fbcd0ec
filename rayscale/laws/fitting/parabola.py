"""A parabola of log loss in log N for every compute budget, fitted robustly, and where its lowest point lies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rayscale.laws.fitting.result import Z95, interval
from rayscale.laws.law import Array

# Rows whose compute differs by up to a tenth are one budget: at the exponents known (0.05 to 0.2) a tenth more compute
# lowers the loss by 0.5 to 2%, and neighbouring budgets of a real design lie a factor of 2 or more apart.
SAME_BUDGET = 1.1
FEWEST_SIZES = 3  # a parabola has three coefficients; its noise is pooled over budgets
TUNING = 4.685  # Tukey's biweight at 95% efficiency: a row beyond this many deviations has no weight
MOST_TRIPLES = 2000


@dataclass(frozen=True)
class ComputeBudget:
    """One compute budget: its FLOP, the model size of least loss with its 95% interval, and how it was found.

    `fault` says why it gives no optimum (then sizes and interval are None).
    """

    compute: float
    rows: int
    sizes: int
    params: float | None = None
    low: float | None = None
    high: float | None = None
    fault: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The budget as a JSON object."""
        return vars(self)


def find_budgets(compute: Array, params: Array, usable: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The number of the budget that each row belongs to, (rows,), -1 for none: the fullest window first."""
    budgets = np.full(len(compute), -1)
    for number in range(len(compute)):
        left = usable & (budgets < 0)
        starts = np.unique(compute[left])
        windows = [left & (compute >= start) & (compute <= start * SAME_BUDGET) for start in starts]
        counts = [len(np.unique(params[window])) for window in windows]
        if not counts or max(counts) < FEWEST_SIZES:
            break
        budgets[windows[int(np.argmax(counts))]] = number
    return budgets


@dataclass(frozen=True)
class Parabola:
    """log loss = c0 + c1 x + c2 x^2 with x = log N - centre: coefficients (3,) and their covariance per unit noise."""

    number: int
    centre: float
    coefficients: Array
    spread: Array


def fit_parabolas(x: Array, y: Array, groups: NDArray[np.int64]) -> tuple[list[Parabola], float, int]:
    """A robust parabola for every budget, the deviation of one run around them (pooled), its degrees of freedom.

    Tukey's biweight from the least trimmed of the parabolas through three rows each: a row wrong by a factor of 100 has
    no weight, even where it is the largest or smallest size, which least absolute residuals would follow.
    """
    designs = []
    for number in range(int(groups.max(initial=-1)) + 1):
        rows = groups == number
        centre = float(x[rows].mean())
        designs.append((centre, np.vander(x[rows] - centre, 3, increasing=True), y[rows]))
    if not designs:
        return [], 0.0, 0
    fits = [_least_trimmed(design, values) for _, design, values in designs]
    for _ in range(30):
        residuals = [values - design @ fit for fit, (_, design, values) in zip(fits, designs, strict=True)]
        size = np.sort(np.abs(np.concatenate(residuals)))[3 * len(fits) :]
        # A parabola passes through as many rows as it has coefficients; their residuals of zero say nothing.
        scale = max(1.4826 * float(np.median(size)) if len(size) else 0.0, 1e-12)
        weights = [np.maximum(1 - (each / (TUNING * scale)) ** 2, 0) ** 2 for each in residuals]
        # A budget keeps enough rows for its parabola, whatever the scale.
        weights = [w if np.sum(w > 0.05) >= 3 else np.ones_like(w) for w in weights]
        fits = [np.linalg.lstsq(np.sqrt(w)[:, None] * design, np.sqrt(w) * values, rcond=None)[0]
                for w, (_, design, values) in zip(weights, designs, strict=True)]  # fmt: skip
    degrees = int(sum(np.sum(w > 0.05) for w in weights)) - 3 * len(fits)
    total = sum(float(np.sum(w * r**2)) for w, r in zip(weights, residuals, strict=True))
    noise = float(np.sqrt(total / max(degrees, 1)))
    parabolas = []
    for number, (fit, w, (centre, design, _)) in enumerate(zip(fits, weights, designs, strict=True)):
        parabolas.append(Parabola(number, centre, fit, np.linalg.pinv((design * w[:, None]).T @ design)))
    return parabolas, noise, degrees


def _least_trimmed(design: Array, values: Array) -> Array:
    """Of the parabolas through three of the rows, the one with the least sum over the better half of the residuals."""
    n, kept = len(values), (len(values) + 4) // 2
    triples = np.array(list(islice(combinations(range(n), 3), MOST_TRIPLES)))
    if n > 3 and len(triples) == MOST_TRIPLES:  # too many to try all: a fixed sample of them
        rng = np.random.default_rng(0)
        triples = np.array([rng.choice(n, 3, replace=False) for _ in range(MOST_TRIPLES)])
    distinct = [len(np.unique(design[each, 1])) == 3 for each in triples]
    triples = triples[distinct]
    through = np.linalg.solve(design[triples], values[triples][..., None])[..., 0]
    missed = np.sort(np.abs(values - through @ design.T), axis=1)[:, :kept].sum(1)
    return np.asarray(through[int(np.argmin(missed))])


def find_optimum(
    parabola: Parabola, compute: Array, params: Array, groups: NDArray[np.int64], noise: float, degrees: int,
    bootstrap: int, rng: np.random.Generator,
) -> tuple[ComputeBudget, Array]:  # fmt: skip
    """The budget with its optimum, and draws of log N* (resamples,)."""
    rows = groups == parabola.number
    sizes = np.unique(params[rows])
    budget = ComputeBudget(float(np.exp(np.log(compute[rows]).mean())), int(rows.sum()), len(sizes))
    least, most = np.log(sizes[0]) - parabola.centre, np.log(sizes[-1]) - parabola.centre
    _, slope, bend = parabola.coefficients
    none = np.full(bootstrap, np.nan)
    if not bend > 0:
        return replace(budget, fault="the loss has no lowest point over the model sizes"), none
    best = -slope / (2 * bend)
    if not least < best < most:
        return replace(budget, fault="the best model size lies outside the sizes that were run"), none
    drawn = parabola.coefficients + rng.normal(size=(bootstrap, 3)) @ (_root(parabola.spread) * noise).T
    with np.errstate(all="ignore"):
        places = -drawn[:, 1] / (2 * drawn[:, 2])
    # A draw without a lowest point puts it at the far end on the side that falls; none is put beyond twice the sizes.
    places = np.where(drawn[:, 2] > 0, places, -np.sign(drawn[:, 1]) * np.inf)
    reach = most - least
    places = np.clip(np.nan_to_num(places, nan=best, posinf=np.inf, neginf=-np.inf), least - reach, most + reach)
    low, high = interval(best, places, widening(degrees))
    size, low, high = (float(np.exp(np.clip(each + parabola.centre, -700, 700))) for each in (best, low, high))
    return replace(budget, params=size, low=low, high=high), places + parabola.centre


def _root(spread: Array) -> Array:
    """A matrix whose product with its transpose is this symmetric one, rounding aside."""
    try:
        return np.asarray(np.linalg.cholesky(spread + 1e-18 * np.eye(len(spread))))
    except np.linalg.LinAlgError:  # sizes so far apart that rounding left it less than positive
        lengths, directions = np.linalg.eigh(spread)
        return np.asarray(directions * np.sqrt(np.maximum(lengths, 0.0)))


def widening(degrees: int) -> float:
    return float(stats.t.ppf(0.975, max(degrees, 1))) / Z95
