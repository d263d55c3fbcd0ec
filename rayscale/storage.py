"""A folder by path or URI through pyarrow.fs, with writes that are whole or absent.

On a local disk: temporary file → fsync → rename → fsync of the folder. On object storage: one put, atomic by nature.
"""

from __future__ import annotations

import os
import posixpath
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from rayscale.errors import InputError
from rayscale.redaction import has_secret, redact


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
            raise InputError(f"storage {text}: {error}", code="bad_storage") from None
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
        with self.filesystem.open_input_stream(self.path(name)) as stream:
            return stream.read()

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole: a reader sees the old content or the new, never a part, also after a crash."""
        target = self.path(name)
        if self.local is None:
            with self.filesystem.open_output_stream(target) as stream:
                stream.write(content)
            return
        folder = os.path.dirname(target)
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f".{os.path.basename(target)}.{uuid.uuid4().hex}")
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def names(self, folder: str, suffix: str = "") -> Iterator[str]:
        """Names of the files directly in a folder, sorted, without temporary ones; nothing if there is no folder."""
        selector = fs.FileSelector(self.path(folder), allow_not_found=True)
        for info in sorted(self.filesystem.get_file_info(selector), key=lambda i: i.path):
            if info.type == fs.FileType.File and info.base_name.endswith(suffix) and info.base_name[0] != ".":
                yield posixpath.join(folder, info.base_name)

    def delete_folder(self, name: str) -> None:
        """Delete a folder and all in it, if it is there."""
        if self.exists(name):
            self.filesystem.delete_dir(self.path(name))

    def check_writable(self) -> None:
        """Write and remove a probe file. Raises InputError when that fails, before any work is done."""
        probe = f".probe-{uuid.uuid4().hex}"
        try:
            self.write(probe, b"probe")
            self.filesystem.delete_file(self.path(probe))
        except OSError as error:
            raise InputError(f"storage {self.root} cannot be written: {error}", code="storage_not_writable") from None

    def append(self, name: str, content: bytes) -> None:
        """Add to the end of a file; object storage has no append, so there the object is written anew."""
        if self.local is None:
            self.write(name, (self.read(name) if self.exists(name) else b"") + content)
            return
        target = self.path(name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "ab") as file:
            file.write(content)
