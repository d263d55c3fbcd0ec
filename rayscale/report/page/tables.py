"""Rows of the report's tables, as frozen values that the template only has to lay out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from rayscale.laws.fitting.observations import usual_role
from rayscale.report.figures.evidence import Evidence, Predict
from rayscale.report.numbers import (
    MISSING,
    count,
    duration,
    exact,
    fixed,
    number,
    percent,
    plain,
    shorten,
    significant,
    trimmed,
    whole,
)
from rayscale.report.terminal.fit import parameter_units
from rayscale.report.terminal.plan import model_name
from rayscale.report.wording import (
    fit_name,
    interval_text,
    outcome_of,
    rival_name,
    usable,
    warning_parts,
    weight_text,
)
from rayscale.runs.sweeps import OUTDONE
from rayscale.study.metrics import BITS
from rayscale.system.groups import grouped

_STATUS_ORDER = {"failed": 0, "diverged": 1, "stopped": 2, "ok": 3, OUTDONE: 4}


def fit_view(item: dict, trials: pd.DataFrame, facts: Sequence[tuple[str, str]], predict: Predict) -> dict[str, Any]:
    """The fit's numbers as text; `facts` that the fit itself does not hold (which N, which D) come first."""
    units = parameter_units(item)
    params = {name: number(value) for name, value in (item.get("params") or {}).items()}
    errors, intervals = item.get("standard_errors") or {}, item.get("intervals") or {}
    rows, unrounded = [], []
    for name, value in params.items():
        low, high = intervals.get(name) or (None, None)
        error = significant(errors.get(name), 2)
        rows.append((name, significant(value, 4), error, interval_text(low, high), units.get(name, "")))
        unrounded.append((name, exact(value), exact(errors.get(name)), exact(low), exact(high)))
    covariance = [[exact(value) for value in row] for row in item.get("covariance") or []]
    return {
        "name": fit_name(item),
        "formula": str(item.get("formula") or ""),
        "usable": usable(item),
        "outcome": outcome_of(item).sentence,
        "outline": ", ".join([str(item.get("outcome")), *(f"{row[0]} {row[1]}" for row in rows)]),
        "facts": [*facts, *_engine_facts(item)],
        "parameters": rows,
        "exact": unrounded,
        "covariance": list(zip(params, covariance, strict=False)),
        "prediction_header": prediction_header(item),
        "predictions": prediction_rows(item, predict),
        "dropped": _dropped(item, trials),
        "warnings": warning_parts(item),
    }


def _engine_facts(item: dict) -> list[tuple[str, str]]:
    starts, best = number(item.get("starts")), number(item.get("starts_at_best"))
    estimate = item.get("estimate") or {}
    share, wider = MISSING, MISSING
    if starts and best is not None:
        share = f"{best:.0f} of {starts:.0f} ({100 * best / starts:.0f}%)"
    if (widening := number(estimate.get("widening"))) is not None:
        wider = f"×{significant(widening, 4)} (Student's t over the normal)"
    facts = [
        ("Weights of the laws", weight_text(item) or MISSING),
        ("Objective", exact(item.get("objective"))),
        ("Starts that reached the best", share),
        ("Bootstrap draws kept", whole(len(estimate.get("draws") or []) or None)),
        ("Noise of one run", percent(estimate.get("noise"))),
        ("Degrees of freedom", whole(estimate.get("degrees"))),
        ("Intervals widened, few runs", wider),
        ("Rows used", whole(item.get("rows_used"))),
        ("Rows left out", whole(len(item.get("rows_dropped") or []))),
        ("Time to fit", duration(item.get("seconds"))),
    ]
    return [(name, value) for name, value in facts if value != MISSING]


def _dropped(item: dict, trials: pd.DataFrame) -> list[tuple[str, int, list[str]]]:
    # A fit names a row by its position in the table it was given, which is the run's own.
    ids = dict(enumerate(trials["trial_id"].astype(str)))
    dropped = item.get("rows_dropped") or []
    by_reason = grouped((str(entry["reason"]), ids.get(entry["row"], str(entry["row"]))) for entry in dropped)
    return [(reason, len(rows), rows) for reason, rows in by_reason.items()]


_SETTINGS = (
    ("epochs", "Epochs"), ("global_batch", "Batch"), ("learning_rate", "Learning rate"), ("optimizer", "Optimizer"),
    ("schedule", "Schedule"), ("precision", "Precision"), ("augment", "Augmentation"), ("attempts", "Attempts"),
    ("executor", "Executor"), ("metric_signature", "Metrics by"),
)  # fmt: skip


def constant_settings(trials: pd.DataFrame) -> list[tuple[str, str]]:
    """Settings that every trial shares, said once instead of in every row."""
    return [
        (header, _cell(column, trials[column].dropna().iloc[0]))
        for column, header in _SETTINGS
        if trials[column].nunique() == 1
    ]


