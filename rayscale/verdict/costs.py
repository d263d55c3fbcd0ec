"""What a run costs in GPU-hours, read from the runs there are: by model, data size and GPU count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import optimize, stats

from rayscale.laws.law import Array
from rayscale.verdict.speedup import gpu_counts, relative_speeds, speed_steps


@dataclass(frozen=True)
class Cost:
    """Device-seconds of a run of one model on one GPU count: `fixed` + `slope` x data size.

    `share` is what the run takes of each of its GPUs: it lasts device-seconds / (GPUs x share).
    `spread` is the half width of a 95% interval for one run, in log; None where too few runs were timed to know it.
    `basis` says in words what it rests on.
    """

    fixed: float
    slope: float
    spread: float | None
    basis: str
    share: float

    def seconds(self, data: Array) -> Array:
        """Device-seconds at data sizes (n,)."""
        return self.fixed + self.slope * data


def costs(
    trials: pd.DataFrame, data: str, planned: pd.DataFrame | None = None, share: float = 1.0
) -> dict[tuple[str, int], Cost]:
    """(model, GPU count) -> its cost, for the models and GPU counts of the ok rows.

    Measured device-seconds where there are any; a model that was not run on a GPU count gets the measured ratio of
    speeds, paired over the other models. `planned` (model, gpus, data_requested, gpu_seconds: the plan's own estimate)
    serves the models that no run has timed. Pairs of which nothing is known are left out.

    `share` is what a run is to take of each GPU: runs that took another one are slower or faster and count only for
    models that have no others, those that took most.
    """
    ok = trials[trials["status"] == "ok"]
    counts = gpu_counts(ok)
    timed = {"exclusive", "examples_per_second"} <= set(trials.columns)
    speed = relative_speeds(speed_steps(trials)) if timed else {}
    priced: dict[tuple[str, int], Cost] = {}
    for model, rows in ok.groupby("model", sort=True):
        known = {gpus: _measured(rows[rows["gpus"] == gpus], data, share) for gpus in counts}
        if planned is not None and not any(known.values()):
            estimates = planned[planned["model"] == model]
            known = {gpus: _planned(estimates[estimates["gpus"] == gpus], share) for gpus in counts}
        costs_of = {gpus: cost for gpus, cost in known.items() if cost is not None}
        for gpus in counts:
            if cost := costs_of.get(gpus) or _scaled(costs_of, gpus, speed):
                priced[str(model), gpus] = cost
    return priced


def _measured(rows: pd.DataFrame, data: str, share: float) -> Cost | None:
    """The cost of the runs that took this share of their GPUs, else of those that took most."""
    rows = rows[np.isfinite(_numbers(rows, "device_seconds"))]
    taken = _numbers(rows, "share")
    known = np.isfinite(taken)
    if known.any():  # of the other rows nobody knows what they took
        rows, taken = rows[known], taken[known]
    else:  # a table of somebody's own, who shares nothing
        taken = np.ones(len(rows))
    if len(rows) and share not in taken:
        share = float(taken.max())
    shared = "" if share == 1 else f" where {1 / share:g} trials shared a GPU"
    return _line(rows[taken == share], data, "device_seconds", f"measured{shared}", share)


def _planned(rows: pd.DataFrame, share: float) -> Cost | None:
    cost = _line(rows, "data_requested", "gpu_seconds", "the plan's estimate, not measured", share)
    return None if cost is None else replace(cost, spread=None)


def _scaled(known: Mapping[int, Cost], gpus: int, speed: Mapping[int, float]) -> Cost | None:
    """The cost at the nearest GPU count known, times the ratio of speeds; None where that was not measured."""
    # Ratios of speeds are of runs that had their GPUs to themselves.
    alone = [other for other, cost in known.items() if cost.share == 1 and other in speed]
    if not alone or gpus not in speed:
        return None
    near = min(alone, key=lambda other: abs(np.log(other / gpus)))
    ratio = (gpus / speed[gpus]) / (near / speed[near])
    cost = known[near]
    basis = f"{cost.basis} on {near} GPUs, and the speed ratio of other runs"
    return replace(cost, fixed=cost.fixed * ratio, slope=cost.slope * ratio, basis=basis)


def _numbers(rows: pd.DataFrame, column: str) -> Array:
    if column not in rows.columns:
        return np.full(len(rows), np.nan)
    return pd.to_numeric(rows[column], errors="coerce").to_numpy(dtype=float, na_value=np.nan)


def _line(rows: pd.DataFrame, size: str, time: str, basis: str, share: float) -> Cost | None:
    """Fixed and growing part of a cost by least squares of the relative error, neither below zero."""
    data, seconds = _numbers(rows, size), _numbers(rows, time)
    good = np.isfinite(data) & np.isfinite(seconds) & (data > 0) & (seconds > 0)
    data, seconds = data[good], seconds[good]
    if not len(data):
        return None
    one_size = len(np.unique(data)) == 1
    # From one size a fixed part cannot be told; all of it growing errs on the dear side for larger data.
    fixed, slope = 0.0, 0.0
    if not one_size:
        scale = data.max()
        (fixed, slope), _ = optimize.nnls(np.stack([1 / seconds, data / scale / seconds], axis=1), np.ones(len(data)))
        slope /= scale
    if slope == 0.0:  # seconds that fall with data are noise of the machine: nothing to extrapolate from
        fixed, slope = 0.0, float(np.median(seconds / data))
    residual = np.log(seconds / (fixed + slope * data))
    degrees = len(data) - (1 if one_size else 2)
    spread = None
    if degrees >= 2:
        deviation = np.sqrt(np.sum(residual**2) / degrees)
        spread = float(stats.t.ppf(0.975, degrees) * deviation * np.sqrt(1 + 1 / len(data)))
    return Cost(float(fixed), float(slope), spread, basis, share)
