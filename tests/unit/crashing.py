"""A disk in memory that can crash at every call and byte, in place of `os` in rayscale.system.disk.

It keeps what processes see apart from what the power's failure would leave: of bytes that were not flushed any part may
be there, and of changes to a folder that was not flushed any. A killed process loses only what it had not yet done.
"""

from __future__ import annotations

import errno
import os
import posixpath
import random
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class Crash(BaseException):
    """The process is gone: no handler of its own can do anything more."""


@dataclass(eq=False)
class File:
    """The bytes that readers see, and those that are on the disk for good."""

    seen: bytearray = field(default_factory=bytearray)
    kept: bytes = b""

    def lose(self, chance: random.Random) -> None:
        """The power fails: what was not flushed is there up to some byte, perhaps with a hole of zeros before."""
        if bytes(self.seen) != self.kept:
            end = chance.randint(min(len(self.kept), len(self.seen)), len(self.seen))
            hole = chance.randint(0, end) if chance.random() < 0.3 else 0
            self.seen = bytearray(bytes(hole) + bytes(self.seen[hole:end]))
        self.kept = bytes(self.seen)


@dataclass(eq=False)
class Folder:
    """Names and what they stand for; `changes` are those since it was flushed, each of them whole or absent."""

    seen: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)

    def change(self, names: dict[str, Any]) -> None:
        _apply(self.seen, names)
        self.changes.append(names)

    def lose(self, chance: random.Random) -> None:
        for names in self.changes:
            if chance.random() < 0.5:
                _apply(self.kept, names)
        self.changes, self.seen = [], dict(self.kept)
        for entry in self.seen.values():
            entry.lose(chance)


def _apply(entries: dict[str, Any], names: dict[str, Any]) -> None:
    for name, entry in names.items():
        if entry is None:
            entries.pop(name, None)
        else:
            entries[name] = entry


