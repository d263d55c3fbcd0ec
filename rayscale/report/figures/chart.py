"""The look of every figure, and how a matplotlib figure becomes an image inside the page.

Figures are drawn twice, wide and narrow, because an SVG scaled down to a phone has unreadable text. They travel
as `data:` images: what a label holds can then never act as a part of the page. Text stays text (the reader's own
sans-serif), positions come from matplotlib's own font, so that one input gives one file on every machine.
"""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from rayscale.laws.law import Array
from rayscale.report.numbers import count

# Okabe and Ito's palette without its yellow, which is too faint on white; the marker says it a second time.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#7A5C00", "#4B3F8F", "#3C3C3C")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
INK, FAINT, GRID, CARD = "#1f2733", "#5d6876", "#e3e7ec", "#ffffff"
BEYOND = "#f1f1ec"

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rayscale",
    "path.simplify": True,
    "text.parse_math": False,  # a model may be called `$x$`
    "font.family": ["DejaVu Sans"],
    "font.size": 10.0,
    "axes.edgecolor": "#9aa4b0",
    "axes.labelcolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "figure.facecolor": CARD,
    "figure.constrained_layout.h_pad": 0.06,
    "axes.facecolor": CARD,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
}
_READER_FONT = (
    "<style>text,tspan{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
    "!important}</style>"
)


@dataclass(frozen=True)
class Shape:
    """One of the two sizes a figure is drawn in; inches of 72 points."""

    narrow: bool
    width: float
    height: float
    ticks: int


_SHAPES = (Shape(False, 6.3, 4.1, 7), Shape(True, 4.3, 4.4, 5))


@dataclass(frozen=True)
class Drawn:
    """One figure of the page: its two images, one sentence on what to see, and how to read its signs."""

    key: str
    title: str
    caption: str
    reading: str
    alt: str
    wide: str
    narrow: str


def draw(
    key: str,
    title: str,
    caption: str,
    reading: str,
    alt: str,
    paint: Callable[[Figure, Shape], None],
    tall: float = 1.0,
) -> Drawn:
    """Let `paint` draw on an empty figure once per shape, `tall` times its usual height, and serialise both."""
    images = []
    for shape in _SHAPES:
        with matplotlib.rc_context(_STYLE):  # for the time of one drawing only
            figure = Figure(figsize=(shape.width, tall * shape.height), layout="constrained")
            FigureCanvasSVG(figure)
            paint(figure, shape)
            images.append(_data_uri(figure))
    return Drawn(key, title, caption, reading, alt, *images)


def _data_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Letters that matplotlib's font lacks (a model named in Chinese) are drawn by the reader's browser.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    svg = buffer.getvalue().decode("utf-8")
    svg = svg[svg.index("<svg") :].replace("</style>", "</style>" + _READER_FONT, 1)
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode("utf-8")).decode("ascii")


def colour(position: int) -> str:
    return COLOURS[position % len(COLOURS)]


