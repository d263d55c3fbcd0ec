"""Two studies compared in pairs: cells equal in model, data size, GPUs and seed, so that only what differs between the
studies differs between the runs of a pair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from rayscale.errors import InputError, TableError, nearest
from rayscale.laws.fitting.observations import require_columns
from rayscale.runs.folder import Run
from rayscale.runs.sweeps import OUTDONE
from rayscale.runs.trial import cell_without
from rayscale.study.metrics import LOWER_IS_BETTER
from rayscale.study.tasks import AVERAGES
from rayscale.verdict.metric_law import measured_metrics
from rayscale.verdict.prediction import read_fit
from rayscale.verdict.speedup import amount, changed, mean_interval

_CELL = cell_without("augment")
_BY_RULES = ("bleu", "f1_words", *AVERAGES)  # metrics whose values depend on how a task counts: `metric_signature`
_PLACES = (1.0, 2.0)  # times the largest data size: where the laws' predictions are compared


def compare(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    target: str | None = None,
    fits: tuple[Sequence[Any], Sequence[Any]] | None = None,
) -> dict[str, Any]:
    """The second study against the first, over the cells that both have (columns as in trials.parquet).

    `target` is the metric compared (by default f1_macro, else accuracy, else eval_loss, whichever both measured);
    `fits` the fits of both studies (as `fit_law` returns them), to tell whether their laws differ.

    `difference`: second minus first, the mean over pairs with its 95% interval; `relative` the same in percent; `wins`
    (first, second, ties); `speed` and `cost`: ratios second over first of examples per second (runs that had the
    machine to themselves) and of device-seconds, geometric means over pairs; `pairs`; `unpaired` (cells of one study
    alone, each with the reason); `signatures` (where they counted the metric by different rules: those of either, none
    where its records do not say); `laws`. A seed that ran at several GPU counts is one pair of losses: GPUs change the
    speed, not the mathematics. Raises InputError for a metric that not both have, and where no cell is in both.
    """
    tables = [_prepared(table, name) for table, name in ((first, "the first"), (second, "the second"))]
    metric = _metric(tables, target)
    keys = list(_CELL)
    if any(table["augment"].nunique() > 1 for table in tables):
        keys.append("augment")  # one study has the cell more than once: augmentation tells which is which
    sides = [_cells(table, keys, metric) for table in tables]
    both = sides[0].index.intersection(sides[1].index)
    good = [side.loc[both, metric].notna().to_numpy() for side in sides]
    paired = both[good[0] & good[1]]
    unpaired = [*_unpaired(sides[0], sides[1], metric, keys, "first"),
                *_unpaired(sides[1], sides[0], metric, keys, "second")]  # fmt: skip
    if not len(paired):
        counts = Counter(cell["reason"] for cell in unpaired)
        reasons = "; ".join(f"{number} cells {reason}" for reason, number in counts.items())
        raise InputError(f"no cell has {metric} in both studies ({reasons or 'both are empty'})", code="no_pairs")
    seeds = [side.loc[paired, metric].groupby([key for key in keys if key != "gpus"], dropna=False).mean()
             for side in sides]  # fmt: skip
    values = [means.to_numpy(dtype=float) for means in seeds]
    change = values[1] - values[0]
    lower = metric in LOWER_IS_BETTER
    better = -change if lower else change
    # What floating-point sums do in another order is no win.
    tie = np.abs(change) <= 1e-9 * np.maximum(np.abs(values[0]), np.abs(values[1]))
    with np.errstate(all="ignore"):
        shares = 100 * change / np.abs(values[0])
    return {
        "target": metric,
        "direction": "lower" if lower else "higher",
        "pairs": len(change),
        "cells": len(paired),
        "means": [float(measured.mean()) for measured in values],
        "difference": amount(mean_interval(change), metric),
        "relative": amount(mean_interval(shares), "%") if np.isfinite(shares).all() else amount((None,) * 3, "%"),
        "wins": {"first": int(np.sum((better < 0) & ~tie)), "second": int(np.sum((better > 0) & ~tie)),
                 "ties": int(np.sum(tie))},
        "speed": _ratio(sides, paired, "examples_per_second", alone=True),
        "cost": _ratio(sides, paired, "device_seconds", alone=False),
        "unpaired": unpaired,
        "signatures": _signatures(sides, paired, metric),
        "laws": None if fits is None else _laws(*fits),
    }  # fmt: skip


def compare_runs(first: Run, second: Run, *, target: str | None = None) -> dict[str, Any]:
    """`compare` for two run folders: the metric their studies decide by where it is the same, and their saved fits."""
    if target is None:
        metrics = {run.plan["target"]["metric"] for run in (first, second) if run.store.exists("plan.json")}
        target = metrics.pop() if len(metrics) == 1 else None
    saved = [(run.fit or {}).get("fits") or [] for run in (first, second)]
    fits = (list(map(read_fit, saved[0])), list(map(read_fit, saved[1]))) if all(saved) else None
    comparison = compare(first.trials, second.trials, target=target, fits=fits)
    if fits is None:
        lacking = [run.folder for run, listed in zip((first, second), saved, strict=True) if not listed]
        comparison["laws_note"] = f"no fit.json in {', '.join(lacking)}; `rayscale report` writes it"
    return comparison


def _prepared(table: pd.DataFrame, name: str) -> pd.DataFrame:
    try:
        require_columns(table, [*_CELL, "status"])
    except TableError as error:
        raise TableError(f"{name} study's table: {error.message}", where=error.where) from None
    missing = {column: value for column, value in (("augment", "none"), ("exclusive", False)) if column not in table}
    table = table[table["status"] != OUTDONE].reset_index(drop=True).assign(**missing)
    return table.assign(augment=table["augment"].fillna("none").astype(str))


def _metric(tables: Sequence[pd.DataFrame], target: str | None) -> str:
    first, second = map(measured_metrics, tables)
    shared = [name for name in first if name in second]
    if target is not None and target not in shared:
        has = ", ".join(shared) or "nothing"
        message = f"'{target}' was not measured by both studies{nearest(target, shared)} (both have: {has})"
        raise InputError(message, where="--target")
    if not shared:
        raise InputError("the two studies have no measured metric in common", code="no_pairs", where="--target")
    return target or next(name for name in ("f1_macro", "accuracy", "eval_loss", *shared) if name in shared)


def _cells(table: pd.DataFrame, keys: list[str], metric: str) -> pd.DataFrame:
    """One row per cell: metric (NaN unless ok), status, error, device_seconds, examples_per_second, exclusive."""
    ok = (table["status"] == "ok").to_numpy()
    measures, facts = [metric, "device_seconds", "examples_per_second"], ["status", "exclusive", "error"]
    frame = table.reindex(columns=[*keys, *measures, *facts, "metric_signature"])
    frame[measures] = frame[measures].apply(pd.to_numeric, errors="coerce").astype(float)
    frame.loc[~ok, measures] = np.nan
    frame["exclusive"] = frame["exclusive"].eq(True).to_numpy(dtype=bool, na_value=False)
    # The same cell twice (an ok run and an earlier failure) counts once, as its ok runs' mean.
    frame = frame.assign(worse=~ok).sort_values("worse", kind="stable")
    how = dict.fromkeys(measures, "mean") | dict.fromkeys([*facts, "metric_signature"], "first")
    return frame.groupby(keys, dropna=False, sort=True).agg(how)


def _signatures(sides: Sequence[pd.DataFrame], paired: pd.Index, metric: str) -> dict[str, list[str]] | None:
    """By which rules either study counted the metric; None where it is the same, or there is but one way."""
    if metric not in _BY_RULES:
        return None
    first, second = (sorted(side.loc[paired, "metric_signature"].dropna().unique()) for side in sides)
    return None if first == second else {"first": first, "second": second}


def _unpaired(mine: pd.DataFrame, other: pd.DataFrame, metric: str, keys: list[str], name: str) -> list[dict[str, Any]]:
    """The cells of one study that have no partner, each with the reason."""
    unpaired = []
    for key, row in mine.iterrows():
        if key not in other.index:
            reason = f"only in the {name} study"
        elif not np.isfinite(row[metric]):
            error = "" if pd.isna(row["error"]) else f": {str(row['error'])[:100]}"
            what = f"{row['status']}{error}" if row["status"] != "ok" else f"has no {metric}"
            reason = f"{what} in the {name} study"
        else:
            continue
        cell = dict(zip(keys, map(_plain, cast(tuple[Any, ...], key)), strict=True))
        unpaired.append({**cell, "reason": reason})
    return unpaired


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if value is pd.NA or (isinstance(value, float) and not np.isfinite(value)) else value


def _ratio(sides: Sequence[pd.DataFrame], paired: pd.Index, column: str, *, alone: bool) -> dict[str, Any]:
    """Second over first, the geometric mean over pairs with its 95% interval."""
    rows = [side.loc[paired] for side in sides]
    good = np.logical_and.reduce([np.isfinite(side[column]) & (side[column] > 0) for side in rows])
    if alone:
        good &= rows[0]["exclusive"].to_numpy(dtype=bool) & rows[1]["exclusive"].to_numpy(dtype=bool)
    if not good.any():
        why = "no pair ran with the machine to itself in both" if alone else "no pair was timed in both"
        return amount((None, None, None), "times", pairs=0, note=why)
    first, second = (side[column].to_numpy(dtype=float)[good] for side in rows)
    return amount(changed(mean_interval(np.log(second / first)), np.exp), "times", pairs=len(first))


def _laws(first: Sequence[Any], second: Sequence[Any]) -> list[dict[str, Any]]:
    """Each law that both studies fitted (same law, target and group): its parameters and predictions side by side."""
    known = {_name(fit): fit for fit in second}
    laws = []
    for fit, other in ((fit, known[_name(fit)]) for fit in first if _name(fit) in known):
        facts: dict[str, Any] = {"law": fit.law.name, "target": fit.target, "by": fit.by and dict(fit.by)}
        if not (fit.outcome.usable and other.outcome.usable):
            outcomes = f"{fit.outcome} in the first study, {other.outcome} in the second"
            laws.append({**facts, "parameters": [], "predictions": [], "differ": None, "note": outcomes})
            continue
        heaviest, others = _heaviest(fit), _heaviest(other)
        parameters = []
        if heaviest == others:
            parameters = [_parameter(name, fit, other) for name in fit.params if name in other.params]
        else:  # B of one law is another thing than B of the next
            text = f"the heaviest law is {heaviest} in the first study, {others} in the second"
            facts["note"] = f"{text}: their parameters cannot be compared"
        predictions = _predictions(fit, other)
        # Parameters along a ridge differ without meaning; predictions are what a reader acts on.
        differ = any(prediction["differs"] for prediction in predictions)
        laws.append({**facts, "parameters": parameters, "predictions": predictions, "differ": differ})
    return laws


def _heaviest(fit: Any) -> str:
    """The law whose parameters a fit states: its own, or that of a combination's heaviest member."""
    members = getattr(fit, "members", ())
    return str(members[0].law.name if members else fit.law.name)


