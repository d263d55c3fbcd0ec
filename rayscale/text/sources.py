"""Reading text files, row by row. Every row that cannot be used is a value that names file, line, column and mend.

A source is a function `read(path, columns)` that yields a `Row` (the asked columns' values, in that order) or a
`BadRow`, and raises DataError when the file as a whole is unusable. Plugins register theirs in "rayscale.sources".
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rayscale.errors import DataError, nearest
from rayscale.text.opening import MAX_ROW, lines_of, naming_damage, open_bytes, open_text, short, too_long


class Row(NamedTuple):
    """The values of the asked columns and the line (from 1; the row's number in parquet) they begin at."""

    line: int
    values: tuple[Any, ...]


class BadRow(NamedTuple):
    """A row that cannot be used: where it is, what was found there and what mends it."""

    line: int
    column: str | None
    found: str
    mend: str


#: Characters of a document of plain text at most.
MAX_DOCUMENT = 1 << 28

Source = Callable[[str, Sequence[str]], Iterator[Row | BadRow]]

_FRACTION = re.compile(r"[+-]?\d*\.\d+(e[+-]?\d+)?|[+-]?\d+e[+-]?\d+", re.IGNORECASE)
_UTF8 = "save the file as UTF-8, for instance with `iconv -f latin1 -t utf-8`"


def read_csv(path: str, columns: Sequence[str]) -> Iterator[Row | BadRow]:
    """Comma-separated rows; quoted fields may hold commas, quotes (doubled) and line breaks.

    The first line names the columns. A file without such a line is read by column numbers from 0, as strings:
    `task: {text: "0", label: "1"}`.
    """
    csv.field_size_limit(MAX_ROW)
    with open_text(path) as lines:
        yield from _read_delimited(path, columns, csv.reader(lines_of(path, lines), strict=True))


def read_tsv(path: str, columns: Sequence[str]) -> Iterator[Row | BadRow]:
    """Tab-separated rows, one a line; quotes are plain text, as the format has no quoting. Columns as in `read_csv`."""
    csv.field_size_limit(MAX_ROW)
    with open_text(path) as lines:
        reader = csv.reader(lines_of(path, lines), delimiter="\t", quoting=csv.QUOTE_NONE)
        yield from _read_delimited(path, columns, reader)


def _read_delimited(path: str, columns: Sequence[str], reader: Any) -> Iterator[Row | BadRow]:
    header: list[str] | None = None
    places: tuple[int, ...] = ()
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow(line, None, f"a row that does not parse ({error})", "close its quotes and double inner ones")
            continue
        if not fields:
            continue
        if header is None:
            header = fields
            places, named = _find_columns(path, line, columns, fields)
            if named:
                continue
        if len(fields) != len(header):
            found = f"{len(fields)} fields where the first line has {len(header)}"
            yield BadRow(line, None, found, "quote fields that hold the separator (csv), or mend the row")
            continue
        yield Row(line, tuple(fields[place] for place in places))


def _find_columns(path: str, line: int, columns: Sequence[str], first: list[str]) -> tuple[tuple[int, ...], bool]:
    """Positions of the columns, and whether the first line is a header."""
    if all(column in first for column in columns):
        for column in columns:
            if first.count(column) > 1:
                raise DataError(
                    f"{first.count(column)} columns are called '{column}'; rename all but one",
                    code="ambiguous_column",
                    where=f"{path}:{line}: {column}",
                )
        return tuple(first.index(column) for column in columns), True
    if all(column.isascii() and column.isdigit() for column in columns):
        places = tuple(int(column) for column in columns)
        if max(places) >= len(first):
            raise DataError(
                f"column number {max(places)} asked, but the first line has {len(first)} columns, counted from 0",
                code="missing_column",
                where=f"{path}:{line}",
            )
        return places, False
    numbers = ", ".join(f'{name}: "{number}"' for name, number in zip(("text", "label"), range(2), strict=True))
    raise missing(
        path, line, columns, first, f"; if the file has no header line, give column numbers: task: {{{numbers}}}"
    )


def missing(path: str, line: int, columns: Sequence[str], known: list[str], hint: str = "") -> DataError:
    """What is said of the first column that a file does not have."""
    absent = next(column for column in columns if column not in known)
    shown = ", ".join(f"'{short(name)}'" for name in known[:20]) or "none"
    if separator := other_separator(known):
        hint = f"; the columns look separated by {separator}: save the file with commas (csv) or tabs (tsv)"
    return DataError(
        f"no column '{absent}'{nearest(absent, known)} (found: {shown}){hint}",
        code="missing_column",
        where=f"{path}:{line}: {absent}",
    )


def other_separator(header: Sequence[str]) -> str | None:
    """What else than the expected separator the one column of a header line seems to be separated by."""
    signs = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
    return next((name for sign, name in signs.items() if len(header) == 1 and sign in header[0]), None)


def read_jsonl(
    path: str, columns: Sequence[str], start: int = 0, stop: int | None = None, line: int = 1
) -> Iterator[Row | BadRow]:
    """One JSON object a line; empty lines are passed over.

    Only lines that begin at byte `start` or later and before `stop` are read; `line` is the one that holds `start`.
    """
    known: list[str] | None = None
    with open_bytes(path) as file, naming_damage(path):
        place, line = _next_line(file, start, line)
        while (stop is None or place < stop) and (raw := file.readline(MAX_ROW)):
            if len(raw) == MAX_ROW:
                raise too_long(path, line)
            found = _object(raw.removeprefix(b"\xef\xbb\xbf") if place == 0 else raw, line)
            if isinstance(found, dict):
                if known is None:
                    known = list(found)
                    if start == 0 and any(column not in found for column in columns):
                        raise missing(path, line, columns, known)
                absent = [column for column in columns if column not in found]
                yield (
                    BadRow(line, absent[0], "no such key in this object", "add it, or leave the line out")
                    if absent
                    else Row(line, tuple(found[column] for column in columns))
                )
            elif found is not None:
                yield found
            place, line = place + len(raw), line + 1


def _next_line(file: Any, start: int, line: int) -> tuple[int, int]:
    """Goes to the first line that begins at `start` or later: its place and its number."""
    if start == 0:
        return 0, line
    place = file.seek(start - 1)
    while rest := file.readline(1 << 20):
        place += len(rest)
        if rest.endswith(b"\n"):
            break
    return place, line if place == start else line + 1


class _TwiceError(Exception):
    """A key of a JSON object that is there twice: readers of JSON take the last one, without a word."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return found


_parse = json.JSONDecoder(object_pairs_hook=_pairs).decode


def _object(raw: bytes, line: int) -> dict[str, Any] | BadRow | None:
    if not raw.strip():
        return None
    try:
        value = _parse(raw.decode())
    except _TwiceError as error:
        return BadRow(line, short(error), "this key twice in one object", "name one of them otherwise, or take it out")
    except UnicodeDecodeError as error:
        return BadRow(line, None, f"byte 0x{raw[error.start]:02x}, which is not UTF-8", _UTF8)
    except (ValueError, RecursionError) as error:
        return BadRow(line, None, f"no JSON ({short(error)})", "write one JSON object on each line")
    if not isinstance(value, dict):
        return BadRow(line, None, f"JSON of type {type(value).__name__}", "write one JSON object on each line")
    return value


def read_txt(path: str, columns: Sequence[str]) -> Iterator[Row | BadRow]:
    """Documents separated by blank lines, for tasks without labels."""
    if len(columns) > 1:
        raise DataError(
            f"plain text has no labels, and the task needs column '{columns[1]}'; give csv, tsv, jsonl or parquet",
            code="missing_column",
            where=path,
        )
    begun, length, parts = 1, 0, list[str]()
    with open_text(path) as lines:
        for line, text in enumerate(lines_of(path, lines), start=1):
            if text.strip():
                begun = begun if parts else line
                parts.append(text)
                length += len(text)
                if length > MAX_DOCUMENT:
                    text = f"a document of more than {MAX_DOCUMENT:,} characters; set blank lines between documents"
                    raise DataError(text, code="row_too_long", where=f"{path}:{begun}")
            elif parts:
                yield Row(begun, ("".join(parts),))
                length, parts = 0, []
    if parts:
        yield Row(begun, ("".join(parts),))


def read_builtin(path: str, columns: Sequence[str]) -> Iterator[Row | BadRow]:
    """The built-in corpus: columns `text` and `label` (the package). `path` is its cached file, read when it exists."""
    from rayscale.text.corpus import ensure_corpus

    known = ["text", "label"]
    if any(column not in known for column in columns):
        raise missing("builtin", 1, columns, known)
    lines = Path(ensure_corpus()).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        row = dict(zip(known, json.loads(line), strict=True))
        yield Row(number, tuple(row[column] for column in columns))


def checked_text(value: object, row: Row, column: str) -> str | BadRow:
    """The value as text, or why it is none."""
    if not isinstance(value, str):
        found = "nothing (null)" if value is None else f"{type(value).__name__} {short(value)}"
        return BadRow(row.line, column, found, "the text must be a string; fill it in or remove the row")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        found = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"half a character (\\u{code:04x})"
        line = row.line + value.count("\n", 0, error.start)
        return BadRow(line, column, f"{found}, which is not UTF-8", _UTF8)
    return value


class LabelKinds:
    """Watches that the labels of a file are of one kind: strings beside numbers are two sources with two codings."""

    def __init__(self, column: str) -> None:
        self._column = column
        self._first: tuple[str, int] | None = None

    def __call__(self, row: Row) -> BadRow | None:
        """Why a row whose label is usable does not go with the rows before; None if it does."""
        value = row.values[-1]
        kind = "boolean" if isinstance(value, bool) else "whole number" if isinstance(value, int) else "string"
        if self._first is None:
            self._first = kind, row.line
        first, line = self._first
        if kind == first:
            return None
        found = f"the {kind} {short(value)}, and a {first} in line {line}"
        return BadRow(row.line, self._column, found, "write the labels of a file as strings, or all as whole numbers")


def checked_label(value: object, row: Row, column: str) -> str | BadRow:
    """The label as a string, or why it is none. Whole numbers and booleans are labels; fractions are not."""
    if isinstance(value, (bool, int)):
        return str(value).lower()
    text = checked_text(value, row, column)
    if isinstance(text, BadRow):
        return text if isinstance(value, str) else text._replace(mend="a label is a string or a whole number")
    text = " ".join(text.split())
    if _FRACTION.fullmatch(text):
        return BadRow(row.line, column, f"the fraction {text}", "a label is a name or a whole number: 1 instead of 1.0")
    return text or BadRow(row.line, column, "an empty label", "fill it in, or remove the row")
