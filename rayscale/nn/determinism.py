"""A trial leaves nothing behind: global state is set at its start from the trial alone, and put back at its end."""

from __future__ import annotations

import ctypes
import gc
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

# mallopt of glibc (man 3 mallopt): M_MMAP_THRESHOLD at its largest, and M_TRIM_THRESHOLD.
MMAP_THRESHOLD, TRIM_THRESHOLD = (-3, 32 << 20), (-1, 512 << 20)


@contextmanager
def settled(seed: int, threads: int, device: torch.device) -> Iterator[None]:
    """Global settings of torch, numpy and random as a trial needs them; the former ones come back at its end.

    Sets: seeds of all generators, number of threads, default dtype float32, gradients on, full-precision matrix
    products, deterministic algorithms (on CUDA, operations that have none are let through).
    """
    before = _read()
    try:
        torch.set_num_threads(threads)
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        torch.set_float32_matmul_precision("highest")
        torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
        # Filling fresh memory with NaN would cost time; nothing here reads memory that it has not written.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        seed_everything(seed)
        keep_freed_memory()
        yield
    finally:
        _restore(before)
        free_memory(device)


def seed_everything(seed: int, rank: int = 0) -> None:
    """Seeds torch (all devices), numpy and random; ranks differ, rank 0 has a lone worker's.

    They must: where dropout does not go by row (see `Job.drops_by_row`), their rows would share masks.
    """
    mixed = int(np.random.SeedSequence([seed, rank]).generate_state(1)[0]) if rank else seed
    random.seed(mixed)
    np.random.seed(mixed % 2**32)
    torch.manual_seed(mixed)


def keep_freed_memory() -> None:
    """Lets a training step reuse the memory of the step before instead of asking the system for fresh pages.

    Logits are megabytes, which glibc gives back at once and faults in again: measured, 11-23% of a step on narrow
    models. The setting cannot be read back, so it stays; it changes no number. Nothing happens without glibc.
    """
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(*MMAP_THRESHOLD)
        mallopt(*TRIM_THRESHOLD)


def free_memory(device: torch.device) -> None:
    """Gives back what nothing refers to any more: to the system, and to the device."""
    gc.collect()
    return_freed_memory()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def return_freed_memory() -> None:
    """Gives free memory back to the system, so that the next trial's peak is its own. Nothing happens without glibc."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def _read() -> dict[str, Any]:
    return {
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        "benchmark": torch.backends.cudnn.benchmark,
        "cudnn": torch.backends.cudnn.deterministic,
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None,
        "numpy": np.random.get_state(),
        "python": random.getstate(),
    }


def _restore(before: dict[str, Any]) -> None:
    torch.set_num_threads(before["threads"])
    torch.set_default_dtype(before["dtype"])
    torch.set_grad_enabled(before["grad"])
    torch.set_float32_matmul_precision(before["matmul"])
    torch.use_deterministic_algorithms(before["deterministic"], warn_only=before["warn_only"])
    torch.utils.deterministic.fill_uninitialized_memory = before["fill"]  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = before["benchmark"]
    torch.backends.cudnn.deterministic = before["cudnn"]
    torch.set_rng_state(before["torch"])
    if before["cuda"] is not None:
        torch.cuda.set_rng_state_all(before["cuda"])
    np.random.set_state(before["numpy"])
    random.setstate(before["python"])
