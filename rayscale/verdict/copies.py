"""What an augmented copy is worth: a multiplier on the data, fitted over plain and augmented trials together."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd

from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.result import Fit
from rayscale.laws.law import Array
from rayscale.runs.fit_rows import unfit
from rayscale.verdict.metric_law import refusals
from rayscale.verdict.speedup import amount

PLAIN = "none"
#: A size at which copies stop paying is told up to this many times beyond the data.
FAR = 10.0


def worth_of_copies(trials: pd.DataFrame, target: str, bootstrap: int, seed: int) -> list[dict[str, Any]]:
    """One entry for each augmentation of a trial table (columns as in trials.parquet), in the order of their names.

    `target` is what was fitted; `value`, `low`, `high`: real examples that one copy is worth, over all data sizes
    (95%); `by_size` the same at each size where the sizes are enough to tell; `change` how much it changes with e times
    the data; `stops_paying` the data size at which a copy is worth nothing, where the worth falls for certain and ends
    within 10 times the data. `law` and `model` say what was fitted (model null: over all of them), `fit` is that fit.
    Without a value `note` says why. Seeds are resampled by configuration, as in every fit.
    """
    table = trials.reset_index(drop=True)
    names = table["augment"].fillna(PLAIN).astype(str)
    ok = (table["status"] == "ok").to_numpy(dtype=bool, na_value=False)
    plain = _counted(table[ok & (names == PLAIN)])
    worths = []
    for name in sorted(set(names[ok]) - {PLAIN}):
        copies = _counted(table[ok & (names == name)])
        lacking = _lack(table[names == PLAIN], plain, "plain cell (augment none)") or _lack(
            table[names == name], copies, f"cell with {name}"
        )
        worths.append(_worth(name, plain, copies, lacking, target, bootstrap, seed))
    return worths


def _counted(rows: pd.DataFrame) -> pd.DataFrame:
    numbered = rows.reset_index(drop=True)
    return numbered[unfit(numbered) == ""]


def _lack(rows: pd.DataFrame, counted: pd.DataFrame, what: str) -> str | None:
    """Why there is nothing to compare: no such cell at all, or none that a law counts."""
    if len(counted):
        return None
    if not len(rows):
        return f"no {what} to compare with"
    ok = rows[rows["status"] == "ok"].reset_index(drop=True)
    why = sorted({reason.partition(":")[0] for reason in unfit(ok)} - {""}) if len(ok) else ["none ended well"]
    return f"no {what} counts ({'; '.join(why)})"


def _worth(name: str, plain: pd.DataFrame, made: pd.DataFrame, lacking: str | None, target: str, bootstrap: int,
           seed: int) -> dict[str, Any]:  # fmt: skip
    facts: dict[str, Any] = {"augment": name, "target": target, "copies": None, "value": None, "low": None,
                             "high": None, "unit": "real examples", "law": None, "model": None, "change": None,
                             "by_size": [], "stops_paying": None, "note": None, "fit": None}  # fmt: skip
    copies = _copies(made)
    if lacking:
        return {**facts, "copies": copies, "note": lacking}
    if not copies:
        return {**facts, "note": "its trials do not say how many examples they trained on"}
    both = pd.concat([plain.assign(copies=0.0), made.assign(copies=copies)], ignore_index=True)
    facts["copies"] = copies
    why: list[str] = []
    for law, model, rows in _choices(both):
        fit = _fit(rows, law, target, bootstrap, seed)
        if not fit.outcome.usable:
            why += refusals(fit)
            continue
        if not _is_determined(fit, "w"):
            why.append(f"{law} does not determine it (the {target} may not fall with data, or copies may act "
                       "differently from data)")  # fmt: skip
            continue
        low, high = fit.intervals["w"]
        facts |= {"value": fit.params["w"], "low": low, "high": high, "law": law, "model": model, "fit": fit.to_json()}
        return facts | _by_size(_fit(rows, f"{law}_by_size", target, bootstrap, seed), rows)
    return {**facts, "note": "; ".join(dict.fromkeys(why)) or "no law could be fitted"}


def _copies(made: pd.DataFrame) -> float | None:
    """How many copies of an example there were: those that were kept, on average over the trials."""
    if "copies" in made.columns and (pd.to_numeric(made["copies"]) > 0).any():
        return float(pd.to_numeric(made["copies"]).median())
    counts = made[["examples", "data_requested"]].apply(pd.to_numeric, errors="coerce").dropna()
    if not len(counts):
        return None
    kept = float((counts["examples"] / counts["data_requested"]).median()) - 1
    return kept if kept > 0 else None


def _choices(both: pd.DataFrame) -> list[tuple[str, str | None, pd.DataFrame]]:
    """(law, model, rows): over all models where there are two sizes, then each model alone, the largest first."""
    sizes = both.dropna(subset=["params"]).groupby("model")["params"].median().astype(float).sort_values()
    over_all = [("augmented_chinchilla", None, both)] if sizes.nunique() > 1 else []
    alone = [("augmented_power", str(model), both[both["model"] == model].reset_index(drop=True))
             for model in sizes.index[::-1]]  # fmt: skip
    return [*over_all, *alone]


def _fit(rows: pd.DataFrame, law: str, target: str, bootstrap: int, seed: int) -> Fit:
    params = "params" if "chinchilla" in law else None
    fit = fit_law(rows, law, params=params, data="data_requested", target=target, bootstrap=bootstrap, seed=seed)
    return cast(Fit, fit)


def _is_determined(fit: Fit, name: str) -> bool:
    """Whether the table says anything of a parameter: its interval stays clear of the edges of the search."""
    estimate, place = fit.known_estimate(), fit.law.names.index(name)
    low, high = (bounds[place] for bounds in estimate.coordinates.bounds())
    everything = np.append(estimate.draws[:, place], estimate.theta[place])
    at_edge = (everything <= low + 1e-4) | (everything >= high - 1e-4)
    return not at_edge[-1] and float(at_edge.mean()) < 0.025


def _by_size(fit: Fit, rows: pd.DataFrame) -> dict[str, Any]:
    """The worth at every data size, how it changes, and where it ends; nothing where the sizes cannot tell."""
    if not fit.outcome.usable or fit.estimate is None or not (_is_determined(fit, "w") and _is_determined(fit, "s")):
        return {}
    estimate, names = fit.known_estimate(), list(fit.law.names)
    point, drawn = map(estimate.coordinates.natural, (estimate.theta, estimate.draws))
    w, s = names.index("w"), names.index("s")
    sizes = np.array(sorted(rows["data_requested"].unique()), dtype=float)
    at = point[w] + point[s] * np.log(sizes)
    low, high = estimate.interval(at, drawn[:, [w]] + drawn[:, [s]] * np.log(sizes))
    by_size = pd.DataFrame({"data": sizes, "value": at, "low": low, "high": high}).to_dict("records")
    least, most = fit.intervals["s"]
    change = amount((fit.params["s"], least, most), "real examples per e times the data")
    return {"by_size": by_size, "change": change, "stops_paying": _end(point[[w, s]], drawn[:, [w, s]], sizes, most)}


def _end(point: Array, drawn: Array, sizes: Array, steepest: float) -> dict[str, Any] | None:
    """Where the worth is nothing, if it falls for certain; a limit beyond 10 times the data is null."""
    # A resample in which the worth rises has no end.
    falls = drawn[:, 1] < 0
    ends = np.where(falls, -drawn[:, 0] / np.where(falls, drawn[:, 1], -1.0), np.inf)
    limits = (-point[0] / point[1], *np.quantile(ends, (0.025, 0.975), method="inverted_cdf"))
    near = [float(np.exp(end)) if np.log(sizes[0] / FAR) <= end <= np.log(FAR * sizes[-1]) else None for end in limits]
    if steepest >= 0 or near[0] is None:
        return None
    return amount(near, "examples", extrapolation=max(1.0, near[0] / float(sizes[-1])))
