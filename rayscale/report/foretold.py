"""Tables beside the figures: what a fit foretells and how far, how it did on held-out runs, its residuals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from rayscale.observations import usual_role
from rayscale.report.numbers import MISSING, count, number, percent, shorten, significant
from rayscale.report.verdict import usable

REACHES = (1.0, 2.0, 4.0, 10.0)  # times the largest size measured
Predict = Callable[[dict, pd.DataFrame], pd.DataFrame]
_ROLE_WORDS = {"params": "Parameters", "data": "Data", "unique": "Distinct data", "compute": "FLOP", "gpus": "GPUs",
               "loss": "Loss"}  # fmt: skip
_RIVALS = {"power": "a power law for each model", "constant": "the last value kept"}


def prediction_header(item: Mapping[str, Any]) -> tuple[str, ...]:
    """The headers of `prediction_rows`."""
    # A law of one size has the role data whatever that size is; its column says which.
    columns = item.get("columns") or {}
    roles = tuple(_ROLE_WORDS.get(usual_role(column) or role, role) for role, column in columns.items())
    return (*roles, "Predicted", "95% for a new run", "95% for the mean", "Beyond the data")


def prediction_rows(item: dict, predict: Predict) -> tuple[tuple[str, ...], ...]:
    """The fit's predictions at the largest sizes measured and at multiples of each: sizes, value, intervals, reach."""
    ranges, columns = item.get("data_range") or {}, item.get("columns") or {}
    if not usable(item) or not columns or set(columns) - set(ranges):
        return ()
    largest = {role: float(ranges[role][1]) for role in columns}
    # One axis grows at a time: first the data, then the model.
    asked = [largest] + [{**largest, role: largest[role] * times} for role in columns for times in REACHES[1:]]
    frame = pd.DataFrame([{columns[role]: each[role] for role in columns} for each in asked])
    found = predict(item, frame)
    rows = []
    for sizes, (_, row) in zip(asked, found.iterrows(), strict=True):
        beyond = "within" if row["extrapolation"] <= 1 else f"×{significant(row['extrapolation'])}"
        rows.append(
            (*(count(sizes[role]) for role in columns), significant(row["predicted"], 4),
             f"{significant(row['low'], 4)} to {significant(row['high'], 4)}",
             f"{significant(row['mean_low'], 4)} to {significant(row['mean_high'], 4)}", beyond)
        )  # fmt: skip
    return tuple(rows)


def held_out_rows(check: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """The law and its rivals on the runs held out: who, runs, RMS log error, mean relative error, R², covered."""
    if not check.get("n"):
        return ()
    listed = [(f"{check.get('law', 'the law')} law", check)]
    listed += [(_RIVALS.get(name, str(name)), score) for name, score in (check.get("rivals") or {}).items() if score]
    return tuple(
        (name, str(score.get("n")), percent(score.get("rmse_log"), 3), percent(score.get("mape"), 3),
         significant(score.get("r2"), 3), percent(score.get("covered")))
        for name, score in listed if number(score.get("rmse_log")) is not None
    )  # fmt: skip


def residual_table(rows: pd.DataFrame) -> tuple[tuple[str, ...], ...]:
    """By model: runs, mean residual, root mean square, the farthest; `rows` as of `checks.residual_rows`."""
    found = []
    for model, own in rows.groupby("model", sort=False):
        values = own["residual"].to_numpy(dtype=float)
        farthest = values[int(np.argmax(np.abs(values)))]
        signed = [f"{'+' if value > 0 else ''}{percent(value)}" for value in (values.mean(), farthest)]
        found.append((shorten(model, 48), str(len(values)), signed[0], percent(float(np.sqrt(np.mean(values**2)))),
                      signed[1]))  # fmt: skip
    return tuple(found)


def weight_text(item: Mapping[str, Any]) -> str:
    """The weights of a combination of laws, the heaviest first; empty for one law."""
    weights = item.get("weights") or {}
    listed = sorted(weights.items(), key=lambda each: -each[1])
    return ", ".join(f"{name} {percent(value)}" for name, value in listed if value > 0) or (
        "" if not weights else MISSING
    )
