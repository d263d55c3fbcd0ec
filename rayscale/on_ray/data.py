"""Text prepared by Ray Data: the steps of `rayscale.text.prepare` as tasks on the cluster.

Which row goes where is decided by hashes on the driver, never by the order in which blocks arrive: any number of
blocks, workers or nodes gives the same files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rayscale.checkpoints import find_checkpoint
from rayscale.text import prepare as steps
from rayscale.text.prepared import Prepared, find_prepared
from rayscale.text.tokenise import TokenizerSpec

if TYPE_CHECKING:
    from rayscale.study import Study


def prepare(
    study: Study,
    tokenizers: Sequence[TokenizerSpec],
    seeds: Iterable[int],
    progress: Callable[[str], None] | None = None,
) -> dict[str, Prepared]:
    """Prepared data by tokenizer name. Ray must be initialised, unless everything is there already.

    Call it before workers are started that hold all CPUs: its tasks want one CPU each. Raises DataError for wrong text
    and InputError for a checkpoint that cannot be found.
    """
    seeds = list(seeds)
    local = [_on_this_machine(spec) for spec in tokenizers]
    found = {spec.name: find_prepared(study, spec, seeds) for spec in local}
    if all(found.values()):
        return {given.name: found[spec.name] for given, spec in zip(tokenizers, local, strict=True)}  # type: ignore[misc]
    with _quiet():
        made = steps.prepare(study, local, seeds, RayWorkers(), progress)
    return {given.name: made[spec.name] for given, spec in zip(tokenizers, local, strict=True)}


def _on_this_machine(spec: TokenizerSpec) -> TokenizerSpec:
    """The spec with a folder in place of a hub id, downloaded if need be."""
    if spec.kind != "pretrained" or Path(str(spec.path)).is_dir():
        return spec
    return replace(spec, path=str(find_checkpoint(str(spec.path), spec.revision).folder))


class RayWorkers:
    """Workers that are tasks of Ray Data; `blocks` sets how many blocks the tables are cut into (None: as they are)."""

    def __init__(self, blocks: int | None = None) -> None:
        self.blocks = blocks

    def read(self, function: Callable[[Any], Iterator[pa.Table]], items: Sequence[Any]) -> Iterable[pa.Table]:
        """One task per item, on this node: the files lie here, and maybe nowhere else."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        def run(batch: pa.Table) -> Iterator[pa.Table]:
            for number in batch["item"].to_pylist():
                yield from function(items[number])

        numbers = ray.data.from_items([{"item": number} for number in range(len(items))], override_num_blocks=len(items))
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        return _tables(
            numbers.map_batches(run, batch_size=None, batch_format="pyarrow", scheduling_strategy=here, num_cpus=1)
        )

    def transform(self, function: Callable[[pa.Table], pa.Table], tables: Sequence[pa.Table]) -> Iterable[pa.Table]:
        """One task per table (or block), anywhere on the cluster."""
        import ray

        rows = ray.data.from_arrow(list(tables))
        if self.blocks is not None:
            rows = rows.repartition(self.blocks)
        return _tables(rows.map_batches(function, batch_size=None, batch_format="pyarrow", num_cpus=1))


def _tables(dataset: Any) -> Iterator[pa.Table]:
    for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        if len(table):
            yield table


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray Data without progress bars and plan printouts: one line of ours says what is going on."""
    from ray.data import DataContext

    context = DataContext.get_current()
    settings = {"enable_progress_bars": False, "enable_operator_progress_bars": False, "print_on_execution_start": False}
    before = {name: getattr(context, name) for name in settings}
    logger = logging.getLogger("ray.data")
    level = logger.level
    try:
        for name, value in settings.items():
            setattr(context, name, value)
        logger.setLevel(logging.ERROR)
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        logger.setLevel(level)
