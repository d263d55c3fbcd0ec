"""Reading text files, row by row: a source yields the `Row`s of a file, and a `BadRow` for each that cannot be used.

It is a function `read(path, columns)` with the values in the order of the columns, raises DataError when the file as a
whole is unusable, and takes `encoding`, too, if it reads text. Plugins register theirs in "rayscale.sources".
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rayscale.errors import DataError, nearest
from rayscale.study.encoding_names import UTF_8, is_wide
from rayscale.text.sources.encodings import proposal
from rayscale.text.sources.opening import MAX_ROW, lines_of, naming_damage, open_bytes, open_text, short, too_long
from rayscale.text.sources.row import BadRow, Row, byte_in, undecoded

#: Characters of a document of plain text at most.
MAX_DOCUMENT = 1 << 28

#: A row of several lines is taken for a quote that was not closed where so many of them look like rows...
SWALLOWED_LINES = 8
#: ...or where the last of the asked columns has values in them that other rows have: so many are remembered.
KNOWN_VALUES = 10_000

Source = Callable[..., Iterator[Row | BadRow]]


def read_csv(path: str, columns: Sequence[str], encoding: str = UTF_8) -> Iterator[Row | BadRow]:
    """Comma-separated rows; quoted fields may hold commas, quotes (doubled) and line breaks.

    The first line names the columns. A file without such a line is read by column numbers from 0, as strings:
    `task: {text: "0", label: "1"}`.
    """
    with open_text(path, encoding) as lines:
        yield from _Delimited(path, columns, encoding, {"strict": True}).read(lines_of(path, lines))


def read_tsv(path: str, columns: Sequence[str], encoding: str = UTF_8) -> Iterator[Row | BadRow]:
    """Tab-separated rows, one a line; quotes are plain text, as the format has no quoting. Columns as in `read_csv`."""
    dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    with open_text(path, encoding) as lines:
        yield from _Delimited(path, columns, encoding, dialect).read(lines_of(path, lines))


@dataclass
class _Delimited:
    """A file of rows with a separator, as it is read: what its first line said, and values that were seen."""

    path: str
    columns: Sequence[str]
    encoding: str
    dialect: dict[str, Any]
    header: list[str] = field(default_factory=list)
    places: tuple[int, ...] = ()
    named: bool = False
    known: set[str] = field(default_factory=set)

    def read(self, lines: Iterator[str]) -> Iterator[Row | BadRow]:
        """The rows of these lines."""
        csv.field_size_limit(MAX_ROW)
        taken: list[str] = []  # by the row at hand
        reader = csv.reader((taken.append(line) or line for line in lines), **self.dialect)  # type: ignore[func-returns-value]
        while True:
            line = reader.line_num + 1
            taken.clear()
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                what = "a row" if len(taken) == 1 else f"a row of {len(taken):,} lines"
                yield BadRow(line, None, f"{what} that does not parse ({error})",
                             "close its quotes and double inner ones", len(taken))  # fmt: skip
                continue
            if fields and (row := self._checked(line, fields, taken)):
                yield row

    def _checked(self, line: int, fields: list[str], taken: list[str]) -> Row | BadRow | None:
        if not self.header:
            self.header = fields
            self.places, self.named = _find_columns(self.path, line, self.columns, fields, self.encoding)
            if self.named:
                return None
        if len(fields) != len(self.header):
            found = f"{len(fields)} fields where the first line has {len(self.header)}"
            return BadRow(
                line, None, found, "quote fields that contain the separator (csv), or fix the row", len(taken)
            )
        if self.named and fields[0].removeprefix("\ufeff") == self.header[0] and fields[1:] == self.header[1:]:
            return BadRow(line, None, "the header line once more", "take it out")
        if len(taken) > 1 and self._are_rows(taken[:-1]):
            found = f"a quoted field that runs over {len(taken):,} lines, which look like rows of their own"
            return BadRow(line, None, found, f"close the quote that opens in line {line}, or double it", len(taken))
        values = tuple(fields[place] for place in self.places)
        if len(taken) == 1 and len(values[-1]) <= 100 and len(self.known) < KNOWN_VALUES:
            self.known.add(values[-1])
        return Row(line, values)

    def _are_rows(self, lines: Sequence[str]) -> bool:
        """Whether each of the lines looks like a row."""
        if len(self.header) == 1:
            return False
        separator = self.dialect.get("delimiter", ",")
        rows = [line.replace('"', "").rstrip("\r\n").split(separator) for line in lines]
        if any(len(row) != len(self.header) or not all(map(str.strip, row)) for row in rows):
            return False
        last = self.places[-1]
        return len(rows) >= SWALLOWED_LINES or all(row[last] in self.known for row in rows)


def _find_columns(
    path: str, line: int, columns: Sequence[str], first: list[str], encoding: str
) -> tuple[tuple[int, ...], bool]:
    """Positions of the columns, and whether the first line is a header."""
    named = all(column in first for column in columns)
    if not named and all(column.isascii() and column.isdigit() for column in columns):
        places = tuple(int(column) for column in columns)
        if max(places) >= len(first):
            text = f"no column {max(places)}: the first line has {len(first)} columns, counted from 0"
            raise DataError(text, code="missing_column", where=f"{path}:{line}")
        return places, False
    if not named and (odd := next((name for name in first if undecoded(name)), None)):
        text = f"found {byte_in(odd)} in the first line, which is not {encoding.upper()}; {proposal(path, encoding)}"
        raise DataError(text, code="bad_encoding", where=f"{path}:{line}")
    hint = '; if the file has no header line, give column numbers: task: {text: "0", label: "1"}'
    check_names(path, line, columns, first, hint)
    return tuple(first.index(column) for column in columns), True


def check_names(path: str, line: int, columns: Sequence[str], names: list[str], hint: str = "") -> None:
    """Raise DataError for the first column that a file does not have, or has several times."""
    for column in columns:
        where = f"{path}:{line}: {column}"
        if names.count(column) > 1:
            text = f"{names.count(column)} columns are called '{column}'; rename all but one"
            raise DataError(text, code="ambiguous_column", where=where)
        if column not in names:
            shown = ", ".join(f"'{short(name)}'" for name in names[:20]) or "none"
            if separator := other_separator(names):
                hint = f"; the columns look separated by {separator}: save the file with commas (csv) or tabs (tsv)"
            text = f"no column '{column}'{nearest(column, names)} (found: {shown}){hint}"
            raise DataError(text, code="missing_column", where=where)


def other_separator(header: Sequence[str]) -> str | None:
    """What else than the expected separator the one column of a header line seems to be separated by."""
    signs = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
    return next((name for sign, name in signs.items() if len(header) == 1 and sign in header[0]), None)


def read_jsonl(
    path: str,
    columns: Sequence[str],
    start: int = 0,
    stop: int | None = None,
    line: int = 1,
    *,
    encoding: str = UTF_8,
) -> Iterator[Row | BadRow]:
    """One JSON object a line; empty lines are passed over.

    Only lines that begin at byte `start` or later and before `stop` are read; `line` is the one that holds `start`.
    """
    known: list[str] | None = None
    wide = is_wide(encoding)  # then a line does not end at a byte
    kind = UTF_8 if wide else encoding
    with naming_damage(path), open_text(path, encoding) if wide else open_bytes(path) as file:
        place, line = _next_line(file, start, line)
        while (stop is None or place < stop) and (raw := file.readline(MAX_ROW)):
            if len(raw) == MAX_ROW:
                raise too_long(path, line)
            row = _object(raw if isinstance(raw, bytes) else raw.encode(UTF_8, "surrogateescape"), line, kind)
            if isinstance(row, dict):
                if known is None:
                    known = list(row)
                    if start == 0:
                        check_names(path, line, columns, known)
                absent = [column for column in columns if column not in row]
                yield (
                    BadRow(line, absent[0], "no such key in this object", "add it, or leave the line out")
                    if absent
                    else Row(line, tuple(row[column] for column in columns))
                )
            elif row is not None:
                yield row
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
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return value


_parse = json.JSONDecoder(object_pairs_hook=_pairs).decode


def _object(raw: bytes, line: int, encoding: str = UTF_8) -> dict[str, Any] | BadRow | None:
    if not raw.strip():
        return None
    one = "write one JSON object on each line"
    try:
        text = raw.decode(encoding)
        value = _parse(text.removeprefix("\ufeff") if line == 1 else text)
    except _TwiceError as error:
        return BadRow(line, short(error), "this key twice in one object", "rename or remove one of them")
    except UnicodeDecodeError as error:
        return BadRow(line, None, f"byte 0x{error.object[error.start]:02x}", "", undecoded=True)
    except (ValueError, RecursionError) as error:
        lines = raw.strip().count(b"\r") + 1
        if lines > 1:  # of a Macintosh of old: to JSON it is one
            return BadRow(line, None, f"{lines:,} lines that end with CR alone", "end lines with LF", lines)
        return BadRow(line, None, f"invalid JSON ({short(error)})", one)
    if isinstance(value, list):
        return BadRow(line, None, f"a JSON list of {len(value):,}", one, max(1, len(value)))
    if not isinstance(value, dict):
        return BadRow(line, None, f"JSON of type {type(value).__name__}", one)
    return value


def read_txt(path: str, columns: Sequence[str], encoding: str = UTF_8) -> Iterator[Row | BadRow]:
    """Documents separated by blank lines, for tasks without labels."""
    if len(columns) > 1:
        text = f"plain text has no labels, and the task needs column '{columns[1]}'"
        raise DataError(text, fix="give csv, tsv, jsonl or parquet", code="missing_column", where=path)
    begun, length, parts = 1, 0, list[str]()
    with open_text(path, encoding) as lines:
        for line, text in enumerate(lines_of(path, lines), start=1):
            if text.strip():
                begun = begun if parts else line
                parts.append(text)
                length += len(text)
                if length > MAX_DOCUMENT:
                    text = f"a document of more than {MAX_DOCUMENT:,} characters; put blank lines between documents"
                    raise DataError(text, code="row_too_long", where=f"{path}:{begun}")
            elif parts:
                yield Row(begun, ("".join(parts),))
                length, parts = 0, []
    if parts:
        yield Row(begun, ("".join(parts),))


def read_builtin(path: str, columns: Sequence[str]) -> Iterator[Row | BadRow]:
    """The built-in corpus: columns `text` and `label` (the package). `path` is its cached file, read when it exists."""
    from rayscale.text.sources.corpus import ensure_corpus

    known = ["text", "label"]
    check_names("builtin", 1, columns, known)
    lines = Path(ensure_corpus()).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        row = dict(zip(known, json.loads(line), strict=True))
        yield Row(number, tuple(row[column] for column in columns))


#: Tokens of a file's only sentence from which on its blank lines are missing.
MOST_TOKENS = 1000


def read_conll(path: str, columns: Sequence[str], encoding: str = UTF_8) -> Iterator[Row | BadRow]:
    """The sentences: tokens (the first column) and tags (the last), as two lists, at the sentence's first line.

    Columns are separated by tabs where a line has one, else by white space; -DOCSTART- lines are left out.
    A sentence is bad as a whole. Raises DataError where a whole file is one sentence that is longer than any.
    """
    with open_text(path, encoding) as lines:
        first, begun, tokens, tags, bad = 0, 1, list[str](), list[str](), None
        for line, text in enumerate(itertools.chain(lines_of(path, lines), [""]), start=1):
            if not text.strip() or text.startswith("-DOCSTART-"):
                if not text and begun == first and len(tokens) > MOST_TOKENS:
                    found = f"the whole file is one sentence of {len(tokens):,} tokens"
                    raise DataError(f"{found}; put a blank line after each", code="bad_data", where=f"{path}:{begun}")
                if bad:
                    yield bad._replace(lines=line - begun)
                elif tokens:
                    yield Row(begun, (tokens, tags))
                tokens, tags, bad = [], [], None
                continue
            begun = begun if tokens or bad else line
            first = first or begun
            fields = text.rstrip("\r\n").split("\t") if "\t" in text else text.split()
            if len(fields) < 2 or not fields[0].strip() or not fields[-1].strip():
                found = f"{text.strip()[:60]!r}, which is not a token with a tag"
                bad = bad or BadRow(line, None, found, "give each line a token first and its tag last, "
                                    "separated by tabs or spaces")  # fmt: skip
                continue
            tokens.append(fields[0])
            tags.append(fields[-1])
