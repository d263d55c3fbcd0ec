"""The rules of the lane pool: which trial runs where, what follows when one ends or fails, which lanes are open.

Plain state without waiting; pool.py is the side that others call. Whoever calls a rule holds the pool's lock.

Admission: larger GPU counts first; a trial that must run `alone` starts only when no other runs and no lane is
starting, and while it runs no lane is opened; lanes of different sizes share the slots that this run can have now, its
`room`, and a size that has nothing left gives its slots back. What other jobs hold is waited for, never counted as a
failure: a lane for which Ray has no place is withdrawn when its size no longer fits the room, so that no run holds on
to anything while it waits for more.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from rayscale.on_ray.lanes.lane import Cell, Lane, Running, share_slots
from rayscale.on_ray.lanes.retry import Accounts
from rayscale.runs.outcomes import TrialOutcome
from rayscale.system.failures import Failure

START_SECONDS = 300.0  # for a lane to come up: a node may have to start first


class LaneRules:
    """The state of a pool. `open_lane(lane_id, size)` starts a lane.

    `end_workers(workers)` ends processes at once, and `end_strays(known, seconds)` those of workers that were started
    more than `seconds` ago and are not among the `known`, the ones that have joined. `withdraw(trainer)` ends a lane's
    trainer that waits for places. A worker takes `share` of a GPU.
    `trials_per_lane` is None for lanes that stay up, 1 for isolated trials.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        slots: int,
        retries: int,
        trials_per_lane: int | None,
        open_lane: Callable[[int, int], None],
        now: Callable[[], float] = time.monotonic,
        *,
        hang_seconds: float = 60.0,
        start_seconds: float = START_SECONDS,
        share: float = 1.0,
        end_workers: Callable[[Sequence[Any]], None] = lambda workers: None,
        end_strays: Callable[[Sequence[Any], float], None] = lambda known, seconds: None,
        withdraw: Callable[[str], None] = lambda trainer: None,
    ) -> None:
        self._cells = {cell.trial_id: cell for cell in cells}
        self._slots, self._per_lane, self._accounts = slots, trials_per_lane, Accounts(retries, share)
        self._room = slots  # of these what other jobs do not hold
        self._waits_since: float | None = None  # when there was room for nothing that is left to run
        self._open_lane, self._now = open_lane, now
        self._hang_seconds, self._start_seconds = hang_seconds, start_seconds
        self._end_workers, self._end_strays, self._withdraw = end_workers, end_strays, withdraw
        self._waiting: deque[Cell] = deque()
        self._lanes: dict[int, Lane] = {}
        self._numbers, self._serials = itertools.count(), itertools.count(1)
        self._submitted: set[str] = set()
        self._stuck_since: float | None = None
        self._lane_failures: Counter[int] = Counter()
        self._outcomes: list[TrialOutcome] = []  # in the order of finishing
        self._by_id: dict[str, TrialOutcome] = {}
        self._rows: dict[str, Any] = {}  # what Tune gets of those that are durable
        self._changed = asyncio.Condition()
        self._stopped = False
        self._watch_error: Exception | None = None  # what ended the watch over the lanes

    def _join(self, lane: Lane, group: str, rank: int, member: Any) -> None:
        if group in lane.retired:
            return
        if group != lane.group:  # the first rank of new processes: what the old ones ran is lost
            self._retire(lane)
            lane.group = group
            if lane.current is not None:
                message = "a worker process died and the group was restarted"
                self._fail(lane, {"message": message, "code": "worker_died"})
        lane.members[rank] = member
        lane.pending = False  # whatever the last look at the cluster saw
        self._changed.notify_all()

    def _retire(self, lane: Lane) -> list[Any]:
        self._disturb(lane)
        return lane.retire(self._now())

    def _disturb(self, lane: Lane) -> None:
        """Processes of this lane start, which use the cores too: what else runs is not alone."""
        for other in self._lanes.values():
            if other.current and other is not lane:
                other.current.exclusive = False

    def _drop(self, lane: Lane, error: Failure) -> None:
        """End a group of processes and hand its trial out again."""
        members = self._retire(lane)
        if lane.current is not None:
            self._fail(lane, error)
        self._end_workers(members)
        self._changed.notify_all()

    def _assign(self, lane: Lane) -> bool:
        if self._stopped or not lane.up:
            return False
        cell = next((cell for cell in self._waiting if cell.workers == lane.size), None)
        others = [other for other in self._lanes.values() if other is not lane]
        exclusive = not any(other.current or other.loading for other in others)
        if cell is None or any(other.current and other.current.cell.alone for other in others):
            return False
        if cell.alone and not exclusive:
            return False
        self._waiting.remove(cell)
        most = self._accounts.micro_batch(cell.trial_id)
        lane.current = Running(cell, next(self._serials), exclusive, self._now(), most)
        self._accounts.events.append({"event": "trial_started", "trial_id": cell.trial_id})
        lane.begun, self._lane_failures[lane.size] = True, 0
        lane.vitals.begin(self._now())
        for other in others:
            if other.current:
                other.current.exclusive = False
            if cell.alone and other.pending:  # once Ray had a place for it, its start would disturb
                self._close(other)
        self._changed.notify_all()
        return True

    def _close(self, lane: Lane) -> None:
        lane.closed = True
        if lane.pending and lane.trainer is not None:
            self._withdraw(lane.trainer)

    def _fail(self, lane: Lane, error: Failure) -> None:
        assert lane.current is not None
        outcome = self._accounts.fail(lane.current, error, lane.size, self._now())
        if outcome is not None:
            self._end(lane, outcome)
            return
        self._waiting.appendleft(lane.current.cell)
        lane.current = None
        if self._per_lane is not None:
            lane.closed = True
        self._settle()

    def _end(self, lane: Lane, outcome: TrialOutcome) -> None:
        assert lane.current is not None
        self._record(lane.current.cell, outcome)
        lane.current, lane.served = None, lane.served + 1
        if self._per_lane is not None and lane.served >= self._per_lane:
            lane.closed = True
        self._settle()

    def _record(self, cell: Cell, outcome: TrialOutcome) -> None:
        self._by_id[cell.trial_id] = self._accounts.close(cell.trial_id, outcome)
        self._outcomes.append(self._by_id[cell.trial_id])

    def _give_up(self, size: int, reason: str) -> None:
        running = {lane.current.cell.trial_id for lane in self._lanes.values() if lane.current}
        for cell in self._cells.values():
            if cell.workers != size or cell.trial_id in self._by_id or cell.trial_id in running:
                continue
            if cell in self._waiting:
                self._waiting.remove(cell)
            self._record(cell, {"status": "failed", "error": {"message": reason, "code": "lane_failed"}, "size": size})

    def _settle(self) -> None:
        """Open and close lanes so that the slots serve what is left, and wake whoever waits."""
        unfinished = Counter(cell.workers for cell in self._cells.values() if cell.trial_id not in self._by_id)
        target = share_slots(unfinished, self._room)
        lone = any(lane.current and lane.current.cell.alone for lane in self._lanes.values())
        if not self._stopped:
            counts = Counter(lane.size for lane in self._lanes.values() if not lane.closed)
            for lane in sorted(self._lanes.values(), key=lambda lane: lane.up):
                if not lane.closed and lane.current is None and counts[lane.size] > target.get(lane.size, 0):
                    self._close(lane)
                    counts[lane.size] -= 1
            used = sum(lane.size for lane in self._lanes.values())  # a closing lane holds its slots until it is gone
            for size in () if lone else sorted(target, reverse=True):
                while counts[size] < target[size] and used + size <= self._room:
                    lane = Lane(next(self._numbers), size, self._now())
                    self._lanes[lane.lane_id] = lane
                    counts[size] += 1
                    used += size
                    self._retire(lane)
                    self._open_lane(lane.lane_id, size)
        self._changed.notify_all()
