"""What a fit found, as a frozen value: it predicts, becomes JSON, and is read back from JSON without refitting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Any, Literal, Self, cast

import numpy as np
import pandas as pd

from rayscale.errors import InputError, TableError
from rayscale.laws.fitting.coordinates import Coordinates, unlink
from rayscale.laws.fitting.observations import numbers, size_columns
from rayscale.laws.fitting.outcome import Outcome
from rayscale.laws.fitting.sizes import with_sizes
from rayscale.laws.formula import find_saved
from rayscale.laws.law import Array, Law

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
    theta: Array
    draws: Array
    noise: float
    degrees: int
    widening: float

    def to_json(self) -> dict[str, Any]:
        """What `Fit.read_estimate` needs besides the law."""
        return {
            "centre": dict(self.coordinates.centre),
            "level": self.coordinates.level,
            "theta": self.theta.tolist(),
            "noise": self.noise,
            "degrees": self.degrees,
            "widening": self.widening,
            "draws": self.draws.tolist(),
        }

    def interval(self, point: Any, drawn: Any) -> tuple[Any, Any]:
        """95% interval around `point` from `drawn` (resamples first): percentiles, moved out for few configurations.

        Percentiles of the resamples keep the skewness of an asymptote near its bound; the factor of Student's t
        over the normal pays for a noise that was itself estimated from few runs.
        """
        # "weibull": of few resamples the outermost stand for less than their share of all (Hyndman & Fan 1996).
        return interval(point, drawn, self.widening, method="weibull")

    def log_values(self, inputs: Mapping[str, Array]) -> tuple[Array, Array]:
        """Log target at the inputs: of the point (n,) and of every draw (resamples, n)."""
        with np.errstate(over="ignore"):  # an absurd size may be past what a number holds; its power is then infinite
            values = self.coordinates.value(np.vstack([self.theta, self.draws]), inputs)
        everything = np.log(np.maximum(values, np.finfo(float).tiny))  # far away a law may underflow to 0
        return everything[0], everything[1:]

    def linked_values(self, inputs: Mapping[str, Array]) -> tuple[Array, Array]:
        """The same on the law's scale of residuals: log target, or its log odds."""
        with np.errstate(over="ignore", divide="ignore"):  # far away a law may underflow to 0
            everything = self.coordinates.linked(np.vstack([self.theta, self.draws]), inputs)
        everything = np.maximum(everything, np.log(np.finfo(float).tiny))
        return everything[0], everything[1:]


