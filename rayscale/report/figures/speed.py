"""Figure of speed: examples per second against GPUs, and the paired ratios behind the speed-up."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rayscale.report.figures import chart
from rayscale.report.figures.chart import FAINT, INK, Drawn, Shape
from rayscale.report.figures.evidence import Evidence
from rayscale.report.numbers import capitalised, number, plain, shorten, significant
from rayscale.report.wording import interval_text
from rayscale.verdict.speedup import speed_pairs, timed_alone


def speed_against_gpus(evidence: Evidence, trials: pd.DataFrame, gain: dict) -> Drawn | None:
    """Figure 3; None where fewer than two GPU counts have exclusive rows. `gain` is the verdict's `doubling.gpus`."""
    rows = timed_alone(trials)
    counts = sorted(int(value) for value in rows["gpus"].dropna().unique())
    if len(counts) < 2:
        return None
    pairs = speed_pairs(rows)
    pairs = pairs.assign(ratio=np.exp(pairs["log_ratio"].astype(float)))
    steps = [step for step in gain.get("curve") or [] if number(step.get("value")) is not None]
    shown = evidence.models_in(rows)

    def paint(figure: Figure, shape: Shape) -> None:
        first, second = chart.panels(figure, shape, 1.3)
        handles = _speeds(first, evidence, rows, shown, counts)
        _ratios(second, evidence, pairs, shown, counts, steps)
        chart.legend_above(figure, shape, handles, [shorten(model, 28) for model in shown])

    band = "; grey: their mean and its 95% interval" if steps else ""
    reading = (
        "Only runs that had the machine to themselves, without their first steps; dashed: ideal scaling. Ratio points: "
        f"pairs of runs that differ in the GPU count alone{band}."
    )
    alt = "Examples per second against the number of GPUs, with paired speed ratios."
    return chart.draw("speed", "Speed against GPUs", _caption(gain), reading, alt, paint)


def _speeds(axes: Axes, evidence: Evidence, rows: pd.DataFrame, shown: list[str], counts: list[int]) -> list:
    handles, heights = [], list(rows["examples_per_second"])
    for model in shown:
        place = evidence.position(model)
        speeds = rows[rows["model"] == model].groupby("gpus")["examples_per_second"]
        medians = speeds.median()
        ideal = [float(medians.iloc[0]) * gpus / float(medians.index[0]) for gpus in counts]
        heights += ideal
        axes.plot(counts, ideal, color=chart.colour(place), lw=1.1, linestyle=(0, (4, 3)), alpha=0.75)
        handles += chart.spread(axes, speeds, chart.sign(place, ms=6.5, ls="-", lw=1.4), "median")
    chart.log_y(axes, *chart.margins(heights))
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(value) for value in counts])
    axes.set_xticks([], minor=True)
    axes.set_xlim(counts[0] / 1.35, counts[-1] * 1.35)
    chart.title_axes(axes, "GPUs or worker slots", "examples per second")
    return handles


def _ratios(axes: Axes, evidence: Evidence, pairs: pd.DataFrame, shown: list[str], counts: list[int],
            steps: list[dict]) -> None:  # fmt: skip
    taken = {(int(step["from"]), int(step["to"])): step for step in steps}
    ideals = [after / before for before, after in pairwise(counts)]
    for place, (before, after) in enumerate(pairwise(counts)):
        axes.hlines(ideals[place], place - 0.4, place + 0.4, color=FAINT, lw=1.1, linestyle=(0, (4, 3)))
        axes.text(place - 0.4, 1.01 * ideals[place], "ideal", fontsize=9, color=FAINT)
        step = taken.get((before, after))
        if step is not None:
            if number(step.get("low")) is not None and number(step.get("high")) is not None:
                axes.fill_between([place - 0.4, place + 0.4], step["low"], step["high"], color=INK, alpha=0.1, lw=0)
            axes.hlines(step["value"], place - 0.4, place + 0.4, color=INK, lw=1.3, alpha=0.75)
        for order, model in enumerate(shown):
            ratios = pairs.loc[(pairs["model"] == model) & (pairs["to"] == after), "ratio"]
            # Models stand side by side, so that their points do not cover each other.
            aside = place + 0.6 * (order - (len(shown) - 1) / 2) / max(len(shown), 2)
            axes.plot(np.full(len(ratios), aside), ratios, **chart.sign(evidence.position(model)))
    axes.axhline(1.0, color="#9aa4b0", lw=0.8)
    heights = [*pairs["ratio"], *ideals, 1.0]
    axes.set_ylim(min(0.93, 0.95 * min(heights)), 1.09 * max(heights))
    axes.set_xlim(-0.6, len(ideals) - 0.4)
    axes.set_xticks(range(len(ideals)), [f"{a} to {b}" for a, b in pairwise(counts)])
    chart.title_axes(axes, "GPUs or worker slots", "times the speed")


def _caption(gain: dict) -> str:
    if number(gain.get("value")) is None:
        return capitalised(plain(gain.get("note") or "No paired ratio was found").rstrip(".")) + "."
    between = interval_text(gain.get("low"), gain.get("high"))
    held = f" (95%: {between})" if between else ""
    return f"Twice the GPUs give {significant(gain['value'])} times the speed{held}; the ideal is 2."
