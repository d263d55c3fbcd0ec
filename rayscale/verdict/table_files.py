"""Tables of runs from any CSV, TSV, JSONL or parquet file, with every fault named by file, line and column.

Nothing is guessed silently: a row with too many fields, two columns of one name or text that is not UTF-8 ends the
reading with a TableError that says where and how to fix it. Empty fields become missing values, which a fit drops and
lists.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import reprlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rayscale.errors import TableError, first_line, nearest
from rayscale.laws.fitting.observations import WEIGHT_FIX, numbers, weight_text, wrong_weight
from rayscale.laws.fitting.sizes import FIX, read_size
from rayscale.system.disk import write_file

_DELIMITED = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
_PARQUET = (".parquet", ".pq")
SUFFIXES = (*_DELIMITED, *_JSON_LINES, *_PARQUET)
_SHOWN = 20  # columns named in a message; a table may have thousands


@dataclass(frozen=True, eq=False)
class Table:
    """A table with the place of each row: `lines[i]` is the line of the file (from 1) that row i begins at.

    `lines` is None where rows have no lines (parquet, a run folder): messages then count rows from 0, as a fit does.
    """

    rows: pd.DataFrame
    name: str
    lines: tuple[int, ...] | None = None

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return [str(name) for name in self.rows.columns]

    def place(self, row: int) -> str:
        """`runs.csv:7` or `runs.parquet: row 5`."""
        return f"{self.name}: row {row}" if self.lines is None else f"{self.name}:{self.lines[row]}"


def read_table(path: str | Path) -> Table:
    """The table in a file, its kind told by the suffix; raises TableError for anything that is not a table of rows."""
    place, name = Path(path), str(path)
    if place.is_dir():
        raise TableError("is a folder, and neither a run folder nor a table", code="no_table", where=name)
    if not place.exists():
        beside = sorted(file.name for file in place.parent.iterdir()) if place.parent.is_dir() else []
        raise TableError(f"no such file{nearest(place.name, beside)}", code="no_table", where=name)
    suffix = _suffix(path, SUFFIXES, f"save the table as one of {', '.join(SUFFIXES)}")
    try:
        if suffix in _PARQUET:
            table = Table(_parquet(place), name)
        elif suffix in _JSON_LINES:
            table = _json_lines(name, _text(place))
        else:
            table = _delimited(name, _text(place), _DELIMITED[suffix])
    except OSError as error:
        raise TableError(f"cannot be read: {error.strerror or error}", code="no_table", where=name) from error
    if not len(table.rows):
        raise TableError("the table has no rows", code="empty_table", where=name)
    return table


def check_writable(path: str | Path) -> None:
    """Raises TableError, before any work, for a suffix that `write_table` does not write and for a missing folder."""
    _suffix(path, (".csv", *_PARQUET), "name a .csv or .parquet file")
    if not Path(path).absolute().parent.is_dir():
        raise TableError("its folder does not exist; make it first", code="not_writable", where=str(path))


def _suffix(path: str | Path, known: Sequence[str], fix: str) -> str:
    """The suffix of a table's file; raises TableError with the fix where it is not a known one."""
    suffix = Path(path).suffix.lower()
    if suffix not in known:
        kind = f"'{suffix}'" if suffix else "a name without suffix"
        raise TableError(f"found {kind}, not a known kind of table", fix=fix, code="wrong_file_type", where=str(path))
    return suffix


def write_table(rows: pd.DataFrame, path: str | Path) -> None:
    """Write rows as CSV or parquet, told by the suffix, whole or not at all; raises TableError as `check_writable`."""
    check_writable(path)
    is_csv = Path(path).suffix.lower() == ".csv"
    try:
        write_file(path, rows.to_csv(index=False).encode() if is_csv else rows.to_parquet(index=False))
    except OSError as error:
        message = f"cannot be written: {error.strerror or error}"
        raise TableError(message, code="not_writable", where=str(path)) from error


def check_columns(table: Table, asked: Mapping[str, str | None], sizes: Collection[str] = ()) -> None:
    """Raises TableError for the first option (`--params` -> column) whose column is missing or holds no numbers.

    Columns of `sizes` may hold text such as 7B.
    """
    for option, column in asked.items():
        if column is None:
            continue
        if column not in table.columns:
            raise missing_column(column, table.columns, f"{table.name}: {option}")
        values = table.rows[column]
        if values.dtype.kind in "iuf":
            continue
        if values.dtype.kind in "bmM":
            kind = "yes/no values" if values.dtype.kind == "b" else "dates or times"
            message = f"column '{column}' holds {kind}; it must hold numbers"
            raise TableError(message, code="not_numbers", where=f"{table.name}: {option}")
        for row, value in enumerate(values.tolist()):
            if not _is_number(value) and not (column in sizes and read_size(value) is not None):
                fix = WEIGHT_FIX if option == "--weights" else _fix(value, column in sizes)
                message = f"{option} column '{column}' must hold numbers; found {reprlib.repr(value)}; {fix}"
                raise TableError(message, code="not_numbers", where=table.place(row))


def check_weights(table: Table, column: str, excluded: NDArray[np.bool_]) -> None:
    """Raises TableError for the first row, not `excluded` (rows,), whose weight is missing, infinite or negative."""
    worth = numbers(table.rows, column)
    if (row := wrong_weight(worth, excluded)) is not None:
        message = f"--weights column '{column}' must hold weights; found {weight_text(worth[row])}; {WEIGHT_FIX}"
        raise TableError(message, code="not_numbers", where=table.place(row))


