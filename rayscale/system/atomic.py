"""Atomic publishing: a file or folder is there whole or not at all, whenever the process or the machine stops."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def publish_file(path: Path, content: bytes | memoryview) -> None:
    """A file of this content, whole or not at all."""
    publish_stream(path, lambda file: file.write(content))


def publish_stream(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file beside its place, flush it to the disk, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync(path.parent)


def publish_folder(path: Path, write: Callable[[Path], None], is_whole: Callable[[Path], bool]) -> None:
    """Let `write` fill a folder beside its place, flush it to the disk, then rename it into place.

    Who comes second, while another process published the same folder, leaves the first one's; a folder there that is
    not whole (`is_whole`) is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        write(temporary)
        for folder, _, files in os.walk(temporary):
            for name in files:
                _sync(Path(folder, name))
            _sync(Path(folder))
        if path.exists() and not is_whole(path):
            damaged = Path(tempfile.mkdtemp(prefix=f".{path.name}-damaged-", dir=path.parent))
            os.replace(path, damaged)
            shutil.rmtree(damaged)
        try:
            os.rename(temporary, path)
        except OSError:
            if not is_whole(path):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _sync(path.parent)


@contextmanager
def alone(path: Path, wait: Callable[[], None]) -> Iterator[None]:
    """Hold a lock on this machine, which ends with the process; `wait` is called first if another holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
