"""Whether GPUs change quality: runs that differ in nothing else, in pairs, and a test of equivalence.

That an interval holds zero says nothing: the interval of few and scattered pairs holds everything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

MARGIN = 0.01  # a relative change below one percent is below what two seeds of one fine-tune differ by


@dataclass(frozen=True)
class Equivalence:
    """The paired change of quality with more GPUs, relative (0.01 is 1%), and whether it is none.

    `low`, `high`: 95%. `verdict`: equivalent (two one-sided tests at 5% put it inside the margin), different (zero lies
    outside the 95% interval and it is not equivalent), undecided. `smallest_margin`: the least that could be claimed.
    """

    value: float
    low: float | None
    high: float | None
    pairs: int
    margin: float
    p_value: float | None
    smallest_margin: float | None
    verdict: str


def pair(rows: pd.DataFrame, quality: str, gpus: str, same: tuple[str, ...], margin: float) -> Equivalence | None:
    """The mean relative change from the fewest GPUs to more, over runs that are the same in all else."""
    changes = []
    for _, group in rows.groupby(list(same), dropna=False):
        by_gpus = group.groupby(gpus)[quality].mean().astype(float).sort_index()
        if len(by_gpus) > 1:  # one run at three counts is one pair: its comparisons share the first run
            changes.append(float(np.log(by_gpus.iloc[1:] / by_gpus.iloc[0]).mean()))
    if not changes:
        return None
    logs, n = np.array(changes), len(changes)
    mean = float(logs.mean())
    if n < 2:
        return Equivalence(float(np.expm1(mean)), None, None, n, margin, None, None, "undecided")
    error = float(logs.std(ddof=1)) / n**0.5
    half, inner = (float(stats.t.ppf(level, n - 1)) * error for level in (0.975, 0.95))
    # Two one-sided tests (Schuirmann 1987): equivalent where the 90% interval lies inside the margin.
    bounds = np.log([1 - margin, 1 + margin])
    if error > 0:
        p_value = float(
            max(stats.t.cdf((mean - bounds[1]) / error, n - 1), stats.t.sf((mean - bounds[0]) / error, n - 1))
        )
    else:
        p_value = 0.0 if bounds[0] < mean < bounds[1] else 1.0
    smallest = float(max(abs(np.expm1(mean - inner)), abs(np.expm1(mean + inner))))
    verdict = "equivalent" if p_value < 0.05 else "undecided" if abs(mean) <= half else "different"
    low, high = (float(np.expm1(mean + sign * half)) for sign in (-1, 1))
    return Equivalence(float(np.expm1(mean)), low, high, n, margin, p_value, smallest, verdict)
