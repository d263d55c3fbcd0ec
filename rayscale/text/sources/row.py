"""One row as a reader yields it, and whether its values can be used as text and label."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from rayscale.text.sources.opening import short

_FRACTION = re.compile(r"[+-]?\d*\.\d+(e[+-]?\d+)?|[+-]?\d+e[+-]?\d+", re.IGNORECASE)


class Row(NamedTuple):
    """The values of the asked columns and the line (from 1; the row's number in parquet) they begin at."""

    line: int
    values: tuple[Any, ...]


class BadRow(NamedTuple):
    """A row that cannot be used: where it is, what was found there, what mends it, how many lines go with it.

    `undecoded`: what was found are bytes that are not in the file's encoding, and the mend is that of the whole file.
    """

    line: int
    column: str | None
    found: str
    mend: str
    lines: int = 1
    undecoded: bool = False


def checked_text(value: object, row: Row, column: str) -> str | BadRow:
    """The value as text, or why it is none."""
    if not isinstance(value, str):
        found = "nothing (null)" if value is None else f"{type(value).__name__} {short(value)}"
        return BadRow(row.line, column, found, "the text must be a string; fill it in or remove the row")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        line = row.line + value.count("\n", 0, error.start)
        if undecoded(value):
            return BadRow(line, column, byte_in(value), "", undecoded=True)
        found = f"half a character (\\u{ord(value[error.start]):04x})"
        return BadRow(line, column, found, "add the other half, or remove the row")
    return value


_UNDECODED = re.compile("[\udc80-\udcff]")


def undecoded(text: str) -> bool:
    """Whether bytes stand in the text that are not in its file's encoding (see `open_text`)."""
    return not text.isascii() and _UNDECODED.search(text) is not None


def byte_in(text: str) -> str:
    """The first of these bytes."""
    found = _UNDECODED.search(text)
    assert found
    return f"byte 0x{ord(found[0]) - 0xDC00:02x}"


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
