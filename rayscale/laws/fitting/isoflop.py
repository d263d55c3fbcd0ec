"""The compute-optimal model and data sizes over compute, from runs at fixed budgets.

At each budget C the loss is a parabola in log N, whose lowest point is N*(C); these optima are then a power law of C,
N* = kN C^a, and with C = k N D the data follows, D* = kD C^b with b = 1 - a (approach 2 of Hoffmann et al. 2022, arXiv
2203.15556). k is the median of C / (N D) where the table has data, else 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rayscale.laws.fitting.observations import dropped_rows, numbers, observe
from rayscale.laws.fitting.outcome import Outcome
from rayscale.laws.fitting.parabola import (
    FEWEST_SIZES,
    ComputeBudget,
    find_budgets,
    find_optimum,
    fit_parabolas,
)
from rayscale.laws.fitting.parabola import widening as widen
from rayscale.laws.fitting.result import Z95, Estimate, Fit, around, interval, read_draws, score
from rayscale.laws.law import Array, Law, Parameter

SAVED_DRAWS = 1000
LARGEST_LOG = 300.0  # of a coefficient: its square is still a finite number
OPERATIONS = 6.0  # FLOP per parameter and token (Kaplan et al. 2020, arXiv 2001.08361)


def optimum(inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> Any:
    """kN C^a: the compute-optimal parameters at compute C (Hoffmann et al. 2022, arXiv 2203.15556)."""
    return parameters["kN"] * np.exp(parameters["a"] * np.log(inputs["compute"]))


@dataclass(frozen=True, eq=False)
class Optima:
    """What predictions need: `theta` (2,) and `draws` (resamples, 2) are log N* at `centre` and a.

    `centre`: mean log compute of the budgets. `noise`: the deviation of one more budget's log optimum. `operations`:
    C / (N D). `widening`: what few degrees of freedom make of a large-sample 95% interval.
    """

    operations: float
    centre: float
    noise: float
    widening: float
    theta: tuple[float, ...]
    draws: Array

    def to_json(self) -> dict[str, Any]:
        """The fields as a JSON object."""
        return {**vars(self), "theta": list(self.theta), "draws": self.draws.tolist()}


@dataclass(frozen=True, eq=False)
class IsoFlop(Fit):
    """The optima over compute; `params`: kN, a, kD, b (N* = kN C^a, D* = kD C^b)."""

    budgets: tuple[ComputeBudget, ...] = ()
    optional: ClassVar[tuple[str, ...]] = ("data",)  # taken besides the law's inputs, where given

    @property
    def formula(self) -> str:
        """Both optima, in the table's own column names."""
        params, compute = self.columns["params"], self.columns["compute"]
        return f"best {params} = kN * {compute} ** a; best data = kD * {compute} ** b"

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
        observations = observe(table, ISOFLOP, target=target, columns={role: columns[role] for role in ISOFLOP.inputs},
                       excluded=excluded, held=np.zeros(n, dtype=bool))  # fmt: skip
        reasons = np.full(n, "", dtype=object)
        reasons[[each["row"] for each in observations.dropped]] = [each["reason"] for each in observations.dropped]
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
        optima, noise, degrees = find(free)
        budgets, good = tuple(budget for budget, _ in optima), [each for each in optima if each[0].params is not None]
        used = (reasons == "") & ~held
        dropped = tuple({"row": int(row), "reason": str(reasons[row])} for row in np.flatnonzero(reasons != ""))
        ranges = {role: (float(v[used].min()), float(v[used].max()))
                  for role, v in (("compute", compute), ("params", params)) if used.any()}  # fmt: skip
        warnings = tuple(dropped_rows(dropped))
        result = cls(ISOFLOP, target, columns, outcome=Outcome.NOT_IDENTIFIABLE, rows_used=int(used.sum()),
                     rows_dropped=dropped, data_range=ranges, warnings=warnings, budgets=budgets)  # fmt: skip
        if refusal := _refusal(good, budgets, degrees):
            return replace(result, warnings=(refusal, *warnings), seconds=perf_counter() - began)
        result = replace(result, objective=noise**2 * degrees / 2)
        result = _power_law(result, good, degrees, _operations(table, columns, used), rng)
        if asked and result.params:
            known = [budget for budget, _ in find(held)[0] if budget.params] if held.any() else []
            result = replace(result, held_out=_score(result, known, int(held.sum())))
        return replace(result, seconds=perf_counter() - began)

    def predict(self, table: pd.DataFrame) -> pd.DataFrame:
        """The optimum at every row's compute: predicted, low, high, mean_low, mean_high (parameters; low and high for
        one more budget's own optimum), data, data_low, data_high (95% for the mean), extrapolation.

        Raises TableError for a missing column or compute that is no positive number, InputError if the fit was refused.
        """
        optima = cast(Optima, self.known_estimate())
        inputs, beyond = self.sizes(table, ["compute"])
        x = np.log(inputs["compute"]) - optima.centre
        point, drawn = optima.theta[0] + optima.theta[1] * x, optima.draws[:, :1] + optima.draws[:, 1:] * x
        mean_low, mean_high = interval(point, drawn, optima.widening)
        logs = around(point, mean_low, mean_high, Z95 * optima.widening * optima.noise)
        spent = np.log(inputs["compute"] / optima.operations)
        logs |= {"data": spent - point, "data_low": spent - mean_high, "data_high": spent - mean_low}
        columns = {name: np.exp(np.clip(value, -700, 700)) for name, value in logs.items()}
        return pd.DataFrame({**columns, "extrapolation": beyond}, index=table.index)

    def to_json(self) -> dict[str, Any]:
        """The fit as one JSON object, with the units of its parameters."""
        return {**super().to_json(), "units": self.units}

    @classmethod
    def read_fields(cls, law: Law, saved: Mapping[str, Any]) -> dict[str, Any]:
        """As a Fit's, with the budgets."""
        budgets = tuple(ComputeBudget(**budget) for budget in saved["budgets"])
        return super().read_fields(law, {**saved, "budgets": budgets})

    @classmethod
    def read_estimate(cls, law: Law, known: Mapping[str, Any], saved: Mapping[str, Any]) -> Any:
        """The optima."""
        return Optima(**{**saved, "theta": tuple(saved["theta"]), "draws": read_draws(saved, 2)})


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
    sizes = {"compute": [budget.compute for budget in budgets], "params": [budget.params for budget in budgets]}
    table = pd.DataFrame({result.columns[role]: values for role, values in sizes.items()}, dtype=float)
    scores = score(pd.concat([table, result.predict(table)], axis=1), result.columns["params"])
    return {**scores, "n": rows_held, "budgets": len(budgets)}


