"""One row as a reader yields it, and whether its values can be used as text and label."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from rayscale.text.normalise import normalise
from rayscale.text.sources.opening import short

_FRACTION = re.compile(r"[+-]?\d*\.\d+(e[+-]?\d+)?|[+-]?\d+e[+-]?\d+", re.IGNORECASE)


class Row(NamedTuple):
    """The values of the asked columns and the line (from 1; the row's number in parquet) they begin at."""

    line: int
    values: tuple[Any, ...]


class BadRow(NamedTuple):
    """A row that cannot be used: where it is, what was found there, what fixes it, how many lines go with it.

    `undecoded`: what was found are bytes that are not in the file's encoding, and the fix is that of the whole file.
    """

    line: int
    column: str | None
    found: str
    fix: str
    lines: int = 1
    undecoded: bool = False


class UnusableError(Exception):
    """Raised by what checks the values of a row: `bad` is the row."""

    def __init__(self, row: Row, column: str, found: str, fix: str, *, undecoded: bool = False) -> None:
        super().__init__(found)
        self.bad = BadRow(row.line, column, found, fix, undecoded=undecoded)


def kind_and_value(value: object) -> str:
    """A value of the wrong type, as messages name it."""
    return "nothing (null)" if value is None else f"{type(value).__name__} {short(value)}"


_NO_TEXT = "the text must be a string; fill it in or remove the row"


def checked_text(value: object, row: Row, column: str, fix: str = _NO_TEXT) -> str:
    """The value as text. Raises UnusableError; `fix` is for a value that is not a string."""
    if not isinstance(value, str):
        raise UnusableError(row, column, kind_and_value(value), fix)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        row = row._replace(line=row.line + value.count("\n", 0, error.start))
        if undecoded(value):
            raise UnusableError(row, column, byte_in(value), "", undecoded=True) from None
        half = f"half a character (\\u{ord(value[error.start]):04x})"
        raise UnusableError(row, column, half, "add the other half, or remove the row") from None
    return value


def filled_text(value: object, row: Row, column: str) -> str:
    """The value as normalised text that is not empty. Raises UnusableError."""
    if text := normalise(checked_text(value, row, column)):
        return text
    raise UnusableError(row, column, "an empty text", "fill it in, or remove the row")


_UNDECODED = re.compile("[\udc80-\udcff]")


def undecoded(text: str) -> bool:
    """Whether bytes stand in the text that are not in its file's encoding (see `open_text`)."""
    return not text.isascii() and _UNDECODED.search(text) is not None


def byte_in(text: str) -> str:
    """The first of these bytes."""
    byte = _UNDECODED.search(text)
    assert byte
    return f"byte 0x{ord(byte[0]) - 0xDC00:02x}"


class LabelKinds:
    """Watches that the labels of a file are of one kind: strings beside numbers are two sources with two codings."""

    def __init__(self, column: str) -> None:
        self._column = column
        self._first: tuple[str, int] | None = None

    def check(self, row: Row) -> None:
        """Raises UnusableError for a row whose label is usable, but of another kind than those before."""
        value = row.values[-1]
        kind = "boolean" if isinstance(value, bool) else "whole number" if isinstance(value, int) else "string"
        if self._first is None:
            self._first = kind, row.line
        first, line = self._first
        if kind != first:
            found = f"the {kind} {short(value)}, and a {first} in line {line}"
            fix = "write the labels of a file as strings, or all as whole numbers"
            raise UnusableError(row, self._column, found, fix)


def checked_label(value: object, row: Row, column: str) -> str:
    """The label as a string: whole numbers and booleans are labels, fractions are not. Raises UnusableError."""
    if isinstance(value, (bool, int)):
        return str(value).lower()
    text = " ".join(checked_text(value, row, column, "a label is a string or a whole number").split())
    if not text:
        raise UnusableError(row, column, "an empty label", "fill it in, or remove the row")
    if _FRACTION.fullmatch(text):
        fix = "a label is a name or a whole number: 1 instead of 1.0"
        raise UnusableError(row, column, f"the fraction {text}", fix)
    return text
