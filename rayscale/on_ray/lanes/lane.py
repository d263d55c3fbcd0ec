"""A lane as the pool sees it: its size, which processes it has now, and the trial that they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rayscale.system.failures import Failure


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
        silent = []
        for rank in set(range(size)) - self._waiting:
            slow = SLOW_FACTOR if self.phase(rank) in SLOW_PHASES else 1
            if now - self.heard(rank) > hang_seconds * slow:
                silent.append(rank)
        return sorted(silent, key=self.heard)

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


@dataclass(frozen=True)
class Cell:
    """A trial as the pool sees it; `payload` is handed to the workers unread."""

    trial_id: str
    workers: int
    alone: bool
    payload: Any


@dataclass
class Running:
    """A trial that was handed out, and what its ranks have said of it. `micro_batch` is the most rows at once."""

    cell: Cell
    serial: int
    exclusive: bool
    started: float
    micro_batch: int | None = None
    ready: dict[int, Failure | None] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)


@dataclass
class Lane:
    """One trainer with `size` workers, which Ray may start anew several times."""

    lane_id: int
    size: int
    since: float  # when it was opened, or its last group retired
    group: str | None = None  # names one start of the worker processes; all ranks share it
    retired: set[str] = field(default_factory=set)
    members: dict[int, Any] = field(default_factory=dict)  # who each rank is, as the lane's maker knows it
    vitals: Vitals = field(default_factory=Vitals)
    current: Running | None = None
    closed: bool = False
    begun: bool = False  # whether it was ever given a trial
    served: int = 0
    holding: set[str] = field(default_factory=set)  # trials whose model lives in this lane's workers
    strays_ended: bool = False
    trainer: str | None = None  # the actor that asks Ray for the workers' places, once it has said so
    pending: bool = False  # whether Ray has no place for the workers yet: no fault of the lane, and no load on anyone

    @property
    def up(self) -> bool:
        """Whether all of its workers have joined."""
        return len(self.members) == self.size

    @property
    def done(self) -> bool:
        """Whether it was closed and runs nothing: its processes end as asked, which is no fault and no load."""
        return self.closed and self.current is None

    @property
    def starting(self) -> bool:
        """Whether it is coming up, and wanted."""
        return self.loading and not self.closed

    @property
    def loading(self) -> bool:
        """Whether processes of it start: they use the cores, wanted or not."""
        return not self.up and not self.pending

    def retire(self, now: float) -> list[Any]:
        """The present group of processes counts no more; returns its members."""
        gone = list(self.members.values())
        if self.group is not None:
            self.retired.add(self.group)
        self.group, self.since, self.strays_ended = None, now, False
        self.members.clear()
        return gone


def share_slots(unfinished: dict[int, int], slots: int) -> dict[int, int]:
    """How many lanes of each size the slots should hold, larger ones first; `unfinished` counts trials by size."""
    target = {}
    for size in sorted(unfinished, reverse=True):
        target[size] = min(unfinished[size], slots // size)
        slots -= target[size] * size
    return target


#: Phases that are one long call without a word in between, such as reading a checkpoint: these may take longer. That
#: the process itself does not answer is seen otherwise, and as soon as ever.
SLOW_PHASES = frozenset({"load", "save"})


SLOW_FACTOR = 10
