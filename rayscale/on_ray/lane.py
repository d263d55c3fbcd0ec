"""A lane as the pool sees it: its size, which processes it has now, and the trial that they run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rayscale.on_ray.vitals import Vitals


@dataclass(frozen=True)
class Cell:
    """A trial as the pool sees it; `payload` is handed to the workers unread."""

    trial_id: str
    gpus: int
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
    ready: dict[int, dict[str, Any] | None] = field(default_factory=dict)
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
