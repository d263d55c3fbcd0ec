"""The cheapest allocation predicted to reach a target: the models and GPU counts measured, data up to a reach."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from rayscale.errors import InputError, TableError
from rayscale.laws.fitting.observations import require_columns
from rayscale.laws.fitting.result import far
from rayscale.runs.fit_rows import data_column, unfit, untrained
from rayscale.runs.folder import Run
from rayscale.verdict.allocation import FARTHEST
from rayscale.verdict.costs import Cost, costs
from rayscale.verdict.metric_law import INTERVALS, Quality, measured, measured_metrics, quality
from rayscale.verdict.selection import chances, optimism
from rayscale.verdict.speedup import gpu_counts
from rayscale.verdict.targets import Goal, Spending, parse_budget, parse_target

LIKELY = 0.5  # of new runs that should reach the target
CHANCE = 0.01  # of reaching the target: below it candidates are ordered by their prediction, as the reason is
_PER_DECADE = 24  # data sizes tried in each factor of ten, besides those measured
_FRONTIER = 8
_UNKNOWN = Cost(np.nan, np.nan, None, "", 1.0)
_NUMBERS = (*INTERVALS, "extrapolation", "probability")


def recommend(
    trials: pd.DataFrame,
    target: str,
    *,
    data: str | None = None,
    budget: str | None = None,
    price_gpu_hour: float | None = None,
    currency: str = "USD",
    beyond: float = FARTHEST,
    probability: float = LIKELY,
    planned: pd.DataFrame | None = None,
    share: float = 1.0,
    law: str = "auto",
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The cheapest run predicted to reach `target` ("f1_macro>=0.92", "eval_loss<=1.5"), within `budget` if given.

    `trials`: columns as in trials.parquet; `data`: examples or tokens. Searched are the models and GPU counts of the ok
    trials, and data sizes from the smallest measured to `beyond` times the largest. `budget` is "20gpuh" or "50usd" for
    one run. `probability`: the share of new runs that should reach the target. `planned` (model, gpus,
    data_requested, gpu_seconds) prices models that no run has timed. `share`: what a trial is to take of each GPU (1:
    all of it); runs that took so much are priced where there are any. `law`: a law of params and data, or auto.

    predicted, low, high (95% for a new run), mean_low, mean_high, extrapolation, probability, allocation (model,
    params, data, gpus), share, gpu_hours, gpu_hours_low, gpu_hours_high, hours, money; null throughout where nothing
    reaches the target, with `reason` and the `nearest` allocation. `within_data`: the cheapest one with no more data
    than was measured. `frontier`: the best prediction at each step of cost. `unknown`: what these trials do not show.
    Raises InputError for a wrong target or budget, TableError for a table without runs.
    """
    require_columns(trials, ["status", "model", "params", "gpus", "seed", "data_requested"])
    trials = trials.reset_index(drop=True)
    data = data or data_column(trials, {})
    if not 1 <= beyond <= 1000:
        raise InputError(f"must lie between 1 and 1000, found {beyond:g}", where="--beyond")
    if not 0 < probability < 1:
        raise InputError(f"must lie between 0 and 1, found {probability:g}", where="--probability")
    aim = parse_target(target, measured_metrics(trials))
    limit = None if budget is None else parse_budget(budget, price_gpu_hour, currency)
    if "augment" not in trials.columns:
        trials = trials.assign(augment="none")
    measured_rows = pd.to_numeric(trials[aim.metric], errors="coerce").notna()
    rows = trials[(trials["status"] == "ok") & (unfit(trials) == "") & measured_rows]
    metric_law = quality(rows, aim, data, law=law, bootstrap=bootstrap, seed=seed)
    prices = costs(trials, data, planned, share)
    search = _candidates(trials, rows, metric_law, prices, data, beyond)
    if not len(search):
        worse = untrained(trials[trials["status"] == "ok"].reset_index(drop=True))
        if worse.any() and worse.all():
            text = "no run did better than guessing: train longer, or start at larger sizes"
            raise TableError(text, code="untrained", where=aim.metric)
        raise TableError(f"no ok run has {aim.metric}, {data} and params: there is nothing to fit", where=data)
    cost = "gpu_hours" if search["gpu_hours"].notna().any() else "work"
    search = search.dropna(subset=[cost]).reset_index(drop=True)
    affordable = _affordable(search, limit, price_gpu_hour)
    search = _with_chances(search, metric_law, affordable, cost, seed)
    good = _reach(search, aim, probability)
    answer = search[good & affordable].sort_values([cost, "extrapolation", "gpus"], kind="stable")
    row = answer.iloc[0] if len(answer) else None
    facts = partial(_facts, price=price_gpu_hour, currency=currency)
    inside = answer[answer["extrapolation"] <= 1]
    nearest = _nearest(search[affordable], aim, cost) if row is None and affordable.any() else None
    return {
        "target": {"metric": aim.metric, "reach": aim.reach, "direction": "lower" if aim.lower else "higher"},
        **facts(row),
        "reason": None if row is not None else _reason(search, good, affordable, aim, limit, probability, beyond, cost),
        "nearest": None if nearest is None else facts(nearest),
        "within_data": facts(inside.iloc[0]) if len(inside) else None,
        "budget": None if limit is None else {"amount": limit.amount, "unit": limit.unit},
        "basis": _basis(metric_law, prices, row),
        "frontier": [facts(step) for _, step in _frontier(search, aim, cost, row).iterrows()],
        "searched": {
            "models": sorted(search["model"].unique()),
            "gpus": gpu_counts(search),
            "data": [float(search["data"].min()), float(search["data"].max())],
            "data_unit": data,
            "largest_measured": float(rows[data].max()),
            "beyond": beyond,
        },
        "unknown": _unknown(trials, metric_law, prices, row, cost),
        "warnings": _warnings(metric_law, row),
    }


