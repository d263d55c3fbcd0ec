"""From the trial table to the verdict: laws, gains of doubling, the cheapest allocation, and how far to trust them.

Pure: no clock, no files. Works on any number of trials, also in the middle of a run; what cannot be said is said to be
unknown, with the reason, and no number in the result is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd

from rayscale.errors import InputError
from rayscale.laws.fitting.held_out import too_narrow
from rayscale.laws.fitting.result import Fit, score
from rayscale.laws.law import Law
from rayscale.runs.fit_rows import unfit, untrained
from rayscale.study.metrics import BITS, FRACTIONS, LOWER_IS_BETTER, PERCENTS
from rayscale.system.groups import grouped
from rayscale.verdict.allocation import FARTHEST, at_farthest, best_cell, cells, cheapest, data_needed, reaches
from rayscale.verdict.claim import study_claim
from rayscale.verdict.copies import worth_of_copies
from rayscale.verdict.leading import Leading, StudyLaws, fit_study, lead, reasons, sized_models, untrained_runs
from rayscale.verdict.metric_law import LOSS, bits_per_nat
from rayscale.verdict.speedup import amount, changed, gpu_gain, mean_interval

HOLDOUT_BOOTSTRAP = 200
# Where the study names no laws: the combination of all suited ones over the models, chinchilla beside it, and the
# simplest law of each model alone.
USUAL: tuple[str | Law, ...] = ("auto", "chinchilla", "power")
_NEEDED = ["trial_id", "status", "model", "params", "data_requested", "examples", "tokens", "gpus", "seed", "augment",
           LOSS, "device_seconds", "examples_per_second", "exclusive"]  # fmt: skip


def conclude(
    trials: pd.DataFrame,
    *,
    data_axis: str,
    target: str,
    reach: float | None,
    price_gpu_hour: float | None = None,
    currency: str = "USD",
    laws: Sequence[Law] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The object of fit.json for a trial table (columns as in trials.parquet; `data_axis` is examples or tokens).

    `fits`: the `laws` (None: auto, chinchilla and power) on eval_loss: those with the model size among their inputs
    over all models, where there are two sizes or more, the others for each model. Where `target` is a metric, its own
    laws (auto, and logit_power for each model) come first, if they can be fitted (see `lead`). The verdict rests on the
    first law that could be fitted, those over all models first; those of the same quantity are its rivals in the
    hold-out check. `verdict`: target, leading (the quantity that the laws in front are of, and why), doubling
    (data, params, gpus), cheapest, held_out, augmentation (see `worth_of_copies`), untrained (null, or how many runs
    did no better than guessing; no law counts them), claim (see `study_claim`). Raises InputError for a data axis that
    is neither of the two, and for a law over anything but model size and data.
    """
    if data_axis not in ("examples", "tokens"):
        raise InputError(f"the data axis is '{data_axis}'; it must be examples or tokens", where="data_axis")
    trials = trials.reindex(columns=list(dict.fromkeys([*trials.columns, *_NEEDED, target]))).reset_index(drop=True)
    chosen = USUAL if laws is None else tuple(laws)
    leading, loss = lead(trials, chosen, data_axis, target, USUAL, bootstrap, seed)
    held_out, leading = _held_out(leading, data_axis, min(bootstrap, HOLDOUT_BOOTSTRAP), seed)
    verdict: dict[str, Any] = {
        "target": _target(trials, leading, data_axis, target, reach),
        "leading": {"target": leading.fitted.target, "why": leading.why},
        "doubling": {**_doubling(leading, data_axis), "gpus": gpu_gain(trials)},
        "cheapest": None if reach is None else cheapest(cells(trials, target), target, reach, price_gpu_hour, currency),
        "held_out": held_out,
        "augmentation": _augmentation(trials, target, bootstrap, seed),
        "untrained": untrained_runs(trials),
        "claim": study_claim(trials, target),
    }
    fits = [fit for fitted in (leading.fitted, loss) if fitted is not None for fit in (*fitted.shared, *fitted.single)]
    return {"fits": [fit.to_json() for fit in fits], "verdict": verdict}


def law_line(trials: pd.DataFrame, data_axis: str) -> str | None:
    """The law so far in one line for the live view: that of the largest model so far; None while there is none.

    One curve with few resamples, since it is fitted while trials train on the same cores.
    """
    trials = trials.reindex(columns=list(dict.fromkeys([*trials.columns, *_NEEDED]))).reset_index(drop=True)
    models = sized_models(trials)
    if not len(models):
        return None
    largest = trials[trials["model"] == models.index[-1]].reset_index(drop=True)
    power: tuple[str | Law, ...] = ("power",)
    leading = Leading(largest, power, fit_study(largest, power, data_axis, LOSS, 50, 0))
    gain = _doubling(leading, data_axis)["data"]
    if gain["value"] is None:
        return None
    between = f"95%: {gain['low']:+.1f} to {gain['high']:+.1f}%"
    return f"twice the data: {gain['value']:+.1f}% loss ({between}; {gain['law']} law)"


