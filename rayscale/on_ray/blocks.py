"""Blocks of rows worked on by Ray Data: the one way in which a function meets every table of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa


def mapped(rows: Any, function: Callable[..., Any], **options: Any) -> Iterator[pa.Table]:
    """The tables that `function` (or a class of callables) makes of every block of a dataset, in any order."""
    out = rows.map_batches(function, batch_size=None, batch_format="pyarrow", **options)
    for table in out.iter_batches(batch_size=None, batch_format="pyarrow"):
        if len(table):
            yield table


def share_of_cpus(tables: int) -> dict[str, Any]:
    """What each of so many tasks asks for: a CPU.

    Where others hold every CPU a task would wait for one without a word (ray#41603): better two that share.
    """
    import ray

    free = ray.available_resources().get("CPU", 0) >= 1
    return {"num_cpus": 1} if free else {"num_cpus": 0, "concurrency": min(tables, 2)}