def recommend_run(run: Run, target: str, **options: Any) -> dict[str, Any]:
    """`recommend` for a run folder, with its data axis, its prices, its sharing of GPUs and its plan's estimates."""
    plan = run.plan if run.store.exists("plan.json") else {}
    price = plan.get("prices") or {}
    planned = pd.DataFrame(plan.get("trials") or [])
    if len(planned):
        planned["model"] = [model.get("name") if isinstance(model, Mapping) else model for model in planned["model"]]
    return recommend(
        run.judged_trials, target, data=plan.get("data_axis"), price_gpu_hour=price.get("gpu_hour"),
        currency=price.get("currency") or "USD", planned=planned if "gpu_seconds" in planned.columns else None,
        share=1 / (plan.get("machine") or {}).get("trials_per_gpu", 1), **options,
    )  # fmt: skip


def _nearest(search: pd.DataFrame, aim: Goal, cost: str) -> pd.Series:
    """The candidate with the best chance of the target; where none has one, that of the best prediction."""
    chance = search["probability"].fillna(-1.0)
    if not chance.max() >= CHANCE:
        chance = chance * 0.0  # tails of a distribution tell less than how far the prediction is off
    sure = search.assign(order=chance, far=search["predicted"] * (1 if aim.lower else -1))
    return sure.sort_values(["order", "far", cost], ascending=[False, True, True]).iloc[0]


