"""Files and folders on a local disk that are whole or absent, also after the power fails.

Temporary name → fsync → rename → fsync of the folder. All calls go through `os`: tests crash at each.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

#: What a write that was killed leaves behind: a name of this form, never the name of the file itself.
TEMPORARY = re.compile(r"^\..+\.[0-9a-f]{32}$")
#: Rights of what is its owner's alone, and of what is everybody's whose folder is.
PRIVATE, SHARED = 0o700, 0o777


def write_file(path: str | Path, content: bytes | memoryview, rights: int = SHARED) -> None:
    """Put `content` under this name: a reader sees the old content or the new, never a part.

    Nobody may do more with the file than `rights`, those of its folder and the umask allow. When this returns, the
    content survives a crash. Raises OSError, and then the name holds what it held before, or, where only the folder
    could not be flushed, the new content, which may not survive.
    """
    _put(os.path.abspath(path), lambda handle: _write_all(handle, content), rights)


def write_stream(path: str | Path, fill: Callable[[BinaryIO], object], rights: int = SHARED) -> None:
    """As `write_file`, of a content that `fill` writes into a file."""

    def pour(handle: int) -> None:
        with open(handle, "wb", closefd=False) as file:
            fill(file)

    _put(os.path.abspath(path), pour, rights)


def write_folder(
    path: str | Path, fill: Callable[[Path], object], is_whole: Callable[[Path], bool], rights: int = SHARED
) -> None:
    """Let `fill` write the files of a folder, which then appears under this name as a whole and survives a crash.

    A folder there that is not whole (`is_whole`) is replaced; one that is, as of another process that was first, is
    kept. Raises OSError and what `fill` raises.
    """
    path = os.path.abspath(path)
    above = os.path.dirname(path)
    make_folders(above)
    temporary, former = _temporary_name(path), _temporary_name(path)
    try:
        os.mkdir(temporary, rights & _rights(above))
        fill(Path(temporary))
        for folder, _, names in os.walk(temporary):
            for name in names:
                _sync(os.path.join(folder, name))
            _sync(folder)
        if _mode(path) and not is_whole(Path(path)):
            os.replace(path, former)
        try:
            os.replace(temporary, path)
        except OSError:
            if not is_whole(Path(path)):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)
    _sync(above)


@contextmanager
def lock(path: Path, wait: Callable[[], None]) -> Iterator[None]:
    """Hold a lock on this machine, which ends with the process; `wait` is called first if another holds it."""
    import fcntl  # not on Windows

    make_folders(str(path.absolute().parent))
    with open(path, "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _put(path: str, fill: Callable[[int], None], rights: int) -> None:
    temporary = _write_temporary(path, fill, rights)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync(os.path.dirname(path))


def create(path: str, content: bytes) -> bool:
    """The same, but only if there is no file of this name: of several who try, one succeeds and is told True.

    Raises OSError, also where the disk knows no hard links.
    """
    temporary = _write_temporary(path, lambda handle: _write_all(handle, content), SHARED)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)
    _sync(os.path.dirname(path))
    return True


def append(path: str, line: bytes) -> None:
    """Add one line at the end, on a fresh line: what a crash cut off stays a line of its own. Raises OSError."""
    make_folders(os.path.dirname(path))
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666 & _rights(os.path.dirname(path)))
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
    _sync(os.path.dirname(new))


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
            _sync(folder)
    while (above := os.path.dirname(root)) != root:
        root = above
        try:
            _sync(root)
        except PermissionError:  # not ours, so not new
            break
    return removed


def make_folders(folder: str, rights: int | None = None) -> None:
    """Make a folder and those above it, each durable in the one that holds it. Raises OSError.

    It has `rights`, or those of the folder that holds it: what is inside a private folder is private.
    """
    above = os.path.dirname(folder)
    try:
        os.mkdir(folder, _rights(above) if rights is None else rights)
    except FileExistsError:
        if not _is_folder(folder):
            what = f"a link to {os.readlink(folder)}, which is not there" if os.path.islink(folder) else "no folder"
            raise NotADirectoryError(errno.ENOTDIR, f"{folder} is {what}", folder) from None
        return
    except FileNotFoundError:
        if _is_folder(above) or above == folder:  # such as /proc
            raise PermissionError(errno.EACCES, f"nothing can be made in {above}", folder) from None
        make_folders(above)
        make_folders(folder, rights)
        return
    try:
        _sync(above)
    except BaseException:
        os.rmdir(folder)  # else the next call would take it for durable
        raise


def _rights(folder: str) -> int:
    """Who may do what in a folder, before the umask; everybody everything where it is not there yet."""
    return _mode(folder) & 0o777 or 0o777


def _is_folder(path: str) -> bool:
    return stat.S_ISDIR(_mode(path))


def _mode(path: str) -> int:
    """Kind and rights; 0 where nothing is there, or nothing that can be looked at."""
    try:
        return os.stat(path).st_mode
    except OSError:
        return 0


def _sync(path: str) -> None:
    """Make the content of a file or the names in a folder durable. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _temporary_name(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name[:50]}.{uuid.uuid4().hex}")  # a name has at most 255 bytes


def _write_temporary(path: str, fill: Callable[[int], None], rights: int) -> str:
    folder, temporary = os.path.dirname(path), _temporary_name(path)
    make_folders(folder)
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 & rights & _rights(folder))
    try:
        try:
            fill(file)
            os.fsync(file)
        finally:
            os.close(file)
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary


def _write_all(file: int, content: bytes | memoryview) -> None:
    left = memoryview(content).cast("B")
    while left:
        left = left[os.write(file, left) :]