@dataclass(frozen=True, eq=False)
class Fit:
    """A law fitted to a table; the fields, in this order, are the keys of the JSON (INTERFACE: `fit` on any table).

    Without an estimate (outcome not usable) `params` is empty and `warnings` says why. `covariance` is in the order of
    `params`; `data_range` role -> (least, most) used; `weights` law -> share, of several laws; `weighted_by` the column
    of the rows' weights. `predictions`: the held-out rows, all their columns, and
    predicted, low, high ...; they are not saved. A law with a `result` of its own has a subclass of this class.
    """

    law: Law
    target: str
    columns: Mapping[str, str]
    _: KW_ONLY
    outcome: Outcome
    params: Mapping[str, float] = field(default_factory=dict)
    standard_errors: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    covariance: tuple[tuple[float, ...], ...] = ()
    objective: float | None = None
    starts: int = 0
    starts_at_best: int = 0
    rows_used: int
    rows_dropped: tuple[dict[str, Any], ...]
    held_out: Mapping[str, Any] | None = None
    weights: Mapping[str, float] | None = None
    warnings: tuple[dict[str, str], ...]
    seconds: float = 0.0
    data_range: Mapping[str, tuple[float, float]]
    weighted_by: str | None = None
    by: Mapping[str, Any] | None = None
    estimate: Estimate | None = None
    predictions: pd.DataFrame | None = None

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
        inputs, beyond = self.sizes(table, self.columns)
        point, drawn = estimate.linked_values(inputs)
        linked = around(point, *estimate.interval(point, drawn), Z95 * estimate.widening * estimate.noise)
        columns = {name: unlink(self.law.link, value) for name, value in linked.items()}
        return pd.DataFrame({**columns, "extrapolation": beyond}, index=table.index)

    def sizes(self, table: pd.DataFrame, roles: Iterable[str]) -> tuple[dict[str, Array], Array]:
        """The inputs of these roles, role -> (rows,), and how many times each row lies beyond the data, (rows,).

        Raises TableError for a missing column and for a size that is not a positive number.
        """
        table = with_sizes(table, size_columns(table, (), {role: self.columns[role] for role in roles}))
        inputs = {role: numbers(table, self.columns[role]) for role in roles}
        beyond = np.ones(len(table))
        for role, values in inputs.items():
            allowed, bound = (values >= 0, "0 or more") if role in self.law.zero else (values > 0, "positive")
            wrong = ~(np.isfinite(values) & allowed)
            if wrong.any():
                row = int(np.argmax(wrong))
                raise TableError(f"row {row}: {self.columns[role]} is {values[row]:g}; it must be {bound}", where=role)
            beyond = np.maximum(beyond, _times_beyond(values, *self.data_range[role]))
        return inputs, beyond

    def change(self, before: Mapping[str, float], after: Mapping[str, float]) -> tuple[float, float, float]:
        """Relative change of the mean target from one set of inputs (role -> value) to another: value, low, high."""
        point, drawn = self._two_values(before, after)
        step = self.known_estimate().interval(point[1] - point[0], drawn[:, 1] - drawn[:, 0])
        value, least, most = np.expm1(np.clip([point[1] - point[0], *step], -700, 700))
        return float(value), float(least), float(most)

    def difference(self, before: Mapping[str, float], after: Mapping[str, float]) -> tuple[float, float, float]:
        """The same change in the target's unit, not relative to it."""
        point, drawn = (np.exp(np.clip(values, -700, 700)) for values in self._two_values(before, after))
        low, high = self.known_estimate().interval(point[1] - point[0], drawn[:, 1] - drawn[:, 0])
        return float(point[1] - point[0]), float(low), float(high)

    def _two_values(self, before: Mapping[str, float], after: Mapping[str, float]) -> tuple[Array, Array]:
        """Log target at two sets of inputs: (2,), and of every draw (draws, 2)."""
        inputs = {role: np.array([before[role], after[role]], dtype=float) for role in self.law.inputs}
        return self.known_estimate().log_values(inputs)

    @property
    def formula(self) -> str:
        """What the fit says of its law, as text."""
        return self.law.formula

    def to_json(self) -> dict[str, Any]:
        """The fit as one JSON object without NaN; `from_json` gives back a fit that predicts the same numbers."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "predictions"}
        saved = {"law": self.law.name, "formula": self.formula, **_plain({**values, "law": self.law.name})}
        for name in ("weighted_by", "by", "estimate"):
            if saved[name] is None:
                del saved[name]
        return {**saved, "seconds": round(self.seconds, 3)}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Self:
        """The fit that `to_json` wrote, of its law's own class; raises InputError for anything else and for a law that
        is not registered."""
        try:
            law = find_saved(saved["law"], saved.get("formula"))
            kind = law.result or Fit
            if not issubclass(kind, cls):
                raise ValueError(f"its law is {law.name}")
            return cast(Self, kind(**kind.read_fields(law, saved)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"this is not a fit saved by rayscale: {error!r}", code="not_a_fit") from error

    @classmethod
    def read_fields(cls, law: Law, saved: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the class, from its JSON; KeyError and the like for what is not its JSON."""
        names = {each.name for each in fields(cls)} - {"law", "weighted_by", "by", "estimate", "predictions"}
        known = {name: saved[name] for name in names}
        for name in ("intervals", "data_range"):
            known[name] = {key: (low, high) for key, (low, high) in saved[name].items()}
        for name in ("rows_dropped", "warnings"):
            known[name] = tuple(saved[name])
        known |= {"outcome": Outcome(saved["outcome"]), "covariance": tuple(map(tuple, saved["covariance"]))}
        estimate = cls.read_estimate(law, known, saved["estimate"]) if saved.get("estimate") else None
        optional = {name: saved.get(name) for name in ("weighted_by", "by")}
        return {"law": law, **known, **optional, "estimate": estimate}

    @classmethod
    def read_estimate(cls, law: Law, known: Mapping[str, Any], saved: Mapping[str, Any]) -> Any:
        """The estimate from its JSON; `known`: the fields that have been read."""
        numbers = {name: saved[name] for name in ("noise", "degrees", "widening")}
        draws = read_draws(saved, len(law.names))
        coordinates = Coordinates(law, saved["centre"], saved["level"])
        return Estimate(coordinates, np.array(saved["theta"], dtype=float), draws, **numbers)