class Disk:
    """Takes the place of the module `os`. `at_step` is called before each call with its number since `watch`."""

    path = posixpath

    def __init__(self) -> None:
        self.root = Folder()
        self._open: dict[int, tuple[Any, int]] = {}
        self._handle, self._step = 3, 0
        self._dead = False
        self._at_step: Callable[[int], None] | None = None
        self._crash: tuple[int, float] | None = None  # at which call, and after which part of its bytes
        self._fail: int | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("O_") or name.startswith("SEEK_"):
            return getattr(os, name)
        raise AttributeError(name)

    @contextmanager
    def watch(
        self, *, crash: tuple[int, float] | None = None, fail: int | None = None, at_step: Any = None
    ) -> Iterator[None]:
        """Within the block: crash at a call, or let it fail once with a full disk, or look on before each."""
        self._step, self._crash, self._fail, self._at_step = 0, crash, fail, at_step
        try:
            yield
        finally:
            self._crash = self._fail = self._at_step = None

    def restart(self, chance: random.Random | None) -> None:
        """A new process; after a failure of the power if `chance` is given, which decides what it left."""
        self._open.clear()
        self._dead = False
        if chance is not None:
            self.root.lose(chance)

    # ---- the calls

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        self._next()
        folder, name = self._place(path)
        entry = folder.seen.get(name) if name else folder
        if entry is None:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
            entry = File()
            folder.change({name: entry})
        elif flags & os.O_EXCL:
            raise FileExistsError(errno.EEXIST, "File exists", path)
        self._handle += 1
        self._open[self._handle] = (entry, 0)
        return self._handle

    def write(self, handle: int, content: Any) -> int:
        entry, _ = self._open[handle]
        crash = self._crash and self._crash[0] == self._step
        if crash:
            entry.seen += bytes(content)[: int(len(content) * self._crash[1])]  # type: ignore[index]
        self._next()
        written = bytes(content)[: max(1, len(content) * 2 // 3)]  # a disk may take less than it is given
        entry.seen += written
        return len(written)

    def read(self, handle: int, size: int) -> bytes:
        self._next()
        entry, at = self._open[handle]
        part = bytes(entry.seen[at : at + size])
        self._open[handle] = (entry, at + len(part))
        return part

    def lseek(self, handle: int, offset: int, whence: int) -> int:
        return len(self._open[handle][0].seen) + offset

    def pread(self, handle: int, size: int, at: int) -> bytes:
        return bytes(self._open[handle][0].seen[at : at + size])

    def close(self, handle: int) -> None:
        if self._dead:
            raise Crash
        del self._open[handle]

    def fsync(self, handle: int) -> None:
        self._next()
        entry = self._open[handle][0]
        if isinstance(entry, File):
            entry.kept = bytes(entry.seen)
        else:
            entry.kept, entry.changes = dict(entry.seen), []

    def replace(self, path: str, new: str) -> None:
        self._next()
        (above, name), (new_above, new_name) = posixpath.split(path), posixpath.split(new)
        assert above == new_above, "renamed within one folder only"
        folder = self._folder(above)
        if name not in folder.seen:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        if isinstance(there := folder.seen.get(new_name), Folder) and there.seen:
            raise OSError(errno.ENOTEMPTY, "Directory not empty", path, None, new)
        folder.change({name: None, new_name: folder.seen[name]})

    def unlink(self, path: str) -> None:
        self._next()
        folder, name = self._place(path)
        if name not in folder.seen:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        folder.change({name: None})

    def rmdir(self, path: str) -> None:
        self._next()
        folder, name = self._folder(posixpath.dirname(path)), posixpath.basename(path)
        assert not folder.seen[name].seen, "only a folder that is empty"
        folder.change({name: None})

    def rmtree(self, path: str, ignore_errors: bool) -> None:
        """In place of `shutil.rmtree`: the name goes, with all that is in it."""
        assert ignore_errors
        self._next()
        self._folder(posixpath.dirname(path)).change({posixpath.basename(path): None})

    def stat(self, path: str) -> Any:
        folder, name = self._place(path)
        entry = folder.seen.get(name) if name else folder
        if entry is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return SimpleNamespace(st_mode=stat.S_IFDIR | 0o777 if isinstance(entry, Folder) else stat.S_IFREG | 0o666)

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        self._next()
        folder, name = self._place(path)
        if not name or name in folder.seen:
            raise FileExistsError(errno.EEXIST, "File exists", path)
        folder.change({name: Folder()})

    @contextmanager
    def scandir(self, path: str) -> Iterator[list[Any]]:
        self._next()
        yield [
            SimpleNamespace(name=name, is_file=lambda entry=entry: isinstance(entry, File))
            for name, entry in self._folder(path).seen.items()
        ]

    def walk(self, path: str) -> Iterator[tuple[str, list[str], list[str]]]:
        self._next()
        try:
            entries = dict(self._folder(path).seen)
        except FileNotFoundError:
            return
        folders = [name for name, entry in entries.items() if isinstance(entry, Folder)]
        yield path, folders, [name for name in entries if name not in folders]
        for name in folders:
            yield from self.walk(posixpath.join(path, name))

    # ---- what holds them together

    def content(self, path: str) -> bytes:
        """The bytes under a name, unseen by the process."""
        folder, name = self._place(path)
        return bytes(folder.seen[name].seen)

    def spoil(self, path: str, content: bytes) -> None:
        """The disk itself changes a file, for good."""
        folder, name = self._place(path)
        file = folder.seen[name]
        file.seen, file.kept = bytearray(content), content

    def _next(self) -> None:
        if self._dead:
            raise Crash
        if self._at_step:
            look, self._at_step = self._at_step, None  # what looks on makes calls of its own
            step, self._step = self._step, -(10**9)
            look(step)
            self._at_step, self._step = look, step
        if self._crash and self._crash[0] == self._step:
            self._dead = True
            raise Crash
        failed = self._fail == self._step
        self._step += 1
        if failed:
            self._fail = None
            raise OSError(errno.ENOSPC, "No space left on device")

    def _folder(self, path: str) -> Folder:
        folder: Any = self.root
        for part in path.strip("/").split("/") if path.strip("/") else []:
            folder = folder.seen.get(part)
            if not isinstance(folder, Folder):
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return folder

    def _place(self, path: str) -> tuple[Folder, str]:
        above, name = posixpath.split(path.rstrip("/") or "/")
        found = self._folder(above)
        if isinstance(found.seen.get(name), Folder):
            return found.seen[name], ""
        return found, name
