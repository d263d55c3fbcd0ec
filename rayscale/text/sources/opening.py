"""Opening text files: plain or gzip, a line at a time, in little memory whatever the file holds."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from rayscale.errors import DataError
from rayscale.study.encoding_names import UTF_8, is_wide

#: Characters of a line, and of a field, at most: a file without line ends is refused in little memory.
MAX_ROW = 1 << 25

_PACKED = {"zip": b"PK\x03\x04", "bzip2": b"BZh", "xz": b"\xfd7zXZ\x00", "zstd": b"\x28\xb5\x2f\xfd"}


def ending(path: str | Path) -> str:
    """The ending of a file's name that tells its format: `.csv` of both rows.csv and rows.csv.gz."""
    name = Path(path)
    return (name.with_suffix("") if name.suffix.lower() == ".gz" else name).suffix.lower()


def open_bytes(path: str) -> IO[bytes]:
    """The bytes of a file, unpacked on the way if it is gzip. Raises DataError for other kinds of packed files."""
    with naming_damage(path), open(path, "rb") as file:
        head = file.read(6)
    if head.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.open(path))
    for kind, magic in _PACKED.items():
        if head.startswith(magic):
            text = f"packed with {kind}; unpack it first, or pack it with gzip"
            raise DataError(text, code="wrong_format", where=path)
    return open(path, "rb")


def is_packed(path: str) -> bool:
    """Whether a file can be read from its beginning only."""
    with naming_damage(path), open_bytes(path) as file:
        return isinstance(file, gzip.GzipFile)


def unpacked_size(path: str) -> int:
    """Bytes of a file; of a gzip file about so many unpacked, by its first 32 MiB."""
    packed = os.path.getsize(path)
    with open_bytes(path) as file, naming_damage(path):
        if not isinstance(file, gzip.GzipFile):
            return packed
        first = len(file.read(1 << 25))
        return max(first, round(first * packed / max(1, file.fileobj.tell())))


def open_text(path: str, encoding: str = UTF_8) -> IO[str]:
    """The text of a file, unpacked on the way if it is gzip.

    Bytes that are not in this encoding become lone surrogates, which `checked_text` reports with line and column.
    """
    file = open_bytes(path)
    with naming_damage(path):
        first = file.read(3)
        wide = first[:2] in (b"\xff\xfe", b"\xfe\xff")
    if wide and not is_wide(encoding):
        file.close()
        text = "found UTF-16 text; write data: {encoding: utf-16}, or save the file as UTF-8"
        raise DataError(text, code="bad_encoding", where=f"{path}:1")
    if first != codecs.BOM_UTF8:  # which some programs write before text of any encoding
        file.seek(0)
    return io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape", newline="")


@contextmanager
def naming_damage(path: str) -> Iterator[None]:
    """What goes wrong while a file is read or unpacked becomes a DataError with its name."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or short(error)
        text = f"cannot be read to its end ({reason}); write it again from its source"
        raise DataError(text, code="damaged_file", where=path) from error


def lines_of(path: str, file: IO[str]) -> Iterator[str]:
    """The lines of a file. Raises DataError for one longer than any row: it might never end."""
    number = 0
    with naming_damage(path):
        while line := file.readline(MAX_ROW):
            number += 1
            if len(line) == MAX_ROW:
                raise too_long(path, number)
            yield line.removeprefix("\ufeff") if number == 1 else line  # some encodings keep the mark at the beginning


def too_long(path: str, line: int) -> DataError:
    """What is said of a line that is longer than any row."""
    text = f"a line of more than {MAX_ROW:,} characters; break the text into rows of fewer"
    return DataError(text, code="row_too_long", where=f"{path}:{line}")


def short(value: object) -> str:
    """The value as text, at most 40 characters of it."""
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."
