"""Ranks of a trial as processes of their own, forked from one that has imported torch: importing it takes seconds."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

#: By name, also what torch and transformers import late.
IMPORTED = ["rank_worker", "resume_worker", "torch._dynamo", "peft", "transformers.models.bert.modeling_bert",
            "transformers.models.gpt2.modeling_gpt2"]  # fmt: skip
SECONDS = 400.0


def run_ranks(target: Callable[[int, int, Path], None], size: int, folder: Path) -> None:
    """Call `target(rank, size, folder)` in each process of a group of this size; fails where one of them does."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    processes = [context.Process(target=_join, args=(target, rank, size, folder)) for rank in range(size)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(SECONDS)
        assert [process.exitcode for process in processes] == [0] * size
    finally:
        for process in processes:
            process.kill()


def _join(target: Callable[[int, int, Path], None], rank: int, size: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{size}", rank=rank, world_size=size)
    target(rank, size, folder)
    dist.destroy_process_group()
