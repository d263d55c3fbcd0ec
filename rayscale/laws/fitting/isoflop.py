"""The compute-optimal model and data sizes over compute, from runs at fixed budgets.

At each budget C the loss is a parabola in log N, whose lowest point is N*(C); these optima are then a power law of C,
N* = kN C^a, and with C = k N D the data follows, D* = kD C^b with b = 1 - a (approach 2 of Hoffmann et al. 2022, arXiv
2203.15556). k is the median of C / (N D) where the table has data, else 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rayscale.errors import InputError, TableError
from rayscale.laws.fitting.observations import dropped_rows, numbers, observe
from rayscale.laws.fitting.parabola import (
    FEWEST_SIZES,
    Z95,
    ComputeBudget,
    find_budgets,
    find_optimum,
    fit_parabolas,
    interval,
)
from rayscale.laws.fitting.parabola import widening as widen
from rayscale.laws.law import Law, Parameter

Array = NDArray[np.float64]

SAVED_DRAWS = 1000
LARGEST_LOG = 300.0  # of a coefficient: its square is still a finite number
OPERATIONS = 6.0  # FLOP per parameter and token (Kaplan et al. 2020, arXiv 2001.08361)


def optimum(inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> Any:
    """kN C^a: the compute-optimal parameters at compute C (Hoffmann et al. 2022, arXiv 2203.15556)."""
    return parameters["kN"] * np.exp(parameters["a"] * np.log(inputs["compute"]))


@dataclass(frozen=True, eq=False)
class IsoFlop:
    """The optima over compute, with the surface of a Fit; `params`: kN, a, kD, b (N* = kN C^a, D* = kD C^b).

    `centre`: mean log compute of the budgets. `theta` (2,) and `draws` (resamples, 2): log N* there and a. `noise`: the
    deviation of one more budget's log optimum. `operations`: C / (N D).
    """

    target: str
    columns: Mapping[str, str]
    outcome: str
    rows_used: int
    rows_dropped: tuple[dict[str, Any], ...]
    data_range: Mapping[str, tuple[float, float]]
    warnings: tuple[dict[str, str], ...]
    budgets: tuple[ComputeBudget, ...] = ()
    params: Mapping[str, float] = field(default_factory=dict)
    standard_errors: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    covariance: tuple[tuple[float, ...], ...] = ()
    objective: float | None = None
    seconds: float = 0.0
    operations: float = OPERATIONS
    centre: float = 0.0
    theta: tuple[float, ...] = ()
    draws: Array | None = None
    noise: float = 0.0
    widening: float = 1.0
    held_out: Mapping[str, Any] | None = None
    predictions: pd.DataFrame | None = None
    by: Mapping[str, Any] | None = None
    weights: None = None
    optional: ClassVar[tuple[str, ...]] = ("data",)  # taken besides the law's inputs, where given

    @property
    def law(self) -> Law:
        return ISOFLOP

    @property
    def units(self) -> dict[str, str]:
        """The unit of each parameter, in words of the table's columns."""
        params, compute = self.columns["params"], self.columns["compute"]
        data = self.columns.get("data", "FLOP / (6 parameters)")
        return {"kN": f"{params} x {compute}^-a", "a": "-", "kD": f"{data} x {compute}^-b", "b": "-"}

    @classmethod
    def fit(
        cls,
        table: pd.DataFrame,
        *,
        target: str,
        columns: Mapping[str, str],
        excluded: NDArray[np.bool_] | None = None,
        held: NDArray[np.bool_] | None = None,
        bootstrap: int = 1000,
        seed: int = 0,
    ) -> IsoFlop:
        """The optima of a table with columns for compute, params and, if given, data; `excluded` (rows,) are left out.

        A budget with fewer than three model sizes, or whose parabola has no lowest point within its sizes, gives no
        optimum: its rows are dropped with that reason. Refused (not_identifiable) with fewer than two budgets left.
        `held` (rows,) are kept out: `held_out` scores the predictions against the optima of their own budgets.
        Raises TableError for a column that is missing or not numeric.
        """
        began, n, asked = perf_counter(), len(table), held is not None
        excluded, held = (np.zeros(n, dtype=bool) if each is None else each for each in (excluded, held))
        columns = {role: columns[role] for role in ("compute", "params", "data") if role in columns}
        seen = observe(table, ISOFLOP, target=target, columns={role: columns[role] for role in ISOFLOP.inputs},
                       excluded=excluded, held=np.zeros(n, dtype=bool))  # fmt: skip
        reasons = np.full(n, "", dtype=object)
        reasons[[each["row"] for each in seen.dropped]] = [each["reason"] for each in seen.dropped]
        held = held & (reasons == "")
        compute, params = (numbers(table, columns[role]) for role in ISOFLOP.inputs)
        log_loss = np.log(np.where(reasons == "", numbers(table, target), 1.0))
        rng = np.random.default_rng(seed)

        def find(rows: NDArray[np.bool_]) -> tuple[list[tuple[ComputeBudget, Array]], float, int]:
            groups = find_budgets(compute, params, rows)
            parabolas, noise, degrees = fit_parabolas(np.log(np.where(groups >= 0, params, 1.0)), log_loss, groups)
            best = [find_optimum(each, compute, params, groups, noise, degrees, bootstrap, rng) for each in parabolas]
            if rows is free:
                reasons[(groups < 0) & rows] = f"no {FEWEST_SIZES} model sizes were run at its compute"
                for number, (budget, _) in enumerate(best):
                    if budget.fault:
                        reasons[groups == number] = f"at compute {budget.compute:.4g} {budget.fault}"
            return sorted(best, key=lambda each: each[0].compute), noise, degrees

        free = (reasons == "") & ~held
        found, noise, degrees = find(free)
        budgets, good = tuple(budget for budget, _ in found), [each for each in found if each[0].params is not None]
        used = (reasons == "") & ~held
        dropped = tuple({"row": int(row), "reason": str(reasons[row])} for row in np.flatnonzero(reasons != ""))
        ranges = {role: (float(v[used].min()), float(v[used].max()))
                  for role, v in (("compute", compute), ("params", params)) if used.any()}  # fmt: skip
        warnings = tuple(dropped_rows(dropped))
        result = cls(target, columns, "not_identifiable", int(used.sum()), dropped, ranges, warnings, budgets)
        if refusal := _refusal(good, budgets, degrees):
            return replace(result, warnings=(refusal, *warnings), seconds=perf_counter() - began)
        result = replace(result, operations=_operations(table, columns, used), objective=noise**2 * degrees / 2)
        result = _power_law(result, good, degrees, rng)
        if asked and result.params:
            known = [budget for budget, _ in find(held)[0] if budget.params] if held.any() else []
            result = replace(result, held_out=_score(result, known, int(held.sum())))
        return replace(result, seconds=perf_counter() - began)

    def predict(self, table: pd.DataFrame) -> pd.DataFrame:
        """The optimum at every row's compute: predicted, low, high, mean_low, mean_high (parameters; low and high for
        one more budget's own optimum), data, data_low, data_high (95% for the mean), extrapolation.

        Raises TableError for a missing column or compute that is no positive number, InputError if the fit was refused.
        """
        if self.draws is None:
            why = "; ".join(each["message"] for each in self.warnings)
            raise InputError(f"the isoflop fit predicts nothing: {why}", code=self.outcome)
        compute = numbers(table, self.columns["compute"])
        wrong = ~(np.isfinite(compute) & (compute > 0))
        if wrong.any():
            row = int(np.argmax(wrong))
            column = self.columns["compute"]
            raise TableError(f"row {row}: {column} is {compute[row]:g}; it must be positive", where="compute")
        x = np.log(compute) - self.centre
        point, drawn = self.theta[0] + self.theta[1] * x, self.draws[:, :1] + self.draws[:, 1:] * x
        mean_low, mean_high = interval(point, drawn, self.widening)
        scatter = Z95 * self.widening * self.noise
        least, most = self.data_range["compute"]
        logs = {
            "predicted": point,
            "low": point - np.hypot(point - mean_low, scatter),
            "high": point + np.hypot(mean_high - point, scatter),
            "mean_low": mean_low,
            "mean_high": mean_high,
        }
        spent = np.log(compute / self.operations)
        logs |= {"data": spent - point, "data_low": spent - mean_high, "data_high": spent - mean_low}
        columns = {name: np.exp(np.clip(value, -700, 700)) for name, value in logs.items()}
        beyond = np.maximum(1.0, np.maximum(compute / most, least / compute))
        return pd.DataFrame({**columns, "extrapolation": beyond}, index=table.index)

    def to_json(self) -> dict[str, Any]:
        """The result as one JSON object without NaN; `from_json` gives back one that predicts the same numbers."""
        found: dict[str, Any] = {
            "law": self.law.name,
            "formula": f"best {self.columns['params']} = kN * {self.columns['compute']} ** a; best data = kD * "
            f"{self.columns['compute']} ** b",
            "target": self.target,
            "columns": dict(self.columns),
            "outcome": self.outcome,
            "params": dict(self.params),
            "units": self.units,
            "standard_errors": dict(self.standard_errors),
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            "covariance": [list(row) for row in self.covariance],
            "objective": self.objective,
            "starts": 0,
            "starts_at_best": 0,
            "rows_used": self.rows_used,
            "rows_dropped": list(self.rows_dropped),
            "held_out": None if self.held_out is None else dict(self.held_out),
            "weights": None,
            "warnings": list(self.warnings),
            "seconds": round(self.seconds, 3),
            "data_range": {role: list(pair) for role, pair in self.data_range.items()},
            "budgets": [vars(each) for each in self.budgets],
        }
        if self.by is not None:
            found["by"] = dict(self.by)
        if self.draws is not None:
            found["estimate"] = {name: getattr(self, name) for name in ("operations", "centre", "noise", "widening")}
            found["estimate"] |= {"theta": list(self.theta), "draws": self.draws.tolist()}
        return found

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> IsoFlop:
        """The result that `to_json` wrote; raises InputError for anything else."""
        try:
            if saved["law"] != ISOFLOP.name:
                raise ValueError(f"its law is {saved['law']}")
            kept = dict(saved.get("estimate") or {})
            if kept:
                kept |= {"draws": np.array(kept["draws"], dtype=float).reshape(-1, 2), "theta": tuple(kept["theta"])}
            names = "target columns outcome params standard_errors objective rows_used held_out seconds"
            return cls(
                intervals={name: (low, high) for name, (low, high) in saved["intervals"].items()},
                covariance=tuple(map(tuple, saved["covariance"])),
                rows_dropped=tuple(saved["rows_dropped"]),
                warnings=tuple(saved["warnings"]),
                data_range={role: (least, most) for role, (least, most) in saved["data_range"].items()},
                budgets=tuple(ComputeBudget(**each) for each in saved["budgets"]),
                by=saved.get("by"),
                **{name: saved[name] for name in names.split()},
                **kept,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"this is no isoflop result that rayscale saved: {error!r}", code="not_a_fit") from error


