"""The effect of more GPUs, in pairs: the same model, data and seed at two GPU counts. Only speed should change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from rayscale.runs.trial import cell_without

_SAME = cell_without("gpus")


def amount(interval: Iterable[float | None], unit: str, **more: Any) -> dict[str, Any]:
    """A gain or a cost as the verdict holds it: value with its 95% interval (null where unknown) and unit."""
    value, low, high = interval
    return {"value": value, "low": low, "high": high, "unit": unit, **more}


def mean_interval(values: NDArray[np.float64]) -> tuple[float, float | None, float | None]:
    """Mean of (n,) values with the 95% interval by Student's t; the interval is None for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None, None
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def _pairs(rows: pd.DataFrame, column: str, fewer: int, more: int) -> pd.DataFrame:
    """Log of `column` at `more` GPUs over that at `fewer`, one row per pair: model, params, log_ratio."""
    positive = rows[column].astype(float).gt(0) & rows[column].astype(float).lt(np.inf)
    rows = rows[positive & rows["params"].notna()]
    sides = [rows[rows["gpus"] == gpus].groupby(_SAME, dropna=False) for gpus in (fewer, more)]
    before, after = (side[column].mean().astype(float) for side in sides)
    both = before.index.intersection(after.index)
    return pd.DataFrame(
        {
            "model": both.get_level_values("model"),
            "params": sides[0]["params"].max().reindex(both).to_numpy(dtype=float),
            "log_ratio": np.log(after.reindex(both).to_numpy() / before.reindex(both).to_numpy()),
        }
    )


def speed_steps(trials: pd.DataFrame) -> list[dict[str, Any]]:
    """The paired ratio of examples per second between every two neighbouring GPU counts, ascending.

    Only rows that ran `exclusive`ly count: others measure how runs disturb each other. Each step: `from`, `to` (GPUs),
    value, low, high (geometric mean over pairs), `pairs`, `models`: the mean ratio of each model by itself (model,
    params, value), the smallest model first, and `largest_model`, the last of these ratios.
    """
    rows = trials[(trials["status"] == "ok") & trials["exclusive"].eq(True).fillna(False)]
    counts = sorted(int(gpus) for gpus in rows["gpus"].dropna().unique())
    steps = []
    for fewer, more in pairwise(counts):
        pairs = _pairs(rows, "examples_per_second", fewer, more)
        if not len(pairs):
            continue
        logs = mean_interval(pairs["log_ratio"].to_numpy())
        ratios = [None if log is None else float(np.exp(log)) for log in logs]
        by_model = pairs.groupby(["params", "model"])["log_ratio"].mean()  # sorted by size
        models = [{"model": model, "params": float(params), "value": float(np.exp(mean))}
                  for params, model, mean in by_model.reset_index().itertuples(index=False)]  # fmt: skip
        facts = {"from": fewer, "to": more, "pairs": len(pairs), "models": models}
        steps.append(amount(ratios, "times", **facts, largest_model=models[-1]["value"]))
    return steps


def quality_change(trials: pd.DataFrame) -> dict[str, Any] | None:
    """Paired change of eval_loss from the fewest to more GPUs, as `Equivalence.to_json`; None without a pair.

    The global batch is the same at every count, so it should be nothing but rounding, and the chance of dropout.
    """
    loss = trials["eval_loss"].astype(float)
    rows = trials[(trials["status"] == "ok") & loss.gt(0) & loss.lt(np.inf)]
    change = pair(rows, "eval_loss", "gpus", tuple(_SAME), MARGIN)
    return None if change is None else change.to_json()


def gpu_gain(trials: pd.DataFrame) -> dict[str, Any]:
    """The effect of doubling the GPUs, at the largest counts measured: the verdict's `doubling.gpus`.

    value, low, high: times the examples per second; `curve`: all steps; `quality`: the effect on the loss; `note`.
    """
    steps, quality = speed_steps(trials), quality_change(trials)
    doublings = [step for step in steps if step["to"] == 2 * step["from"]]
    if doublings:
        step = doublings[-1]
        note = f"from {step['from']} to {step['to']} GPUs, {step['pairs']} pairs of runs"
        note += "" if step["low"] is not None else "; one pair gives no interval"
        return {**step, "note": note, "curve": steps, "quality": quality}
    if steps:
        note = f"measured only from {steps[-1]['from']} to {steps[-1]['to']} GPUs, which is not a doubling"
    elif quality is not None:
        note = "no two runs of the same model, data and seed at different GPU counts had the machine to themselves"
    else:
        note = "no model was run with the same data and seed at two GPU counts"
    return amount((None, None, None), "times", note=note, curve=steps, quality=quality)


MARGIN = 0.01  # a relative change below one percent is below what two seeds of one fine-tune differ by


@dataclass(frozen=True)
class Equivalence:
    """The paired change of quality with more GPUs, relative (0.01 is 1%), and whether it is none.

    `low`, `high`: 95%. `verdict`: equivalent (two one-sided tests at 5% put it inside the margin), different (zero lies
    outside the 95% interval and it is not equivalent), undecided. `smallest_margin`: the least that could be claimed.
    """

    value: float
    low: float | None
    high: float | None
    pairs: int
    margin: float
    p_value: float | None
    smallest_margin: float | None
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """The change as the verdict holds it: value, low, high and margins in percent."""
        shares = (self.value, self.low, self.high, self.margin, self.smallest_margin)
        value, low, high, margin, smallest = (None if share is None else 100 * share for share in shares)
        return amount((value, low, high), "%", pairs=self.pairs, margin=margin, p_value=self.p_value,
                      verdict=self.verdict, smallest_margin=smallest)  # fmt: skip


def pair(rows: pd.DataFrame, quality: str, gpus: str, same: tuple[str, ...], margin: float) -> Equivalence | None:
    """The mean relative change from the fewest GPUs to more, over runs that are the same in all else."""
    changes = []
    for _, group in rows.groupby(list(same), dropna=False):
        by_gpus = group.groupby(gpus)[quality].mean().astype(float).sort_index()
        if len(by_gpus) > 1:  # one run at three counts is one pair: its comparisons share the first run
            changes.append(float(np.log(by_gpus.iloc[1:] / by_gpus.iloc[0]).mean()))
    if not changes:
        return None
    logs, n = np.array(changes), len(changes)
    mean = float(logs.mean())
    if n < 2:
        return Equivalence(float(np.expm1(mean)), None, None, n, margin, None, None, "undecided")
    error = float(logs.std(ddof=1)) / n**0.5
    half, inner = (float(stats.t.ppf(level, n - 1)) * error for level in (0.975, 0.95))
    # Two one-sided tests (Schuirmann 1987): equivalent where the 90% interval lies inside the margin.
    bounds = np.log([1 - margin, 1 + margin])
    if error > 0:
        p_value = float(
            max(stats.t.cdf((mean - bounds[1]) / error, n - 1), stats.t.sf((mean - bounds[0]) / error, n - 1))
        )
    else:
        p_value = 0.0 if bounds[0] < mean < bounds[1] else 1.0
    smallest = float(max(abs(np.expm1(mean - inner)), abs(np.expm1(mean + inner))))
    verdict = "equivalent" if p_value < 0.05 else "undecided" if abs(mean) <= half else "different"
    low, high = (float(np.expm1(mean + sign * half)) for sign in (-1, 1))
    return Equivalence(float(np.expm1(mean)), low, high, n, margin, p_value, smallest, verdict)
