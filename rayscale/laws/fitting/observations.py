"""The rows of a table that a law is fitted to: which are used, which are held out, and why the others are not.

No row vanishes: used + held out + dropped (each with its reason) = all rows of the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rayscale.errors import TableError, nearest
from rayscale.laws.law import Law

# What a column is called when the caller does not say.
USUAL = {
    "params": ("params",),
    "data": ("data", "data_requested", "tokens", "examples"),
    "unique": ("unique", "unique_tokens", "unique_examples"),
    "copies": ("copies",),
    "compute": ("compute", "flops"),
    "gpus": ("gpus",),
    "loss": ("loss", "eval_loss"),
}
WEIGHT_FIX = "write how many runs the row is worth, 0 to leave it out"
COPY = "the same as an earlier row"
LOG_ODDS = "1 or more: log odds need less"
EXTREME = (1e-90, 1e90)  # median targets within these leave room for coefficients, and for the squares of both
_SIZES = ("params", "data")  # what a law of a loss is over where nobody says


@dataclass(frozen=True, eq=False)
class Observations:
    """Rows in a canonical order (by inputs, then target), so that the order of the table changes no result.

    `inputs`: role -> (n,) float; `target`: (n,) float, positive (below 1 for a law in log odds);
    `weights`: (n,), how many runs' worth each row is, of mean 1: only their ratios matter;
    `held_out`: the rows kept out, all columns; `columns`: role -> column;
    `dropped`: ({"row": position in the table from 0, "reason": text}, ...).
    """

    inputs: Mapping[str, NDArray[np.float64]]
    target: NDArray[np.float64]
    weights: NDArray[np.float64]
    columns: Mapping[str, str]
    held_out: pd.DataFrame
    dropped: tuple[dict[str, Any], ...]

    @property
    def configurations(self) -> NDArray[np.int64]:
        """The number of the configuration (equal inputs) that each row belongs to, (n,): its seeds are a cluster."""
        stacked = np.stack([*self.inputs.values()], axis=1)
        return np.unique(stacked, axis=0, return_inverse=True)[1].ravel().astype(np.int64)

    def warnings(self) -> list[dict[str, str]]:
        """That rows were dropped, if any were."""
        return dropped_rows(self.dropped)


def dropped_rows(dropped: Sequence[Any]) -> list[dict[str, str]]:
    """That rows were dropped, if any were."""
    text = f"{len(dropped)} row{' is' if len(dropped) == 1 else 's are'} not used; rows_dropped gives the reason"
    return [{"code": "dropped_rows", "message": text + (" of each" if len(dropped) > 1 else "")}] if dropped else []


def require_columns(table: pd.DataFrame, columns: list[str]) -> None:
    """Raises TableError for the first of `columns` that the table lacks, naming those it has."""
    known = [str(name) for name in table.columns]
    for column in columns:
        if column not in known:
            has = ", ".join(known) or "none"
            raise TableError(f"no column '{column}' in the table{nearest(column, known)} (it has: {has})", where=column)


def numbers(table: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """The column as floats, (rows,), missing values as NaN; raises TableError where it holds text, dates or yes/no."""
    require_columns(table, [column])
    cells = table[column]
    if isinstance(cells, pd.DataFrame):
        raise TableError(f"the table has several columns named '{column}'; rename all but one", where=column)
    kind = cells.dtype.kind if isinstance(cells.dtype, np.dtype) else "O"
    if kind in "iuf":
        return cells.to_numpy(dtype=float)
    values = pd.to_numeric(cells, errors="coerce") if kind == "O" else cells
    wrong = values.isna() & cells.notna() if kind == "O" else cells.notna()
    if kind == "O":
        wrong |= cells.map(lambda value: isinstance(value, bool | np.bool_ | complex)).astype(bool)
    if wrong.any():
        row = int(np.argmax(wrong.to_numpy()))
        raise TableError(f"column '{column}' must hold numbers, but row {row} holds {cells.iloc[row]!r}", where=column)
    return values.to_numpy(dtype=float, na_value=np.nan)


def input_columns(table: pd.DataFrame, law: Law, given: Mapping[str, str | None]) -> dict[str, str]:
    """Role -> column for every input of the law: as given, else the usual name; raises TableError where neither is.

    Also where a column is given that the law does not take: it would be ignored, and its sizes lie on one curve.
    """
    columns = {}
    taken = (*law.inputs, *getattr(law.result, "optional", ()))
    spare = [role for role, column in given.items() if column and role not in taken]
    if spare and (len(law.inputs) > 1 or sum(map(bool, given.values())) > 1):
        text = f"{law.name} takes {', '.join(law.inputs)}; leave {spare[0]} out, or make groups: by='{given[spare[0]]}'"
        raise TableError(text, where=spare[0])
    for role in law.inputs:
        # A law of one input (power) is a law in N as well as in D: it takes whichever column is named.
        named = given.get(role) or (next(filter(None, given.values()), None) if len(law.inputs) == 1 else None)
        column = named or next((name for name in USUAL[role] if name in table.columns), None)
        if column is None:
            has = ", ".join(map(str, table.columns)) or "none"
            raise TableError(f"say which column holds the {role}: {role}=... (the table has: {has})", where=role)
        require_columns(table, [column])
        columns[role] = column
    return columns


def without_constants(
    table: pd.DataFrame, law: Law, given: Mapping[str, str | None], groups: Sequence[NDArray[np.int64]]
) -> dict[str, str | None]:
    """The columns given, without those that the law does not need and that hold one value within every group.

    Such a size changes nothing within a curve. Of several given to a law of one input, the one that varies is its own.
    `groups` are rows by position; a missing value is no value.
    """

    def varies(column: str) -> bool:
        require_columns(table, [column])
        return any(table[column].iloc[rows].nunique() > 1 for rows in groups)

    needed = law.inputs if len(law.inputs) > 1 else ()
    spare = {role: column for role, column in given.items() if column and role not in needed}
    if len(spare) + len(needed) < 2:
        return dict(given)
    constant = [role for role, column in spare.items() if not varies(column)]
    if not needed and len(constant) == len(spare):  # all are the same everywhere: the law's own role is refused as such
        constant = [role for role in constant if role not in law.inputs]
    return {role: None if role in constant else column for role, column in given.items()}


def usual_columns(table: pd.DataFrame, given: Mapping[str, str | None]) -> dict[str, str]:
    """Role -> column for a law yet to be chosen: those given, else params and data where the table has them."""
    columns = {role: column for role, column in given.items() if column}
    if not columns:
        known = {role: next((name for name in USUAL[role] if name in table.columns), None) for role in _SIZES}
        columns = {role: column for role, column in known.items() if column}
    if not columns:
        has = ", ".join(map(str, table.columns)) or "none"
        raise TableError(f"say which column holds the data: data=... (the table has: {has})", where="data")
    require_columns(table, [*columns.values()])
    return columns


def size_columns(table: pd.DataFrame, inputs: Sequence[str], given: Mapping[str, str | None]) -> list[str]:
    """The columns that a law of these inputs reads sizes from: those given, and the usual ones of the other inputs.

    A loss is no size. `inputs` is empty for a law yet to be chosen.
    """
    columns = {role: column for role, column in given.items() if column}
    if not columns or len(inputs) > 1:
        usual = {role: next((name for name in USUAL[role] if name in table.columns), None) for role in inputs or _SIZES}
        columns = {role: column for role, column in usual.items() if column} | columns
    return [column for role, column in columns.items() if role != "loss"]


def usual_role(column: str) -> str | None:
    """The role that a column of this name usually has, None for a name that says nothing."""
    return next((role for role, names in USUAL.items() if column in names), None)


def select(table: pd.DataFrame, query: str, option: str) -> NDArray[np.bool_]:
    """Which rows a pandas query takes, (rows,); raises TableError naming the option when the query is wrong."""
    numbered = table.reset_index(drop=True)
    try:
        return np.asarray(numbered.index.isin(numbered.query(query).index))
    except (SyntaxError, ValueError, TypeError, LookupError, AttributeError, NameError, NotImplementedError) as error:
        has = ", ".join(map(str, table.columns))
        message = f"{option} '{query}' is not a valid query of this table: {error} (it has: {has})"
        raise TableError(message, where=option) from error


def observe(
    table: pd.DataFrame,
    law: Law,
    *,
    target: str,
    columns: Mapping[str, str],
    excluded: NDArray[np.bool_],
    held: NDArray[np.bool_],
    weights: str | None = None,
) -> Observations:
    """Sort the table's rows into used, held out and dropped for a law; `excluded` and `held` are (rows,).

    `weights`: the column of how many runs' worth a row is. Dropped are the excluded rows, those of weight 0, trials
    (rows with a trial_id) of a status other than ok, and those whose target or an input is missing, infinite, zero
    (unless the law takes it) or negative; for a law in log odds also a target of 1 or more. Rows equal in every column
    of the table are one run written twice: the first is used, the others dropped. Rows that differ in any column, as in
    the seed, are runs of their own. Raises TableError for a column that is missing or not numeric.
    """
    everything = [np.arange(len(table))]
    return observe_groups(table, everything, law, target=target, columns=columns, excluded=excluded, held=held,
                          weights=weights)[0]  # fmt: skip


def observe_groups(
    table: pd.DataFrame,
    groups: Sequence[NDArray[np.int64]],
    law: Law,
    *,
    target: str,
    columns: Mapping[str, str],
    excluded: NDArray[np.bool_],
    held: NDArray[np.bool_],
    weights: str | None = None,
) -> list[Observations]:
    """The same for every group (rows by position) of a table that is read once; `dropped` names rows of the table."""
    if target in columns.values():
        raise TableError(f"'{target}' is both the target and an input; choose two different columns", where=target)
    values = {column: numbers(table, column) for column in [*columns.values(), target]}
    worth = runs_worth(table, weights, excluded)
    reasons = _reasons(table, law, values, target, columns, excluded)
    reasons[(worth == 0) & (reasons == "")] = f"{weights} is zero"
    reasons[(_first_of_each(table) < np.arange(len(table))) & (reasons == "")] = COPY
    good, nothing = reasons == "", table.iloc[:0]
    keys = [values[target], *[values[column] for column in reversed([*columns.values()])]]
    observations = []
    for rows in groups:
        counts, kept_out = good[rows], held[rows]
        used, asked = rows[counts & ~kept_out], rows[counts & kept_out]
        used = used[np.lexsort([key[used] for key in keys])]
        observations.append(
            Observations(
                inputs={role: values[column][used] for role, column in columns.items()},
                target=values[target][used],
                weights=_of_mean_1(worth[used]),
                columns=columns,
                held_out=table.iloc[asked] if len(asked) else nothing,
                dropped=tuple({"row": int(row), "reason": str(reasons[row])} for row in rows[~counts]),
            )
        )
    return observations


def _reasons(
    table: pd.DataFrame, law: Law, values: Mapping[str, NDArray[np.float64]], target: str, columns: Mapping[str, str],
    excluded: NDArray[np.bool_],
) -> NDArray[Any]:  # fmt: skip
    """What is wrong with each row, (rows,), "" where nothing is; `values` column -> (rows,)."""
    reasons = np.where(excluded, "outside where", "").astype(object)
    if {"status", "trial_id"} <= {*table.columns}:  # a table of trials; elsewhere "status" may mean anything
        states = table["status"].astype(object).to_numpy()
        wrong = (states != "ok") & (reasons == "")
        reasons[wrong] = [f"status {state}" for state in states[wrong]]
    may_be_zero = {columns[role] for role in law.zero}
    for column, cells in values.items():
        faults = (
            (np.isnan(cells), "missing"),
            (np.isinf(cells), "infinite"),
            ((cells == 0) & (column not in may_be_zero), "zero"),
            (cells < 0, "negative"),
            ((cells >= 1) & (law.link == "logit" and column == target), LOG_ODDS),
        )
        for wrong, fault in faults:
            reasons[wrong & (reasons == "")] = f"{column} is {fault}"
    return np.asarray(reasons)


def runs_worth(table: pd.DataFrame, column: str | None, excluded: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How many runs' worth each row is, (rows,), 1 without a column; TableError for what is no weight.

    Excluded rows need none.
    """
    if column is None:
        return np.ones(len(table))
    require_columns(table, [column])
    try:
        worth = numbers(table, column)
    except TableError as error:
        raise TableError(f"{error.message}; {WEIGHT_FIX}", where="weights") from None
    if (row := wrong_weight(worth, excluded)) is not None:
        text = f"column '{column}' must hold weights, but row {row} holds {weight_text(worth[row])}; {WEIGHT_FIX}"
        raise TableError(text, where="weights")
    return worth


