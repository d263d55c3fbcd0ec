"""When a trial is saved: after the same step on all ranks, about every so many seconds, without asking after each step.

The ranks look together at the slowest one's clock: after the first step, and then always half-way to where the speed so
far puts the next savepoint. That is about log2 of the steps between two savepoints, and a trial that slows down in
between is at most twice too late.
"""

from __future__ import annotations

import time

from rayscale.nn.group import Group


class Rhythm:
    """Says after which steps to save, for a trial that goes on after `step` and is to be saved every `seconds`."""

    def __init__(self, seconds: float, step: int, group: Group) -> None:
        self.seconds, self.group = seconds, group
        self.interval_steps = 0.0  # steps between savepoints at the speed of the last look; 0 before the first
        self.restart(step)

    def restart(self, step: int) -> None:
        """A savepoint was just written after `step`, or training goes on from there."""
        self._began, self._from, self._look = time.monotonic(), step, step + 1

    def due(self, step: int, busy: bool) -> bool:
        """Whether to save after this step: no while any rank is `busy`. Every rank must ask after every step."""
        if step < self._look:
            return False
        elapsed, waits = self.group.largest([time.monotonic() - self._began, float(busy)])
        a_step = max(float(elapsed) / (step - self._from), 1e-9)
        self.interval_steps = max(1.0, self.seconds / a_step)
        left = (self.seconds - float(elapsed)) / a_step
        if left < 0.5 and not waits:
            return True
        ahead = left / 2 if left >= 0.5 else 1.0 / a_step  # while a rank is busy, about once a second
        self._look = step + (max(1, int(ahead)) if self.group.world_size > 1 else 1)  # a lone rank asks only itself
        return False
