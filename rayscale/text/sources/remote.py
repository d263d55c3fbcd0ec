"""Files that lie elsewhere (object storage, the Hugging Face hub): copied once into the cache, then read like any file.

A copy is kept under the address and all that the storage says of the file (size, time, tag), so a changed file is
copied anew. Storage is reached through pyarrow, what pyarrow does not serve through fsspec.
"""

from __future__ import annotations

import hashlib
import os
import sys
from functools import partial
from typing import Any, BinaryIO

from rayscale.errors import DataError, first_line
from rayscale.system.disk import PRIVATE, write_stream
from rayscale.system.machine import GIGA, cache_root, free_bytes
from rayscale.system.paths import BY_PYARROW
from rayscale.text.workers import Meter

_CHUNK_BYTES = 1 << 22


def is_remote(pattern: str) -> bool:
    """Whether a path is an address."""
    return "://" in pattern


def fetch(pattern: str, endings: tuple[str, ...]) -> list[str]:
    """Local copies of the files that an address names (a file, a pattern, or a folder's of these endings), in order.

    Raises DataError where the storage cannot be reached.
    """
    try:
        system, path = _open(pattern)
        kind = _kind(system, path)
        if kind == "directory":
            paths = [file for file in system.find(path) if counts(file[len(path) :], endings)]
        else:
            paths = [path] if kind else system.glob(path) if _is_pattern(path) else []
        return [_copy(system, file, pattern) for file in sorted(paths) if system.isfile(file)]
    except DataError:
        raise
    except Exception as error:  # every storage has errors of its own, some of them no OSError
        scheme = pattern.partition("://")[0]
        hint = "; is HF_HUB_OFFLINE set?" if scheme == "hf" and os.environ.get("HF_HUB_OFFLINE") else ""
        text = f"{scheme} storage cannot be read ({first_line(error)}){hint}"
        fix = "check the address, the network and your credentials, or copy the files here and give their path"
        raise DataError(text, fix=fix, code="unreachable_storage", where=pattern) from error


def _kind(system: Any, path: str) -> str | None:
    """What lies there: file, directory or nothing. Asked so that an error is told: `isfile` calls it nothing."""
    try:
        return str(system.info(path)["type"])
    except FileNotFoundError:
        return None


def counts(below: str, endings: tuple[str, ...]) -> bool:
    """Whether a file below a folder is one of these endings, packed or not, and nothing on its way is hidden."""
    parts = below.strip("/").split("/")
    return not any(part.startswith((".", "_")) for part in parts) and parts[-1].removesuffix(".gz").endswith(endings)


def _is_pattern(path: str) -> bool:
    return any(sign in path for sign in "*?[")


def _open(address: str) -> tuple[Any, str]:
    import fsspec

    scheme = address.partition("://")[0]
    if scheme in BY_PYARROW:
        from fsspec.implementations.arrow import ArrowFSWrapper
        from pyarrow import fs

        # What follows the first sign of a pattern is no part of an address that pyarrow would understand.
        system, _ = fs.FileSystem.from_uri(address[: min(address.find(c) for c in "*?[" if c in address)]
                                           if _is_pattern(address) else address)  # fmt: skip
        return ArrowFSWrapper(system), address.partition("://")[2]
    system, path = fsspec.url_to_fs(address)
    return system, str(path)


def _copy(system: Any, path: str, address: str) -> str:
    about = system.info(path)
    mark = hashlib.sha256(f"{address.partition('://')[0]}\0{sorted(map(str, about.items()))}".encode()).hexdigest()[:20]
    place = cache_root() / "sources" / mark / path.rpartition("/")[2]
    if place.exists():
        return str(place)
    size, free = int(about.get("size") or 0), free_bytes(cache_root())
    if size > free:
        text = f"{path} has {size / GIGA:.3g} GB, and {free / GIGA:.3g} GB are free where it would be copied"
        raise DataError(f"{text} ({cache_root()}); set RAYSCALE_CACHE to a larger disk", code="no_space", where=address)
    meter = Meter(partial(print, file=sys.stderr, flush=True), f"copying {path}", size, "bytes")
    with system.open(path, "rb") as source:
        write_stream(place, partial(_pour, source, meter), PRIVATE)
    return str(place)


def _pour(source: BinaryIO, meter: Meter, target: BinaryIO) -> None:
    while chunk := source.read(_CHUNK_BYTES):
        target.write(chunk)
        meter.add(len(chunk))