def sign(position: int, **look: Any) -> dict[str, Any]:
    """How the points of a model look in every figure, as arguments of `plot`."""
    # Past the last colour the markers shift by one, so that no two of 64 models look the same.
    marker = MARKERS[(position + position // len(COLOURS)) % len(MARKERS)]
    usual = {"marker": marker, "color": colour(position), "ms": 6, "mec": "white", "mew": 0.8, "ls": "none"}
    return usual | look


def spread(axes: Axes, groups: Any, look: dict[str, Any], middle: str = "mean") -> list[Line2D]:
    """Bars from the least to the greatest value of each group, and a point at its mean (or median)."""
    cell = groups.agg([middle, "min", "max"]).sort_index()
    axes.vlines(cell.index, cell["min"], cell["max"], color=look["color"], lw=1.4)
    return axes.plot(cell.index, cell[middle], **look)


def law_curve(axes: Axes, x: Array, curve: pd.DataFrame, measured: float, tint: Any, *, band: bool) -> None:
    """A law at `x` (predicted, low, high), dashed beyond what was measured; with the `band` of new runs if known."""
    if band and curve[["low", "high"]].notna().all(axis=None):
        axes.fill_between(x, curve["low"], curve["high"], color=tint, alpha=0.13, lw=0)
    for part, dashes in ((x <= measured, "-"), (x >= measured, (0, (4, 3)))):
        axes.plot(x[part], curve["predicted"].to_numpy()[part], color=tint, lw=1.6, linestyle=dashes)


def panels(figure: Figure, shape: Shape, first: float) -> Any:
    """Two plots side by side, or below each other on a narrow page; the first is so many times as large."""
    if shape.narrow:
        return figure.subplots(2, 1, height_ratios=(first, 1))
    return figure.subplots(1, 2, width_ratios=(first, 1))


def shade(position: int, total: int) -> tuple[float, float, float, float]:
    """The `position`-th of `total` steps of a perceptually even ramp, light to dark: sizes have an order."""
    share = 0.0 if total < 2 else position / (total - 1)
    return matplotlib.colormaps["viridis"](0.82 - 0.77 * share)


def title_axes(axes: Axes, x: str, y: str) -> None:
    """The y title stands upright above the axis, where nobody has to turn the head."""
    axes.set_xlabel(x, labelpad=5)
    axes.set_title(y, loc="left", fontsize=9.5, color=FAINT, pad=7)
    axes.grid(True, axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=3, width=0.8)


def log_x(axes: Axes, values: Sequence[float], low: float, high: float, ticks: int) -> None:
    """Log x axis from `low` to `high`, labelled at `values` (what was run) where they fit, else at round numbers."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    least = math.log(high / low) / ticks
    chosen = _spread([value for value in values if low <= value <= high], least)
    if len(chosen) < 2:
        chosen = _spread(_round_numbers(low, high, ticks), least)
    _set_ticks(axes.xaxis, chosen, [_tick(value) for value in chosen])


def log_y(axes: Axes, low: float, high: float) -> None:
    """Log y axis from `low` to `high`, labelled at round numbers."""
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    chosen = _round_numbers(low, high, 7)
    _set_ticks(axes.yaxis, chosen, [_tick(value) for value in chosen])


def _round_numbers(low: float, high: float, ticks: int) -> list[float]:
    # A range of losses rarely spans a power of ten: there even steps are the round numbers, though the axis is a log.
    if high / low > 12:
        return _decades(low, high)
    even = MaxNLocator(nbins=ticks, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(value) for value in even if low <= value <= high]


def _set_ticks(axis, values: Sequence[float], labels: Sequence[str]) -> None:
    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_major_formatter(FixedFormatter(list(labels)))
    axis.set_minor_locator(NullLocator())


def _tick(value: float) -> str:
    return count(value) if abs(value) >= 1000 else f"{value:.4g}"


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = [step * 10.0**power for power in powers for step in (1, 2, 5) if low <= step * 10.0**power <= high]
    return steps if len(steps) <= 9 else [value for value in steps if f"{value:e}".startswith("1")]


def _spread(values: Sequence[float], least: float) -> list[float]:
    """Those of the ascending values whose labels do not touch; the last one always stays."""
    kept: list[float] = []
    for value in sorted(set(values), reverse=True):
        if not kept or math.log(kept[-1] / value) >= least:
            kept.append(value)
    return kept[::-1]


def margins(values: Iterable[float], share: float = 0.06) -> tuple[float, float]:
    """Positive limits around positive values with a margin in log space; a lone value gets a tenth either side."""
    positive = np.asarray([value for value in values if np.isfinite(value) and value > 0], dtype=float)
    if positive.size == 0:
        return 0.1, 10.0
    low, high = math.log(positive.min()), math.log(positive.max())
    room = max((high - low) * share, 0.01) if high > low else 0.1
    return math.exp(low - room), math.exp(high + room)


def legend_above(figure: Figure, shape: Shape, handles: Sequence, labels: Sequence[str]) -> None:
    """The key above the plot, in rows, so that it never hides a point."""
    if len(handles) < 2:
        return
    # About 6 points a letter of this size and 30 for the sign: as many columns as surely fit.
    columns = int(72 * shape.width / (30 + 6 * max(map(len, labels))))
    figure.legend(
        handles, labels, loc="outside upper left", ncols=max(1, min(columns, len(handles))),
        handlelength=1.6, columnspacing=1.4, handletextpad=0.5, borderaxespad=0.3, labelcolor=INK,
    )  # fmt: skip