def trial_columns(evidence: Evidence, trials: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    """(column, header) of the trial table; metrics where the task has them, settings where they differ."""
    metrics = [
        ("accuracy", "Accuracy"), ("f1_micro", "Micro F1"), ("f1_macro", "Macro F1"), ("exact_match", "Exact match"),
        ("f1_words", "F1 of words"), ("bleu", "BLEU"), ("chrf", "chrF"), ("perplexity", "Perplexity"),
        ("bits_per_token", "Bits/token"), ("bits_per_character", "Bits/character"),
    ]  # fmt: skip
    if trials["f1_micro"].equals(trials["accuracy"]):  # as it is where each row has one class
        del metrics[1]
    data = evidence.data.capitalize() if evidence.data in {"tokens", "examples"} else "Data"
    present = [pair for pair in metrics if trials[pair[0]].notna().any()]
    return (
        ("model", "Model"), ("params", "Parameters"), ("data_requested", data), ("gpus", "GPUs"), ("seed", "Seed"),
        ("eval_loss", "Test loss"), ("validation_loss", "Validation loss"), *present, ("steps", "Steps"),
        *(pair for pair in _SETTINGS if trials[pair[0]].nunique() > 1), ("flops", "FLOP"),
        ("train_seconds", "Training"), ("examples_per_second", "Examples/s"), ("exclusive", "Alone"),
    )  # fmt: skip


def trial_views(evidence: Evidence, trials: pd.DataFrame) -> list[dict[str, Any]]:
    """All trials, those that are not ok first, then by model size, data, GPUs and seed; `note`: why one failed."""
    columns = [column for column, _ in trial_columns(evidence, trials)]
    ordered = trials.assign(
        order=trials["status"].map(_STATUS_ORDER).fillna(0),
        place=trials["model"].map({model: place for place, model in enumerate(evidence.models)}),
    ).sort_values(["order", "place", "data_requested", "gpus", "seed", "trial_id"], kind="stable")
    return [
        {
            "trial_id": row["trial_id"],
            "status": row["status"],
            "cells": [_cell(column, row[column]) for column in columns],
            "note": "" if pd.isna(row["error"]) else str(row["error"]),
        }
        for row in ordered.to_dict("records")
    ]


_FRACTIONS = ("eval_loss", "validation_loss", "accuracy", "f1_micro", "f1_macro", "exact_match", "f1_words", *BITS)
_WRITERS: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(("params", "data_requested", "flops"), count),
    **dict.fromkeys(_FRACTIONS, partial(fixed, decimals=4)),
    **dict.fromkeys(("learning_rate", "epochs"), trimmed),
    **dict.fromkeys(("examples_per_second", "perplexity", "bleu", "chrf"), significant),
    "train_seconds": duration,
    "exclusive": lambda alone: "yes" if alone else "no",
}


def _cell(column: str, value: Any) -> str:
    if pd.isna(value):
        return MISSING
    if write := _WRITERS.get(column):
        return write(value)
    return whole(value) if number(value) is not None and not isinstance(value, str) else str(value)


def nested_facts(value: Any, name: str = "") -> list[tuple[str, str]]:
    """A JSON value as (name, text) pairs, one per leaf list or scalar; missing ones are left out."""
    if isinstance(value, dict):
        pairs: list[tuple[str, str]] = []
        for key, inner in value.items():
            pairs += nested_facts(inner, f"{name}.{key}" if name else str(key))
        return pairs
    if value is None or value == [] or value == "":
        return []
    if isinstance(value, (list, tuple)):
        if any(isinstance(inner, (dict, list, tuple)) for inner in value):
            return [(name, json.dumps(value, ensure_ascii=False, default=str))]
        return [(name, ", ".join(str(inner) for inner in value))]
    return [(name, str(value))]


def provenance_facts(given: dict, trials: pd.DataFrame) -> list[tuple[str, str]]:
    """What the caller knows, then what the records themselves say and the caller did not."""
    facts = nested_facts({key: value for key, value in given.items() if key != "commands"})
    known = {name for name, _ in facts}
    for column in ("host", "device", "executor", "seed", "data_fingerprint", "training_version"):
        values = sorted(trials[column].dropna().unique().tolist())
        if values and column not in known and f"{column}s" not in known:
            words = (whole(value) if isinstance(value, float) else str(value) for value in values)
            facts.append((column, ", ".join(words)))
    if not any(name.startswith("versions") for name in known):
        facts += [("versions", text) for text in sorted(trials["versions"].dropna().astype(str).unique())]
    return facts


