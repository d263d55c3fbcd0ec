"""How good a model would be at a data size: the law that foretold the largest size best, in the metric's unit.

Losses follow the laws of the loss. Accuracies and F1 follow laws of their log odds, which stay between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from rayscale.errors import InputError
from rayscale.fit import fit_law
from rayscale.fitted import Fit
from rayscale.goals import PERCENTS, Target
from rayscale.speedup import mean_interval

Array = NDArray[np.float64]
Z95 = float(stats.norm.ppf(0.975))
INTERVALS = ("predicted", "low", "high", "mean_low", "mean_high")
_CHECK_BOOTSTRAP = 50  # the check needs the point alone
_COLUMN = "_quantity"


@dataclass(frozen=True, eq=False)
class Quality:
    """What the runs say of a metric: one law over all models, or one for each; `fits` is empty where none can be told.

    `law` names it; `error` is its root mean square error, in the metric's unit, on the largest data size when fitted
    without it (None where that could not be tried); `rivals` the errors of the laws not chosen; `why` what kept laws
    from being fitted.
    """

    target: Target
    data: str
    sizes: Mapping[str, float]
    law: str | None
    fits: Mapping[str, Fit]
    error: float | None
    rivals: Mapping[str, float]
    why: tuple[str, ...]

    def predict(self, model: str, sizes: Array) -> pd.DataFrame | None:
        """At data sizes (n,): the columns of INTERVALS in the metric's unit, extrapolation, probability.

        `probability` is that of a new run to reach the target. None for a model without a law.
        """
        fit = self.fits.get(model)
        if fit is None:
            return None
        asked = {"params": np.full(len(sizes), self.sizes[model]), "data": sizes}
        found = fit.predict(pd.DataFrame({column: asked[role] for role, column in fit.columns.items()}))
        values = {name: found[name].to_numpy(dtype=float) for name in INTERVALS}
        unit = {name: _metric(self.target, value) for name, value in values.items()}
        scale = _scale(self.target)
        middle, low, high, aim = (scale(each) for each in (unit["predicted"], unit["low"], unit["high"],
                                                           np.array(self.target.reach)))  # fmt: skip
        # The interval for a new run is that of a normal error on the law's own scale, a half to either side.
        sign = -1.0 if self.target.lower else 1.0
        worse = middle - low if not self.target.lower else high - middle
        better = high - middle if not self.target.lower else middle - low
        ahead = sign * (middle - aim)
        width = np.where(ahead >= 0, worse, better) / Z95
        unit["probability"] = stats.norm.cdf(ahead / np.maximum(width, 1e-12))
        return pd.DataFrame({**unit, "extrapolation": found["extrapolation"].to_numpy(dtype=float)})


def quality(trials: pd.DataFrame, target: Target, data: str, *, bootstrap: int = 1000, seed: int = 0) -> Quality:
    """The law of the target's metric over `trials` (the ok rows that count, columns as in trials.parquet)."""
    trials = trials.reset_index(drop=True)
    quantity = _quantity(target, pd.to_numeric(trials[target.metric], errors="coerce").to_numpy(dtype=float))
    trials = trials.assign(**{_COLUMN: quantity})
    trials = trials[np.isfinite(quantity)].dropna(subset=[data, "params"])
    sizes = {str(model): float(each) for model, each in trials.groupby("model")["params"].median().items()}
    bounded = not target.lower
    shared, alone = ("logit_chinchilla", "logit_power") if bounded else ("chinchilla", "power")
    largest = trials[data].max() if len(trials) else np.nan
    found: dict[str, dict[str, Fit]] = {}
    errors: dict[str, float] = {}
    why: list[str] = []
    for law in (shared, alone):
        fits, refused = _fits(trials, law, law == shared, data, bootstrap, seed)
        why += refused
        if not fits:
            continue
        found[law] = fits
        # A law that leaves out models cannot be compared with one that has them all.
        kept, held = trials[trials[data] < largest], trials[trials[data] >= largest]
        check, _ = _fits(kept, law, law == shared, data, _CHECK_BOOTSTRAP, seed)
        error = _miss(Quality(target, data, sizes, law, check, None, {}, ()), held)
        if error is not None:
            errors[law] = error
    ranked = sorted(found, key=lambda law: (-len(found[law]), errors.get(law, np.inf), law != shared))
    chosen = ranked[0] if ranked else None
    rivals = {law: error for law, error in errors.items() if law != chosen}
    return Quality(target, data, sizes, chosen, found.get(chosen, {}) if chosen else {},
                   errors.get(chosen) if chosen else None, rivals, tuple(dict.fromkeys(why)))  # fmt: skip


