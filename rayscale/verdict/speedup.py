"""The effect of more GPUs, in pairs: the same model, data and seed at two GPU counts. Only speed should change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from rayscale.runs.trial import cell_without

_SAME = cell_without("gpus")
MARGIN = 0.01  # a relative change below one percent is below what two seeds of one fine-tune differ by


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


def changed(interval: Iterable[float | None], change: Callable[[float], Any]) -> list[float | None]:
    """Value and ends of an interval on another scale; what is unknown stays None."""
    return [None if end is None else float(change(end)) for end in interval]


def timed_alone(trials: pd.DataFrame) -> pd.DataFrame:
    """Ok rows that had the machine to themselves: others measure how runs disturb each other."""
    speed = trials["examples_per_second"].astype(float)
    timed = speed.gt(0) & speed.lt(np.inf) & trials["params"].notna() & trials["gpus"].notna()
    return trials[(trials["status"] == "ok") & trials["exclusive"].eq(True).fillna(False) & timed]


def gpu_counts(rows: pd.DataFrame) -> list[int]:
    """The GPU counts of the rows, ascending."""
    return sorted(int(gpus) for gpus in rows["gpus"].dropna().unique())


def speed_pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """Runs equal in all but GPUs, at neighbouring GPU counts: model, params, from, to, and the log ratio of speeds."""
    cells = rows.groupby([*_SAME, "gpus"], dropna=False)[["examples_per_second", "params"]].mean()
    cells = cells.astype(float).reset_index().astype({"gpus": float})
    following = dict(pairwise(sorted(cells["gpus"].unique())))
    fewer = cells.assign(to=cells["gpus"].map(following).astype(float)).dropna(subset="to")
    pairs = fewer.merge(cells.rename(columns={"gpus": "to"}), on=[*_SAME, "to"], suffixes=("", "_more"))
    ratio = pairs["examples_per_second_more"] / pairs["examples_per_second"]
    return pairs.rename(columns={"gpus": "from"}).assign(log_ratio=np.log(ratio))


def speed_steps(trials: pd.DataFrame) -> list[dict[str, Any]]:
    """The paired ratio of examples per second between every two neighbouring GPU counts, ascending.

    Each step: `from`, `to` (GPUs), value, low, high (geometric mean over pairs of runs that were `timed_alone`),
    `pairs`, `models`: the mean ratio of each model by itself (model, params, value), the smallest model first, and
    `largest_model`, the last of these ratios.
    """
    steps = []
    for ends, pairs in speed_pairs(timed_alone(trials)).groupby(["from", "to"]):
        fewer, more = map(int, cast(tuple[float, float], ends))
        ratios = changed(mean_interval(pairs["log_ratio"].to_numpy()), np.exp)
        by_model = pairs.groupby(["params", "model"])["log_ratio"].mean()  # sorted by size
        models = [{"model": model, "params": float(params), "value": float(np.exp(mean))}
                  for params, model, mean in by_model.reset_index().itertuples(index=False)]  # fmt: skip
        facts = {"from": fewer, "to": more, "pairs": len(pairs), "models": models}
        steps.append(amount(ratios, "times", **facts, largest_model=models[-1]["value"]))
    return steps


def relative_speeds(steps: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """GPU count -> speed over that at the fewest, as far as the `speed_steps` lead on from each other."""
    speeds = {step["from"]: 1.0 for step in steps[:1]}
    for step in steps:
        if step["from"] in speeds:
            speeds[step["to"]] = speeds[step["from"]] * step["value"]
    return speeds


def quality_change(trials: pd.DataFrame) -> dict[str, Any] | None:
    """`paired_change` of eval_loss from the fewest to more GPUs; None without a pair.

    The global batch is the same at every count, so it should be nothing but rounding, and the chance of dropout.
    """
    loss = trials["eval_loss"].astype(float)
    rows = trials[(trials["status"] == "ok") & loss.gt(0) & loss.lt(np.inf)]
    return paired_change(rows, "eval_loss", "gpus", _SAME)


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


def paired_change(
    rows: pd.DataFrame, quality: str, gpus: str, same: Sequence[str], margin: float = MARGIN
) -> dict[str, Any] | None:
    """The mean change of quality, in percent, from the fewest GPUs to more, over runs that agree in `same`.

    value, low, high, `pairs`, `margin`, `p_value`; `verdict`: equivalent (two one-sided tests at 5% put it inside the
    margin), different (zero lies outside the 95% interval and it is not equivalent), undecided; `smallest_margin`: the
    least that could be claimed. None without a pair.
    """
    changes = []
    for _, group in rows.groupby(list(same), dropna=False):
        by_gpus = group.groupby(gpus)[quality].mean().astype(float).sort_index()
        if len(by_gpus) > 1:  # one run at three counts is one pair: its comparisons share the first run
            changes.append(float(np.log(by_gpus.iloc[1:] / by_gpus.iloc[0]).mean()))
    if not changes:
        return None
    logs, n = np.array(changes), len(changes)
    mean, low, high = mean_interval(logs)
    p_value = smallest = None
    verdict = "undecided"
    if low is not None and high is not None:
        error = max(float(logs.std(ddof=1)) / n**0.5, 1e-300)  # equal changes leave no error to divide by
        # Two one-sided tests (Schuirmann 1987): equivalent where the 90% interval lies inside the margin.
        beyond = max(np.log(1 - margin) - mean, mean - np.log(1 + margin))
        p_value = float(stats.t.cdf(beyond / error, n - 1))
        half = stats.t.ppf(0.95, n - 1) * error
        smallest = 100 * float(np.abs(np.expm1([mean - half, mean + half])).max())
        verdict = "equivalent" if p_value < 0.05 else "undecided" if low <= 0 <= high else "different"
    return amount(changed((mean, low, high), lambda log: 100 * np.expm1(log)), "%", pairs=n, margin=100 * margin,
                  p_value=p_value, verdict=verdict, smallest_margin=smallest)  # fmt: skip