def check_query(table: Table, query: str | None, option: str) -> None:
    """Raises TableError for a pandas query that is wrong, names an unknown column, or is no yes or no for each row."""
    if query is None:
        return
    rows = table.rows.reset_index(drop=True)
    fix = "write a pandas query such as 'N > 1e6 and split == \"train\"' (a name with spaces in backticks)"
    try:
        chosen = rows.eval(query)
    except Exception as error:  # pandas lets whatever its parser meets escape
        what = f"{first_line(error)[:120]}; {fix}"
        if undefined := re.search(r"name '(\w+)' is not defined", str(error)):
            what = missing_column(undefined[1], table.columns, "").message
    else:
        if isinstance(chosen, pd.Series) and chosen.dtype.kind == "b" and len(chosen) == len(rows):
            return
        what = f"this is not a condition that is true or false for each row; {fix}"
    if re.search(r"(?<![=<>!])=(?!=)", query):
        what = f"'=' compares nothing; write '=='. Columns: {listed(table.columns)}"
    raise TableError(f"'{query}': {what}", code="wrong_query", where=f"{table.name}: {option}")


def missing_column(column: str, known: list[str], where: str) -> TableError:
    """The error that names a missing column and those there are."""
    message = f"no column '{column}'{nearest(column, known)} (it has: {listed(known)})"
    return TableError(message, code="missing_column", where=where)


def listed(names: Sequence[str]) -> str:
    """The names as one line, the first twenty of them."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "none") + more


def _is_number(value: Any) -> bool:
    if value is None or value is pd.NA:
        return True  # missing: a fit drops and lists it
    if isinstance(value, bool | complex):
        return False
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _fix(value: Any, is_size: bool) -> str:
    text = str(value).strip()
    if text.endswith("%"):
        return "write a fraction or a plain number, without the % sign"
    if "," in text and _is_number(text.replace(",", "")):
        return "write numbers with a decimal point and without thousands separators"
    return FIX if is_size else "correct it, or leave the field empty"


def _text(place: Path) -> str:
    content = place.read_bytes()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise TableError("found UTF-16 text; save the file as UTF-8", code="bad_encoding", where=f"{place}:1")
    if b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        message = "found a NUL byte: this is not a text file; save the table again as CSV"
        raise TableError(message, code="bad_encoding", where=f"{place}:{line}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        message = f"found byte 0x{content[error.start]:02x}, which is not UTF-8; save the file as UTF-8"
        raise TableError(message, code="bad_encoding", where=f"{place}:{line}") from error


def _delimited(name: str, text: str, separator: str) -> Table:
    first = text.lstrip("\r\n").partition("\n")[0]
    if separator == "," and "," not in first:  # spreadsheets of many countries write semicolons
        separator = next((sign for sign in ";\t" if sign in first), separator)
    header, lines = _shape(name, text, separator)
    _check_unique(header, f"{name}:1")
    if not lines:
        return Table(pd.DataFrame(columns=header), name, ())
    rows = pd.read_csv(io.StringIO(text, newline=""), sep=separator, index_col=False, low_memory=False)
    # A single empty field is a row to the csv module and none to pandas; then the lines would not match.
    return Table(rows, name, tuple(lines) if len(lines) == len(rows) else None)


def _shape(name: str, text: str, separator: str) -> tuple[list[str], list[int]]:
    """The header and the line at which each row begins; raises TableError where a row has more or fewer fields."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] = []
    lines: list[int] = []
    line = 1
    try:
        for fields in reader:
            header = header or fields
            if fields and len(fields) != len(header):
                counts = f"{len(fields)} fields where the header has {len(header)}"
                message = f"{counts}; quote fields that hold the separator, or fix the row"
                raise TableError(message, code="bad_row", where=f"{name}:{line}")
            if fields:
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        message = f"this row does not parse ({error}); close its quotes and double inner ones"
        raise TableError(message, code="bad_row", where=f"{name}:{line}") from error
    if not header:
        raise TableError("the file is empty", code="empty_table", where=name)
    return header, lines[1:]


def _check_unique(columns: list[str], where: str) -> None:
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        message = f"{columns.count(twice)} columns are called '{twice}'; rename all but one"
        raise TableError(message, code="ambiguous_column", where=where)


def _json_lines(name: str, text: str) -> Table:
    records, lines = [], []
    for line, raw in enumerate(text.splitlines(), start=1):
        if not raw.strip():
            continue
        try:
            record = json.loads(raw)
            fault = "" if isinstance(record, dict) else f"found JSON of type {type(record).__name__}"
        except (ValueError, RecursionError) as error:
            fault = f"not JSON ({error})"
        if fault:
            raise TableError(f"{fault}; write one JSON object on each line", code="bad_row", where=f"{name}:{line}")
        records.append({key: math.nan if value is None else value for key, value in record.items()})
        lines.append(line)
    return Table(pd.DataFrame(records), name, tuple(lines))


def _parquet(place: Path) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(place, page_checksum_verification=True) as file:
            table = file.read()
            table.validate(full=True)
            # Without pandas' own metadata every column comes back as a column, a former index too.
            rows = table.replace_schema_metadata(None).to_pandas()
    except (pa.ArrowException, OSError, MemoryError, UnicodeError, OverflowError, ValueError) as error:
        message = f"damaged, or not a parquet file ({str(error)[:200]}); write it again from its source"
        raise TableError(message, code="damaged_file", where=str(place)) from error
    _check_unique(table.column_names, str(place))
    return rows