def _name(fit: Any) -> tuple[Any, ...]:
    return fit.law.name, fit.target, tuple((fit.by or {}).items()), tuple(fit.columns.items())


def _parameter(name: str, first: Any, second: Any) -> dict[str, Any]:
    values = [float(fit.params[name]) for fit in (first, second)]
    bounds = [fit.intervals[name] for fit in (first, second)]
    positive = all(low > 0 for low, _ in bounds) and min(values) > 0
    kinds = {parameter.name: parameter.kind for parameter in first.law.parameters}
    in_log = positive and kinds.get(name) != "exponent" and first.law.frame is None
    return {"name": name, **_gap(values, bounds, in_log)}


def _gap(values: Sequence[float], bounds: Sequence[tuple[float, float]], in_log: bool) -> dict[str, Any]:
    """The second over the first (in log), or minus it, with the 95% interval from those of both, independent ones.

    The square-and-add method (Zou and Donner 2008), which keeps lopsided intervals lopsided.
    """
    scale = np.log if in_log else np.asarray
    one, two = (scale(np.array([value, *pair], dtype=float)) for value, pair in zip(values, bounds, strict=True))
    gap = two[0] - one[0]
    ends = gap - np.hypot(two[0] - two[1], one[2] - one[0]), gap + np.hypot(two[2] - two[0], one[0] - one[1])
    low, high = (float(np.exp(np.clip(end, -700, 700)) if in_log else end) for end in ends)
    first, second = values
    size = {"ratio": second / first} if in_log else {"difference": second - first}
    differs = not low <= (1.0 if in_log else 0.0) <= high
    return {"first": first, "second": second, **size, "low": low, "high": high, "differs": differs}


def _predictions(first: Any, second: Any) -> list[dict[str, Any]]:
    """The mean that both laws predict at the largest sizes that both studies have, and at twice that data."""
    largest = {role: min(fit.data_range[role][1] for fit in (first, second)) for role in first.columns}
    predictions = []
    for times in _PLACES:
        sizes = {role: value * (times if role == "data" else 1.0) for role, value in largest.items()}
        rows = [fit.predict(pd.DataFrame({column: [sizes[role]] for role, column in fit.columns.items()})).iloc[0]
                for fit in (first, second)]  # fmt: skip
        values = [float(row["predicted"]) for row in rows]
        bounds = [(float(row["mean_low"]), float(row["mean_high"])) for row in rows]
        predictions.append({**sizes, **_gap(values, bounds, in_log=True)})
    return predictions
