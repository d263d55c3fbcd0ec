"""A trial leaves nothing behind: global state is set at its start from the trial alone, and put back at its end."""

from __future__ import annotations

import ctypes
import gc
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from rayscale.system.overrides import overridden

# mallopt of glibc (man 3 mallopt): M_MMAP_THRESHOLD at its largest, and M_TRIM_THRESHOLD.
MMAP_THRESHOLD, TRIM_THRESHOLD = (-3, 32 << 20), (-1, 512 << 20)


@contextmanager
def settled(seed: int, threads: int, device: torch.device) -> Iterator[None]:
    """Global settings of torch, numpy and random as a trial needs them; the former ones come back at its end.

    Sets: seeds of all generators, number of threads, default dtype float32, gradients on, full-precision matrix
    products, deterministic algorithms (on CUDA, operations that have none are let through).
    """
    before = _state()
    # Filling fresh memory with NaN would cost time; nothing here reads memory that it has not written.
    filled = overridden(torch.utils.deterministic, fill_uninitialized_memory=False)
    with filled, overridden(torch.backends.cudnn, benchmark=False, deterministic=True):
        try:
            torch.set_num_threads(threads)
            torch.set_default_dtype(torch.float32)
            torch.set_grad_enabled(True)
            torch.set_float32_matmul_precision("highest")
            torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
            seed_everything(seed)
            keep_freed_memory()
            yield
        finally:
            for put_back, value in before:
                put_back(value)
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
    models. The setting cannot be read back, so it stays; it changes no number.
    """
    for threshold in (MMAP_THRESHOLD, TRIM_THRESHOLD):
        _glibc("mallopt", *threshold)


def free_memory(device: torch.device) -> None:
    """Gives back what nothing refers to any more, to the system and the device: the next trial's peak is its own."""
    gc.collect()
    _glibc("malloc_trim", 0)
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _glibc(name: str, *values: int) -> None:
    """Call a function of glibc; nothing without it."""
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*values)


def _state() -> list[tuple[Callable[[Any], Any], Any]]:
    """Setters of global state, and what brings each back to where it is now."""
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    set_deterministic = partial(torch.use_deterministic_algorithms, warn_only=warn_only)
    state: list[tuple[Callable[[Any], Any], Any]] = [
        (torch.set_num_threads, torch.get_num_threads()),
        (torch.set_default_dtype, torch.get_default_dtype()),
        (torch.set_grad_enabled, torch.is_grad_enabled()),
        (torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()),
        (set_deterministic, torch.are_deterministic_algorithms_enabled()),
        (torch.set_rng_state, torch.get_rng_state()),
        (np.random.set_state, np.random.get_state()),
        (random.setstate, random.getstate()),
    ]
    if torch.cuda.is_available():
        state.append((torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    return state
