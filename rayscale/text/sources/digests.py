"""What a file holds: its digest and how its lines are spread, read once and remembered for as long as the file stands.

A file is known by device, number, size and both times. One that changed within the last seconds is not remembered: a
later change may bear the same time.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rayscale.errors import DataError
from rayscale.study.encoding_names import UTF_8
from rayscale.system.disk import PRIVATE, write_file
from rayscale.system.machine import cache_root
from rayscale.text.sources.opening import open_bytes

#: Bytes between two places of a file at which reading may begin.
BLOCK_BYTES = 1 << 25
#: Smaller files are read again each time: it takes no time worth saving.
REMEMBERED_BYTES = 1 << 24
SETTLED_SECONDS = 2.0


@dataclass(frozen=True)
class Content:
    """SHA-256 (hex) of a file, and how many line ends are in each BLOCK_BYTES of it.

    Of a file in another encoding than UTF-8 the digest is that of its text, unpacked, in UTF-8.
    """

    digest: str
    line_ends: tuple[int, ...]


def look(path: str, encoding: str = UTF_8) -> Content:
    """The content of a file. Raises DataError where it cannot be read."""
    try:
        stamp = _stamp(path)
        place = os.path.abspath(path) + ("" if encoding == UTF_8 else f"\0{encoding}")
        mark = hashlib.sha256(os.fsencode(place)).hexdigest()[:32]
        noted = cache_root() / "contents" / f"{mark}.json"
        if known := _recall(noted, stamp):
            return known
        content = _read(path)
        if encoding != UTF_8:
            content = replace(content, digest=_digest_of_text(path, encoding))
        settled = time.time() - max(stamp[3:]) / 1e9 > SETTLED_SECONDS
        if settled and stamp[2] >= REMEMBERED_BYTES and _stamp(path) == stamp:
            note = {"stamp": stamp, "block_bytes": BLOCK_BYTES, **asdict(content)}
            with suppress(OSError):  # a cache that is full or read-only: the next call reads the file again
                write_file(noted, json.dumps(note).encode(), PRIVATE)
    except OSError as error:
        text = f"cannot be read ({error.strerror}); check its rights"
        raise DataError(text, code="unreadable_file", where=path) from error
    return content


def _stamp(path: str) -> list[int]:
    status = os.stat(path)
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _read(path: str) -> Content:
    digest, line_ends, place = hashlib.sha256(), [0], 0
    step = min(BLOCK_BYTES, 1 << 22)
    with open(path, "rb") as file:
        while block := file.read(min(step, BLOCK_BYTES * len(line_ends) - place)):
            digest.update(block)
            line_ends[-1] += block.count(b"\n")
            place += len(block)
            if place == BLOCK_BYTES * len(line_ends):
                line_ends.append(0)
    return Content(digest.hexdigest(), tuple(line_ends))


def _digest_of_text(path: str, encoding: str) -> str:
    digest = hashlib.sha256()
    decoder = codecs.getincrementaldecoder(encoding)(errors="surrogateescape")
    with open_bytes(path) as file:
        while block := file.read(1 << 22):
            digest.update(decoder.decode(block).encode(UTF_8, "surrogateescape"))
        digest.update(decoder.decode(b"", final=True).encode(UTF_8, "surrogateescape"))
    return digest.hexdigest()


def _recall(noted: Path, stamp: list[int]) -> Content | None:
    try:
        with open(noted, encoding="utf-8") as file:
            note = json.load(file)
        same = note["stamp"] == stamp and note["block_bytes"] == BLOCK_BYTES
        return Content(note["digest"], tuple(note["line_ends"])) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
