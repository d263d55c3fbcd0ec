"""Text prepared by Ray Data: the steps of `rayscale.text.preparation` as tasks on the cluster.

Which row goes where is decided by hashes on the driver, never by the order in which blocks arrive: any number of
blocks, workers or nodes gives the same files.
"""

from __future__ import annotations

import itertools
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rayscale.on_ray.data.augment import augment
from rayscale.on_ray.data.blocks import mapped, read_here, share_of_cpus, tables_of
from rayscale.study.augment_key import Augmentation, read
from rayscale.study.checkpoints import find_checkpoint
from rayscale.system.overrides import overridden
from rayscale.text import preparation as steps
from rayscale.text import workers
from rayscale.text.augment.children import find_all, name_of
from rayscale.text.prepared import Prepared
from rayscale.text.tokens.encode import TokenizerSpec

if TYPE_CHECKING:
    from rayscale.study.study import Study

#: What blocks on their way may take of the object store, of all nodes together: a few for each CPU.
STORE_BYTES_A_CPU = 1 << 27
LEAST_STORE_BYTES = 1 << 28


def prepare(
    study: Study,
    tokenizers: Sequence[TokenizerSpec],
    seeds: Iterable[int],
    progress: Callable[[str], None] | None = None,
    workers: workers.Workers | None = None,
) -> dict[str, Prepared]:
    """Prepared data by `name_of` tokenizer and augmentation. Ray must be initialised, unless all is there already or
    other workers are given.

    Best called before workers are started that hold all CPUs: its tasks want one CPU each. Raises DataError for wrong
    text and InputError for a checkpoint that cannot be found.
    """
    seeds = list(seeds)
    local = [_on_this_machine(spec) for spec in tokenizers]
    prepared = find_all(study, local, seeds)
    if not all(prepared.values()):
        with nullcontext() if workers else _quiet():
            prepared = dict(steps.prepare(study, local, seeds, workers or RayWorkers(), progress))
    # A hub id and the folder that it was downloaded to may bear different names.
    augmentations = dict.fromkeys(["none", *(read(entry).name for entry in study.data.augment)])
    pairs = itertools.product(zip(local, tokenizers, strict=True), augmentations)
    names = [(name_of(here.name, name), name_of(given.name, name)) for (here, given), name in pairs]
    return {given: text for here, given in names if (text := prepared.get(here)) is not None}


def _on_this_machine(spec: TokenizerSpec) -> TokenizerSpec:
    """The spec with a folder in place of a hub id, downloaded if need be."""
    if spec.kind != "pretrained" or Path(str(spec.path)).is_dir():
        return spec
    return replace(spec, path=str(find_checkpoint(str(spec.path), spec.revision).folder))


class RayWorkers:
    """Workers that are tasks of Ray Data."""

    def read(self, function: Callable[[Any], Iterator[pa.Table]], items: Sequence[Any]) -> Iterable[pa.Table]:
        """One task per item, on this node: the files lie here, and maybe nowhere else."""
        return tables_of(read_here(items, function))

    def augment(self, augmentation: Augmentation, tables: Sequence[pa.Table]) -> Iterable[pa.Table]:
        """One task per table, anywhere on the cluster; steps on models in workers that stay up."""
        return augment(augmentation, tables)

    def transform(self, function: Callable[[pa.Table], pa.Table], tables: Sequence[pa.Table]) -> Iterable[pa.Table]:
        """One task per table, anywhere on the cluster; tables are read here, a few ahead of the work."""
        return mapped(read_here(tables), function, **share_of_cpus(len(tables)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray Data in bounded memory, without progress bars and plan printouts: a line of ours says what is going on."""
    import ray
    from ray.data import DataContext, ExecutionResources

    context = DataContext.get_current()
    memory = max(LEAST_STORE_BYTES, int(ray.cluster_resources().get("CPU", 1)) * STORE_BYTES_A_CPU)
    limits = ExecutionResources(object_store_memory=memory)
    shown = ("enable_progress_bars", "enable_operator_progress_bars", "print_on_execution_start")
    logger = logging.getLogger("ray.data")
    level = logger.level
    with (
        overridden(context.execution_options, resource_limits=limits),
        overridden(context, **dict.fromkeys(shown, False)),
        warnings.catch_warnings(),
    ):
        # It counts the inputs before all have come, and then calls a limit of two tasks too high.
        warnings.filterwarnings("ignore", message="The maximum number of concurrent tasks", category=UserWarning)
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
