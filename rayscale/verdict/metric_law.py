"""How good a model would be at a data size: the law that predicts the largest size best, in the metric's unit.

Losses follow the laws of the loss, and so do perplexity and bits, which are the loss in other units. Accuracies and F1
follow laws of their log odds, which stay between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from rayscale.errors import InputError
from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.coordinates import link
from rayscale.laws.fitting.observations import numbers
from rayscale.laws.fitting.result import Fit
from rayscale.laws.formula import find_law
from rayscale.laws.law import Array
from rayscale.study.metrics import BITS, PERCENTS, QUALITIES
from rayscale.verdict.speedup import mean_interval
from rayscale.verdict.targets import Goal

LOSS = "eval_loss"
INTERVALS = ("predicted", "low", "high", "mean_low", "mean_high")
_CHECK_BOOTSTRAP = 50  # the check needs the point alone
_COLUMN = "_quantity"


@dataclass(frozen=True, eq=False)
class Quality:
    """What the runs say of a metric: one law over all models, or one for each; `fits` is empty where none was fitted.

    `law` names it; `error` is its root mean square error, in the metric's unit, on the largest data size when fitted
    without it (None where that could not be tried); `rivals` the errors of the laws not chosen; `why` what kept laws
    from being fitted; `units` by how much the metric of each model is larger than what the laws are fitted to; `level`
    the median of that.
    """

    target: Goal
    data: str
    sizes: Mapping[str, float]
    law: str | None
    fits: Mapping[str, Fit]
    error: float | None
    rivals: Mapping[str, float]
    why: tuple[str, ...]
    units: Mapping[str, float]
    level: float

    def predict(self, model: str, sizes: Array) -> pd.DataFrame | None:
        """At data sizes (n,): the columns of INTERVALS in the metric's unit, and extrapolation.

        None for a model without a law.
        """
        fit = self.fits.get(model)
        if fit is None:
            return None
        predicted = fit.predict(pd.DataFrame({"params": self.sizes[model], self.data: sizes}))
        top = np.inf if self.target.lower else 1.0
        values = {name: np.minimum(predicted[name].to_numpy(dtype=float), top) for name in INTERVALS}
        columns = {name: _metric(self.target, value, self.units[model]) for name, value in values.items()}
        return pd.DataFrame({**columns, "extrapolation": predicted["extrapolation"].to_numpy(dtype=float)})

    def ahead(self, model: str, sizes: Array) -> tuple[Array, float]:
        """By how much the model's mean is better than the target at data sizes (n,), of every draw of its law,
        (draws, n), and the deviation of a new run: in log odds of a metric, else in log."""
        fit = self.fits[model]
        estimate, scale = fit.known_estimate(), "log" if self.target.lower else "logit"
        inputs, _ = fit.sizes(pd.DataFrame({"params": self.sizes[model], self.data: sizes}), fit.columns)
        (point, drawn), noise = estimate.linked_values(inputs), estimate.noise
        if scale != fit.law.link:  # a blend is in log, at the level of the runs; a run scatters alike in log odds
            point, drawn = (link(scale, np.minimum(np.exp(values), 1 - 1e-12)) for values in (point, drawn))
            noise = noise / (1 - self.level)
        aim = link(scale, _quantity(self.target, np.array([self.target.reach]), self.units[model]))
        drawn = point + estimate.widening * (drawn - point)
        return (aim - drawn if self.target.lower else drawn - aim), max(estimate.widening * noise, 1e-12)


def quality(
    trials: pd.DataFrame, target: Goal, data: str, *, law: str = "auto", bootstrap: int = 1000, seed: int = 0
) -> Quality:
    """The law of the target's metric over `trials` (the ok rows that count, columns as in trials.parquet).

    `auto` over all models is held against a simple law for each model: models of several families need not share one.
    A law that is named is taken as it is. Raises InputError for one that cannot follow the metric, TableError for bits
    without the loss.
    """
    candidates = _candidates(law, target)
    trials = trials.reset_index(drop=True)
    # The metric over what the laws are fitted to: of bits the model's own, as its tokenizer decides.
    unit = 100.0 if target.metric in PERCENTS else 1.0
    units = dict.fromkeys(trials["model"].astype(str), unit)
    if target.metric in BITS:
        units = bits_per_nat(trials, target.metric)
    unit_of_row = np.array([units[model] for model in trials["model"].astype(str)], dtype=np.float64)
    quantity = _quantity(target, numbers(trials, target.metric), unit_of_row)
    trials = trials.assign(**{_COLUMN: quantity})
    trials = trials[np.isfinite(quantity)].dropna(subset=[data, "params"])
    level = float(trials[_COLUMN].median())
    sizes = {str(model): float(size) for model, size in trials.groupby("model")["params"].median().items()}
    largest = trials[data].max() if len(trials) else np.nan
    kept, held = trials[trials[data] < largest], trials[trials[data] >= largest]
    fitted: dict[str, dict[str, Fit]] = {}
    errors: dict[str, float] = {}
    why: list[str] = []
    for name, over_all in candidates.items():
        fits, refused = _fits(trials, name, over_all, data, bootstrap, seed)
        why += refused
        if not fits:
            continue
        fitted[name] = fits
        check, _ = _fits(kept, name, over_all, data, _CHECK_BOOTSTRAP, seed)
        error = _miss(Quality(target, data, sizes, name, check, None, {}, (), units, level), held)
        if error is not None:
            errors[name] = error
    # A law that leaves out models cannot be compared with one that has them all.
    chosen = min(fitted, key=lambda name: (-len(fitted[name]), errors.get(name, np.inf)), default=None)
    fits = fitted[chosen] if chosen else {}
    error = errors.pop(chosen, None) if chosen else None
    return Quality(target, data, sizes, chosen, fits, error, errors, tuple(dict.fromkeys(why)), units, level)


def _candidates(law: str, target: Goal) -> dict[str, bool]:
    """The laws to weigh, and whether each is over all models."""
    if law == "auto":
        return {"auto": True, "power" if target.lower else "logit_power": False}
    known = find_law(law)
    if not set(known.inputs) <= {"params", "data"} or "data" not in known.inputs:
        takes = ", ".join(known.inputs)
        raise InputError(f"{known.name} takes {takes}; a law of data, or of params and data, is needed", where="--law")
    if (known.link == "logit") == target.lower:
        kind = "falls" if target.lower else "rises"
        raise InputError(f"{target.metric} {kind} with more data, and {known.name} does not; give --law auto",
                         where="--law")  # fmt: skip
    return {law: "params" in known.inputs}


def measured(rows: pd.DataFrame, target: Goal) -> dict[str, Any]:
    """What runs of one allocation measured: mean, its new run's 95% interval and probability by Student's t.

    Interval and probability are None for a single run.
    """
    values = pd.to_numeric(rows[target.metric], errors="coerce").dropna().to_numpy(dtype=float)
    mean, mean_low, mean_high = mean_interval(values)
    reached = values <= target.reach if target.lower else values >= target.reach
    facts = {"predicted": mean, "low": None, "high": None, "mean_low": mean_low, "mean_high": mean_high,
             "probability": None, "runs": len(values), "reaching": int(reached.sum())}  # fmt: skip
    if len(values) < 2:
        return facts
    deviation = max(float(np.std(values, ddof=1)), 1e-12) * np.sqrt(1 + 1 / len(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * deviation
    ahead = (target.reach - mean if target.lower else mean - target.reach) / deviation
    return facts | {"low": mean - half, "high": mean + half,
                    "probability": float(stats.t.cdf(ahead, len(values) - 1))}  # fmt: skip


def _fits(trials: pd.DataFrame, law: str, over_all: bool, data: str, bootstrap: int, seed: int
          ) -> tuple[dict[str, Fit], list[str]]:  # fmt: skip
    """Model -> its fit, for the models that have one, and the reasons of those refused."""
    models = [str(model) for model in sorted(trials["model"].unique())]
    if not models:
        return {}, []
    rows = trials.reset_index(drop=True)
    by = None if over_all else "model"
    done = fit_law(rows, law, params="params" if over_all else None, data=data, target=_COLUMN, by=by,
                   bootstrap=bootstrap, seed=seed)  # fmt: skip
    parts = {None: done} if isinstance(done, Fit) else {str(fit.by["model"]): fit for fit in done.groups if fit.by}
    fits: dict[str, Fit] = {}
    why = []
    for model, fit in parts.items():
        if not fit.outcome.usable:
            why += refusals(fit)
        else:
            fits.update(dict.fromkeys(models if model is None else [model], fit))
    return fits, why


def _miss(law: Quality, held: pd.DataFrame) -> float | None:
    """Root mean square error of the law on rows it has not seen; None where it predicts none of them."""
    misses: list[Array] = []
    for model, rows in held.groupby("model"):
        predicted = law.predict(str(model), rows[law.data].to_numpy(dtype=float))
        if predicted is not None:
            real = _metric(law.target, rows[_COLUMN].to_numpy(dtype=float), law.units[str(model)])
            misses.append(predicted["predicted"].to_numpy() - real)
    together = np.concatenate(misses) if misses else np.zeros(0)
    return float(np.sqrt(np.mean(together**2))) if len(together) and np.isfinite(together).all() else None


def _quantity(target: Goal, values: Array, units: Array | float) -> Array:
    """What the laws are fitted to: the metric as a fraction, a loss as it is, a perplexity as the loss behind it."""
    if target.metric == "perplexity":
        return np.log(np.where(values > 1, values, np.nan))
    return values / units


def _metric(target: Goal, values: Array, unit: float) -> Array:
    """The metric from what the laws are fitted to."""
    if target.metric == "perplexity":
        return np.exp(np.minimum(values, 700.0))
    return values * unit


def refusals(fit: Fit) -> list[str]:
    """What speaks against a fit, in words: all its warnings but that of dropped rows."""
    return [warning["message"] for warning in fit.warnings if warning["code"] != "dropped_rows"]


def measured_metrics(trials: pd.DataFrame) -> list[str]:
    """The measures of quality that some ok run has; of a table without a status, some run."""
    ok = trials[trials["status"] == "ok"] if "status" in trials else trials
    return [name for name in QUALITIES if name in ok and pd.to_numeric(ok[name], errors="coerce").notna().any()]


def bits_per_nat(trials: pd.DataFrame, metric: str) -> dict[str, float]:
    """Model -> bits over the loss: the median of its runs, NaN where none has both.

    A constant of the model's tokenizer, log2(e) for bits per token. Raises TableError for a table without either.
    """
    ratio = pd.Series(numbers(trials, metric) / numbers(trials, LOSS))
    models = trials["model"].astype(str).to_numpy()
    return {str(model): float(bits) for model, bits in ratio.groupby(models).median().items()}