def plan_rows(plan: dict, trials: pd.DataFrame) -> list[tuple[str, str, str, str, str, str, str]]:
    """By model and GPU count: what was asked for and what came of it.

    Columns: model, parameters, data sizes with seeds, GPUs, planned, ok, expected time on the devices.
    """
    asked = pd.DataFrame(plan.get("trials") or [])
    if asked.empty:
        return []
    asked["name"] = asked["model"].map(model_name)
    done = set(trials.loc[trials["status"].isin(("ok", OUTDONE)), "trial_id"])
    rows = []
    ordered = asked.sort_values(["params", "name", "gpus", "data_requested"], kind="stable")
    for (name, gpus), group in ordered.groupby(["name", "gpus"], sort=False):
        seeds = group.groupby("data_requested")["seed"].nunique().sort_index()
        sizes = ", ".join(f"{count(size)} × {seeds[size]}" for size in seeds.index)
        rows.append(
            (str(name), count(group["params"].iloc[0]), sizes, str(gpus), str(len(group)),
             str(group["trial_id"].isin(done).sum()), duration(group.get("gpu_seconds", pd.Series(dtype=float)).sum()))
        )  # fmt: skip
    return rows


_MOST = 300  # rows shown: a page is read by people


@dataclass(frozen=True)
class ClassScores:
    """`table`: label, precision, recall, f1, support, average (whether the row is an average over classes)."""

    trial_id: str
    model: str
    data_requested: int
    table: pd.DataFrame

    @property
    def sentence(self) -> str:
        """Which trial it is, and what is left out."""
        left = int((~self.table["average"]).sum()) - _MOST
        more = f" {whole(left)} more are in classes/{self.trial_id}.parquet of the run folder." if left > 0 else ""
        return f"The best trial, {plain(self.model)} on {whole(self.data_requested)}, on the test set.{more}"

    @property
    def rows(self) -> list[tuple[str, str, str, str, str, bool]]:
        """Label, precision, recall, F1, support as text, and whether the row is an average; averages last."""
        classes, averages = self.table[~self.table["average"]], self.table[self.table["average"]]
        return [
            (plain(f"{row.label} average" if row.average else row.label), fixed(row.precision, 3), fixed(row.recall, 3),
             fixed(row.f1, 3), whole(row.support), bool(row.average))
            for row in pd.concat([classes.head(_MOST), averages]).itertuples()
        ]  # fmt: skip


_REACHES = (2.0, 4.0, 10.0)  # times the largest size measured
_ROLE_WORDS = {"params": "Parameters", "data": "Data", "unique": "Distinct data", "compute": "FLOP", "gpus": "GPUs",
               "loss": "Loss"}  # fmt: skip


def prediction_header(item: Mapping[str, Any]) -> tuple[str, ...]:
    """The headers of `prediction_rows`."""
    # A law of one size has the role data whatever that size is; its column says which.
    columns = item.get("columns") or {}
    roles = tuple(_ROLE_WORDS.get(usual_role(column) or role, role) for role, column in columns.items())
    return (*roles, "Predicted", "95% for a new run", "95% for the mean", "Beyond the data")


def prediction_rows(item: dict, predict: Predict) -> list[tuple[str, ...]]:
    """The fit's predictions at the largest sizes measured and at multiples of each: sizes, value, intervals, reach."""
    ranges, columns = item.get("data_range") or {}, item.get("columns") or {}
    if not usable(item) or not columns or set(columns) - set(ranges):
        return []
    largest = {role: float(ranges[role][1]) for role in columns}
    # One axis grows at a time: first the data, then the model.
    asked = [largest] + [{**largest, role: largest[role] * times} for role in columns for times in _REACHES]
    frame = pd.DataFrame(asked).rename(columns=columns)
    rows = []
    for sizes, row in zip(asked, predict(item, frame).to_dict("records"), strict=True):
        beyond = "within" if row["extrapolation"] <= 1 else f"×{significant(row['extrapolation'])}"
        rows.append(
            (*(count(sizes[role]) for role in columns), significant(row["predicted"], 4),
             f"{significant(row['low'], 4)} to {significant(row['high'], 4)}",
             f"{significant(row['mean_low'], 4)} to {significant(row['mean_high'], 4)}", beyond)
        )  # fmt: skip
    return rows


def held_out_rows(check: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The law and its rivals on the runs held out: who, runs, RMS log error, mean relative error, R², covered."""
    if not check.get("n"):
        return []
    listed = [(f"{check.get('law', 'the law')} law", check)]
    listed += [(rival_name(str(name)), score) for name, score in (check.get("rivals") or {}).items() if score]
    return [
        (name, str(score.get("n")), percent(score.get("rmse_log"), 3), percent(score.get("mape"), 3),
         significant(score.get("r2"), 3), percent(score.get("covered")))
        for name, score in listed if number(score.get("rmse_log")) is not None
    ]  # fmt: skip


def residual_table(rows: pd.DataFrame) -> list[tuple[str, ...]]:
    """By model: runs, mean residual, root mean square, the farthest; `rows` as of `figures.residuals.residual_rows`."""
    table: list[tuple[str, ...]] = []
    for model, residuals in rows.groupby("model", sort=False)["residual"]:
        values = residuals.to_numpy(dtype=float)
        farthest = values[int(np.argmax(np.abs(values)))]
        mean, worst = (f"{significant(100 * value, 2, sign=True)}%" for value in (values.mean(), farthest))
        table.append((shorten(model, 48), str(len(values)), mean, percent(np.sqrt(np.mean(values**2))), worst))
    return table
