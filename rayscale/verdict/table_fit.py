"""The verb `fit`: a law fitted to a file's table or to a run folder, its JSON, and its held-out rows predicted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rayscale.errors import InputError, TableError
from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.observations import select, size_columns, usual_role
from rayscale.laws.fitting.outcome import Outcome
from rayscale.laws.fitting.result import FORETOLD, Fit, GroupedFit
from rayscale.laws.fitting.sizes import with_sizes
from rayscale.laws.formula import find_law, find_user_law
from rayscale.laws.law import Law
from rayscale.runs.fit_rows import data_column, unfit
from rayscale.runs.folder import Run, load
from rayscale.system.disk import write_file
from rayscale.system.failures import error_json
from rayscale.verdict.metric_law import LOSS, refusals
from rayscale.verdict.prediction import ROLES
from rayscale.verdict.table_files import (
    Table,
    check_columns,
    check_query,
    check_weights,
    check_writable,
    listed,
    missing_column,
    read_table,
    write_table,
)

SPEED = "examples_per_second"


@dataclass(frozen=True)
class FitRequest:
    """What the command line asked of a fit; `columns` holds the options given, role -> column."""

    law: str
    columns: Mapping[str, str]
    target: str | None = None
    where: str | None = None
    holdout: str | None = None
    by: str | None = None  # columns, comma-separated
    bootstrap: int = 1000
    seed: int = 0
    weights: str | None = None  # the column of how many runs a row is worth
    through: str | None = None  # the column of the loss on the way to the target


@dataclass(frozen=True, eq=False)
class TableFit:
    """What `fit_law` made of a table, and that table."""

    source: str
    table: Table
    asked: FitRequest
    fitted: Any

    @property
    def fits(self) -> tuple[Any, ...]:
        """One fit per group; one without groups."""
        return self.fitted.groups if isinstance(self.fitted, GroupedFit) else (self.fitted,)

    @property
    def refused(self) -> bool:
        """Whether no group could be fitted."""
        return not any(fit.outcome.usable for fit in self.fits)

    def to_json(self) -> dict[str, Any]:
        """The object of `fit --json` (INTERFACE); with `error` beside it where every fit was refused."""
        saved: dict[str, Any] = self.fitted.to_json()
        # Which option named which column: a law of one input takes it by any name, and `predict` must know by which.
        saved["options"] = dict(self.asked.columns)
        if self.refused:
            saved["error"] = error_json(self.refusal())
        return saved

    def refusal(self) -> InputError:
        """Why nothing could be fitted, as the error that ends the command."""
        reasons: dict[str, list[str]] = {}
        for fit in self.fits:
            counts = Counter(entry["reason"] for entry in fit.rows_dropped)
            dropped = ", ".join(f"{number} rows dropped: {reason}" for reason, number in counts.items())
            text = "; ".join(refusals(fit)) + (f" ({dropped})" if dropped else "")
            group = ", ".join(f"{column} {value}" for column, value in (fit.by or {}).items())
            reasons.setdefault(text, []).append(group)
        texts = [f"{', '.join(filter(None, names[:3]))}: {text}".removeprefix(": ") for text, names in reasons.items()]
        more = f" (and {len(texts) - 3} more groups)" if len(texts) > 3 else ""
        failed = all(fit.outcome is Outcome.FAILED for fit in self.fits)
        code = (Outcome.FAILED if failed else Outcome.NOT_IDENTIFIABLE).value
        error = InputError(f"no {self.asked.law} law can be fitted: {'; '.join(texts[:3])}{more}", code=code,
                           where=self.source)  # fmt: skip
        error.exit_code = 1 if failed else 2
        return error

    def held_out_rows(self) -> pd.DataFrame:
        """The held-out rows in the order of the table: all columns, then predicted, low, high, mean_low, mean_high.

        Rows without a measured target are predicted too. Rows that no fit can predict (their group was refused, an
        input is missing) have empty predictions.
        """
        rows = self.table.rows.reset_index(drop=True)
        wanted = select(rows, self.asked.holdout, "holdout") if self.asked.holdout else np.zeros(len(rows), dtype=bool)
        if self.asked.where:
            wanted &= select(rows, self.asked.where, "where")
        held = rows[wanted]
        known = [fit.predictions for fit in self.fits if fit.predictions is not None and len(fit.predictions)]
        parts = [predictions[list(PREDICTED)] for predictions in known]
        left = held.index.difference(pd.Index(np.concatenate([part.index for part in parts]) if parts else []))
        parts += [part for fit in self.fits if (part := self._unmeasured(fit, held.loc[left])) is not None]
        predicted = pd.concat(parts) if parts else pd.DataFrame(columns=list(PREDICTED), dtype=float)
        return held.join(predicted.reindex(held.index))

    def _unmeasured(self, fit: Any, left: pd.DataFrame) -> pd.DataFrame | None:
        """Predictions for those of the rows `left` that belong to this fit and have its inputs."""
        if not fit.outcome.usable:
            return None
        mine = np.ones(len(left), dtype=bool)
        for column, value in (fit.by or {}).items():
            mine &= (left[column] == value).to_numpy() | (left[column].astype(str) == str(value)).to_numpy()
        for role, column in fit.columns.items():
            values = pd.to_numeric(left[column], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
            mine &= np.isfinite(values) & ((values >= 0) if role in fit.law.zero else (values > 0))
        if {"status", "trial_id"} <= {*left.columns}:
            mine &= (left["status"] == "ok").to_numpy(dtype=bool, na_value=False)
        return fit.predict(left[mine])[list(PREDICTED)] if mine.any() else None


PREDICTED = FORETOLD[:-1]


def fit_source(source: str, asked: FitRequest) -> TableFit:
    """Fit as asked: `source` is a run folder (path or URI) or the file of a table.

    A run has usual columns: target eval_loss, params, the study's data axis, gpus; a seed counts once, at its fewest
    GPUs. In a table the columns are named, or bear the usual names. Raises TableError and InputError with file, line,
    option and the fix.
    """
    run = load(source) if "://" in source or Path(source).is_dir() else None
    law = None if asked.law == "auto" else _law(asked.law, run)
    if asked.through is not None and asked.target is None:
        message = f"needs --target METRIC: what the loss in column '{asked.through}' leads to"
        raise InputError(message, where="--through")
    if run is None:
        table, left_out = read_table(source), None
        if asked.target is None:
            message = f"say which column is fitted: --target COLUMN (it has: {listed(table.columns)})"
            raise TableError(message, code="missing_column", where=source)
    else:
        table = Table(run.judged_trials, source)
        asked = _usual(asked, run, law)
        check_query(table, asked.where, "--where")
        left_out = _left_out(table.rows, asked, law)
    sizes = size_columns(table.rows, law.inputs if law else (), asked.columns)
    options = {f"--{usual_role(column)}": column for column in sizes if column not in asked.columns.values()}
    options |= {f"--{role}": column for role, column in asked.columns.items()}
    others = {"--through": asked.through, "--weights": asked.weights}
    check_columns(table, {"--target": asked.target, **options, **others}, sizes)
    table = replace(table, rows=with_sizes(table.rows, sizes))
    check_query(table, asked.where, "--where")
    check_query(table, asked.holdout, "--holdout")
    keys = None if asked.by is None else _keys(asked.by, table)
    rows = table.rows if left_out is None else table.rows[left_out == ""]
    if asked.weights:
        unused = ~select(table.rows, asked.where, "where") if asked.where else np.zeros(len(table.rows), dtype=bool)
        check_weights(table, asked.weights, unused if left_out is None else unused | (left_out != ""))
    try:
        fitted = fit_law(
            rows, law or asked.law, target=str(asked.target), **asked.columns, weights=asked.weights, by=keys,
            where=asked.where, holdout=asked.holdout, bootstrap=asked.bootstrap, seed=asked.seed,
            through=asked.through,
        )  # fmt: skip
    except InputError as error:
        if not isinstance(error, TableError):
            if error.where in (*ROLES, "by", "bootstrap", "seed", "weights", "through"):
                error.where = f"--{error.where}"
            raise
        if error.where and str(source) in error.where:
            raise
        named = (*ROLES, "where", "holdout", "weights", "through")
        option = f"--{error.where}" if error.where in named else error.where
        text = error.message.replace(f"{error.where}=...", f"{option} COLUMN").replace("by='", "--by '")
        raise TableError(text, code=error.code, where=f"{source}: {option}" if option else source) from error
    return TableFit(source, table, asked, fitted if left_out is None else _with_left_out(fitted, left_out))


def fit_and_save(source: str, asked: FitRequest, predictions: Path | None, out: Path | None) -> TableFit:
    """`fit_source`, and its files: the held-out rows with predictions, and the fit for a later `predict`."""
    if predictions is not None:
        if asked.holdout is None:
            message = "needs --holdout QUERY: which rows to keep out of the fit and predict"
            raise InputError(message, where="--predictions")
        check_writable(predictions)
    done = fit_source(source, asked)
    if predictions is not None:
        write_table(done.held_out_rows(), predictions)
    if out is not None:
        save_json(done.to_json(), out)
    return done


def save_json(saved: Mapping[str, Any], path: str | Path) -> None:
    """Write a fit's JSON, whole or not at all; raises InputError where the place cannot be written."""
    content = json.dumps(saved, indent=1, allow_nan=False) + "\n"
    try:
        Path(path).absolute().parent.stat()  # a folder that is not there may be a mistake in its name
        write_file(path, content.encode())
    except OSError as error:
        message = f"cannot be written: {error.strerror or error}"
        raise InputError(message, code="not_writable", where=str(path)) from None


