"""A claim put to the test: is accuracy proportional to data over compute, which here is the number of GPUs?

On a grid of data sizes and GPU counts the law `ratio` and its rivals each predict every data size from the others; and
runs that differ in nothing but GPUs, at the same global batch, are compared in pairs, with a test of equivalence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy import stats

from rayscale.errors import TableError
from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.coordinates import link, unlink
from rayscale.laws.fitting.observations import numbers, require_columns
from rayscale.laws.fitting.result import Fit
from rayscale.study.metrics import LOWER_IS_BETTER, PERCENTS
from rayscale.verdict.metric_law import LOSS, measured_metrics
from rayscale.verdict.speedup import MARGIN, amount, paired_change

CLAIMED = {"data": 1.0, "gpus": -1.0}  # the slopes of log quality that the claim implies
_POINT = 2  # resamples of a fit of which only the point is used
_QUALITY, _INVERSE = "_quality", "_inverse"


def test_claim(
    trials: pd.DataFrame,
    *,
    quality: str | None = None,
    data: str = "data_requested",
    gpus: str = "gpus",
    same: Sequence[str] = ("model", "seed", "augment"),
    margin: float = MARGIN,
    seed: int = 0,
) -> dict[str, Any]:
    """Test the claim that quality is proportional to data over GPUs on a trial table (columns as in trials.parquet).

    `quality`: the metric's column; by default accuracy, else another measured metric, else eval_loss. Of metrics that
    fall, such as losses, the inverse is tested. `same`: columns in which runs must agree to be a pair; laws are fitted
    for each model and augmentation.

    `verdict`: true, false or unknown. `rivals`: law, rmse_log, n of the claim (`ratio`) and of other laws, each data
    size predicted from the others, the best first. `slopes`: change of log quality per log of `data` and of `gpus`
    (value, low, high; the claim says 1 and -1). `equivalence`: the `paired_change` with more GPUs. `cells`: how
    many pairs of data size and GPU count; `warnings`: what could not be tested.
    Raises TableError for missing or non-numeric columns and for a table without any metric.
    """
    quality = quality or _usual_quality(trials)
    if not quality:
        raise TableError("no metric of quality was measured", code="missing_column", where="quality")
    require_columns(trials, [quality, data, gpus])
    columns = {name: numbers(trials, name) for name in (quality, data, gpus)}
    usable = np.all([np.isfinite(values) & (values > 0) for values in columns.values()], axis=0)
    if "status" in trials.columns:
        usable &= (trials["status"] == "ok").to_numpy(dtype=bool, na_value=False)
    level = columns[quality][usable] / (100.0 if quality in PERCENTS else 1.0)
    level = 1 / level if quality in LOWER_IS_BETTER else level
    rows = trials[usable].assign(**{_QUALITY: level, _INVERSE: 1 / level}).reset_index(drop=True)
    rows = rows.astype({data: float, gpus: float})
    groups = [name for name in ("model", "augment") if name in rows.columns]
    falls = quality in LOWER_IS_BETTER or bool((level >= 1).any())
    rivals = _contest(rows, data, gpus, groups, falls, seed)
    slopes = _slopes(rows, {"data": data, "gpus": gpus}, groups)
    alike = [data, *(name for name in same if name in rows.columns)]
    change = paired_change(rows, _QUALITY, gpus, alike, margin)
    notes = {
        "dropped_rows": f"{int((~usable).sum())} rows are not ok or lack a positive {quality}, {data} or {gpus}"
        if not usable.all() else "",
        "few_sizes": "" if rivals else f"fewer than three sizes of {data} in any model: none can be predicted from the "
        "others",
        "one_size": "" if change else f"no two runs differ in {gpus} alone: the effect of GPUs on quality is unknown",
    }  # fmt: skip
    return {
        "quality": f"1 / {quality}" if quality in LOWER_IS_BETTER else quality,
        "verdict": _verdict(rivals, slopes),
        "rivals": rivals,
        "slopes": slopes,
        "equivalence": change,
        "cells": len(rows.drop_duplicates([data, gpus])),
        "warnings": [{"code": code, "message": message} for code, message in notes.items() if message],
    }


def study_claim(trials: pd.DataFrame, target: str) -> dict[str, Any] | None:
    """`test_claim` for a study that has both axes: two data sizes, two GPU counts and three cells; None for others."""
    ok = trials[trials["status"] == "ok"].dropna(subset=["data_requested", "gpus"])
    cells = ok.drop_duplicates(["data_requested", "gpus"])
    if len(cells) < 3 or cells["data_requested"].nunique() < 2 or cells["gpus"].nunique() < 2:
        return None
    quality = _usual_quality(ok) if target in LOWER_IS_BETTER else target
    return test_claim(trials, quality=quality) if quality in measured_metrics(ok) else None


def _usual_quality(trials: pd.DataFrame) -> str:
    """The first metric that was measured, rising ones before the test loss; empty where none was."""
    measured = measured_metrics(trials)
    rising = [name for name in ("accuracy", "f1_macro", *measured) if name not in LOWER_IS_BETTER]
    return next((name for name in (*rising, LOSS) if name in measured), "")


def _contest(
    rows: pd.DataFrame, data: str, gpus: str, groups: list[str], falls: bool, seed: int
) -> list[dict[str, Any]]:
    """Every law's error at data sizes left out of its fit, least first, for laws that predicted all of them.

    Accuracies follow a law of their log odds; what has no upper end is the inverse of something that `falls`.
    """
    curve, target, kind = ("power", _INVERSE, "log") if falls else ("logit_power", _QUALITY, "logit")
    errors: dict[str, list[Any]] = {}
    for _, group in rows.groupby(groups, dropna=False) if groups else [("", rows)]:
        sizes = np.unique(group[data])
        for size in sizes if len(sizes) >= 3 else ():
            held = group[group[data] == size]
            kept = group[group[data] != size]
            levels = np.log(kept[_QUALITY].to_numpy())
            line = np.polyfit(np.log(kept[data]), link(kind, kept[_QUALITY].to_numpy()), 1)
            fit = cast(Fit, fit_law(kept, curve, target=target, data=data, bootstrap=_POINT, seed=seed))
            # The claim has one parameter, and the least absolute deviation of one parameter is the median.
            constant = np.median(levels - np.log(kept[data] / kept[gpus]))
            predicted = {
                "ratio": constant + np.log(held[data] / held[gpus]).to_numpy(),
                "constant": np.full(len(held), np.median(levels)),
                f"{kind}_line": np.log(unlink(kind, np.polyval(line, np.log(held[data].to_numpy())))),
            }
            if fit.estimate is not None:
                predicted[curve] = np.log(fit.predict(held)["predicted"].to_numpy()) * (-1 if falls else 1)
            for law, level in predicted.items():
                errors.setdefault(law, []).append(level - np.log(held[_QUALITY].to_numpy()))
    scores: list[dict[str, Any]] = []
    for law, parts in errors.items():
        if len(parts) == len(errors["constant"]):
            error = np.concatenate(parts)
            scores.append({"law": law, "rmse_log": float(np.sqrt(np.mean(error**2))), "n": len(error)})
    return sorted(scores, key=lambda score: score["rmse_log"])


def _slopes(rows: pd.DataFrame, axes: Mapping[str, str], groups: list[str]) -> dict[str, dict[str, Any]]:
    """Least squares of log quality on log data and log GPUs, a level for each group: value and 95% of each slope."""
    varied = [role for role, column in axes.items() if rows[column].nunique() > 1]
    if not varied:
        return {}
    names = rows[groups].astype(str).agg("|".join, axis=1) if groups else pd.Series("", index=rows.index)
    levels = pd.get_dummies(names).to_numpy(dtype=float)
    design = np.column_stack([levels, *[np.log(rows[axes[role]]) for role in varied]])
    rank = int(np.linalg.matrix_rank(design))
    degrees = len(rows) - rank
    if degrees < 1 or rank < design.shape[1]:
        return {}
    y = np.log(rows[_QUALITY].to_numpy())
    inverse = np.linalg.inv(design.T @ design)
    slopes = inverse @ design.T @ y
    deviation = np.sqrt(np.sum((y - design @ slopes) ** 2) / degrees * np.diag(inverse))
    half = float(stats.t.ppf(0.975, degrees)) * deviation
    ends = np.stack([slopes, slopes - half, slopes + half], axis=1)[levels.shape[1] :].tolist()
    return {role: amount(interval, "log per log", claimed=CLAIMED[role])
            for role, interval in zip(varied, ends, strict=True)}  # fmt: skip


def _verdict(rivals: Sequence[Mapping[str, Any]], slopes: Mapping[str, Mapping[str, Any]]) -> str:
    """False where an interval excludes the claim and no prediction favours it; true where all of it holds."""
    excluded = [role for role, slope in slopes.items() if not slope["low"] <= slope["claimed"] <= slope["high"]]
    best = bool(rivals) and rivals[0]["law"] == "ratio"
    if excluded:
        return "unknown" if best else "false"
    return "true" if best and set(slopes) == set(CLAIMED) else "unknown"