#: The columns that the fit needs, and what it says; `fit_isoflop` fits it, not the fit of one law to one target.
ISOFLOP = Law(
    "isoflop",
    "kN * compute ** a",
    optimum,
    (
        Parameter("kN", "positive", 1e-6, 1e6, (1.0,), (("compute", "-a"),)),
        Parameter("a", "exponent", 0.01, 2.0, (0.5,)),
    ),
    ("compute", "params"),
    "loss",
    "Hoffmann et al. 2022, approach 2, arXiv 2203.15556",
    linear=("kN",),
    result=IsoFlop,
    units="compute: FLOP; params: parameters; the law gives the compute-optimal parameters",
)


def _score(result: IsoFlop, budgets: list[ComputeBudget], rows_held: int) -> dict[str, Any]:
    """How well the optima of held-out budgets were foretold: the keys of a fit's `held_out`, and how many `budgets`."""
    if not budgets:
        return {"n": rows_held, "budgets": 0, "rmse_log": None, "mape": None, "r2": None, "covered": None}
    rows = result.predict(pd.DataFrame({result.columns["compute"]: [each.compute for each in budgets]}))
    measured = np.array([each.params for each in budgets], dtype=float)
    missed = rows["predicted"].to_numpy() / measured
    spread = float(np.sum((measured - measured.mean()) ** 2))
    return {
        "n": rows_held,
        "budgets": len(budgets),
        "rmse_log": float(np.sqrt(np.mean(np.log(missed) ** 2))),
        "mape": float(np.mean(np.abs(missed - 1))),
        "r2": 1 - float(np.sum((measured * (missed - 1)) ** 2)) / spread if spread > 0 else None,
        "covered": float(np.mean((rows["low"] <= measured) & (measured <= rows["high"]))),
    }


