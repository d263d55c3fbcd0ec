"""Signs of life of a lane's ranks, and which of them have been silent for too long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

#: Phases that are one long call without a word in between, such as reading a checkpoint: these may take longer. That
#: the process itself does not answer is seen otherwise, and as soon as ever.
SLOW_PHASES = frozenset({"load", "save"})
SLOW_FACTOR = 10


@dataclass
class Vitals:
    """When each rank was heard last and what it was doing; ranks that wait for the pool itself are well."""

    _heard: dict[int, float] = field(default_factory=dict)
    _phase: dict[int, str] = field(default_factory=dict)
    _waiting: set[int] = field(default_factory=set)
    _began: float = 0.0

    def begin(self, now: float) -> None:
        """A trial is handed out: all ranks load now."""
        self._heard.clear()
        self._phase.clear()
        self._began = now

    def hear(self, rank: int, phase: str | None, now: float) -> None:
        """A rank gave a sign of life."""
        self._heard[rank] = now
        if phase is not None:
            self._phase[rank] = phase

    @contextmanager
    def waiting(self, rank: int, now: Callable[[], float]) -> Iterator[None]:
        """Within, the rank waits for the pool and need not say anything."""
        self._waiting.add(rank)
        try:
            yield
        finally:
            self._waiting.discard(rank)
            self._heard[rank] = now()

    def silent(self, now: float, hang_seconds: float, size: int) -> list[int]:
        """Ranks below `size` that have been silent for longer than their phase allows, the longest silent first."""
        found = []
        for rank in set(range(size)) - self._waiting:
            slow = SLOW_FACTOR if self.phase(rank) in SLOW_PHASES else 1
            if now - self.heard(rank) > hang_seconds * slow:
                found.append(rank)
        return sorted(found, key=self.heard)

    def phase(self, rank: int) -> str:
        """What the rank last said that it does."""
        return self._phase.get(rank, "load")

    def heard(self, rank: int) -> float:
        """When the rank was heard last."""
        return self._heard.get(rank, self._began)

    def describe(self, rank: int, now: float) -> str:
        """The reason on record for ending a silent rank."""
        return (
            f"worker {rank} gave no sign of life for {now - self.heard(rank):.0f} s in phase {self.phase(rank)} and "
            "was ended; if its steps take that long, raise run.hang_seconds"
        )
