"""Figures of quality: loss against data, loss against model size, task metrics against data."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rayscale.report.figures import chart
from rayscale.report.figures.chart import Drawn, Shape
from rayscale.report.figures.evidence import Evidence, Predict
from rayscale.report.numbers import capitalised, count, fixed, shorten
from rayscale.study.metrics import PERCENTS
from rayscale.study.tasks import ENTITIES, KINDS

REACH = 4.0  # how many times beyond the largest size the curves are drawn
_SPOKEN = {"accuracy": "accuracy", "f1_macro": "macro F1", "f1_micro": "micro F1", "exact_match": "exact match",
           "f1_words": "F1 of words", "chrf": "chrF"}  # fmt: skip
_POINTS = "Points: mean over seeds and GPU counts; bars: lowest to highest run"
_BANDS = 4  # with more models than these, bands hide each other: only the largest model keeps its own


def loss_against_data(evidence: Evidence, predict: Predict) -> Drawn | None:
    """Figure 1; None where no trial has the target."""
    shown = evidence.measured
    if not shown:
        return None
    curves = {model: _curve(evidence, model, predict) for model in shown}
    band = shown if len(shown) <= _BANDS else shown[-1:]
    largest = float(evidence.ok[evidence.data].max())
    beyond = any(curve is not None for curve in curves.values())

    def paint(figure: Figure, shape: Shape) -> None:
        axes = figure.add_subplot()
        handles = []
        heights = list(evidence.ok[evidence.target])
        for model in shown:
            place, curve = evidence.position(model), curves[model]
            if curve is not None:
                heights += list(curve["predicted"])
                x = curve["x"].to_numpy()
                chart.law_curve(axes, x, curve, largest, chart.colour(place), band=model in band)
            cell = evidence.cells[model]
            axes.vlines(cell["data"], cell["low"], cell["high"], color=chart.colour(place), lw=1.4)
            handles += axes.plot(cell["data"], cell["mean"], **chart.sign(place, ms=6.5, zorder=3))
        least = float(evidence.ok[evidence.data].min())
        right = largest * (REACH if beyond else 1.15)
        chart.log_y(axes, *chart.margins(heights))
        sizes = evidence.ok.groupby("data_requested")[evidence.data].mean().tolist()
        chart.log_x(axes, [*sizes, 2 * largest], least / 1.15, right, shape.ticks)
        if beyond:
            _shade_beyond(axes, largest, right)
        chart.title_axes(axes, evidence.data_label, evidence.target_label)
        chart.legend_above(figure, shape, handles, [_label(evidence, model) for model in shown])

    law = " Curves: the law, dashed beyond the data; bands: 95% of new runs." if beyond else ""
    caption, reading, alt = _data_caption(evidence, shown), f"{_POINTS}.{law}", _data_alt(evidence, shown)
    return chart.draw("loss-data", capitalised(f"{evidence.quantity} against data"), caption, reading, alt, paint)


def loss_against_size(evidence: Evidence, predict: Predict) -> Drawn | None:
    """Figure 2; None with fewer than two model sizes."""
    shown = evidence.measured
    if len({evidence.params_of(model) for model in shown}) < 2:
        return None
    law = evidence.law_for(None, evidence.params)
    largest = max(evidence.params_of(model) for model in shown)
    least = min(evidence.params_of(model) for model in shown)

    def paint(figure: Figure, shape: Shape) -> None:
        axes = figure.add_subplot()
        handles, heights = [], list(evidence.ok[evidence.target])
        for place, size in enumerate(evidence.sizes):
            tint = chart.shade(place, len(evidence.sizes))
            rows = evidence.ok[evidence.ok["data_requested"] == size]
            if law is not None:
                sweep = np.geomspace(least, largest * REACH, 60)
                frame = pd.DataFrame({evidence.params: sweep, evidence.data: float(rows[evidence.data].mean())})
                curve = predict(law, frame)
                heights += list(curve["predicted"])
                chart.law_curve(axes, sweep, curve, largest, tint, band=size == evidence.sizes[-1])
            cells = rows.groupby(evidence.params)[evidence.target]
            look = {"color": tint, "ls": "-" if law is None else "none", "lw": 0.8}
            handles += chart.spread(axes, cells, chart.sign(0, **look))
        right = largest * (REACH if law is not None else 1.2)
        chart.log_y(axes, *chart.margins(heights))
        chart.log_x(axes, sorted({evidence.params_of(model) for model in shown}), least / 1.2, right, shape.ticks)
        if law is not None:
            _shade_beyond(axes, largest, right)
        included = ", embeddings included" if evidence.params == "params" else ", embeddings left out"
        chart.title_axes(axes, f"parameters{included}", evidence.target_label)
        chart.legend_above(figure, shape, handles, [f"{count(size)} {evidence.data}" for size in evidence.sizes])

    curves = " Curves: the law; band: 95% of new runs at the largest data size." if law is not None else ""
    caption, reading = _size_caption(evidence, shown), f"{_POINTS}.{curves}"
    alt = f"{evidence.target_label} against parameters, one line per data size."
    return chart.draw("loss-size", capitalised(f"{evidence.quantity} against model size"), caption, reading, alt, paint)


def _counts_entities(evidence: Evidence) -> bool:
    """Whether F1 is that of entities; of records that do not say, told by its differing from the tags' accuracy."""
    rules = evidence.ok["metric_signature"].dropna().astype(str)
    if len(rules):
        return bool(rules.str.startswith(ENTITIES).all())
    return evidence.task == "token-classification" and not evidence.ok["f1_micro"].equals(evidence.ok["accuracy"])


