"""The window in which a trial's speed is measured: all of training but its first steps and its pauses."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rayscale.nn.training.early_stopping import EarlyStopping

# The first steps allocate memory, compile kernels and open connections between workers. A short trial leaves out a
# quarter of its steps at most, so that a window is left.
WARM_UP_STEPS = 10
WARM_UP_SHARE = 1 / 4


class SpeedWindow:
    """Counts rows and tokens, and the seconds that training took for them, from the end of the warm-up on.

    A trial that was interrupted gives what it had counted before; it warms up once more. Times are right only where the
    device has done what it was given: call `add` for the last step of the warm-up, and `close`, behind a
    synchronisation.
    """

    def __init__(self, rows: int = 0, tokens: int = 0, seconds: float = 0.0) -> None:
        self.rows, self.tokens, self._before = rows, tokens, seconds
        self.start(0)

    def start(self, steps: int) -> None:
        """Training begins, with this many steps ahead."""
        self._warm_up = min(WARM_UP_STEPS, int(steps * WARM_UP_SHARE))
        self._done, self._paused, self._seconds = 0, 0.0, 0.0
        self._since = time.perf_counter()

    @property
    def warms_up_next(self) -> bool:
        """Whether the step that is to be added next is the last of the warm-up."""
        return self._done + 1 == self._warm_up

    def add(self, rows: int, tokens: int) -> None:
        """A step over this many rows and tokens (of all workers) was done."""
        self._done += 1
        if self._done > self._warm_up:
            self.rows += rows
            self.tokens += tokens
        elif self._done == self._warm_up:
            self._since, self._paused = time.perf_counter(), 0.0

    def pause(self, seconds: float) -> None:
        """Training stood still for this long."""
        self._paused += seconds

    def close(self) -> None:
        """Training ended."""
        self._seconds = self.so_far

    @property
    def so_far(self) -> float:
        """Length of the window up to now, in seconds."""
        inside = self._done > self._warm_up
        return self._before + (time.perf_counter() - self._since - self._paused if inside else 0.0)

    @property
    def seconds(self) -> float:
        """Length of the window; 0 where training ended within the warm-up."""
        return self._seconds if self.rows else 0.0


@dataclass
class Course:
    """What training has measured so far; `sums` are (loss, targets) of each stretch between curve points, `decay` is
    what weight decay alone has made of a weight of the body."""

    watch: EarlyStopping

    curve: list[dict[str, float | int | None]] = field(default_factory=list)
    sums: list[tuple[float, float]] = field(default_factory=list)
    steps: int = 0
    decay: float = 1.0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    error: str | None = None
    speed: SpeedWindow = field(default_factory=SpeedWindow)
