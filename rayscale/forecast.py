"""From the trial table to the verdict: laws, gains of doubling, the cheapest allocation, and how far to trust them.

Pure: no clock, no files. Works on any number of trials, also in the middle of a run; what cannot be said is said to be
unknown, with the reason, and no number in the result is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rayscale.allocation import LOWER_IS_BETTER, best_cell, cells, cheapest, data_needed, limit
from rayscale.counted import unfit
from rayscale.errors import InputError
from rayscale.fit import fit_law
from rayscale.fitted import Fit, score
from rayscale.sentences import spoken
from rayscale.speedup import amount, gpu_gain, mean_interval

LOSS = "eval_loss"
FAR = 10.0  # times beyond the data: from here a prediction carries a warning
HOLDOUT_BOOTSTRAP = 200
_NEEDED = ["trial_id", "status", "model", "params", "data_requested", "examples", "tokens", "gpus", "seed", "augment",
           LOSS, "device_seconds", "examples_per_second", "exclusive"]  # fmt: skip


def conclude(
    trials: pd.DataFrame,
    *,
    task_type: str,
    data_axis: str,
    target: str,
    reach: float | None,
    price_gpu_hour: float | None = None,
    currency: str = "USD",
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The object of fit.json for a trial table (columns as in trials.parquet; `data_axis` is examples or tokens).

    `fits`: chinchilla over all models where there are two or more, and power for each model, all on eval_loss; power
    on 1 - `target` of the best model too, where `target` is an accuracy or F1. `verdict`: sentences, target, doubling
    (data, params, gpus), cheapest, held_out. Raises InputError for a data axis that is neither of the two.
    """
    if data_axis not in ("examples", "tokens"):
        raise InputError(f"the data axis is '{data_axis}'; it must be examples or tokens", where="data_axis")
    trials = trials.reindex(columns=list(dict.fromkeys([*trials.columns, *_NEEDED, target]))).reset_index(drop=True)
    shared, own = _fit_all(trials, data_axis, bootstrap, seed)
    held_out, shared = _held_out(trials, shared, data_axis, min(bootstrap, HOLDOUT_BOOTSTRAP), seed)
    aim, on_target = _target(trials, shared, own, data_axis, target, reach, bootstrap, seed)
    found = cells(trials, target)
    verdict: dict[str, Any] = {
        "target": aim,
        "doubling": {**_doubling(trials, shared, own, data_axis), "gpus": gpu_gain(trials)},
        "cheapest": None if reach is None else cheapest(found, target, reach, price_gpu_hour, currency),
        "held_out": held_out,
    }
    fits = [fit for fit in (shared, *own, on_target) if fit is not None]
    verdict = {"sentences": spoken(verdict, [fit.to_json() for fit in fits], task_type, data_axis), **verdict}
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
    _, own = _fit_all(largest, data_axis, 50, 0)
    gain = _doubling(largest, None, own, data_axis)["data"]
    if gain["value"] is None:
        return None
    between = f"95%: {gain['low']:+.1f} to {gain['high']:+.1f}%"
    return f"twice the data: {gain['value']:+.1f}% loss ({between}; {gain['law']} law)"