def _refusal(
    good: list[tuple[ComputeBudget, Array]], budgets: tuple[ComputeBudget, ...], degrees: int
) -> dict[str, str] | None:
    if len(good) >= 2 and degrees >= 1:
        return None
    if len(good) >= 2:
        text = "no more rows than the parabolas have coefficients: the noise is unknown; add a model size or a seed"
        return {"code": "few_points", "message": text}
    faults = "; ".join(f"at compute {each.compute:.4g} {each.fault}" for each in budgets if each.fault)
    code = "one_size" if len(budgets) == 1 and not faults else "few_points"
    text = (
        f"{len(good)} compute budgets with the best model size inside their data; at least two are needed, each with "
    )
    return {"code": code, "message": text + f"{FEWEST_SIZES} model sizes" + (f" ({faults})" if faults else "")}


def _operations(table: pd.DataFrame, columns: Mapping[str, str], used: NDArray[np.bool_]) -> float:
    if "data" not in columns:
        return OPERATIONS
    compute, params, data = (numbers(table, columns[role])[used] for role in ("compute", "params", "data"))
    good = np.isfinite(data) & (data > 0)
    return float(np.median(compute[good] / (params[good] * data[good]))) if good.any() else OPERATIONS


def _power_law(
    result: IsoFlop, good: list[tuple[ComputeBudget, Array]], degrees: int, operations: float, rng: np.random.Generator
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
    ratio = np.log(operations)
    # log kN, a, log kD, b of the point and of every draw.
    cloud = np.vstack([theta, draws])
    log_k = cloud[:, 0] - cloud[:, 1] * centre
    whole = np.stack([log_k, cloud[:, 1], -ratio - log_k, 1 - cloud[:, 1]], axis=1)
    low, high = interval(whole[0], whole[1:], widening)
    is_log = np.array([True, False, True, False])
    if np.abs(whole[0][is_log]).max() > LARGEST_LOG:
        text = "the coefficient at compute 1 is too large for a number; give compute in a larger unit"
        return replace(
            result, outcome=Outcome.FAILED, warnings=({"code": "flat_ridge", "message": text}, *result.warnings)
        )
    whole, low, high = (np.where(is_log, np.exp(np.clip(np.where(is_log, each, 0.0), -LARGEST_LOG, LARGEST_LOG)), each)
                        for each in (whole, low, high))  # fmt: skip
    names = ("kN", "a", "kD", "b")
    covariance = np.cov(whole[1:], rowvar=False)
    spread = float(np.sqrt(np.median(variance)))
    optima = Optima(operations, centre, float(np.hypot(scatter, spread)), widening, tuple(theta.tolist()),
                    np.round(draws[:SAVED_DRAWS], 9))  # fmt: skip
    return replace(
        result,
        outcome=Outcome.FLAT if high[1] - low[1] > 1 else Outcome.CONVERGED,
        params=dict(zip(names, whole[0].tolist(), strict=True)),
        standard_errors=dict(zip(names, np.sqrt(np.diag(covariance)).tolist(), strict=True)),
        intervals=dict(zip(names, zip(low.tolist(), high.tolist(), strict=True), strict=True)),
        covariance=tuple(map(tuple, covariance.tolist())),
        warnings=(*_findings(result, good, high[1] - low[1], scatter, spread), *result.warnings),
        estimate=cast(Estimate, optima),
    )


def _findings(result: IsoFlop, good: list[Any], width: float, scatter: float, spread: float) -> list[dict[str, str]]:
    findings = []
    if faults := [each for each in result.budgets if each.fault]:
        text = "; ".join(f"at compute {each.compute:.4g} {each.fault}" for each in faults)
        findings.append({"code": "at_bound", "message": f"budgets left out: {text}"})
    if len(good) == 2:
        text = "two budgets determine a power law but do not test it; add a third"
        findings.append({"code": "few_sizes", "message": text})
    if width > 1:
        text = f"the 95% interval of the exponent a is {width:.2g} wide; run budgets further apart"
        findings.append({"code": "flat_ridge", "message": text})
    if scatter > 2 * spread:
        text = "the optima scatter around the power law more than run-to-run noise explains"
        findings.append({"code": "misspecified", "message": text})
    return findings


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