def _doubling(leading: Leading, column: str) -> dict[str, dict[str, Any]]:
    """Change of the mean target for twice the data and for a model twice as large: of a loss relative, in percent, of a
    metric in points of its percentage.

    From the largest cell: the largest model at the most data it was trained on.
    """
    trials, fitted, unit = leading.trials, leading.fitted, "%" if leading.is_loss else "points"
    models = sized_models(trials)
    if not len(models):
        note = "no run did better than guessing" if untrained(trials).any() else "no trial has finished"
        nothing = amount((None, None, None), unit, note=note)
        return {"data": nothing, "params": nothing}
    largest, params = models.index[-1], float(models.iloc[-1])
    learnt = (trials["model"] == largest) & (trials["status"] == "ok") & ~untrained(trials)
    data = float(trials.loc[learnt, column].max())
    cell = {"params": params, column: data}
    gains = {}
    for axis, size in (("data", column), ("params", "params")):
        able = [fit for fit in fitted.of(largest) if fit.role_of(size)]
        usable = [fit for fit in able if fit.estimate is not None]
        if not usable:
            missing = "no law was fitted"
            if axis == "params":
                ran = trials.loc[trials["status"] == "ok", "params"].nunique()
                missing = "only one model size was run" if ran < 2 else "only one model size did better than guessing"
            gains[axis] = amount((None, None, None), unit, note=reasons(able) or missing)
            continue
        fit, before, after = usable[0], cell[size], 2 * cell[size]
        beyond = max(1.0, after / fit.data_range[str(fit.role_of(size))][1])
        reach = f"{fit.law.name} law, {beyond:.3g} times the largest size measured"
        note = f"{'loss' if leading.is_loss else fitted.target} of {largest} at {data:,.0f} {column}, {reach}"
        facts = {"law": fit.law.name, "model": largest, "from": before, "to": after, "extrapolation": beyond}
        sizes = [{role: at[name] for role, name in fit.columns.items()} for at in (cell, {**cell, size: after})]
        change = fit.change(*sizes) if leading.is_loss else fit.difference(*sizes)
        gains[axis] = amount([100 * end for end in change], unit, note=note, **facts)
    return gains


def _held_out(leading: Leading, column: str, bootstrap: int, seed: int) -> tuple[dict[str, Any], Leading]:
    """Fits without the largest data size, and how they predict it: every law, and the last value kept.

    Returns the verdict's `held_out` and the laws over all models with their scores attached: these still rest on all
    rows, a score belongs to the same law fitted without the largest size.
    """
    trials, fitted, target = leading.trials, leading.fitted, leading.fitted.target
    rows = trials[(trials["status"] == "ok") & (unfit(trials) == "")].dropna(subset=[target, column, "params"])
    sizes = sorted(rows[column].unique())
    if len(sizes) < 2:
        return {"n": 0, "note": "fewer than two data sizes: none can be held out"}, leading
    last, before = float(sizes[-1]), float(sizes[-2])
    without = fit_study(trials, leading.laws, column, target, bootstrap, seed, holdout=f"{column} >= {last!r}")
    held = rows[rows[column] >= last]
    kept = rows[rows[column] < last].sort_values(column, kind="stable")
    latest = kept[kept[column] == kept.groupby("model")[column].transform("max")].groupby("model")[target].mean()
    constant = held.assign(predicted=held["model"].map(latest), low=0.0, high=np.inf).dropna(subset=["predicted"])
    # A law of model sizes alone says nothing about data.
    fits = (fit for fit in (*without.shared, *without.single) if fit.role_of(column))
    tables = ((fit.law.name, fit.predictions) for fit in fits if fit.predictions is not None and len(fit.predictions))
    predicted = grouped(tables)
    scores = {name: score(pd.concat(parts), target) for name, parts in predicted.items()}
    if len(constant):
        scores["constant"] = {**score(constant, target), "covered": None}
    facts = {"data": last, "unit": column, "extrapolation": last / before}
    # The law of the verdict: the first that was fitted to all rows and could be fitted to these.
    trusted = [fit.law.name for fit in (*fitted.shared, *fitted.single) if fit.estimate is not None]
    law = next((name for name in [*trusted, *predicted] if name in predicted), None)
    if law is None:
        note = f"without the largest data size no law can be fitted: {reasons((*without.shared, *without.single)[-1:])}"
        return {"n": 0, "note": note, **facts, "rivals": scores}, leading
    chosen = scores.pop(law)
    worse = "constant" in scores and chosen["rmse_log"] >= scores["constant"]["rmse_log"]
    narrow = too_narrow(chosen)
    possible = (
        (worse, "the law predicts the held-out largest data size worse than the last value kept constant"),
        (narrow, f"{100 * chosen['covered']:.0f}% of the {chosen['n']} held-out runs lie in their 95% interval: "
                 "the intervals of this law are too narrow"),
    )  # fmt: skip
    doubts = tuple({"code": "misspecified", "message": text} for doubtful, text in possible if doubtful)
    shared = tuple(replace(fit, held_out={**scores, law: chosen}.get(fit.law.name)) for fit in fitted.shared)
    doubted = [
        tuple(replace(fit, warnings=(*fit.warnings, *doubts)) if fit.law.name == law else fit for fit in fits)
        for fits in (shared, fitted.single)
    ]
    rows = _held_rows(pd.concat(predicted[law]), target)
    check = {"law": law, **chosen, **facts, "too_narrow": narrow, "rivals": scores, "rows": rows}
    return check, replace(leading, fitted=StudyLaws(target, *doubted))