def _keys(by: str, table: Table) -> list[str]:
    # A column whose own name has a comma is meant whole.
    keys = [by] if by in table.columns else [part.strip() for part in by.split(",") if part.strip()]
    if not keys:
        raise InputError("names no column; name one or leave it out", where="--by")
    for column in keys:
        if column not in table.columns:
            raise missing_column(column, table.columns, f"{table.name}: --by")
    return keys


def _law(name: str, run: Run | None) -> Law:
    """The law of that name: a formula of the run's study file, a registered one, or a formula written out."""
    laws = (run.study or {}).get("laws") if run is not None and run.store.exists("study.yaml") else None
    if isinstance(laws, Mapping) and name in laws:
        return find_user_law(name, laws[name])
    return find_law(name)


def _usual(asked: FitRequest, run: Run, law: Law | None) -> FitRequest:
    """The request with a run's usual columns where it names none."""
    trials = run.trials
    plan = run.plan if run.store.exists("plan.json") else {}
    usual = {"params": "params", "data": data_column(trials, plan), "gpus": "gpus", "compute": "flops", "loss": LOSS}
    wanted = law.inputs if law is not None else ("params", "data")
    # A law of one input (power) takes whichever column the user named.
    named = asked.columns and len(wanted) == 1
    columns = {role: usual[role] for role in wanted if role in usual and not named} | dict(asked.columns)
    return replace(asked, columns=columns, target=asked.target or (SPEED if "gpus" in wanted else LOSS))