def _candidates(
    trials: pd.DataFrame, rows: pd.DataFrame, metric_law: Quality, prices: Mapping[tuple[str, int], Cost], data: str,
    beyond: float,
) -> pd.DataFrame:  # fmt: skip
    """Every allocation searched: model, params, data, gpus, what it is predicted to reach, and what it costs.

    A model without a law has its measured cells alone.
    """
    rows = rows.dropna(subset=[data, "params"])
    sizes = rows[data].astype(float)
    counts = gpu_counts(trials[trials["status"] == "ok"])
    parts = []
    for model, trials_of_model in rows.groupby("model", sort=True):
        cells = trials_of_model.groupby("data_requested")
        middle = cells[data].mean().astype(float)
        facts = [measured(cell, metric_law.target) for _, cell in cells]
        ran = {size: {"runs": fact["runs"], "mean": fact["predicted"], "reaching": fact["reaching"]}
               for size, fact in zip(middle, facts, strict=True) if fact["runs"]}  # fmt: skip
        tried = _sizes(sizes, middle, beyond)
        frame = metric_law.predict(str(model), tried)
        if frame is not None:
            frame = frame.assign(probability=np.nan)  # until it is known what would be chosen
        else:
            frame = pd.DataFrame(facts).reindex(columns=list(_NUMBERS)).assign(extrapolation=1.0)
            frame = frame[frame["predicted"].notna()]
            tried = middle.to_numpy()[frame.index]
        frame = frame.reset_index(drop=True).astype(float)
        params = float(trials_of_model["params"].median())
        for gpus in counts:
            price = prices.get((str(model), gpus), _UNKNOWN)
            hours = price.seconds(tried) / 3600
            spread = np.exp(np.nan if price.spread is None else price.spread)
            parts.append(
                frame.assign(
                    model=str(model), params=params, data=tried, gpus=gpus, share=price.share, cost_basis=price.basis,
                    gpu_hours=hours, gpu_hours_low=hours / spread, gpu_hours_high=hours * spread,
                    hours=hours / gpus / price.share,
                    # Without any times: parameters x data, in proportion to the compute of one pass.
                    work=params * tried * (1 + 1e-9 * gpus),
                    runs=pd.Series([ran.get(size) for size in tried], dtype=object),
                )
            )  # fmt: skip
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _with_chances(
    search: pd.DataFrame, metric_law: Quality, affordable: pd.Series, cost: str, seed: int
) -> pd.DataFrame:
    """The search with the probability that a new run of each allocation of a model with a law reaches the target.

    It is what becomes of the law's own probability for an allocation that was chosen by it as the cheapest.
    """
    with_law = search[search["model"].isin([*metric_law.fits])]
    cheapest = with_law.sort_values(cost, kind="stable").drop_duplicates(["model", "data"])  # GPUs change no quality
    parts = {model: metric_law.ahead(str(model), rows["data"].to_numpy(dtype=float))
             for model, rows in cheapest.groupby("model", sort=False)}  # fmt: skip
    if not parts:
        return search
    draws = min(len(ahead) for ahead, _ in parts.values())
    rows = pd.concat([cheapest[cheapest["model"] == model] for model in parts])
    ahead = np.concatenate([ahead[:draws] for ahead, _ in parts.values()], axis=1)
    noise = np.concatenate([np.full(part.shape[1], deviation) for part, deviation in parts.values()])
    probability = chances(ahead, noise)
    choice = affordable[rows.index].to_numpy()
    if choice.any():
        stated, realised = optimism(ahead[:, choice], noise[choice], rows.loc[choice, cost].to_numpy(dtype=float), seed)
        probability = np.interp(probability, stated, realised)
    known = pd.Series(probability, index=pd.MultiIndex.from_frame(rows[["model", "data"]]))
    by_law = known.reindex(pd.MultiIndex.from_frame(search[["model", "data"]])).to_numpy()
    return search.assign(probability=np.where(np.isnan(by_law), search["probability"], by_law))


def _sizes(sizes: pd.Series, measured_at: pd.Series, beyond: float) -> np.ndarray:
    """The model's own measured sizes and, between them and beyond, round numbers evenly spread in log."""
    least, most = float(sizes.min()), float(sizes.max()) * beyond
    count = max(2, int(np.ceil(_PER_DECADE * np.log10(most / least))) + 1)
    grid = np.geomspace(least, most, count)
    digits = 10.0 ** (np.floor(np.log10(grid)) - 1)
    rounded = np.round(grid / digits) * digits  # two digits: nobody labels 8,137 examples on purpose
    inside = rounded[(rounded >= least) & (rounded <= most)]
    return np.unique(np.concatenate([inside, measured_at.to_numpy(dtype=float)]))


def _reach(search: pd.DataFrame, aim: Goal, probability: float) -> pd.Series:
    """Which rows are predicted to reach the target: with that probability, or by the mean where none is known."""
    mean = search["predicted"] <= aim.reach if aim.lower else search["predicted"] >= aim.reach
    known = search["probability"] >= probability
    return known.where(search["probability"].notna(), mean & (probability <= LIKELY))


def _affordable(search: pd.DataFrame, limit: Spending | None, price: float | None) -> pd.Series:
    if limit is None:
        return pd.Series(True, index=search.index)
    hours = limit.amount if limit.unit == "gpuh" else limit.amount / float(price or np.inf)
    return search["gpu_hours"] <= hours  # an unknown cost is within no budget


def _frontier(search: pd.DataFrame, aim: Goal, cost: str, chosen: pd.Series | None) -> pd.DataFrame:
    """Allocations that none is cheaper and better than, thinned to a few steps of cost, the chosen one among them."""
    ordered = search.sort_values([cost, "gpus"], kind="stable")
    better = -ordered["predicted"] if aim.lower else ordered["predicted"]
    front = ordered[better > better.cummax().shift(fill_value=-np.inf)]
    if len(front) > _FRONTIER:
        steps = np.geomspace(front[cost].iloc[0], front[cost].iloc[-1], _FRONTIER)
        places = {int((front[cost] - step).abs().to_numpy().argmin()) for step in steps}
        front = front.iloc[sorted(places)]
    if chosen is not None and chosen.name not in front.index:
        front = pd.concat([front, search.loc[[chosen.name]]]).sort_values(cost, kind="stable")
    return front