def _held_rows(predicted: pd.DataFrame, target: str) -> list[dict[str, Any]]:
    """What each held-out run measured and what was predicted: trial_id, model, measured, predicted, low, high."""
    named = predicted.rename(columns={target: "measured"})
    rows = named[["trial_id", "model", "measured", "predicted", "low", "high"]].to_dict("records")
    return cast(list[dict[str, Any]], rows)


def _with_errors(trials: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The trials with a column `1 - metric`, the error that falls with data."""
    return trials.assign(**{f"1 - {metric}": 1 - pd.to_numeric(trials[metric], errors="coerce").astype(float)})


def _augmentation(trials: pd.DataFrame, metric: str, bootstrap: int, seed: int) -> list[dict[str, Any]]:
    """What a copy is worth by the loss and, where the study aims at an accuracy or F1, by the errors of that too.

    They need not agree: copies may make a model right more often and too sure where it is wrong.
    """
    worths = worth_of_copies(trials, LOSS, bootstrap, seed)
    if worths and metric not in LOWER_IS_BETTER:
        worths += worth_of_copies(_with_errors(trials, metric), f"1 - {metric}", bootstrap, seed)
    return worths


def _target(trials: pd.DataFrame, leading: Leading, column: str, metric: str, reach: float | None) -> dict[str, Any]:
    """The verdict's `target`.

    The perplexity (the loss's exponential) and bits come from the loss's own laws. Where a metric has no law, how much
    data it needs is unknown.
    """
    best, lower = best_cell(cells(trials, metric), metric), metric in LOWER_IS_BETTER
    aim: dict[str, Any] = {"metric": metric, "reach": reach, "direction": "lower" if lower else "higher"}
    aim |= {"reached": None, "best": None, "needed": None}
    if best is None:
        return {**aim, "note": f"no finished trial has measured {metric}"}
    aim |= {"best": amount(_within(metric, mean_interval(best["values"])), ""), "best_model": best["model"]}
    aim |= {"best_data": int(best["data_requested"]), "best_params": int(best["params"])}
    if reach is None:
        return aim
    reached = bool(reaches(best["metric"], metric, reach))
    aim |= {"reached": reached, "gap": abs(float(best["metric"]) - reach) if not reached else 0.0}
    if reached:
        return aim
    if leading.is_loss and not lower:
        return {**aim, "note": f"no law of {metric} predicts how much data would reach it"}
    able = [law for law in leading.fitted.of(best["model"]) if law.role_of(column)]
    level = _loss_at(trials, best["model"], metric, reach) if lower else reach / _unit(metric)
    return aim | _distance(able, best, metric, level)


def _distance(able: Sequence[Fit], best: pd.Series, metric: str, level: float) -> dict[str, Any]:
    """The data at which the first law that could be fitted is at this `level`, or why none says."""
    law = next((fit for fit in able if fit.estimate is not None), None)
    if not able:
        return {"note": f"no run of {best['model']} did better than guessing, so there is no law"}
    if law is None:
        return {"note": f"no law predicts how much data would reach it: {reasons(able[:1])}"}
    if not level > 0 or metric in ("train_loss", "validation_loss"):
        return {"note": "no law of this study predicts that quantity, or not at that value"}
    size = {"params": float(best["params"])} if "params" in law.columns else {}
    needed = data_needed(law, size, level, rising=metric not in LOWER_IS_BETTER)
    if needed is not None:
        return {"needed": {**needed, "law": law.law.name, "model": best["model"]}}
    end = at_farthest(law, size)
    there = f"its {law.target} is then {end['value']:.3g} (95% interval {end['low']:.3g} to {end['high']:.3g})"
    within = f"within {FARTHEST:g} times the data measured: {there}"
    note = f"the {law.law.name} law predicts that {best['model']} does not reach it {within}"
    return {"limit": end, "note": note}


def _unit(metric: str) -> float:
    """How many of a metric make 1."""
    return 100.0 if metric in PERCENTS else 1.0


def _within(metric: str, interval: Sequence[float | None]) -> list[float | None]:
    """The interval without what no run can measure."""
    top = 1.0 if metric in FRACTIONS else 100.0 if metric in PERCENTS else np.inf
    return changed(interval, lambda end: min(max(end, 0.0), top))


def _loss_at(trials: pd.DataFrame, model: str, metric: str, value: float) -> float:
    """The model's loss where a metric that is another unit of it has this value; a loss as it is."""
    if metric == "perplexity":
        return float(np.log(value)) if value > 1 else value
    if metric in BITS:
        return value / bits_per_nat(trials, metric)[model]
    return value