def _refusal(
    good: list[tuple[ComputeBudget, Array]], budgets: tuple[ComputeBudget, ...], degrees: int
) -> dict[str, str] | None:
    if len(good) >= 2 and degrees >= 1:
        return None
    if len(good) >= 2:
        text = "as many rows as the parabolas have coefficients: the noise is unknown; run one more model size or seed"
        return {"code": "few_points", "message": text}
    faults = "; ".join(f"at compute {each.compute:.4g} {each.fault}" for each in budgets if each.fault)
    code = "one_size" if len(budgets) == 1 and not faults else "few_points"
    text = f"{len(good)} compute budgets with a best model size inside their data; two are needed, each with at least "
    return {"code": code, "message": text + f"{FEWEST_SIZES} model sizes" + (f" ({faults})" if faults else "")}


def _operations(table: pd.DataFrame, columns: Mapping[str, str], used: NDArray[np.bool_]) -> float:
    if "data" not in columns:
        return OPERATIONS
    compute, params, data = (numbers(table, columns[role])[used] for role in ("compute", "params", "data"))
    good = np.isfinite(data) & (data > 0)
    return float(np.median(compute[good] / (params[good] * data[good]))) if good.any() else OPERATIONS


def _power_law(
    result: IsoFlop, good: list[tuple[ComputeBudget, Array]], degrees: int, rng: np.random.Generator
) -> IsoFlop:
    """The power law of the optima, with draws that hold both the parabolas' noise and the optima's own scatter."""
    x = np.log([budget.compute for budget, _ in good])
    y = np.log([budget.params or 1.0 for budget, _ in good])
    drawn = np.stack([each for _, each in good], axis=1)
    variance = np.maximum(np.var(drawn, axis=0, ddof=1), 1e-12)
    scatter, freedom = _scatter(x, y, variance), degrees
    if scatter > 0:
        freedom = min(degrees, len(x) - 2)
    weights = 1 / (variance + scatter**2)
    centre = float(np.average(x, weights=weights))
    drawn = drawn + rng.normal(size=drawn.shape) * scatter
    design = np.stack([np.ones_like(x), x - centre], axis=1)
    solve = np.linalg.solve((design * weights[:, None]).T @ design, (design * weights[:, None]).T)
    theta, draws = solve @ y, drawn @ solve.T
    widening = widen(freedom)
    ratio = np.log(result.operations)
    # log kN, a, log kD, b of the point and of every draw.
    cloud = np.vstack([theta, draws])
    log_k = cloud[:, 0] - cloud[:, 1] * centre
    whole = np.stack([log_k, cloud[:, 1], -ratio - log_k, 1 - cloud[:, 1]], axis=1)
    low, high = interval(whole[0], whole[1:], widening)
    is_log = np.array([True, False, True, False])
    if np.abs(whole[0][is_log]).max() > LARGEST_LOG:
        text = "the coefficient at compute 1 is beyond the range of numbers; state compute in a larger unit"
        return replace(result, outcome="failed", warnings=({"code": "flat_ridge", "message": text}, *result.warnings))
    whole, low, high = (np.where(is_log, np.exp(np.clip(np.where(is_log, each, 0.0), -LARGEST_LOG, LARGEST_LOG)), each)
                        for each in (whole, low, high))  # fmt: skip
    names = ("kN", "a", "kD", "b")
    covariance = np.cov(whole[1:], rowvar=False)
    spread = float(np.sqrt(np.median(variance)))
    return replace(
        result,
        outcome="flat" if high[1] - low[1] > 1 else "converged",
        params=dict(zip(names, whole[0].tolist(), strict=True)),
        standard_errors=dict(zip(names, np.sqrt(np.diag(covariance)).tolist(), strict=True)),
        intervals=dict(zip(names, zip(low.tolist(), high.tolist(), strict=True), strict=True)),
        covariance=tuple(map(tuple, covariance.tolist())),
        warnings=(*_findings(result, good, high[1] - low[1], scatter, spread), *result.warnings),
        centre=centre,
        theta=tuple(theta.tolist()),
        draws=np.round(draws[:SAVED_DRAWS], 9),
        noise=float(np.hypot(scatter, spread)),
        widening=widening,
    )


