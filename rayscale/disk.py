"""Files on a local disk that are whole or absent, also after the power fails.

Temporary file → fsync → rename → fsync of the folder. All calls go through `os`: tests crash at each.
"""

from __future__ import annotations

import os
import re
import uuid
from contextlib import suppress

#: What a write that was killed leaves behind: a name of this form, never the name of the file itself.
TEMPORARY = re.compile(r"^\..+\.[0-9a-f]{32}$")


def write(path: str, content: bytes) -> None:
    """Put `content` under this name: a reader sees the old content or the new, never a part.

    When it returns, the content survives a crash. Raises OSError, and then the name holds what it held before, or,
    where only the folder could not be flushed, the new content, which may not survive.
    """
    temporary = _write_temporary(path, content)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_folder(os.path.dirname(path))


def create(path: str, content: bytes) -> bool:
    """The same, but only if there is no file of this name: of several who try, one succeeds and is told True.

    Raises OSError, also where the disk knows no hard links.
    """
    temporary = _write_temporary(path, content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)
    sync_folder(os.path.dirname(path))
    return True


def append(path: str, line: bytes) -> None:
    """Add one line at the end, on a fresh line: what a crash cut off stays a line of its own. Raises OSError."""
    make_folders(os.path.dirname(path))
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        size = os.lseek(file, 0, os.SEEK_END)
        fresh = not size or os.pread(file, 1, size - 1) == b"\n"
        _write_all(file, line if fresh else b"\n" + line)
    finally:
        os.close(file)


def read(path: str) -> bytes:
    """All bytes of a file. Raises OSError."""
    file = os.open(path, os.O_RDONLY)
    try:
        parts = []
        while part := os.read(file, 1 << 24):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(file)


def rename(path: str, new: str) -> None:
    """Give a file another name in the same folder, for good. Raises OSError."""
    os.replace(path, new)
    sync_folder(os.path.dirname(new))


def files(folder: str) -> list[str]:
    """Names of the files directly in a folder, sorted, without temporary ones; none if there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_file())
    except FileNotFoundError:
        return []


def recover(root: str, but: str) -> int:
    """Remove what killed writes left below a folder, but not in its folder `but`; returns how many files.

    Also makes every folder durable: the process that made or filled it may have been killed before. Raises OSError.
    """
    removed = 0
    for folder, _, names in os.walk(root):
        for name in names:
            if TEMPORARY.match(name) and folder != os.path.join(root, but):
                os.unlink(os.path.join(folder, name))
                removed += 1
        with suppress(FileNotFoundError):  # a savepoint that a worker of the killed driver has just put away
            sync_folder(folder)
    while (above := os.path.dirname(root)) != root:
        root = above
        try:
            sync_folder(root)
        except PermissionError:  # not ours, so not new
            break
    return removed


def make_folders(folder: str, mode: int = 0o777) -> None:
    """Make a folder and those above it, each durable in the one that holds it; the last gets `mode`, less the umask.

    One that is there stays as it is. Raises OSError, also where a link leads nowhere or nothing can be made (/proc).
    """
    try:
        os.mkdir(folder, mode)
    except FileExistsError:
        return
    except FileNotFoundError:
        above = os.path.dirname(folder)
        make_folders(above)
        try:
            os.mkdir(folder, mode)
        except FileExistsError:
            return  # another was quicker
    try:
        sync_folder(os.path.dirname(folder))
    except BaseException:
        os.rmdir(folder)  # else the next call would take it for durable
        raise


def sync_folder(folder: str) -> None:
    """Make the names in a folder durable. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_temporary(path: str, content: bytes) -> str:
    folder, name = os.path.split(path)
    make_folders(folder)
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        try:
            _write_all(file, content)
            os.fsync(file)
        finally:
            os.close(file)
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary


def _write_all(file: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]