def predict(saved: Mapping[str, Any], *, params: float, data: float, gpus: int | None = None) -> dict[str, Any]:
    """The loss of a model size and data size from a saved fit.json (or one fit of it), without refitting.

    predicted, low, high (95% for a new run), mean_low, mean_high (for the mean), extrapolation (times beyond the data),
    law, target, warnings. `gpus` adds `speedup` over the fewest GPUs measured: GPUs change no loss at a fixed global
    batch. Raises InputError where no fit can say, with its reasons.
    """
    listed = saved["fits"] if "fits" in saved else saved.get("groups", [saved])
    known = [Fit.from_json(each) for each in listed if each.get("target") == LOSS or "fits" not in saved]
    usable = [fit for fit in known if fit.estimate is not None]
    shared = [fit for fit in usable if "params" in fit.columns]
    of_size = [fit for fit in usable if (fit.by or {}).get("params") == params]
    alone = [fit for fit in usable if len(listed) == 1 and not fit.by]
    if not (chosen := [*shared, *of_size, *alone]):
        sizes = sorted(fit.by["params"] for fit in usable if fit.by and "params" in fit.by)
        text = f"no law over model sizes was fitted, and none for {params:g} parameters (sizes with their own: {sizes})"
        raise InputError(f"{text}: {_reasons(known)}", code="not_identifiable")
    fit = chosen[0]
    values = {"params": params, "data": data}
    asked = pd.DataFrame({column: [float(values[role])] for role, column in fit.columns.items()})
    found: dict[str, Any] = {str(name): float(value) for name, value in fit.predict(asked).iloc[0].items()}
    warnings = list(fit.warnings)
    if found["extrapolation"] > FAR:
        text = f"{found['extrapolation']:.3g} times beyond the data: the interval holds only if the law does"
        warnings.append({"code": "far_extrapolation", "message": text})
    found |= {"law": fit.law.name, "target": fit.target, "params": params, "data": data, "warnings": warnings}
    if gpus is not None:
        found |= {"gpus": gpus, "speedup": _speedup(saved, gpus)}
    return found


def _reasons(fits: Iterable[Fit]) -> str:
    """Why these fits were refused, each reason once."""
    refused = [fit for fit in fits if fit.estimate is None]
    said = [each["message"] for fit in refused for each in fit.warnings if each["code"] != "dropped_rows"]
    return "; ".join(dict.fromkeys(said))


def _speedup(saved: Mapping[str, Any], gpus: int) -> float | None:
    """The measured ratio of speed at `gpus` over the fewest measured; None where this count was not measured."""
    steps = saved.get("verdict", {}).get("doubling", {}).get("gpus", {}).get("curve", [])
    ratio = 1.0
    for step in steps:
        if step["from"] == gpus:
            return ratio
        ratio *= step["value"]
        if step["to"] == gpus:
            return ratio
    return None


def _fit_rows(
    trials: pd.DataFrame, rows: NDArray[np.bool_], reasons: NDArray[Any], law: str, column: str, target: str,
    bootstrap: int, seed: int, holdout: str | None = None,
) -> Fit:  # fmt: skip
    """The fit of a law to `rows` (a mask) without those that have a reason; these are listed as dropped."""
    places = np.flatnonzero(rows & (reasons == ""))
    size = "params" if law == "chinchilla" else None
    found = cast(Fit, fit_law(trials.iloc[places], law, params=size, data=column, target=target, holdout=holdout,
                              bootstrap=bootstrap, seed=seed))  # fmt: skip
    own = [{**each, "row": int(places[each["row"]])} for each in found.rows_dropped]
    others = [{"row": int(row), "reason": str(reasons[row])} for row in np.flatnonzero(rows & (reasons != ""))]
    return replace(found, rows_dropped=tuple(sorted([*own, *others], key=lambda each: each["row"])))


def _models(trials: pd.DataFrame) -> pd.Series:
    """Parameters by model name, the smallest first."""
    sized = trials[trials["status"] == "ok"].dropna(subset=["params"])
    return sized.groupby("model")["params"].median().astype(float).sort_values(kind="stable")


def _fit_all(trials: pd.DataFrame, column: str, bootstrap: int, seed: int, holdout: str | None = None
             ) -> tuple[Fit | None, list[Fit]]:  # fmt: skip
    """Chinchilla over all models (None with fewer than two sizes), and power for each model, smallest first."""
    reasons, models = unfit(trials), _models(trials)
    own = []
    for model, params in models.items():
        rows = (trials["model"] == model).to_numpy(dtype=bool, na_value=False)
        fit = _fit_rows(trials, rows, reasons, "power", column, LOSS, bootstrap, seed, holdout)
        own.append(replace(fit, by={"model": model, "params": params}))
    if models.nunique() < 2:
        return None, own
    everything = np.ones(len(trials), dtype=bool)
    return _fit_rows(trials, everything, reasons, "chinchilla", column, LOSS, bootstrap, seed, holdout), own


