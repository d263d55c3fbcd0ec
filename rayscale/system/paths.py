"""The files that a path in a study names: one, or all that match a pattern."""

from __future__ import annotations

import glob
from pathlib import Path

#: Schemes of addresses of text that lies elsewhere, by the library that reads them.
BY_PYARROW = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs")
BY_FSSPEC = ("hf", "file", "memory")


def files_of(pattern: str) -> list[str]:
    """The file of this very name if there is one (brackets and all), else every match of the pattern, sorted.

    Patterns are those of `glob`: `*`, `?`, `[...]`, and `**` for any number of folders.
    """
    try:
        return [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern, recursive=True))
    except OSError:  # a name longer than any file's
        return []


def is_folder(path: Path) -> bool:
    """Whether there is a folder of this name; a name longer than any folder's is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def below(folder: Path, pattern: str) -> str:
    """The pattern as seen from `folder`, whose own brackets and stars are no pattern; an absolute one as it is."""
    whole = str(folder / pattern)
    if Path(pattern).is_absolute() or files_of(whole) == [whole]:
        return whole
    return str(Path(glob.escape(str(folder))) / pattern)