def read_draws(saved: Mapping[str, Any], columns: int) -> Array:
    """The draws (resamples, columns) of a saved estimate; raises InputError where it was printed without them."""
    if "draws" not in saved:
        text = "this fit was printed without its draws, which predictions need"
        raise InputError(f"{text}; save it with --out FILE, or print it with --draws", code="no_draws")
    return np.array(saved["draws"], dtype=float).reshape(-1, columns)


def without_draws(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A fit's JSON, or that of groups, without the draws of its estimates: no one reads a thousand of them."""
    short = dict(saved)
    for several in ("groups", "members", "stages"):
        if several in saved:
            short[several] = [without_draws(fit) for fit in saved[several]]
    if "draws" in (saved.get("estimate") or {}):
        short["estimate"] = {name: value for name, value in saved["estimate"].items() if name != "draws"}
    return short


def _plain(value: Any) -> Any:
    """A field as JSON has it."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value.value if isinstance(value, Outcome) else value


def interval(point: Any, drawn: Any, factor: float, method: Literal["linear", "weibull"] = "linear") -> tuple[Any, Any]:
    """95% around `point` by percentiles of the draws (draws first), moved out as Student's t is over the normal."""
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0, method=method)
    return point - factor * np.maximum(point - low, 0.0), point + factor * np.maximum(high - point, 0.0)


def around(point: Array, mean_low: Array, mean_high: Array, noise: float | Array) -> dict[str, Array]:
    """The columns of a prediction, (rows,) each: the mean's interval, and that of a new run, wider by its noise."""
    return {
        "predicted": point,
        "low": point - np.hypot(point - mean_low, noise),
        "high": point + np.hypot(mean_high - point, noise),
        "mean_low": mean_low,
        "mean_high": mean_high,
    }


@dataclass(frozen=True, eq=False)
class GroupedFit:
    """One fit per group of a table (`--by`): `groups`, each with its `by`, and the pooled `held_out`."""

    groups: tuple[Fit, ...]
    held_out: Mapping[str, Any] | None
    predictions: pd.DataFrame | None = None

    def __repr__(self) -> str:
        outcomes = Counter(each.outcome for each in self.groups)
        counts = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items())
        return f"<GroupedFit of {len(self.groups)} groups: {counts}>"

    def to_json(self) -> dict[str, Any]:
        """The fits as one JSON object without NaN."""
        return {
            "groups": [each.to_json() for each in self.groups],
            "held_out": None if self.held_out is None else dict(self.held_out),
        }


def _times_beyond(values: Array, least: float, most: float) -> Array:
    """How many times sizes lie above the most or below the least of the data; a size of 0 counts as a billionth."""
    floor = 1e-9 * (least or most or 1.0)
    sizes = np.maximum(values, floor)
    return np.asarray(np.maximum(sizes / max(most, floor), max(least, floor) / sizes))


def far(beyond: float) -> list[dict[str, str]]:
    """The warning that a prediction lies so many times beyond the data, where it does."""
    text = f"extrapolated {beyond:.3g}× beyond the data: the interval assumes the law still holds there"
    return [{"code": "far_extrapolation", "message": text}] if beyond > FAR else []


def score(rows: pd.DataFrame, target: str) -> dict[str, Any]:
    """How well held-out rows with their predictions were foretold.

    `n`; `rmse_log` (root mean square of the log error); `mape` (mean absolute relative error, a fraction); `r2` (null
    for fewer than two different values); `covered` (share of rows inside the 95% interval for a new run).
    """
    names = (target, "predicted", "low", "high")
    measured, predicted, low, high = (rows[name].to_numpy(dtype=float) for name in names)
    spread = float(np.sum((measured - measured.mean()) ** 2)) if len(rows) else 0.0
    if not len(rows):
        return {"n": 0, "rmse_log": None, "mape": None, "r2": None, "covered": None}
    return {
        "n": len(rows),
        "rmse_log": float(np.sqrt(np.mean(np.log(predicted / measured) ** 2))),
        "mape": float(np.mean(np.abs(predicted / measured - 1))),
        "r2": 1 - float(np.sum((measured - predicted) ** 2)) / spread if spread > 0 else None,
        "covered": float(np.mean((low <= measured) & (measured <= high))),
    }
