"""What a run takes on disk: records, the models that are kept, and checkpoints of the trials that run at once."""

from __future__ import annotations

from collections.abc import Sequence

from rayscale.estimate import Planned
from rayscale.savepoints import KEPT
from rayscale.study import Run

RECORD_BYTES = 20_000  # a trial's record, curve and log
MODEL_BYTES = 4  # a parameter in a model that is kept
SAVED_BYTES = 12  # a trained parameter in a checkpoint: its weight and AdamW's two moments
BEST_BYTES = 4  # with early stopping: its weight at the lowest validation loss
ESTIMATE_ERROR = 2.0  # by which estimates of seconds may be too low


def disk_bytes(planned: Sequence[Planned], run: Run, slots: int) -> int:
    """The most that the trials take on disk at one time."""
    models = [MODEL_BYTES * each.params for each in planned]
    kept = {"none": 0, "best": max(models, default=0), "all": sum(models)}[run.keep]
    return kept + RECORD_BYTES * len(planned) + checkpoint_bytes(planned, run, slots)


def checkpoint_bytes(planned: Sequence[Planned], run: Run, slots: int) -> int:
    """The most that checkpoints take: while a trial is saved the new one lies beside those that are kept.

    Only trials count that may take longer than `checkpoint_seconds`, of these the largest that fill the slots.
    """
    if run.checkpoint_seconds is None:
        return 0
    saved = [each for each in planned if ESTIMATE_ERROR * each.seconds > run.checkpoint_seconds]
    total = 0
    for each in sorted(saved, key=lambda p: p.trained / p.trial.gpus, reverse=True):
        if slots <= 0:
            break
        best = BEST_BYTES if each.trial.training.get("early_stopping") else 0
        total += (KEPT + 1) * (SAVED_BYTES + best) * each.trained
        slots -= each.trial.gpus
    return total