def _left_out(trials: pd.DataFrame, asked: FitRequest, law: Law | None) -> np.ndarray:
    """Why a trial is no row of its law, (rows,), empty where it is one or `where` leaves it out anyway."""
    chosen = select(trials, asked.where, "where") if asked.where else np.ones(len(trials), dtype=bool)
    reasons = np.full(len(trials), "", dtype=object)
    if law is not None and "gpus" in law.inputs:
        alone = trials["exclusive"].eq(True).to_numpy(dtype=bool, na_value=False)
        reasons[chosen & ~alone & (trials["status"] == "ok").to_numpy()] = "did not have the machine to itself"
    else:
        reasons[chosen] = unfit(trials[chosen].reset_index(drop=True))
    return reasons


def _with_left_out(fitted: Any, left_out: np.ndarray) -> Any:
    """The fit or fits with rows named by their place in the whole trial table, the rows left out among the dropped."""
    kept = np.flatnonzero(left_out == "")
    others = [{"row": int(row), "reason": str(left_out[row])} for row in np.flatnonzero(left_out != "")]
    renamed: list[Fit] = []
    for fit in fitted.groups if isinstance(fitted, GroupedFit) else (fitted,):
        dropped = [{**entry, "row": int(kept[entry["row"]])} for entry in fit.rows_dropped]
        # Of several groups the first lists what belongs to none of them in particular.
        dropped += others if not renamed else []
        renamed.append(replace(fit, rows_dropped=tuple(sorted(dropped, key=lambda entry: entry["row"]))))
    return replace(fitted, groups=tuple(renamed)) if isinstance(fitted, GroupedFit) else renamed[0]
