"""The cheapest allocation that reached the target, or how far the target is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from rayscale.laws.fitting.result import Fit
from rayscale.runs.trial import cell_without
from rayscale.study.metrics import LOWER_IS_BETTER
from rayscale.verdict.speedup import amount, changed, mean_interval

_ALLOCATION = cell_without("seed")
FARTHEST = 10.0  # times the most data measured: farther than this no data size is named
_TRIED = 400  # data sizes


def cells(trials: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row per allocation (model, data, GPUs, augmentation) with an ok run, averaged over its seeds.

    Columns: the allocation, params, `metric` (mean), `values`, `device_seconds` (arrays over seeds), `trial_ids`.
    """
    rows = trials[trials["status"] == "ok"].copy()
    rows[metric] = pd.to_numeric(rows[metric], errors="coerce").astype(float)
    rows = rows[np.isfinite(rows[metric])]
    allocations = []
    for key, group in rows.groupby(_ALLOCATION, dropna=False, sort=True):
        seconds = pd.to_numeric(group["device_seconds"], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        allocations.append(
            dict(zip(_ALLOCATION, key, strict=True))
            | {
                "params": group["params"].iloc[0],
                "metric": float(group[metric].mean()),
                "values": group[metric].to_numpy(dtype=float),
                "device_seconds": seconds,
                "trial_ids": group["trial_id"].tolist(),
            }
        )
    columns = [*_ALLOCATION, "params", "metric", "values", "device_seconds", "trial_ids"]
    return pd.DataFrame(allocations, columns=columns)


def best_cell(allocations: pd.DataFrame, metric: str) -> pd.Series | None:
    """The allocation with the best mean, None where there is none."""
    ordered = allocations.sort_values("metric", ascending=metric in LOWER_IS_BETTER, kind="stable")
    return ordered.iloc[0] if len(ordered) else None


def reaches(values: Any, metric: str, reach: float) -> Any:
    """Whether values are as good as `reach`."""
    return values <= reach if metric in LOWER_IS_BETTER else values >= reach


def cheapest(
    allocations: pd.DataFrame, metric: str, reach: float, price_gpu_hour: float | None, currency: str
) -> dict[str, Any] | None:
    """The allocation of fewest device-seconds whose mean over seeds reaches the target; None where none does.

    The mean, not the luckiest seed. Costs are per run; their interval needs two seeds.
    """
    timed = allocations["device_seconds"].map(lambda seconds: np.isfinite(seconds).all()).astype(bool)
    good = allocations[timed & reaches(allocations["metric"], metric, reach)]
    if not len(good):
        return None
    row = good.iloc[int(good["device_seconds"].map(np.mean).argmin())]
    # A cost is never negative, however wide the interval of two seeds.
    hours = changed(mean_interval(row["device_seconds"] / 3600), lambda end: max(end, 0.0))
    reached = reaches(row["values"], metric, reach)
    order = np.lexsort([row["device_seconds"], ~reached])
    result = {
        "trial_id": row["trial_ids"][int(order[0])],
        "model": row["model"],
        "params": int(row["params"]),
        "data": int(row["data_requested"]),
        "gpus": int(row["gpus"]),
        "augment": row["augment"],
        metric: amount(mean_interval(row["values"]), ""),
        "runs": len(reached),
        "runs_reaching": int(np.sum(reached)),
        "gpu_hours": amount(hours, "GPU-hours"),
    }
    if price_gpu_hour is not None:
        result["money"] = amount(changed(hours, lambda end: end * price_gpu_hour), currency)
    return result


def at_farthest(fit: Fit, fixed: dict[str, float]) -> dict[str, Any]:
    """The law's mean at FARTHEST times the table's most data: value, low, high of fit.target, and `data`."""
    estimate, data = fit.known_estimate(), FARTHEST * fit.data_range["data"][1]
    inputs = {role: np.array([value]) for role, value in fixed.items()}
    point, drawn = estimate.log_values(inputs | {"data": np.array([data])})
    low, high = estimate.interval(point[0], drawn[:, 0])
    return amount(np.exp(np.clip([point[0], low, high], -700, 700)).tolist(), fit.target, data=data)


def data_needed(fit: Fit, fixed: dict[str, float], reach: float, *, rising: bool = False) -> dict[str, Any] | None:
    """The data size at which the law's mean first falls, or of a `rising` target rises, to `reach`.

    The other inputs are `fixed` (role -> value). value, low, high in the fit's data unit and `extrapolation`; None
    where the law does not get to `reach` within FARTHEST times the data. A null `high`: the interval's upper end is
    not within FARTHEST times the data.
    """
    estimate = fit.known_estimate()
    least, most = fit.data_range["data"]
    end = np.log(most * FARTHEST)
    sizes = np.linspace(np.log(least), end, _TRIED)
    inputs = {role: np.full(len(sizes), value) for role, value in fixed.items()} | {"data": np.exp(sizes)}
    point, drawn = estimate.log_values(inputs)
    above = (np.vstack([point, drawn]) - np.log(reach)) * (-1 if rising else 1)
    reached = above <= 0
    first = np.where(reached.any(axis=1), reached.argmax(axis=1), len(sizes))
    if first[0] == len(sizes):
        return None
    # Between two sizes the curve is straight; one that never falls to it counts as past the end.
    crossing = np.append(sizes, end + 1.0)[first]
    between = np.flatnonzero((first > 0) & (first < len(sizes)))
    over, under = above[between, first[between] - 1], above[between, first[between]]
    crossing[between] += (sizes[1] - sizes[0]) * under / (over - under)
    low, high = estimate.interval(crossing[0], crossing[1:])
    value = float(np.exp(crossing[0]))
    upper = float(np.exp(high)) if high < end else None
    return amount((value, float(np.exp(low)), upper), fit.columns["data"], extrapolation=max(1.0, value / most))
