"""What a fit found, as a frozen value: it predicts, becomes JSON, and is read back from JSON without refitting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rayscale.errors import InputError, TableError
from rayscale.laws.fitting.coordinates import Coordinates, unlink
from rayscale.laws.fitting.observations import numbers
from rayscale.laws.formula import find_saved
from rayscale.laws.law import Law

Z95 = 1.959963984540054  # the normal quantile that the t quantile is measured against

FAR = 10.0  # times beyond the data: from here on a prediction carries a warning

FORETOLD = ("predicted", "low", "high", "mean_low", "mean_high", "extrapolation")  # columns of a table of predictions


@dataclass(frozen=True, eq=False)
class Estimate:
    """What predictions need: the point, its bootstrap draws and the noise of one run, in the fit's coordinates.

    `theta` (p,), `draws` (resamples, p), `noise` the deviation of one new run on the law's scale of residuals,
    `degrees` the degrees of freedom behind that noise, `widening` what they make of a large-sample 95% interval.
    """

    coordinates: Coordinates
    theta: NDArray[np.float64]
    draws: NDArray[np.float64]
    noise: float
    degrees: int
    widening: float

    def interval(self, point: Any, drawn: Any) -> tuple[Any, Any]:
        """95% interval around `point` from `drawn` (resamples first): percentiles, moved out for few configurations.

        Percentiles of the resamples keep the skewness of an asymptote near its bound; the factor of Student's t
        over the normal pays for a noise that was itself estimated from few runs.
        """
        # "weibull": of few resamples the outermost stand for less than their share of all (Hyndman & Fan 1996).
        low, high = np.quantile(drawn, (0.025, 0.975), axis=0, method="weibull")
        below, above = np.maximum(point - low, 0.0), np.maximum(high - point, 0.0)
        return point - self.widening * below, point + self.widening * above

    def log_values(self, inputs: Mapping[str, NDArray[np.float64]]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Log target at the inputs: of the point (n,) and of every draw (resamples, n)."""
        with np.errstate(over="ignore"):  # an absurd size may be past what a number holds; its power is then infinite
            everything = np.log(self.coordinates.value(np.vstack([self.theta, self.draws]), inputs))
        return everything[0], everything[1:]

    def linked_values(self, inputs: Mapping[str, NDArray[np.float64]]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The same on the law's scale of residuals: log target, or its log odds."""
        with np.errstate(over="ignore"):
            everything = self.coordinates.linked(np.vstack([self.theta, self.draws]), inputs)
        return everything[0], everything[1:]


@dataclass(frozen=True, eq=False)
class Fit:
    """A law fitted to a table; the fields are the keys of the JSON (INTERFACE: `fit` on any table).

    `outcome` is converged, flat, at_bound, not_identifiable or failed; without an estimate (the last two) `params`
    is empty and `warnings` says why. `covariance` is in the order of `params`; `data_range` role -> (least, most) used.
    """

    law: Law
    target: str
    columns: Mapping[str, str]
    outcome: str
    rows_used: int
    rows_dropped: tuple[dict[str, Any], ...]
    data_range: Mapping[str, tuple[float, float]]
    warnings: tuple[dict[str, str], ...]
    params: Mapping[str, float] = field(default_factory=dict)
    standard_errors: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    covariance: tuple[tuple[float, ...], ...] = ()
    objective: float | None = None
    starts: int = 0
    starts_at_best: int = 0
    seconds: float = 0.0
    estimate: Estimate | None = None
    held_out: Mapping[str, Any] | None = None
    predictions: pd.DataFrame | None = None  # the held-out rows, all their columns, and predicted, low, high ...
    weights: Mapping[str, float] | None = None
    by: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        known = ", ".join(
            f"{name}={value:.4g}"
            + (f" ({self.intervals[name][0]:.3g} to {self.intervals[name][1]:.3g})" if name in self.intervals else "")
            for name, value in self.params.items()
        )
        rows = f"{self.rows_used} rows" + (f", {len(self.rows_dropped)} dropped" if self.rows_dropped else "")
        group = "".join(f" [{name} {value}]" for name, value in (self.by or {}).items())
        return f"<Fit{group} {self.law.name} to {self.target}, {self.outcome}, {rows}: {known or 'no parameters'}>"

    def known_estimate(self) -> Estimate:
        """The estimate; raises InputError with the refusal's reasons where there is none."""
        if self.estimate is None:
            why = "; ".join(each["message"] for each in self.warnings)
            raise InputError(f"the fit of {self.law.name} to {self.target} predicts nothing: {why}", code=self.outcome)
        return self.estimate

    def role_of(self, column: str) -> str | None:
        """The role in which a column goes into the law; None where it does not.

        A law of one size has the role data whatever that size is: model sizes, where only they vary.
        """
        return next((role for role, name in self.columns.items() if name == column), None)

    def predict(self, table: pd.DataFrame) -> pd.DataFrame:
        """Predictions for every row of a table with the fit's input columns, (rows, 6).

        Columns: predicted; low, high (95% for a new run, its seed noise included); mean_low, mean_high (95% for the
        noise-free mean), all in the target's unit; extrapolation (how many times beyond the data, 1 within it).
        Raises TableError for a missing column or a size that is no positive number, InputError if the fit was refused.
        """
        estimate = self.known_estimate()
        inputs = {role: numbers(table, column) for role, column in self.columns.items()}
        beyond = np.ones(len(table))
        for role, values in inputs.items():
            allowed, bound = (values >= 0, "0 or more") if role in self.law.zero else (values > 0, "positive")
            wrong = ~(np.isfinite(values) & allowed)
            if wrong.any():
                row = int(np.argmax(wrong))
                raise TableError(f"row {row}: {self.columns[role]} is {values[row]:g}; it must be {bound}", where=role)
            beyond = np.maximum(beyond, _times_beyond(values, *self.data_range[role]))
        point, drawn = estimate.linked_values(inputs)
        mean_low, mean_high = estimate.interval(point, drawn)
        noise = Z95 * estimate.widening * estimate.noise
        linked = {
            "predicted": point,
            "low": point - np.hypot(point - mean_low, noise),
            "high": point + np.hypot(mean_high - point, noise),
            "mean_low": mean_low,
            "mean_high": mean_high,
        }
        columns = {name: unlink(self.law.link, value) for name, value in linked.items()}
        return pd.DataFrame({**columns, "extrapolation": beyond}, index=table.index)

    def change(self, before: Mapping[str, float], after: Mapping[str, float]) -> tuple[float, float, float]:
        """Relative change of the mean target from one set of inputs (role -> value) to another: value, low, high."""
        estimate = self.known_estimate()
        inputs = {role: np.array([before[role], after[role]], dtype=float) for role in self.law.inputs}
        point, drawn = estimate.log_values(inputs)
        step = point[1] - point[0]
        low, high = estimate.interval(step, drawn[:, 1] - drawn[:, 0])
        value, least, most = np.expm1(np.clip([step, low, high], -700, 700))
        return float(value), float(least), float(most)

    def to_json(self) -> dict[str, Any]:
        """The fit as one JSON object without NaN; `from_json` gives back a fit that predicts the same numbers."""
        found: dict[str, Any] = {
            "law": self.law.name,
            "formula": self.law.formula,
            "target": self.target,
            "columns": dict(self.columns),
            "outcome": self.outcome,
            "params": dict(self.params),
            "standard_errors": dict(self.standard_errors),
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            "covariance": [list(row) for row in self.covariance],
            "objective": self.objective,
            "starts": self.starts,
            "starts_at_best": self.starts_at_best,
            "rows_used": self.rows_used,
            "rows_dropped": list(self.rows_dropped),
            "held_out": None if self.held_out is None else dict(self.held_out),
            "weights": None if self.weights is None else dict(self.weights),
            "warnings": list(self.warnings),
            "seconds": round(self.seconds, 3),
            "data_range": {role: list(pair) for role, pair in self.data_range.items()},
        }
        if self.by is not None:
            found["by"] = dict(self.by)
        if self.estimate is not None:
            found["estimate"] = {
                "centre": dict(self.estimate.coordinates.centre),
                "level": self.estimate.coordinates.level,
                "theta": self.estimate.theta.tolist(),
                "noise": self.estimate.noise,
                "degrees": self.estimate.degrees,
                "widening": self.estimate.widening,
                "draws": self.estimate.draws.tolist(),
            }
        return found

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Fit:
        """The fit that `to_json` wrote; raises InputError for anything else and for a law that is not registered."""
        try:
            law, kept = find_saved(saved["law"], saved.get("formula")), saved.get("estimate")
            if law.result is not None:
                return law.result.from_json(saved)
            estimate = kept and Estimate(
                Coordinates(law, kept["centre"], kept["level"]),
                np.array(kept["theta"], dtype=float),
                np.array(kept["draws"], dtype=float).reshape(-1, len(law.names)),
                **{name: kept[name] for name in ("noise", "degrees", "widening")},
            )
            names = "outcome params standard_errors objective starts starts_at_best rows_used held_out weights seconds"
            return cls(
                law,
                saved["target"],
                saved["columns"],
                intervals={name: (low, high) for name, (low, high) in saved["intervals"].items()},
                covariance=tuple(map(tuple, saved["covariance"])),
                rows_dropped=tuple(saved["rows_dropped"]),
                warnings=tuple(saved["warnings"]),
                data_range={role: (least, most) for role, (least, most) in saved["data_range"].items()},
                estimate=estimate,
                by=saved.get("by"),
                **{name: saved[name] for name in names.split()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"this is no fit that rayscale saved: {error!r}", code="not_a_fit") from error


@dataclass(frozen=True, eq=False)
class GroupedFit:
    """One fit per group of a table (`--by`): `groups`, each with its `by`, and the pooled `held_out`."""

    groups: tuple[Fit, ...]
    held_out: Mapping[str, Any] | None
    predictions: pd.DataFrame | None = None

    def __repr__(self) -> str:
        outcomes = Counter(each.outcome for each in self.groups)
        told = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items())
        return f"<GroupedFit of {len(self.groups)} groups: {told}>"

    def to_json(self) -> dict[str, Any]:
        """The fits as one JSON object without NaN."""
        return {
            "groups": [each.to_json() for each in self.groups],
            "held_out": None if self.held_out is None else dict(self.held_out),
        }


def _times_beyond(values: NDArray[np.float64], least: float, most: float) -> NDArray[np.float64]:
    """How many times sizes lie above the most or below the least of the data; a size of 0 counts as a billionth."""
    floor = 1e-9 * (least or most or 1.0)
    sizes = np.maximum(values, floor)
    return np.asarray(np.maximum(sizes / max(most, floor), max(least, floor) / sizes))


def far(beyond: float) -> list[dict[str, str]]:
    """The warning that a prediction lies so many times beyond the data, where it does."""
    text = f"{beyond:.3g} times beyond the data: the interval holds only if the law does"
    return [{"code": "far_extrapolation", "message": text}] if beyond > FAR else []


def score(rows: pd.DataFrame, target: str) -> dict[str, Any]:
    """How well held-out rows with their predictions were foretold.

    `n`; `rmse_log` (root mean square of the log error); `mape` (mean absolute relative error, a fraction); `r2` (null
    for fewer than two different values); `covered` (share of rows inside the 95% interval for a new run).
    """
    measured, predicted = rows[target].to_numpy(dtype=float), rows["predicted"].to_numpy(dtype=float)
    spread = float(np.sum((measured - measured.mean()) ** 2)) if len(rows) else 0.0
    if not len(rows):
        return {"n": 0, "rmse_log": None, "mape": None, "r2": None, "covered": None}
    return {
        "n": len(rows),
        "rmse_log": float(np.sqrt(np.mean(np.log(predicted / measured) ** 2))),
        "mape": float(np.mean(np.abs(predicted / measured - 1))),
        "r2": 1 - float(np.sum((measured - predicted) ** 2)) / spread if spread > 0 else None,
        "covered": float(np.mean((rows["low"] <= measured) & (measured <= rows["high"]))),
    }