def _facts(row: pd.Series | None, price: float | None, currency: str) -> dict[str, Any]:
    """One allocation as JSON; every value is None without a row."""
    costs = ("gpu_hours", "gpu_hours_low", "gpu_hours_high", "hours")
    facts: dict[str, Any] = dict.fromkeys((*_NUMBERS, "allocation", "share", *costs, "measured", "money"))
    if row is None:
        return facts
    for name in (*_NUMBERS, "share", *costs):
        facts[name] = float(row[name]) if np.isfinite(row[name]) else None
    sizes = {"params": int(row["params"]), "data": round(float(row["data"])), "gpus": int(row["gpus"])}
    facts |= {"allocation": {"model": row["model"], **sizes}, "measured": row["runs"]}
    if price is not None and facts["gpu_hours"] is not None:
        facts["money"] = {"value": facts["gpu_hours"] * price, "unit": currency}
    return facts


def _reason(
    search: pd.DataFrame, good: pd.Series, affordable: pd.Series, aim: Goal, limit: Spending | None, probability: float,
    beyond: float, cost: str,
) -> str:  # fmt: skip
    """Why nothing is recommended."""
    surely = "" if probability == LIKELY else f" with probability {probability:g}"
    if limit is not None and cost != "gpu_hours":
        return f"no run was timed and the plan has no estimate, so no cost can be compared with a budget of {limit}"
    if good.any():
        least = float(search.loc[good, "gpu_hours"].min())
        return f"the cheapest allocation predicted to reach {aim}{surely} costs {least:.3g} GPU-hours, over {limit}"
    if not affordable.any():
        return f"every allocation costs more than {limit}"
    best = search["predicted"].min() if aim.lower else search["predicted"].max()
    far = f"up to {beyond:g} times the largest data size" if search["extrapolation"].max() > 1 else "of those measured"
    return f"no allocation {far} is predicted to reach {aim}{surely}; the best prediction is {best:.4g}"


def _basis(metric_law: Quality, prices: Mapping[tuple[str, int], Cost], row: pd.Series | None) -> dict[str, Any]:
    cost = row["cost_basis"] if row is not None else next(iter(prices.values())).basis if prices else ""
    fit = metric_law.fits.get(row["model"]) if row is not None else next(iter(metric_law.fits.values()), None)
    weights = None if fit is None else fit.weights
    return {
        "law": metric_law.law,
        "weights": weights and {law: weight for law, weight in weights.items() if weight},
        "held_out_error": metric_law.error,
        "rivals": dict(metric_law.rivals),
        "cost": cost or None,
    }


def _unknown(
    trials: pd.DataFrame, metric_law: Quality, prices: Mapping[tuple[str, int], Cost], row: pd.Series | None, cost: str
) -> list[str]:
    """What cannot be known from these trials, in sentences."""
    ok = trials[trials["status"] == "ok"]
    models, counts, timed = sorted(ok["model"].unique()), gpu_counts(ok), {model for model, _ in prices}
    unknown = []
    if not metric_law.fits:
        why = "; ".join(metric_law.why)
        unknown.append(f"No law could be fitted, so only measured allocations are compared: {why}")
    elif missing := sorted(set(metric_law.sizes) - set(metric_law.fits)):
        unknown.append(f"{', '.join(missing)}: no law, so only its measured cells count")
    if cost == "work":
        unknown.append("No run was timed, so costs are unknown; allocations are ordered by parameters x data")
    elif untimed := [model for model in models if model not in timed]:
        unknown.append(f"{', '.join(untimed)}: never timed, so left out")
    unpriced = [f"{model} on {gpus} GPUs" for model in models for gpus in counts
                if model in timed and (model, gpus) not in prices]  # fmt: skip
    if len(counts) < 2:
        unknown.append("Only one GPU count was run, so the cost of more GPUs is unknown")
    elif unpriced:
        unknown.append(f"{', '.join(unpriced[:4])}: not run, and not derivable from other runs' speeds")
    if metric_law.fits and metric_law.error is None:
        unknown.append("The law could not be tested on an unseen data size")
    if row is not None and not np.isfinite(row["probability"]):
        unknown.append("A single run gives no probability of reaching the target")
    unknown.append(
        "Larger models than those measured are not considered, nor is the price of labelling or collecting data"
    )
    return [f"{sentence}." for sentence in unknown]


def _warnings(metric_law: Quality, row: pd.Series | None) -> list[dict[str, str]]:
    fits = metric_law.fits
    chosen = [fits[row["model"]]] if row is not None and row["model"] in fits else fits.values()
    pairs = [(warning["code"], warning["message"]) for fit in chosen for warning in fit.warnings]
    warnings = [{"code": code, "message": text} for code, text in dict.fromkeys(pairs) if code != "dropped_rows"]
    return [*warnings, *far(row["extrapolation"])] if row is not None else warnings
