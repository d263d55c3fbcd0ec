"""A folder by path or URI through pyarrow.fs, with writes that are whole or absent.

On a local disk as `disk` says; on object storage by one put, which names nothing before it is whole.
"""

from __future__ import annotations

import os
import posixpath
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from rayscale.errors import InputError, StorageError, first_line
from rayscale.system import disk
from rayscale.system.redaction import has_secret, redact

_CLOUD = "check the bucket's name, its region and the credentials (environment or file), or give a local folder"


@dataclass(frozen=True)
class Store:
    """A root folder on a filesystem; names are relative to it, with forward slashes.

    `location` is what a user would type to open it again: the absolute path or the URI.
    """

    filesystem: fs.FileSystem
    root: str
    location: str

    @classmethod
    def open(cls, location: str | Path) -> Store:
        """Open a path or a URI such as s3://bucket/folder. Raises InputError for a URI that pyarrow cannot serve."""
        text = str(location)
        if "://" not in text:
            place = str(Path(text).expanduser().absolute())
            return cls(fs.LocalFileSystem(), place, place)
        if has_secret(text):
            shown = f"storage {redact(text)}: a URI with a secret in it would be written down"
            raise InputError(f"{shown}; give credentials by the environment or a file", code="secret_in_uri")
        try:
            filesystem, root = fs.FileSystem.from_uri(text)
        except (ValueError, OSError, NotImplementedError) as error:
            raise InputError(f"{text} cannot be opened ({first_line(error)}); {_CLOUD}", code="bad_storage") from None
        return cls(filesystem, root, text)

    @property
    def local(self) -> Path | None:
        """The folder on this machine, or None for object storage."""
        return Path(self.root) if isinstance(self.filesystem, fs.LocalFileSystem) else None

    def path(self, name: str) -> str:
        """Full path of a name, as the filesystem wants it."""
        return posixpath.join(self.root, name) if name else self.root

    def exists(self, name: str) -> bool:
        """Whether there is a file or folder of this name."""
        return self.filesystem.get_file_info(self.path(name)).type != fs.FileType.NotFound

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises FileNotFoundError."""
        if self.local is not None:
            return disk.read(self.path(name))
        with self.filesystem.open_input_stream(self.path(name)) as stream:
            return stream.read()

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole: a reader sees the old content or the new, never a part, also after a crash.

        Raises StorageError, and then the name holds what it held before, or the new content, which may not survive.
        """
        with self._writing(name):
            if self.local is not None:
                disk.write_file(self.path(name), content)
            else:
                self._put(name, content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a file whole unless there is one of this name; of several who try, one is told True. Local disks only.

        Raises StorageError.
        """
        with self._writing(name):
            return disk.create(self.path(name), content)

    def rename(self, name: str, new: str) -> None:
        """Give a file another name in its folder. Raises StorageError."""
        with self._writing(new):
            if self.local is not None:
                disk.rename(self.path(name), self.path(new))
            else:
                self.filesystem.move(self.path(name), self.path(new))

    def names(self, folder: str, suffix: str = "") -> list[str]:
        """Names of the files directly in a folder, sorted, without temporary ones; none if there is no folder."""
        if self.local is not None:
            names = disk.files(self.path(folder))
        else:
            selector = fs.FileSelector(self.path(folder), allow_not_found=True)
            infos = self.filesystem.get_file_info(selector)
            names = sorted(info.base_name for info in infos if info.type == fs.FileType.File)
        return [posixpath.join(folder, name) for name in names if name.endswith(suffix) and name[0] != "."]

    def delete(self, name: str) -> None:
        """Delete a file, if it is there. Raises StorageError."""
        with self._writing(name), suppress(FileNotFoundError):
            if self.local is not None:
                os.unlink(self.path(name))
            else:
                self.filesystem.delete_file(self.path(name))

    def delete_folder(self, name: str) -> None:
        """Delete a folder and all in it, if it is there."""
        if self.exists(name):
            self.filesystem.delete_dir(self.path(name))

    def check_writable(self) -> None:
        """Write and remove a probe file. Raises InputError when that fails, before any work is done.

        A local folder that is made here is its owner's alone; one that is there keeps its rights.
        """
        probe = f".probe-{uuid.uuid4().hex}"
        try:
            if self.local is not None:
                with self._writing(""):
                    disk.make_folders(self.root, disk.PRIVATE)
            self.write(probe, b"probe")
            self.delete(probe)
        except StorageError as error:
            text = first_line(error) + ("" if self.local is not None else f"; {_CLOUD}")
            raise InputError(text, code="storage_not_writable", where=self.location) from error

    def recover(self, but: str) -> int:
        """Clear up after a driver that was killed: remove the temporary files of its unfinished writes (their number is
        returned), but not in folder `but`; make durable what it had named but perhaps not yet made so.
        """
        if self.local is None:
            return 0
        with self._writing(""):
            return disk.recover(self.root, but)

    def append(self, name: str, line: bytes) -> None:
        """Add one line to the end of a file, on a fresh line: what a crash cut off stays a line of its own.

        Object storage has no append, so there the object is written anew. Raises StorageError.
        """
        if self.local is not None:
            with self._writing(name):
                disk.append(self.path(name), line)
            return
        before = self.read(name) if self.exists(name) else b""
        self.write(name, before + (b"" if not before or before.endswith(b"\n") else b"\n") + line)

    def _put(self, name: str, content: bytes) -> None:
        """One put, in a thread of its own, which no signal reaches.

        A stream that is left by an exception is closed all the same, and that names what it had been given so far.
        """

        def put() -> None:
            with self.filesystem.open_output_stream(self.path(name)) as stream:
                stream.write(content)

        with ThreadPoolExecutor(1) as thread:
            thread.submit(put).result()

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError.at(f"{self.location.rstrip('/')}/{name}", error) from error
