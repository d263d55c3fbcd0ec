"""What a run costs in GPU-hours, read from the runs there are: by model, data size and GPU count."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import optimize, stats

from rayscale.laws.law import Array
from rayscale.verdict.speedup import relative_speeds, speed_steps


@dataclass(frozen=True)
class Cost:
    """Device-seconds of a run of one model on one GPU count: `fixed` + `each` x data size.

    `share` is what the run takes of each of its GPUs: it lasts device-seconds / (GPUs x share).
    `spread` is the half width of a 95% interval for one run, in log; None where too few runs were timed to know it.
    `basis` says in words what it rests on.
    """

    fixed: float
    each: float
    spread: float | None
    basis: str
    share: float = 1.0

    def seconds(self, data: Array) -> Array:
        """Device-seconds at data sizes (n,)."""
        return self.fixed + self.each * data


def costs(
    trials: pd.DataFrame, data: str, planned: pd.DataFrame | None = None, share: float = 1.0
) -> dict[tuple[str, int], Cost]:
    """(model, GPU count) -> its cost, for the models and GPU counts of the ok rows.

    Measured device-seconds where there are any; a model that was not run on a GPU count gets the measured ratio of
    speeds, paired over the other models. `planned` (model, gpus, data_requested, gpu_seconds: the plan's own estimate)
    serves the models that no run has timed. Pairs that cannot be told are left out.

    `share` is what a run is to take of each GPU: runs that took another one are slower or faster and count only for
    models that have no others, those that took most.
    """
    ok = trials[trials["status"] == "ok"]
    counts = sorted(int(each) for each in ok["gpus"].dropna().unique())
    timed = {"exclusive", "examples_per_second"} <= set(trials.columns)
    speed = relative_speeds(speed_steps(trials)) if timed else {}
    found: dict[tuple[str, int], Cost] = {}
    for model, rows in ok.groupby("model", sort=True):
        own = {}
        for gpus in counts:
            here, taken = _sharing(rows[rows["gpus"] == gpus], share)
            cost = _line(_numbers(here, data), _numbers(here, "device_seconds"), "measured")
            if cost is not None:
                basis = cost.basis if taken == 1 else f"{cost.basis} where {1 / taken:g} trials shared a GPU"
                own[gpus] = replace(cost, basis=basis, share=taken)
        if not own and planned is not None:
            mine = planned[planned["model"] == model]
            for gpus in counts:
                here = mine[mine["gpus"] == gpus]
                text = "the plan's estimate, not measured"
                cost = _line(_numbers(here, "data_requested"), _numbers(here, "gpu_seconds"), text)
                if cost is not None:
                    own[gpus] = Cost(cost.fixed, cost.each, None, text, share)
        for gpus in counts:
            if gpus in own:
                found[str(model), gpus] = own[gpus]
                continue
            # Ratios of speeds are of runs that had their GPUs to themselves.
            known = [other for other in own if speed.get(other) and speed.get(gpus) and own[other].share == 1]
            if known:
                near = min(known, key=lambda other: abs(np.log(other / gpus)))
                ratio = (gpus / speed[gpus]) / (near / speed[near])
                cost = own[near]
                text = f"{cost.basis} on {near} GPUs, and the speed ratio of other runs"
                found[str(model), gpus] = Cost(cost.fixed * ratio, cost.each * ratio, cost.spread, text)
    return found


def _sharing(rows: pd.DataFrame, share: float) -> tuple[pd.DataFrame, float]:
    """The timed rows that took this share of their GPUs, else those that took most; and what they took."""
    rows = rows[np.isfinite(_numbers(rows, "device_seconds"))]
    taken = _numbers(rows, "share")
    known = np.isfinite(taken)
    if known.any():  # of the other rows nobody knows what they took
        rows, taken = rows[known], taken[known]
    else:  # a table of somebody's own, who shares nothing
        taken = np.ones(len(rows))
    if len(rows) and share not in taken:
        share = float(taken.max())
    return rows[taken == share], share


def _numbers(rows: pd.DataFrame, column: str) -> Array:
    if column not in rows.columns:
        return np.full(len(rows), np.nan)
    return pd.to_numeric(rows[column], errors="coerce").to_numpy(dtype=float, na_value=np.nan)


def _line(data: Array, seconds: Array, basis: str) -> Cost | None:
    """Fixed and growing part of a cost by least squares of the relative error, neither below zero."""
    good = np.isfinite(data) & np.isfinite(seconds) & (data > 0) & (seconds > 0)
    data, seconds = data[good], seconds[good]
    if not len(data):
        return None
    if len(np.unique(data)) == 1:
        # From one size a fixed part cannot be told; all of it growing errs on the dear side for larger data.
        fixed, each = 0.0, float(np.median(seconds / data))
    else:
        scale = data.max()
        (fixed, each), _ = optimize.nnls(np.stack([1 / seconds, data / scale / seconds], axis=1), np.ones(len(data)))
        each = float(each / scale)
        if each == 0.0:  # seconds that fall with data are noise of the machine: nothing to extrapolate from
            fixed, each = 0.0, float(np.median(seconds / data))
    residual = np.log(seconds / (fixed + each * data))
    degrees = len(data) - (2 if len(np.unique(data)) > 1 else 1)
    spread = None
    if degrees >= 2:
        deviation = np.sqrt(np.sum(residual**2) / degrees)
        spread = float(stats.t.ppf(0.975, degrees) * deviation * np.sqrt(1 + 1 / len(data)))
    return Cost(float(fixed), each, spread, basis)