def metrics_against_data(evidence: Evidence) -> Drawn | None:
    """The two metrics that tell most of the task against data; None where they say no more than the loss does."""
    kind = KINDS.get(evidence.task)
    pair = ("accuracy", "f1_macro") if kind is None else (kind.metrics[1], kind.aim)
    metrics = [name for name in pair if name in _SPOKEN and evidence.ok[name].notna().any() and name != evidence.target]
    entities = _counts_entities(evidence)
    if "f1_micro" in metrics and not entities:
        metrics.remove("f1_micro")  # of single tags: that is their accuracy
    if not metrics:
        return None
    shown = evidence.measured
    spoken = _SPOKEN | ({"f1_micro": "entity F1"} if entities else {})
    one_scale = not PERCENTS & set(metrics)

    def paint(figure: Figure, shape: Shape) -> None:
        layout = (len(metrics), 1) if shape.narrow else (1, len(metrics))
        grid = figure.subplots(*layout, sharex=shape.narrow, sharey=one_scale and not shape.narrow)
        handles: list = []
        sizes = [float(size) for size in evidence.sizes]
        for axes, metric in zip(np.atleast_1d(grid), metrics, strict=True):
            handles = []
            for model in shown:
                rows = evidence.ok[(evidence.ok["model"] == model) & evidence.ok[metric].notna()]
                look = chart.sign(evidence.position(model), ls="-", lw=1.2)
                handles += chart.spread(axes, rows.groupby("data_requested")[metric], look)
            chart.log_x(axes, sizes, min(sizes) / 1.15, max(sizes) * 1.15, shape.ticks if shape.narrow else 4)
            chart.title_axes(axes, evidence.data_label, f"{spoken[metric]} on the test set")
        chart.legend_above(figure, shape, handles, [_label(evidence, model) for model in shown])

    metric = metrics[-1]
    best = evidence.ok.sort_values(metric, ascending=False, kind="stable").iloc[0]
    value = fixed(best[metric], 1 if metric in PERCENTS else 3)
    caption = (
        f"The best run reaches {spoken[metric]} {value} ({shorten(best['model'], 40)} on "
        f"{count(best['data_requested'])} {evidence.data})."
    )
    reading = f"{_POINTS}; lines only join the means."
    alt = f"Task metrics against {evidence.data_label}, one line per model."
    title = " and ".join(spoken[name] for name in metrics)
    return chart.draw("metrics", capitalised(title), caption, reading, alt, paint)


def _curve(evidence: Evidence, model: str, predict: Predict) -> pd.DataFrame | None:
    law = evidence.law_for(model, evidence.data)
    if law is None:
        return None
    least, largest = float(evidence.ok[evidence.data].min()), float(evidence.ok[evidence.data].max())
    inside = np.geomspace(least, largest, 40)
    sweep = np.concatenate([inside, np.geomspace(largest, largest * REACH, 20)[1:]])
    frame = pd.DataFrame({evidence.data: sweep, evidence.params: evidence.params_of(model), "model": model})
    curve = predict(law, frame).reset_index(drop=True)
    return curve.assign(x=sweep)


def _shade_beyond(axes: Axes, start: float, right: float) -> None:
    axes.axvspan(start, right, color=chart.BEYOND, zorder=0, lw=0)
    axes.text(right, 0.985, "beyond the data ", transform=axes.get_xaxis_transform(), ha="right", va="top",
              fontsize=9, color=chart.FAINT, style="italic")  # fmt: skip


def _label(evidence: Evidence, model: str) -> str:
    return f"{shorten(model, 24)} ({count(evidence.params_of(model))})"


def _data_caption(evidence: Evidence, shown: list[str]) -> str:
    means = {model: cell["mean"] for model in shown if len(cell := evidence.cells[model]) > 1}
    if not means:
        return "Only one data size was run, so nothing can be said about more data."
    sign = 1 if evidence.lower else -1
    others = [shorten(model, 40) for model, mean in means.items()
              if not sign * mean.iloc[-1] < (sign * mean.iloc[:-1]).min()]  # fmt: skip
    if others:
        change = "lower" if evidence.lower else "raise"
        return f"More data does not steadily {change} the {evidence.quantity} of {', '.join(others)}."
    text = f"More data {'lowers' if evidence.lower else 'raises'} the {evidence.quantity}"
    return f"{text} of every model." if len(shown) > 1 else f"{text}."


def _data_alt(evidence: Evidence, shown: list[str]) -> str:
    parts = [
        f"{shorten(model, 40)}: {fixed(cell['mean'].iloc[0])} at {count(cell.index[0])} to "
        f"{fixed(cell['mean'].iloc[-1])} at {count(cell.index[-1])} {evidence.data}"
        for model in shown
        for cell in (evidence.cells[model],)
    ]
    return f"{evidence.target_label} against {evidence.data_label}. " + "; ".join(parts) + "."


def _size_caption(evidence: Evidence, shown: list[str]) -> str:
    size = evidence.sizes[-1]
    means = evidence.ok[evidence.ok["data_requested"] == size].groupby("model")[evidence.target].mean()
    best, largest = means.idxmin() if evidence.lower else means.idxmax(), max(shown, key=evidence.params_of)
    which = "The largest model is best" if best == largest else f"{shorten(best, 40)}, not the largest model, is best"
    return f"{which} at {count(size)} {evidence.data}, the largest data size."