def _findings(result: IsoFlop, good: list[Any], width: float, scatter: float, spread: float) -> list[dict[str, str]]:
    found = []
    if faults := [each for each in result.budgets if each.fault]:
        text = "; ".join(f"at compute {each.compute:.4g} {each.fault}" for each in faults)
        found.append({"code": "at_bound", "message": f"budgets left out: {text}"})
    if len(good) == 2:
        text = "two budgets fix a power law without testing it; a third would show whether it holds"
        found.append({"code": "few_sizes", "message": text})
    if width > 1:
        text = f"the exponent a is known to within {width:.2g} only; run budgets further apart"
        found.append({"code": "flat_ridge", "message": text})
    if scatter > 2 * spread:
        text = "the optima scatter around the power law more than their parabolas explain"
        found.append({"code": "misspecified", "message": text})
    return found


def _scatter(x: Array, y: Array, variance: Array) -> float:
    """Deviation of the optima around their line beyond what their variances explain (method of moments), 0 for two."""
    if len(x) < 3:
        return 0.0
    weights = 1 / variance
    design = np.stack([np.ones_like(x), x - x.mean()], axis=1)
    solve = np.linalg.solve((design * weights[:, None]).T @ design, (design * weights[:, None]).T)
    excess = float(np.sum(weights * (y - design @ (solve @ y)) ** 2)) - (len(x) - 2)
    bend = float(weights.sum() - np.trace(solve @ (design * weights[:, None])))
    return float(np.sqrt(max(excess, 0.0) / bend)) if bend > 0 else 0.0