def measured(rows: pd.DataFrame, target: Target) -> dict[str, Any]:
    """What runs of one allocation measured: mean, its new run's 95% interval and probability by Student's t.

    Interval and probability are None for a single run.
    """
    values = pd.to_numeric(rows[target.metric], errors="coerce").dropna().to_numpy(dtype=float)
    mean, mean_low, mean_high = mean_interval(values)
    reached = values <= target.reach if target.lower else values >= target.reach
    found = {"predicted": mean, "low": None, "high": None, "mean_low": mean_low, "mean_high": mean_high,
             "probability": None, "runs": len(values), "reaching": int(reached.sum())}  # fmt: skip
    if len(values) < 2:
        return found
    deviation = max(float(np.std(values, ddof=1)), 1e-12) * np.sqrt(1 + 1 / len(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * deviation
    ahead = (target.reach - mean if target.lower else mean - target.reach) / deviation
    return found | {"low": mean - half, "high": mean + half,
                    "probability": float(stats.t.cdf(ahead, len(values) - 1))}  # fmt: skip


def _fits(trials: pd.DataFrame, law: str, over_all: bool, data: str, bootstrap: int, seed: int
          ) -> tuple[dict[str, Fit], list[str]]:  # fmt: skip
    """Model -> its fit, for the models that have one, and the reasons of those refused."""
    models = sorted(trials["model"].unique())
    parts = {None: trials} if over_all else {model: trials[trials["model"] == model] for model in models}
    if over_all and trials["params"].nunique() < 2:
        return {}, []
    found: dict[str, Fit] = {}
    why = []
    for model, rows in parts.items():
        size = {"params": "params"} if over_all else {}
        try:
            fit = cast(Fit, fit_law(rows.reset_index(drop=True), law, **size, data=data, target=_COLUMN,
                                    bootstrap=bootstrap, seed=seed))  # fmt: skip
        except InputError as error:  # a law that a plugin took away
            return {}, [error.message]
        if fit.outcome in ("not_identifiable", "failed"):
            why += [each["message"] for each in fit.warnings if each["code"] != "dropped_rows"]
            continue
        found.update(dict.fromkeys(models if model is None else [model], fit))
    return found, why


def _miss(law: Quality, held: pd.DataFrame) -> float | None:
    """Root mean square error of the law on rows it has not seen; None where it predicts none of them."""
    misses: list[Array] = []
    for model, rows in held.groupby("model"):
        found = law.predict(str(model), rows[law.data].to_numpy(dtype=float))
        if found is not None:
            misses.append(found["predicted"].to_numpy() - _metric(law.target, rows[_COLUMN].to_numpy(dtype=float)))
    together = np.concatenate(misses) if misses else np.zeros(0)
    return float(np.sqrt(np.mean(together**2))) if len(together) and np.isfinite(together).all() else None


def _quantity(target: Target, values: Array) -> Array:
    """What the laws are fitted to: the metric as a fraction, a loss as it is, a perplexity as the loss behind it."""
    if target.metric == "perplexity":
        return np.log(np.where(values > 1, values, np.nan))
    return values / 100 if target.metric in PERCENTS else values


def _metric(target: Target, values: Array) -> Array:
    """The metric from what the laws are fitted to."""
    if target.metric == "perplexity":
        return np.exp(np.minimum(values, 700.0))
    return values * 100 if target.metric in PERCENTS else values


def _scale(target: Target) -> Any:
    """The scale on which errors are normal: log for losses, log odds for fractions."""
    if target.metric == "perplexity":
        return lambda values: np.log(np.maximum(np.log(np.maximum(values, 1 + 1e-12)), 1e-300))
    if target.lower:
        return lambda values: np.log(np.maximum(values, 1e-300))
    top = 100.0 if target.metric in PERCENTS else 1.0
    return lambda values: _odds(np.clip(values / top, 1e-12, 1 - 1e-12))


def _odds(share: Array) -> Array:
    return np.log(share / (1 - share))