def wrong_weight(worth: NDArray[np.float64], excluded: NDArray[np.bool_]) -> int | None:
    """The first row that is not excluded and whose weight is none: missing, infinite or negative."""
    wrong = ~(np.isfinite(worth) & (worth >= 0)) & ~excluded
    return int(np.argmax(wrong)) if wrong.any() else None


def weight_text(weight: float) -> str:
    """A wrong weight as a message shows it."""
    return "nothing" if np.isnan(weight) else f"{weight:g}"


def _of_mean_1(worth: NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(worth):
        return worth
    # By the largest first, so that equal weights become 1 to the last bit; a billionth of a billionth says nothing.
    shares = np.maximum(worth / worth.max(), 1e-18)
    return np.asarray(shares / shares.mean())


def name_rows(dropped: Iterable[Mapping[str, Any]], rows: NDArray[np.int64]) -> tuple[dict[str, Any], ...]:
    """The dropped rows of a part of a table, named by their places in the table: the part is its `rows`."""
    return tuple({**entry, "row": int(rows[entry["row"]])} for entry in dropped)


def name_copies(table: pd.DataFrame, groups: Sequence[Iterable[Mapping[str, Any]]]) -> list[tuple[dict[str, Any], ...]]:
    """The dropped rows of every group, where a copy has `same_as`, the place of the row that it is a copy of."""
    dropped = [tuple(dict(entry) for entry in group) for group in groups]
    copies = [entry for group in dropped for entry in group if entry["reason"] == COPY]
    if copies:
        first = _first_of_each(table)
        for entry in copies:
            entry["same_as"] = int(first[entry["row"]])
    return dropped


def _first_of_each(table: pd.DataFrame) -> NDArray[np.int64]:
    """The place of the first row that each row equals in every column, (rows,), its own where it is the first."""
    codes = [pd.factorize(_hashable(table.iloc[:, place]))[0] for place in range(table.shape[1])]
    _, first, which = np.unique(np.stack(codes, axis=1), axis=0, return_index=True, return_inverse=True)
    return np.asarray(first[which.ravel()], dtype=np.int64)


def _hashable(column: pd.Series) -> pd.Series:
    """The column; as text where cells may hold lists, which have no hash."""
    return column.map(repr) if column.dtype == object else column


def count_text(configurations: int) -> str:
    """`1 configuration`, `4 different configurations`."""
    return "1 configuration" if configurations == 1 else f"{configurations} different configurations"


def refusals(observations: Observations, law: Law) -> list[dict[str, str]]:
    """Why these rows cannot identify the law (code, message), empty where they can."""
    refused, need = [], len(law.names) + 1
    configurations = len(np.unique(observations.configurations)) if len(observations.target) else 0
    if configurations < need:
        text = f"{count_text(configurations)}; {law.name} has {need - 1} parameters and needs {need}"
        refused.append({"code": "few_points", "message": text})
    for role, values in observations.inputs.items():
        if len(values) and len(np.unique(values)) == 1:
            text = f"only one value of {observations.columns[role]}: its effect on the target cannot be estimated"
            refused.append({"code": "one_size", "message": text})
    level = float(np.median(observations.target)) if len(observations.target) else 1.0
    if not EXTREME[0] < level < EXTREME[1]:
        text = f"the target is about {level:.0e}: squares of it are past what a number holds; change its unit"
        refused.append({"code": "extreme_target", "message": text})
    if len(observations.target) > 1 and np.ptp(observations.target) == 0:
        refused.append(
            {"code": "constant_target", "message": "the target is the same in every row: there is nothing to fit"}
        )
    return refused
