"""Figures of quality: loss against data, loss against model size, task metrics against data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rayscale.report.figures.chart import (
    BEYOND,
    FAINT,
    Drawn,
    Shape,
    colour,
    draw,
    legend_above,
    log_x,
    log_y,
    margins,
    marker,
    shade,
    title_axes,
)  # fmt: skip
from rayscale.report.figures.evidence import Evidence
from rayscale.report.numbers import count, fixed, shorten
from rayscale.study.metrics import PERCENTS
from rayscale.study.tasks import ENTITIES, KINDS

#: Curves and their bands for one law: (fit as saved, rows) → columns predicted, low, high.
Predict = Callable[[dict, pd.DataFrame], pd.DataFrame]
REACH = 4.0  # how many times beyond the largest size the curves are drawn
_SPOKEN = {"accuracy": "accuracy", "f1_macro": "macro F1", "f1_micro": "micro F1", "exact_match": "exact match",
           "f1_words": "F1 of words", "chrf": "chrF"}  # fmt: skip
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
                if model in band and curve[["low", "high"]].notna().all(axis=None):
                    axes.fill_between(curve["x"], curve["low"], curve["high"], color=colour(place), alpha=0.13, lw=0)
                for part, dashes in ((curve["x"] <= largest, "-"), (curve["x"] >= largest, (0, (4, 3)))):
                    inside = curve[part]
                    axes.plot(inside["x"], inside["predicted"], color=colour(place), lw=1.6, linestyle=dashes)
            handles.append(_points(axes, evidence, model))
        least = float(evidence.ok[evidence.data].min())
        right = largest * (REACH if beyond else 1.15)
        log_y(axes, *margins(heights))
        log_x(axes, [float(value) for value in _axis_values(evidence, largest)], least / 1.15, right, shape.ticks)
        if beyond:
            _shade_beyond(axes, largest, right)
        title_axes(axes, evidence.data_label, evidence.target_label)
        legend_above(figure, axes, shape, handles, [_label(evidence, model) for model in shown])

    return draw("loss-data", "Loss against data", _data_caption(evidence, shown),
                _data_reading(beyond), _data_alt(evidence, shown), paint)  # fmt: skip


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
            tint = shade(place, len(evidence.sizes))
            rows = evidence.ok[evidence.ok["data_requested"] == size]
            if law is not None:
                sweep = np.geomspace(least, largest * REACH, 60)
                frame = pd.DataFrame({evidence.params: sweep, evidence.data: float(rows[evidence.data].mean())})
                curve = predict(law, frame)
                heights += list(curve["predicted"])
                if place == len(evidence.sizes) - 1 and curve[["low", "high"]].notna().all(axis=None):
                    axes.fill_between(sweep, curve["low"], curve["high"], color=tint, alpha=0.13, lw=0)
                for part, dashes in ((sweep <= largest, "-"), (sweep >= largest, (0, (4, 3)))):
                    axes.plot(sweep[part], curve["predicted"].to_numpy()[part], color=tint, lw=1.6, linestyle=dashes)
            cell = rows.groupby(evidence.params)[evidence.target].agg(["mean", "min", "max"]).sort_index()
            if law is None:
                axes.plot(cell.index, cell["mean"], color=tint, lw=0.8, alpha=0.6)
            axes.vlines(cell.index, cell["min"], cell["max"], color=tint, lw=1.4)
            handles += axes.plot(cell.index, cell["mean"], "o", color=tint, ms=6, mec="white", mew=0.8)
        right = largest * (REACH if law is not None else 1.2)
        log_y(axes, *margins(heights))
        log_x(axes, sorted({evidence.params_of(model) for model in shown}), least / 1.2, right, shape.ticks)
        if law is not None:
            _shade_beyond(axes, largest, right)
        included = ", embeddings included" if evidence.params == "params" else ", embeddings left out"
        title_axes(axes, f"parameters{included}", evidence.target_label)
        legend_above(figure, axes, shape, handles, [f"{count(size)} {evidence.data}" for size in evidence.sizes])

    return draw("loss-size", "Loss against model size", _size_caption(evidence, shown), _size_reading(law is not None),
                f"{evidence.target_label} against parameters, one line per data size.", paint)  # fmt: skip


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
    found = [name for name in pair if name in _SPOKEN and evidence.ok[name].notna().any() and name != evidence.target]
    entities = _counts_entities(evidence)
    if "f1_micro" in found and not entities:
        found.remove("f1_micro")  # of single tags: that is their accuracy
    if not found:
        return None
    shown = evidence.measured
    spoken = _SPOKEN | ({"f1_micro": "entity F1"} if entities else {})
    one_scale = not PERCENTS & set(found)

    def paint(figure: Figure, shape: Shape) -> None:
        rows, columns = (len(found), 1) if shape.narrow else (1, len(found))
        grid = figure.subplots(rows, columns, sharex=shape.narrow, sharey=one_scale and not shape.narrow)
        handles: list = []
        sizes = [float(size) for size in evidence.sizes]
        for axes, metric in zip(np.atleast_1d(grid), found, strict=True):
            handles = []
            for model in shown:
                own = evidence.ok[(evidence.ok["model"] == model) & evidence.ok[metric].notna()]
                cell = own.groupby("data_requested")[metric].agg(["mean", "min", "max"]).sort_index()
                place = evidence.position(model)
                axes.vlines(cell.index, cell["min"], cell["max"], color=colour(place), lw=1.4)
                handles += axes.plot(cell.index, cell["mean"], marker=marker(place), color=colour(place), ms=6,
                                     mec="white", mew=0.8, lw=1.2)  # fmt: skip
            log_x(axes, sizes, min(sizes) / 1.15, max(sizes) * 1.15, shape.ticks if shape.narrow else 4)
            title_axes(axes, evidence.data_label, f"{spoken[metric]} on the test set")
        legend_above(figure, np.atleast_1d(grid)[0], shape, handles, [_label(evidence, model) for model in shown])

    metric = found[-1]
    best = evidence.ok.sort_values(metric, ascending=False, kind="stable").iloc[0]
    value = fixed(best[metric], 1 if metric in PERCENTS else 3)
    caption = (
        f"The best run reaches {spoken[metric]} {value} ({shorten(best['model'], 40)} on "
        f"{count(best['data_requested'])} {evidence.data})."
    )
    reading = "Points: mean over seeds and GPU counts; bars: worst to best run; lines only join the means."
    alt = f"Task metrics against {evidence.data_label}, one line per model."
    title = " and ".join(spoken[name] for name in found)
    return draw("metrics", f"{title[0].upper()}{title[1:]}", caption, reading, alt, paint)


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


def _points(axes: Axes, evidence: Evidence, model: str):
    place, cell = evidence.position(model), evidence.cells[model]
    axes.vlines(cell["data"], cell["low"], cell["high"], color=colour(place), lw=1.4)
    (handle,) = axes.plot(
        cell["data"], cell["mean"], marker(place), color=colour(place), ms=6.5, mec="white", mew=0.8, zorder=3
    )
    return handle


def _shade_beyond(axes: Axes, start: float, right: float) -> None:
    axes.axvspan(start, right, color=BEYOND, zorder=0, lw=0)
    axes.text(right, 0.985, "beyond the data ", transform=axes.get_xaxis_transform(), ha="right", va="top",
              fontsize=9, color=FAINT, style="italic")  # fmt: skip


def _axis_values(evidence: Evidence, largest: float) -> list[float]:
    sizes = evidence.ok.groupby("data_requested")[evidence.data].mean().tolist()
    return [*sizes, largest * 2]


def _label(evidence: Evidence, model: str) -> str:
    return f"{shorten(model, 24)} ({count(evidence.params_of(model))})"


def _data_caption(evidence: Evidence, shown: list[str]) -> str:
    falls = [model for model in shown if _falls(evidence.cells[model])]
    measured = [model for model in shown if len(evidence.cells[model]) > 1]
    if not measured:
        return "Only one data size was run, so nothing can be said about more data."
    if falls == measured:
        return "More data lowers the loss of every model." if len(shown) > 1 else "More data lowers the loss."
    others = ", ".join(shorten(model, 40) for model in measured if model not in falls)
    return f"More data does not steadily lower the loss of {others}."


def _data_reading(beyond: bool) -> str:
    points = "Points: mean over seeds and GPU counts; bars: best to worst run."
    return f"{points} Curves: the law, dashed beyond the data; bands: 95% of new runs." if beyond else points


def _falls(cell: pd.DataFrame) -> bool:
    return len(cell) > 1 and float(cell["mean"].iloc[-1]) < float(cell["mean"].iloc[:-1].min())


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
    best, largest = means.idxmin(), max(shown, key=evidence.params_of)
    which = "The largest model is best" if best == largest else f"{shorten(best, 40)}, not the largest model, is best"
    return f"{which} at {count(size)} {evidence.data}, the largest data size."


def _size_reading(curves: bool) -> str:
    points = "Points: mean over seeds and GPU counts; bars: best to worst run."
    return points + (" Curves: the law; band: 95% of new runs at the largest data size." if curves else "")
