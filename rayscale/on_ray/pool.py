"""The lane pool: which lanes are open, which trial each runs, and what becomes of it.

A lane is one TorchTrainer with k workers that stays up and asks for the next trial. This file is the state behind the
lanes: plain Python under asyncio, no Ray, so that every rule can be tested without a cluster. One such object lives in
one actor (see lanes.py).

Admission: larger GPU counts first; a trial that must run `alone` starts only when no other runs and no lane is
starting; lanes of different sizes share the slots, and a size that has nothing left gives its slots back.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LANE_FAILURES = 3  # lanes of one size that may end with an error without having finished a trial


@dataclass(frozen=True)
class Cell:
    """A trial as the pool sees it; `payload` is handed to the workers unread."""

    trial_id: str
    gpus: int
    alone: bool
    payload: Any


@dataclass
class _Running:
    cell: Cell
    serial: int
    exclusive: bool
    started: float
    ready: dict[int, dict[str, Any] | None] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Lane:
    lane_id: int
    size: int
    group: str | None = None  # names one start of the worker processes; all ranks share it
    retired: set[str] = field(default_factory=set)
    members: set[int] = field(default_factory=set)
    current: _Running | None = None
    closed: bool = False
    served: int = 0
    holding: set[str] = field(default_factory=set)  # trials whose model lives in this lane's workers

    @property
    def starting(self) -> bool:
        return len(self.members) < self.size and not self.closed


class LanePool:
    """Hands trials to lanes and keeps their outcomes until the driver has made them durable.

    `open_lane(pool, lane_id, size)` starts a lane; it must call `lane_ended` when the lane is gone.
    `trials_per_lane` is None for lanes that stay up, 1 for isolated trials.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        slots: int,
        retries: int,
        trials_per_lane: int | None,
        open_lane: Callable[[LanePool, int, int], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cells = {cell.trial_id: cell for cell in cells}
        self._slots, self._retries, self._per_lane = slots, retries, trials_per_lane
        self._open_lane, self._now = open_lane, now
        self._waiting: deque[Cell] = deque()
        self._lanes: dict[int, _Lane] = {}
        self._numbers, self._serials = itertools.count(), itertools.count(1)
        self._attempts: Counter[str] = Counter()
        self._lost_seconds: defaultdict[str, float] = defaultdict(float)  # device-seconds of attempts that failed
        self._lane_failures: Counter[int] = Counter()
        self._outcomes: list[dict[str, Any]] = []  # in the order of finishing
        self._by_id: dict[str, dict[str, Any]] = {}
        self._rows: dict[str, Mapping[str, Any]] = {}  # durable, told by the driver
        self._changed = asyncio.Condition()
        self._stopped = False

    # ---- Tune's side

    async def submit(self, trial_id: str) -> Mapping[str, Any]:
        """Queue a trial and wait until its record is durable; returns the record's row."""
        async with self._changed:
            if trial_id not in self._rows and trial_id not in self._by_id:
                self._waiting.append(self._cells[trial_id])
                self._settle()
            await self._changed.wait_for(lambda: trial_id in self._rows)
            return self._rows[trial_id]

    # ---- the driver's side

    async def collect(self, known: int, seconds: float) -> list[dict[str, Any]]:
        """Outcomes after the first `known`, waiting up to `seconds` for one."""
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: len(self._outcomes) > known), seconds)
            except TimeoutError:
                pass
            return self._outcomes[known:]

    async def acknowledge(self, trial_id: str, row: Mapping[str, Any]) -> None:
        """The record of this trial is durable: whoever waits for it may have it."""
        async with self._changed:
            self._rows[trial_id] = row
            if trial_id in self._by_id:
                self._by_id[trial_id].pop("model", None)  # the pool no longer holds the weights
            for lane in self._lanes.values():
                lane.holding.discard(trial_id)
            self._changed.notify_all()

    async def snapshot(self) -> dict[str, Any]:
        """What runs now: for each lane at work its trial, its progress and for how long."""
        running = [lane.current for lane in self._lanes.values() if lane.current]
        return {
            "running": [
                {"trial_id": r.cell.trial_id, "seconds": self._now() - r.started, **r.progress} for r in running
            ],
            "lanes_starting": sum(lane.starting for lane in self._lanes.values()),
            "lanes": len(self._lanes),
        }

    async def stop(self) -> None:
        """Hand out nothing more, let every lane close after its trial, and wait until all are gone."""
        async with self._changed:
            self._stopped = True
            for lane in self._lanes.values():
                lane.closed = True
            self._changed.notify_all()
            await self._changed.wait_for(lambda: not self._lanes)

    # ---- the workers' side

    async def next_trial(self, lane_id: int, group: str, rank: int, seen: int) -> tuple[int, Any] | None:
        """The trial after the last one that this rank saw, waiting as long as it takes; None when the lane closes.

        No rank waits for work inside a collective, where it would run into the process group's time-out.
        """
        async with self._changed:
            lane = self._lanes[lane_id]
            self._join(lane, group, rank)
            while True:
                if group in lane.retired:
                    return None
                if lane.current is not None and lane.current.serial > seen:
                    return lane.current.serial, lane.current.cell.payload
                if lane.current is None:
                    if lane.closed:
                        if lane.holding:  # its worker owns a model that the driver has not written yet
                            await self._changed.wait()
                            continue
                        return None
                    if self._assign(lane):
                        continue
                await self._changed.wait()

    async def ready(self, lane_id: int, serial: int, rank: int, error: dict[str, Any] | None) -> bool:
        """Wait until every rank has set the trial up; False when one could not, and the trial is over.

        So a failure in setting up costs no restart: no rank has entered a collective yet.
        """
        async with self._changed:
            lane, running = self._lanes[lane_id], self._lanes[lane_id].current
            if running is None or running.serial != serial:
                return False
            running.ready[rank] = error
            if error is not None:
                self._fail(lane, error)
            self._changed.notify_all()
            await self._changed.wait_for(lambda: lane.current is not running or len(running.ready) == lane.size)
            return lane.current is running

    async def progress(self, lane_id: int, serial: int, told: dict[str, Any]) -> None:
        """What rank 0 says of its trial while it runs."""
        lane = self._lanes.get(lane_id)
        if lane and lane.current and lane.current.serial == serial:
            lane.current.progress = told

    async def finish(self, lane_id: int, serial: int, outcome: dict[str, Any]) -> None:
        """The trial is done; `outcome` is what rank 0 measured."""
        async with self._changed:
            lane = self._lanes[lane_id]
            if lane.current is None or lane.current.serial != serial:
                return
            running = lane.current
            self._attempts[running.cell.trial_id] += 1
            if outcome.get("model"):
                lane.holding.add(running.cell.trial_id)
            self._end(lane, {**outcome, "exclusive": running.exclusive, "size": lane.size})

    async def fail(self, lane_id: int, serial: int, error: dict[str, Any], restart: bool) -> None:
        """A rank raised: the trial is tried again, or ends failed when attempts are used up or the error is permanent.

        `restart` says that this group of processes ends now, and with it every rank that waits in a collective.
        """
        async with self._changed:
            lane = self._lanes[lane_id]
            if restart and lane.group is not None:
                self._retire(lane)
            if lane.current is not None and lane.current.serial == serial:
                self._fail(lane, error)
            self._changed.notify_all()

    async def lane_ended(self, lane_id: int, error: str | None) -> None:
        """A lane's trainer is gone, as asked or with an error; its slots are free."""
        async with self._changed:
            lane = self._lanes.pop(lane_id)
            if lane.current is not None:
                self._fail(lane, {"message": f"the lane ended: {error}", "code": "lane_ended"})
            if error and not lane.served:
                self._lane_failures[lane.size] += 1
                others = any(other.size == lane.size and not other.starting for other in self._lanes.values())
                if self._lane_failures[lane.size] >= LANE_FAILURES and not others:
                    self._give_up(lane.size, error)
            self._settle()

    # ---- rules

    def _join(self, lane: _Lane, group: str, rank: int) -> None:
        if group in lane.retired:
            return
        if group != lane.group:  # the first rank of new processes: what the old ones ran is lost
            self._retire(lane)
            lane.group = group
            if lane.current is not None:
                error = {"message": "a worker process died and the group was restarted", "code": "worker_died"}
                self._fail(lane, error)
        lane.members.add(rank)
        self._changed.notify_all()

    def _retire(self, lane: _Lane) -> None:
        if lane.group is not None:
            lane.retired.add(lane.group)
        lane.group = None
        lane.members.clear()

    def _assign(self, lane: _Lane) -> bool:
        if self._stopped or lane.starting:
            return False
        cell = next((cell for cell in self._waiting if cell.gpus == lane.size), None)
        others = [other for other in self._lanes.values() if other is not lane]
        busy = any(other.current for other in others)
        starting = any(other.starting for other in others)
        if cell is None or any(other.current and other.current.cell.alone for other in others):
            return False
        if cell.alone and (busy or starting):
            return False
        self._waiting.remove(cell)
        lane.current = _Running(cell, next(self._serials), not busy and not starting, self._now())
        for other in others:
            if other.current:
                other.current.exclusive = False
        self._changed.notify_all()
        return True

    def _fail(self, lane: _Lane, error: dict[str, Any]) -> None:
        running = lane.current
        assert running is not None
        self._attempts[running.cell.trial_id] += 1
        self._lost_seconds[running.cell.trial_id] += (self._now() - running.started) * lane.size
        if error.get("permanent") or self._attempts[running.cell.trial_id] > self._retries:
            self._end(lane, {"status": "failed", "error": error, "size": lane.size})
            return
        lane.current = None
        self._waiting.appendleft(running.cell)
        if self._per_lane is not None:
            lane.closed = True
        self._settle()

    def _end(self, lane: _Lane, outcome: dict[str, Any]) -> None:
        assert lane.current is not None
        self._record(lane.current.cell, outcome)
        lane.current, lane.served = None, lane.served + 1
        self._lane_failures[lane.size] = 0
        if self._per_lane is not None and lane.served >= self._per_lane:
            lane.closed = True
        self._settle()

    def _record(self, cell: Cell, outcome: dict[str, Any]) -> None:
        outcome = {**outcome, "trial_id": cell.trial_id, "attempts": max(1, self._attempts[cell.trial_id])}
        outcome["lost_seconds"] = float(self._lost_seconds[cell.trial_id])
        self._by_id[cell.trial_id] = outcome
        self._outcomes.append(outcome)

    def _give_up(self, size: int, error: str) -> None:
        text = f"{LANE_FAILURES} lanes of {size} workers ended before a trial: {error}"
        running = {lane.current.cell.trial_id for lane in self._lanes.values() if lane.current}
        for cell in self._cells.values():
            if cell.gpus != size or cell.trial_id in self._by_id or cell.trial_id in running:
                continue
            if cell in self._waiting:
                self._waiting.remove(cell)
            self._record(cell, {"status": "failed", "error": {"message": text, "code": "lane_failed"}, "size": size})

    def _settle(self) -> None:
        """Open and close lanes so that the slots serve what is left, and wake whoever waits."""
        left, target = self._slots, Counter[int]()
        unfinished = Counter(cell.gpus for cell in self._cells.values() if cell.trial_id not in self._by_id)
        for size in sorted(unfinished, reverse=True):
            target[size] = min(unfinished[size], left // size)
            left -= target[size] * size
        if not self._stopped:
            counts = Counter(lane.size for lane in self._lanes.values() if not lane.closed)
            for lane in self._lanes.values():
                if not lane.closed and lane.current is None and counts[lane.size] > target[lane.size]:
                    lane.closed = True
                    counts[lane.size] -= 1
            used = sum(lane.size for lane in self._lanes.values())  # a closing lane holds its slots until it is gone
            for size in sorted(target, reverse=True):
                while counts[size] < target[size] and used + size <= self._slots:
                    lane = _Lane(next(self._numbers), size)
                    self._lanes[lane.lane_id] = lane
                    counts[size] += 1
                    used += size
                    for other in self._lanes.values():
                        if other.current:
                            other.current.exclusive = False  # starting processes use the cores too
                    self._open_lane(self, lane.lane_id, size)
        self._changed.notify_all()
