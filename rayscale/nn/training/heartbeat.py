"""Progress: what a trial is doing, reported about twice a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PROGRESS_SECONDS = 0.5


class Heartbeat:
    """Calls `progress` with {phase, step, steps, train_loss, micro_batch}, at most every PROGRESS_SECONDS, and when a
    phase begins.

    So it tells of work that was done, never of time that passed: a rank that hangs falls silent. `steps` is 0 while
    loading; `train_loss` is that of the last curve point, `micro_batch` None while loading.
    """

    def __init__(self, progress: Callable[[dict[str, Any]], None] | None, steps: int = 0) -> None:
        self.progress, self.steps, self.step = progress, steps, 0
        self.phase = "load"
        self.train_loss: float | None = None
        self.micro_batch: int | None = None
        self._next = 0.0

    def enter(self, phase: str) -> None:
        """A phase begins: load, train, validation, test or save."""
        self.phase, self._next = phase, 0.0
        self.beat()

    def beat(self, step: int | None = None) -> None:
        """One step or batch is done; `step` is the number of optimizer steps so far, if it rose."""
        self.step = self.step if step is None else step
        now = time.monotonic()
        if self.progress is None or now < self._next:
            return
        self._next = now + PROGRESS_SECONDS
        state = {"phase": self.phase, "step": self.step, "steps": self.steps}
        self.progress({**state, "train_loss": self.train_loss, "micro_batch": self.micro_batch})
