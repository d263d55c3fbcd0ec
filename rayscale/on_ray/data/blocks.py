"""Blocks of rows worked on by Ray Data: the one way in which a function meets every table of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from rayscale.system.machine import physical_cores

T = TypeVar("T")


def read_here(items: Sequence[T], function: Callable[[T], Iterable[pa.Table]] = lambda table: (table,)) -> Any:
    """A dataset of the tables that `function` makes of each item, by short tasks on this node; items may be tables.

    The files lie here, and maybe nowhere else, and an item of `shards.Blocks` is read when it is asked for. The tasks
    want no CPU, of which the node may offer none, and `concurrency` keeps them to its cores.
    """
    import ray

    def run(batch: pa.Table) -> Iterator[pa.Table]:
        for number in batch["item"].to_pylist():
            yield from function(items[number])

    numbers = ray.data.from_items([{"item": n} for n in range(len(items))], override_num_blocks=len(items))
    return numbers.map_batches(
        run, batch_size=None, batch_format="pyarrow", num_cpus=0, concurrency=physical_cores(),
        label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
    )  # fmt: skip


def tables_of(out: Any) -> Iterator[pa.Table]:
    """The tables of a dataset, in any order, a few at a time."""
    for table in out.iter_batches(batch_size=None, batch_format="pyarrow"):
        if len(table):
            yield table


def mapped(rows: Any, function: Callable[..., Any], **options: Any) -> Iterator[pa.Table]:
    """The tables that `function` (or a class of callables) makes of every block of a dataset, in any order."""
    return tables_of(rows.map_batches(function, batch_size=None, batch_format="pyarrow", **options))


def share_of_cpus(tables: int) -> dict[str, Any]:
    """What each of so many tasks asks for: a CPU.

    Where others hold every CPU a task would wait for one without a word (ray#41603): better two that share.
    """
    import ray

    free = ray.available_resources().get("CPU", 0) >= 1
    return {"num_cpus": 1} if free else {"num_cpus": 0, "concurrency": min(tables, 2)}
