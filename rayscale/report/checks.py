"""Figures that doubt the law: residuals, and predictions of the largest data size made without it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rayscale.report.chart import (
    FAINT, Drawn, Shape, colour, draw, legend_above, log_x, margins, marker, title_axes,
)  # fmt: skip
from rayscale.report.evidence import Evidence
from rayscale.report.numbers import percent, shorten, significant
from rayscale.report.quality import Predict


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
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"model": [], "predicted": [], "residual": []})


def residuals(evidence: Evidence, predict: Predict) -> Drawn | None:
    """Figure 4; None without a law."""
    rows = residual_rows(evidence, predict)
    if rows.empty:
        return None
    shown = [model for model in evidence.models if (rows["model"] == model).any()]

    def paint(figure: Figure, shape: Shape) -> None:
        axes = figure.add_subplot()
        handles = []
        axes.axhline(0, color="#9aa4b0", lw=1)
        for model in shown:
            place, own = evidence.position(model), rows[rows["model"] == model]
            handles += axes.plot(own["predicted"], 100 * own["residual"], marker(place), color=colour(place), ms=6,
                                 mec="white", mew=0.7, alpha=0.9)  # fmt: skip
        reach = max(1.25 * 100 * float(rows["residual"].abs().max()), 0.1)
        axes.set_ylim(-reach, reach)
        low, high = margins(rows["predicted"])
        log_x(axes, [], low, high, shape.ticks)
        title_axes(axes, f"predicted {evidence.target_label}", "measured above or below the law, %")
        legend_above(figure, axes, shape, handles, [shorten(model, 28) for model in shown])

    worst = float(rows["residual"].abs().max())
    spread = float(np.sqrt((rows["residual"] ** 2).mean()))
    caption = f"Runs lie {percent(spread)} from the law (root mean square), the farthest {percent(worst)}{_lean(rows, shown)}."
    reading = "Points: runs. A law that follows the data leaves a cloud around zero, without a bend or a slope."
    return draw("residuals", "Residuals", caption, reading, caption, paint)


def _lean(rows: pd.DataFrame, shown: list[str]) -> str:
    """Names the models that lie on one side of the law by more than their own scatter explains."""
    leaning = []
    for model in shown:
        own = rows.loc[rows["model"] == model, "residual"]
        if len(own) > 3 and abs(own.mean()) > 3 * own.std() / np.sqrt(len(own)):
            leaning.append(f"{shorten(model, 32)} lies {'above' if own.mean() > 0 else 'below'} it as a whole")
    return "; " + ", ".join(leaning) if leaning else ""
