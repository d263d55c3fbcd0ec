"""Augmentation as tasks of Ray Data, or, where a step runs a model, as a pool of actors that load it once.

Files that a step needs (WordNet, a table, checkpoints) lie on the driver's machine and reach each other node once.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from rayscale.on_ray.data.blocks import mapped, read_here, share_of_cpus
from rayscale.on_ray.data.parcels import Parcel, unwrap, wrap
from rayscale.study.augment_key import Augmentation, read
from rayscale.system.machine import cache_root
from rayscale.text.augment.chain import Chain, fingerprint


@dataclass(frozen=True)
class Offered:
    """An augmentation on its way to the workers: its entry in a study, and the files that its settings name."""

    entry: Mapping[str, Any] = field(compare=False)
    #: (step, setting) → the folder, the name of a file in it
    files: Mapping[tuple[str, str], tuple[Parcel, str]] = field(compare=False)
    mark: str  # by which two are the same


def augment(augmentation: Augmentation, tables: Sequence[pa.Table]) -> Iterator[pa.Table]:
    """The children of every table of training rows, in any order. The augmentation's files must be located."""
    import ray

    if not tables:
        return
    offered, blocks = _offer(augmentation), read_here(tables)
    if not augmentation.on_models:
        yield from mapped(blocks, partial(_apply, offered), **share_of_cpus(len(tables)))
        return
    there = ray.cluster_resources()
    gpus = int(there.get("GPU", 0))
    share = {"num_gpus": 1} if gpus else {"num_cpus": share_of_cpus(1)["num_cpus"]}
    most = max(1, min(len(tables), gpus or int(there.get("CPU", 1)) or 1))
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=most)
    yield from mapped(blocks, _Worker, fn_constructor_args=(offered,), compute=pool, **share)


def _offer(augmentation: Augmentation) -> Offered:
    from rayscale.on_ray.cluster import living_nodes

    several = len(living_nodes()) > 1
    files = {}
    for step in augmentation.steps:
        for setting in step.augmenter.paths:
            path = Path(str(getattr(step.settings, setting)))
            if path.exists():
                folder = path if path.is_dir() else _alone(path)
                files[step.name, setting] = (wrap(folder, several), "" if path.is_dir() else path.name)
    return Offered(augmentation.entry(), files, fingerprint(augmentation))


def _alone(file: Path) -> Path:
    """A folder that holds nothing but this file."""
    import hashlib

    folder = cache_root() / "tables" / hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / file.name).exists():
        shutil.copyfile(file, folder / file.name)
    return folder


@lru_cache(maxsize=2)
def _opened(offered: Offered) -> Chain:
    """The chain, opened once in each process."""
    entry = {name: dict(value) if isinstance(value, Mapping) else value for name, value in offered.entry.items()}
    for (step, setting), (parcel, name) in offered.files.items():
        entry[step][setting] = str(unwrap(parcel) / name)
    return Chain(read(entry))


def _apply(offered: Offered, block: pa.Table) -> pa.Table:
    return _opened(offered)(block)


class _Worker:
    """An actor of the pool."""

    def __init__(self, offered: Offered) -> None:
        self._chain = _opened(offered)

    def __call__(self, block: pa.Table) -> pa.Table:
        return self._chain(block)
