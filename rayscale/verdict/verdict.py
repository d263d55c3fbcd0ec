"""From the trial table to the verdict: laws, gains of doubling, the cheapest allocation, and how far to trust them.

Pure: no clock, no files. Works on any number of trials, also in the middle of a run; what cannot be said is said to be
unknown, with the reason, and no number in the result is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rayscale.errors import InputError
from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.held_out import too_narrow
from rayscale.laws.fitting.result import Fit, score
from rayscale.laws.formula import find_law
from rayscale.laws.law import Law
from rayscale.runs.fit_rows import GUESS, unfit, untrained
from rayscale.study.metrics import BITS, FRACTIONS, LOWER_IS_BETTER, PERCENTS
from rayscale.system.groups import grouped
from rayscale.verdict.allocation import FARTHEST, at_farthest, best_cell, cells, cheapest, data_needed, reaches
from rayscale.verdict.claim import study_claim
from rayscale.verdict.copies import worth_of_copies
from rayscale.verdict.metric_law import LOSS, bits_per_nat, refusals
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

    `fits`: the `laws` (None: auto, chinchilla and power), all on eval_loss: those with the model size among their
    inputs over all models, where there are two sizes or more, the others for each model; power on 1 - `target` of the
    best model too, where `target` is an accuracy or F1. The verdict rests on the first law that could be fitted, those
    over all models first; the others are its rivals in the hold-out check. `verdict`: target, doubling
    (data, params, gpus), cheapest, held_out, augmentation (see `worth_of_copies`), untrained (null, or how many runs
    did no better than guessing; no law counts them), claim (see `study_claim`). Raises InputError for a data axis that
    is neither of the two, and for a law over anything but model size and data.
    """
    if data_axis not in ("examples", "tokens"):
        raise InputError(f"the data axis is '{data_axis}'; it must be examples or tokens", where="data_axis")
    trials = trials.reindex(columns=list(dict.fromkeys([*trials.columns, *_NEEDED, target]))).reset_index(drop=True)
    chosen = USUAL if laws is None else tuple(laws)
    fitted = _fit_all(trials, chosen, data_axis, bootstrap, seed)
    held_out, fitted = _held_out(trials, fitted, chosen, data_axis, min(bootstrap, HOLDOUT_BOOTSTRAP), seed)
    aim, on_target = _target(trials, fitted, data_axis, target, reach, bootstrap, seed)
    verdict: dict[str, Any] = {
        "target": aim,
        "doubling": {**_doubling(trials, fitted, data_axis), "gpus": gpu_gain(trials)},
        "cheapest": None if reach is None else cheapest(cells(trials, target), target, reach, price_gpu_hour, currency),
        "held_out": held_out,
        "augmentation": _augmentation(trials, target, bootstrap, seed),
        "untrained": _untrained(trials),
        "claim": study_claim(trials, target),
    }
    fits = [fit for fit in (*fitted.shared, *fitted.single, on_target) if fit is not None]
    return {"fits": [fit.to_json() for fit in fits], "verdict": verdict}


def law_line(trials: pd.DataFrame, data_axis: str) -> str | None:
    """The law so far in one line for the live view: that of the largest model so far; None while there is none.

    One curve with few resamples, since it is fitted while trials train on the same cores.
    """
    trials = trials.reindex(columns=list(dict.fromkeys([*trials.columns, *_NEEDED]))).reset_index(drop=True)
    models = _models(trials)
    if not len(models):
        return None
    largest = trials[trials["model"] == models.index[-1]].reset_index(drop=True)
    gain = _doubling(largest, _fit_all(largest, ("power",), data_axis, 50, 0), data_axis)["data"]
    if gain["value"] is None:
        return None
    between = f"95%: {gain['low']:+.1f} to {gain['high']:+.1f}%"
    return f"twice the data: {gain['value']:+.1f}% loss ({between}; {gain['law']} law)"


def reasons(fits: Iterable[Fit]) -> str:
    """Why these fits were refused, each reason once."""
    return "; ".join(dict.fromkeys(text for fit in fits if fit.estimate is None for text in refusals(fit)))


@dataclass(frozen=True)
class _Fitted:
    """The laws over all models and those of one model each (smallest first), both in the order of the study's laws."""

    shared: tuple[Fit, ...]
    single: tuple[Fit, ...]

    def of(self, model: str) -> list[Fit]:
        """What may speak of a model, the most trusted first."""
        return [*self.shared, *(fit for fit in self.single if (fit.by or {}).get("model") == model)]


