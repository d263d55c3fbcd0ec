"""Folders that travel: prepared data and checkpoints reach each node once, through Ray's object store.

A worker on the driver's node opens the driver's folder; on any other node the files are written once into that node's
own cache, under the digest of their content. No node reads another's disk.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rayscale.errors import ClusterError
from rayscale.system.disk import PRIVATE, write_folder
from rayscale.system.machine import cache_root


@dataclass(frozen=True)
class Parcel:
    """A folder on the driver's node and, where other nodes may need it, its files in the object store."""

    folder: str
    digest: str
    node_id: str
    files: Any  # ObjectRef of {relative name: uint8 array}, or None on a cluster of one node


def wrap(folder: Path, several_nodes: bool, without: str = "/") -> Parcel:
    """Offer a folder to the workers; files whose names end as `without` says stay here."""
    import ray  # at use: an inline run has files to read, and no Ray

    digest = hashlib.sha256()
    contents: dict[str, np.ndarray] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(without)):
        name, size = file.relative_to(folder).as_posix(), file.stat().st_size
        digest.update(f"{name}\0{size}\0".encode())
        if several_nodes:
            contents[name] = np.fromfile(file, dtype=np.uint8)
            digest.update(hashlib.sha256(contents[name].data).digest())
    reference = ray.put(contents) if several_nodes else None
    return Parcel(str(folder), digest.hexdigest(), ray.get_runtime_context().get_node_id(), reference)


def unwrap(parcel: Parcel) -> Path:
    """The folder on this node, fetched if it is not here yet. Raises ClusterError when it cannot be fetched."""
    import ray  # at use: an inline run has files to read, and no Ray

    if ray.get_runtime_context().get_node_id() == parcel.node_id:
        return Path(parcel.folder)
    here = cache_root() / "parcels" / parcel.digest
    if here.is_dir():
        return here
    if parcel.files is None:
        raise ClusterError(f"a worker on another node needs {parcel.folder}, which was offered to one node only")
    write_files(ray.get(parcel.files), here)
    return here


def read_files(folder: Path) -> dict[str, np.ndarray]:
    """The files of a folder as arrays of bytes by relative name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {file.relative_to(folder).as_posix(): np.fromfile(file, dtype=np.uint8) for file in files}


def write_files(contents: dict[str, np.ndarray], folder: Path) -> None:
    """Write files as a folder that appears whole; if another process was first, its folder is kept."""

    def fill(temporary: Path) -> None:
        for name, content in contents.items():
            file = temporary / name
            if temporary.resolve() not in file.resolve().parents:
                raise ClusterError(f"a parcel holds the name {name!r}, which leads out of its folder")
            file.parent.mkdir(parents=True, exist_ok=True)
            np.asarray(content).tofile(file)

    write_folder(folder, fill, Path.is_dir, PRIVATE)
