"""Figures that doubt the law: residuals, and predictions of the largest data size made without it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rayscale.report.figures import chart
from rayscale.report.figures.chart import INK, Drawn, Shape
from rayscale.report.figures.evidence import Evidence, Predict
from rayscale.report.numbers import count, number, percent, shorten
from rayscale.report.wording import rival_name


def residual_rows(evidence: Evidence, predict: Predict) -> pd.DataFrame:
    """Ok rows with their law's prediction; columns model, predicted, residual (log of measured over predicted)."""
    parts = []
    for model in evidence.models:
        law, rows = evidence.law_for(model), evidence.ok[evidence.ok["model"] == model]
        if law is None or rows.empty:
            continue
        predicted = predict(law, rows)["predicted"].to_numpy()
        residual = np.log(rows[evidence.target].to_numpy(dtype=float) / predicted)
        parts.append(pd.DataFrame({"model": model, "predicted": predicted, "residual": residual}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["model", "predicted", "residual"])


def residuals(evidence: Evidence, predict: Predict) -> Drawn | None:
    """Figure 4; None without a law."""
    rows = residual_rows(evidence, predict)
    if rows.empty:
        return None
    shown = evidence.models_in(rows)

    def paint(figure: Figure, shape: Shape) -> None:
        axes = figure.add_subplot()
        handles = []
        axes.axhline(0, color="#9aa4b0", lw=1)
        for model in shown:
            runs = rows[rows["model"] == model]
            look = chart.sign(evidence.position(model), alpha=0.9)
            handles += axes.plot(runs["predicted"], 100 * runs["residual"], **look)
        reach = max(1.25 * 100 * float(rows["residual"].abs().max()), 0.1)
        axes.set_ylim(-reach, reach)
        low, high = chart.margins(rows["predicted"])
        chart.log_x(axes, [], low, high, shape.ticks)
        chart.title_axes(axes, f"predicted {evidence.target_label}", "measured above or below the law, %")
        chart.legend_above(figure, shape, handles, [shorten(model, 28) for model in shown])

    worst = float(rows["residual"].abs().max())
    spread = float(np.sqrt((rows["residual"] ** 2).mean()))
    caption = f"Runs lie {percent(spread)} from the law (root mean square), the farthest {percent(worst)}"
    caption += f"{_lean(rows)}."
    reading = "Points: runs. A law that follows the data leaves a cloud around zero, without a bend or a slope."
    return chart.draw("residuals", "Residuals", caption, reading, caption, paint)


def _lean(rows: pd.DataFrame) -> str:
    """Names the models that lie on one side of the law by more than their own scatter explains."""
    leaning = []
    for model, residual in rows.groupby("model", sort=False)["residual"]:
        if len(residual) > 3 and abs(residual.mean()) > 3 * residual.std() / np.sqrt(len(residual)):
            leaning.append(f"{shorten(model, 32)} lies {'above' if residual.mean() > 0 else 'below'} it as a whole")
    return "; " + ", ".join(leaning) if leaning else ""


def held_out(evidence: Evidence, check: dict) -> Drawn | None:
    """Figure 5 from the verdict's `held_out`; None where nothing was held out.

    The errors of the law and of its rivals; beside them each run of the largest size with its prediction, where the
    check kept its `rows` (model, measured, predicted, low, high).
    """
    errors = _errors(check)
    if not errors:
        return None
    rows = pd.DataFrame(check.get("rows") or [])
    size = f"{count(check.get('data'))} {check.get('unit') or evidence.data}"

    def paint(figure: Figure, shape: Shape) -> None:
        if rows.empty:
            _error_bars(figure.add_subplot(), errors)
            return
        first, second = chart.panels(figure, shape, 1.4)
        _predictions(first, evidence, rows)
        _error_bars(second, errors)

    law = errors[0]
    best = min(error for _, error in errors[1:]) if len(errors) > 1 else None
    against = "" if best is None else f"; the best rival misses by {percent(best)}"
    caption = f"Fitted without {size}, {law[0]} misses these runs by {percent(law[1])}{against}."
    reading = "Bars: root mean square of the log error on runs that the fit had not seen."
    if len(rows):
        reading = f"Ticks: predictions; grey: their 95% interval for a new run; points: what was measured. {reading}"
    return chart.draw("held-out", "Held-out check", caption, reading, caption, paint, tall=1.0 if len(rows) else 0.55)


def _errors(check: dict) -> list[tuple[str, float]]:
    """(who, root mean square log error), the law itself first."""
    named = [(str(check.get("law") or "the law"), check), *(check.get("rivals") or {}).items()]
    errors = [(rival_name(str(name)), number((score or {}).get("rmse_log"))) for name, score in named]
    measured = [(name, error) for name, error in errors if error is not None]
    return measured if number(check.get("rmse_log")) is not None else []


def _predictions(axes: Axes, evidence: Evidence, rows: pd.DataFrame) -> None:
    shown = evidence.models_in(rows)
    for height, model in enumerate(shown):
        runs = rows[rows["model"] == model]
        bounds = runs.iloc[0]
        axes.barh(height, bounds["high"] - bounds["low"], left=bounds["low"], height=0.34, color=INK, alpha=0.12)
        axes.vlines(bounds["predicted"], height - 0.27, height + 0.27, color=INK, lw=1.8)
        look = chart.sign(evidence.position(model), ms=7, zorder=3)
        axes.plot(runs["measured"], np.full(len(runs), height), **look)
    axes.set_yticks(range(len(shown)), [shorten(model, 18) for model in shown])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    chart.log_x(axes, [], *chart.margins([*rows["low"], *rows["high"], *rows["measured"]]), 4)
    chart.title_axes(axes, evidence.target_label, "predicted and measured")
    axes.grid(False, axis="y")


def _error_bars(axes: Axes, errors: list[tuple[str, float]]) -> None:
    for y, (name, error) in enumerate(errors[::-1]):
        tint = chart.colour(0) if y == len(errors) - 1 else "#b8c0ca"
        axes.barh(y, 100 * error, height=0.3, color=tint)
        axes.text(0, y + 0.2, f"{shorten(name, 26)}: {percent(error)}", fontsize=9.5, color=INK)
    axes.set_yticks([])
    axes.set_ylim(-0.4, len(errors) - 0.35)
    axes.set_xlim(0, 1.1 * max(0.01, *(100 * error for _, error in errors)))
    chart.title_axes(axes, "error, %", "error on what was held out")
    axes.grid(False, axis="y")
    axes.spines["left"].set_color("#9aa4b0")
