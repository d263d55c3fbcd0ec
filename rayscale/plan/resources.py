"""What a run takes on disk: records, the models that are kept, and checkpoints of the trials that run at once."""

from __future__ import annotations

from collections.abc import Sequence

from rayscale.plan.estimate import Planned
from rayscale.runs.savepoints import KEPT
from rayscale.study.study import RunSettings
from rayscale.system.machine import GIGA, Machine

RECORD_BYTES = 20_000  # a trial's record, curve and log
MODEL_BYTES = 4  # a parameter in a model that is kept
SAVED_BYTES = 12  # a trained parameter in a checkpoint: its weight and AdamW's two moments
BEST_BYTES = 4  # with early stopping: its weight at the lowest validation loss
ESTIMATE_ERROR = 2.0  # by which estimates of seconds may be too low


def disk_bytes(planned: Sequence[Planned], run: RunSettings, slots: int) -> int:
    """The most that the trials take on disk at one time."""
    models = [MODEL_BYTES * p.params for p in planned]
    kept = {"none": 0, "best": max(models, default=0), "all": sum(models)}[run.keep]
    return kept + RECORD_BYTES * len(planned) + checkpoint_bytes(planned, run, slots)


def checkpoint_bytes(planned: Sequence[Planned], run: RunSettings, slots: int) -> int:
    """The most that checkpoints take: while a trial is saved the new one lies beside those that are kept.

    Only trials count that may take longer than `checkpoint_seconds`, of these the largest that fill the slots.
    """
    if run.checkpoint_seconds is None:
        return 0
    saved = [p for p in planned if ESTIMATE_ERROR * p.seconds > run.checkpoint_seconds]
    total = 0
    for largest in sorted(saved, key=lambda p: p.trained / p.trial.gpus, reverse=True):
        if slots <= 0:
            break
        best = BEST_BYTES if largest.trial.settings.early_stopping else 0
        total += (KEPT + 1) * (SAVED_BYTES + best) * largest.trained
        slots -= largest.trial.gpus
    return total


CONTEXT_BYTES = 500_000_000  # of each process on a GPU beside what torch allocates there: assumed, not measured


def crowd(planned: Sequence[Planned], machine: Machine) -> tuple[str, str] | None:
    """What trials take at once on a GPU beside what it has, and what to write instead, empty where all fit.

    Each counts as the largest of the plan, since a lane keeps the memory that its largest trial took. None without
    trials on GPUs, or where their memory is not known.
    """
    if not planned or machine.device != "cuda" or not machine.gpu_bytes:
        return None
    peak = max(p.peak_memory_bytes for p in planned) + CONTEXT_BYTES
    trials = min(machine.trials_per_gpu, len(planned))
    fitting = machine.gpu_bytes // peak
    together = f"{trials} trials that share a GPU take" if trials > 1 else "a trial takes"
    has = f"{machine.device_name} has {machine.gpu_bytes / GIGA:.1f} GB"
    needed = f"{together} up to {trials * peak / GIGA:.1f} GB by estimate, {has}"
    if fitting >= trials:
        return needed, ""
    shares = f"run.trials_per_gpu: {max(1, fitting)}"
    if fitting:
        return needed, f"write {shares}"
    smaller = "training.gradient_checkpointing: true, smaller models or lora"
    return needed, f"write {f'{shares}, and ' if trials > 1 else ''}{smaller}, or use GPUs with more memory"