def _doubling(trials: pd.DataFrame, shared: Fit | None, own: list[Fit], column: str) -> dict[str, dict[str, Any]]:
    """Relative change of the mean loss, in percent, for twice the data and for a model twice as large.

    From the largest cell: the largest model at the most data it was trained on.
    """
    models = _models(trials)
    if not len(models):
        nothing = amount((None, None, None), "%", note="no trial has finished")
        return {"data": nothing, "params": nothing}
    largest, params = models.index[-1], float(models.iloc[-1])
    data = float(trials.loc[(trials["model"] == largest) & (trials["status"] == "ok"), column].max())
    cell = {"params": params, "data": data}
    found = {}
    for role in ("data", "params"):
        able = [fit for fit in (shared, own[-1]) if fit is not None and role in fit.columns]
        usable = [fit for fit in able if fit.estimate is not None]
        if not usable:
            missing = "only one model size was run" if role == "params" else "no law was fitted"
            found[role] = amount((None, None, None), "%", note=_reasons(able) or missing)
            continue
        fit, after = usable[0], {**cell, role: 2 * cell[role]}
        beyond = max(1.0, after[role] / fit.data_range[role][1])
        note = f"loss of {largest} at {data:,.0f} {column}, {fit.law.name} law, {beyond:.3g} times beyond the data"
        facts = {"law": fit.law.name, "model": largest, "from": cell[role], "to": after[role], "extrapolation": beyond}
        found[role] = amount([100 * each for each in fit.change(cell, after)], "%", note=note, **facts)
    return found


def _held_out(
    trials: pd.DataFrame, shared: Fit | None, column: str, bootstrap: int, seed: int
) -> tuple[dict[str, Any], Fit | None]:
    """Fits without the largest data size, and how they foretell it: the law, power per model, and the last value kept.

    Returns the verdict's `held_out` and the law over all models with that score attached: `shared` itself still rests
    on all rows, the score belongs to the same law fitted without the largest size.
    """
    rows = trials[(trials["status"] == "ok") & (unfit(trials) == "")].dropna(subset=[LOSS, column, "params"])
    sizes = sorted(rows[column].unique())
    if len(sizes) < 2:
        return {"n": 0, "note": "fewer than two data sizes: none can be held out"}, shared
    last, before = float(sizes[-1]), float(sizes[-2])
    without, alone = _fit_all(trials, column, bootstrap, seed, holdout=f"{column} >= {last!r}")
    held = rows[rows[column] >= last]
    kept = rows[rows[column] < last].sort_values(column, kind="stable")
    latest = kept[kept[column] == kept.groupby("model")[column].transform("max")].groupby("model")[LOSS].mean()
    constant = held.assign(predicted=held["model"].map(latest), low=0.0, high=np.inf).dropna(subset=["predicted"])
    each = [fit.predictions for fit in alone if fit.predictions is not None]
    scores: dict[str, Any] = {
        "chinchilla": without.held_out if without is not None else None,
        "power": score(pd.concat(each), LOSS) if each else None,
        "constant": {**score(constant, LOSS), "covered": None},
    }
    scores = {name: found for name, found in scores.items() if found and found["n"]}
    facts = {"data": last, "unit": column, "extrapolation": last / before}
    law = next((name for name in ("chinchilla", "power") if name in scores), None)
    if law is None:
        fits = [fit for fit in (without, *alone) if fit is not None]
        note = f"without the largest data size no law can be fitted: {_reasons(fits)}"
        return {"n": 0, "note": note, **facts, "rivals": scores}, shared
    chosen = scores.pop(law)
    if shared is not None and law == "chinchilla":
        shared = replace(shared, held_out=chosen)
        if "constant" in scores and chosen["rmse_log"] >= scores["constant"]["rmse_log"]:
            text = "on the held-out largest data size the law foretold less well than the last value kept constant"
            shared = replace(shared, warnings=(*shared.warnings, {"code": "misspecified", "message": text}))
    predicted = pd.concat(each) if law == "power" or without is None else without.predictions
    return {"law": law, **chosen, **facts, "rivals": scores, "rows": _held_rows(predicted)}, shared