def _fit_rows(
    trials: pd.DataFrame, rows: NDArray[np.bool_], law: str | Law, column: str, target: str, bootstrap: int, seed: int,
    holdout: str | None = None,
) -> Fit:  # fmt: skip
    """The fit of a law to `rows` (a mask) without those that are unfit for it; these are listed as dropped."""
    reasons = unfit(trials)
    places = np.flatnonzero(rows & (reasons == ""))
    size = "params" if _is_over_models(law) else None
    fit = cast(Fit, fit_law(trials.iloc[places], law, params=size, data=column, target=target, holdout=holdout,
                              bootstrap=bootstrap, seed=seed))  # fmt: skip
    dropped = [{**entry, "row": int(places[entry["row"]])} for entry in fit.rows_dropped]
    others = [{"row": int(row), "reason": str(reasons[row])} for row in np.flatnonzero(rows & (reasons != ""))]
    warned = _untrained(trials.iloc[np.flatnonzero(rows)])
    warnings = () if warned is None else ({"code": "untrained", "message": untrained_text(warned)},)
    ordered = tuple(sorted([*dropped, *others], key=lambda entry: entry["row"]))
    return replace(fit, rows_dropped=ordered, warnings=(*warnings, *fit.warnings))


def untrained_text(lost: Mapping[str, Any]) -> str:
    """How many runs did no better than guessing, and what guessing scores."""
    low, high = f"{lost['low']:.3g}", f"{lost['high']:.3g}"
    level = low if low == high else f"{low} to {high}"
    return (
        f"{lost['runs']} of {lost['of']} runs did no better than guessing (test loss at or above {level}) and "
        f"{'is' if lost['runs'] == 1 else 'are'} left out of every law"
    )


def _untrained(trials: pd.DataFrame) -> dict[str, Any] | None:
    """How many ok runs did no better than guessing, and the least and most that guessing scores; None if none did."""
    worse = untrained(trials)
    if not worse.any():
        return None
    guesses = trials.loc[worse, GUESS]
    return {
        "runs": int(worse.sum()),
        "of": int((trials["status"] == "ok").sum()),
        "low": float(guesses.min()),
        "high": float(guesses.max()),
    }


def _models(trials: pd.DataFrame) -> pd.Series:
    """Parameters by model name, the smallest first, of the models of which a run learnt anything."""
    sized = trials[(trials["status"] == "ok") & ~untrained(trials)].dropna(subset=["params"])
    return sized.groupby("model")["params"].median().astype(float).sort_values(kind="stable")


def _is_of(trials: pd.DataFrame, model: Any) -> NDArray[np.bool_]:
    """Which trials are of this model, (rows,)."""
    return (trials["model"] == model).to_numpy(dtype=bool, na_value=False)


def _is_over_models(law: str | Law) -> bool:
    return law == "auto" or "params" in find_law(law).inputs


def _fit_all(
    trials: pd.DataFrame, laws: Sequence[str | Law], column: str, bootstrap: int, seed: int, holdout: str | None = None
) -> _Fitted:
    """Every law over all models (none with fewer than two sizes) or for each model, as its inputs have it."""
    models = _models(trials)
    shared, single = [], []
    for law in laws:
        if strange := [role for role in find_law(law).inputs if role not in ("params", "data")]:
            text = f"{find_law(law).name} is a law over {', '.join(strange)}; that of a loss is over params and data"
            raise InputError(text, where="laws")
        if _is_over_models(law):
            if models.nunique() > 1 or len(laws) == 1:
                everything = np.ones(len(trials), dtype=bool)
                shared.append(_fit_rows(trials, everything, law, column, LOSS, bootstrap, seed, holdout))
            continue
        for model, params in models.items():
            fit = _fit_rows(trials, _is_of(trials, model), law, column, LOSS, bootstrap, seed, holdout)
            single.append(replace(fit, by={"model": model, "params": params}))
    return _Fitted(tuple(shared), tuple(single))


def _doubling(trials: pd.DataFrame, fitted: _Fitted, column: str) -> dict[str, dict[str, Any]]:
    """Relative change of the mean loss, in percent, for twice the data and for a model twice as large.

    From the largest cell: the largest model at the most data it was trained on.
    """
    models = _models(trials)
    if not len(models):
        note = "no run did better than guessing" if untrained(trials).any() else "no trial has finished"
        nothing = amount((None, None, None), "%", note=note)
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
            gains[axis] = amount((None, None, None), "%", note=reasons(able) or missing)
            continue
        fit, before, after = usable[0], cell[size], 2 * cell[size]
        beyond = max(1.0, after / fit.data_range[str(fit.role_of(size))][1])
        reach = f"{fit.law.name} law, {beyond:.3g} times the largest size measured"
        note = f"loss of {largest} at {data:,.0f} {column}, {reach}"
        facts = {"law": fit.law.name, "model": largest, "from": before, "to": after, "extrapolation": beyond}
        sizes = [{role: at[name] for role, name in fit.columns.items()} for at in (cell, {**cell, size: after})]
        gains[axis] = amount([100 * change for change in fit.change(*sizes)], "%", note=note, **facts)
    return gains


def _held_out(
    trials: pd.DataFrame, fitted: _Fitted, laws: Sequence[str | Law], column: str, bootstrap: int, seed: int
) -> tuple[dict[str, Any], _Fitted]:
    """Fits without the largest data size, and how they predict it: every law, and the last value kept.

    Returns the verdict's `held_out` and the laws over all models with their scores attached: these still rest on all
    rows, a score belongs to the same law fitted without the largest size.
    """
    rows = trials[(trials["status"] == "ok") & (unfit(trials) == "")].dropna(subset=[LOSS, column, "params"])
    sizes = sorted(rows[column].unique())
    if len(sizes) < 2:
        return {"n": 0, "note": "fewer than two data sizes: none can be held out"}, fitted
    last, before = float(sizes[-1]), float(sizes[-2])
    without = _fit_all(trials, laws, column, bootstrap, seed, holdout=f"{column} >= {last!r}")
    held = rows[rows[column] >= last]
    kept = rows[rows[column] < last].sort_values(column, kind="stable")
    latest = kept[kept[column] == kept.groupby("model")[column].transform("max")].groupby("model")[LOSS].mean()
    constant = held.assign(predicted=held["model"].map(latest), low=0.0, high=np.inf).dropna(subset=["predicted"])
    # A law of model sizes alone says nothing about data.
    fits = (fit for fit in (*without.shared, *without.single) if fit.role_of(column))
    tables = ((fit.law.name, fit.predictions) for fit in fits if fit.predictions is not None and len(fit.predictions))
    predicted = grouped(tables)
    scores = {name: score(pd.concat(parts), LOSS) for name, parts in predicted.items()}
    if len(constant):
        scores["constant"] = {**score(constant, LOSS), "covered": None}
    facts = {"data": last, "unit": column, "extrapolation": last / before}
    # The law of the verdict: the first that was fitted to all rows and could be fitted to these.
    trusted = [fit.law.name for fit in (*fitted.shared, *fitted.single) if fit.estimate is not None]
    law = next((name for name in [*trusted, *predicted] if name in predicted), None)
    if law is None:
        note = f"without the largest data size no law can be fitted: {reasons((*without.shared, *without.single)[-1:])}"
        return {"n": 0, "note": note, **facts, "rivals": scores}, fitted
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
    rows = _held_rows(pd.concat(predicted[law]))
    check = {"law": law, **chosen, **facts, "too_narrow": narrow, "rivals": scores, "rows": rows}
    return check, _Fitted(*doubted)


def _held_rows(predicted: pd.DataFrame) -> list[dict[str, Any]]:
    """What each held-out run measured and what was predicted: trial_id, model, measured, predicted, low, high."""
    named = predicted.rename(columns={LOSS: "measured"})
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


def _target(
    trials: pd.DataFrame, fitted: _Fitted, column: str, metric: str, reach: float | None, bootstrap: int, seed: int,
) -> tuple[dict[str, Any], Fit | None]:  # fmt: skip
    """The verdict's `target`, and the fit that it needed beyond those of the loss (None for losses).

    The loss, the perplexity (its exponential) and bits come from the loss's own laws. An accuracy or F1 is one minus an
    error that falls with data: the power law of that error, for the model that came nearest.
    """
    best, lower = best_cell(cells(trials, metric), metric), metric in LOWER_IS_BETTER
    aim: dict[str, Any] = {"metric": metric, "reach": reach, "direction": "lower" if lower else "higher"}
    aim |= {"reached": None, "best": None, "needed": None}
    if best is None:
        return {**aim, "note": f"no finished trial has measured {metric}"}, None
    aim |= {"best": amount(_within(metric, mean_interval(best["values"])), ""), "best_model": best["model"]}
    aim |= {"best_data": int(best["data_requested"]), "best_params": int(best["params"])}
    fit: Fit | None = None
    if lower:
        able = [law for law in fitted.of(best["model"]) if law.role_of(column)]
    else:
        errors, of_model = _with_errors(trials, metric), _is_of(trials, best["model"])
        fit = _fit_rows(errors, of_model, "power", column, f"1 - {metric}", bootstrap, seed)
        fit = replace(fit, by={"model": best["model"], "params": float(best["params"])})
        able = [fit]
    if reach is None:
        return aim, fit
    reached = bool(reaches(best["metric"], metric, reach))
    aim |= {"reached": reached, "gap": abs(float(best["metric"]) - reach) if not reached else 0.0}
    if reached:
        return aim, fit
    level = _loss_at(trials, best["model"], metric, reach) if lower else 1 - reach
    return aim | _distance(able, best, metric, level), fit


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
    if (needed := data_needed(law, size, level)) is not None:
        return {"needed": {**needed, "law": law.law.name, "model": best["model"]}}
    end = at_farthest(law, size)
    there = f"its {law.target} is then {end['value']:.3g} (95% interval {end['low']:.3g} to {end['high']:.3g})"
    within = f"within {FARTHEST:g} times the data measured: {there}"
    note = f"the {law.law.name} law predicts that {best['model']} does not reach it {within}"
    return {"limit": end, "note": note}


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