def _held_rows(predicted: pd.DataFrame | None) -> list[dict[str, Any]]:
    """What each held-out run measured and what was foretold: trial_id, model, measured, predicted, low, high."""
    if predicted is None:
        return []
    named = predicted.rename(columns={LOSS: "measured"})
    names = ("trial_id", "model", "measured", "predicted", "low", "high")
    return [dict(zip(names, row, strict=True)) for row in named[list(names)].itertuples(index=False)]


def _target(
    trials: pd.DataFrame, shared: Fit | None, own: list[Fit], column: str, metric: str, reach: float | None,
    bootstrap: int, seed: int,
) -> tuple[dict[str, Any], Fit | None]:  # fmt: skip
    """The verdict's `target`, and the fit that it needed beyond those of the loss (None for losses).

    The loss and the perplexity (its exponential) come from the loss's own laws. An accuracy or F1 is one minus an error
    that falls with data: the power law of that error, for the model that came nearest.
    """
    found = cells(trials, metric)
    best, lower = best_cell(found, metric), metric in LOWER_IS_BETTER
    aim: dict[str, Any] = {"metric": metric, "reach": reach, "direction": "lower" if lower else "higher"}
    aim |= {"reached": None, "best": None, "needed": None}
    if best is None:
        return {**aim, "note": f"no finished trial has measured {metric}"}, None
    aim |= {"best": amount(mean_interval(best["values"]), ""), "best_model": best["model"]}
    aim |= {"best_data": int(best["data_requested"]), "best_params": int(best["params"])}
    fit, level = None, reach
    if not lower:
        errors = trials.assign(**{f"1 - {metric}": 1 - pd.to_numeric(trials[metric], errors="coerce").astype(float)})
        mine = (trials["model"] == best["model"]).to_numpy(dtype=bool, na_value=False)
        fit = _fit_rows(errors, mine, unfit(trials), "power", column, f"1 - {metric}", bootstrap, seed)
        fit = replace(fit, by={"model": best["model"], "params": float(best["params"])})
        asked, level = fit, None if reach is None else 1 - reach
    else:
        its_own = [each for each in own if (each.by or {}).get("model") == best["model"]]
        usable = [each for each in (shared, *its_own) if each is not None and each.estimate is not None]
        asked = usable[0] if usable else its_own[0]
        level = float(np.log(reach)) if reach is not None and metric == "perplexity" and reach > 1 else reach
    if reach is None:
        return aim, fit
    reached = bool(best["metric"] <= reach if lower else best["metric"] >= reach)
    aim |= {"reached": reached, "gap": abs(float(best["metric"]) - reach) if not reached else 0.0}
    if reached:
        return aim, fit
    if asked.estimate is None:
        return {**aim, "note": f"no law can say how much data would reach it: {_reasons([asked])}"}, fit
    if level is None or level <= 0 or metric in ("train_loss", "validation_loss"):
        return {**aim, "note": "no law of this study is on that quantity, or it lies where no law reaches"}, fit
    size = {"params": float(best["params"])} if "params" in asked.columns else {}
    needed = data_needed(asked, size, level)
    if needed is None:
        end = limit(asked, size)
        note = (
            f"by the {asked.law.name} law {best['model']} does not get there with any amount of data: "
            f"its {asked.target} approaches {end['value']:.4g} (95%: {end['low']:.4g} to {end['high']:.4g})"
        )
        return {**aim, "limit": end, "note": note}, fit
    return {**aim, "needed": {**needed, "law": asked.law.name, "model": best["model"]}}, fit
