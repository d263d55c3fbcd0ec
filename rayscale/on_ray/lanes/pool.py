"""The lane pool: which lanes are open, which trial each runs, and what becomes of it.

A lane is one TorchTrainer with k workers that stays up and asks for the next trial. This file is the state behind the
lanes: plain Python under asyncio, no Ray, so that every rule can be tested without a cluster. One such object lives in
one actor (see worker.py).

Watch: a rank at work gives signs of life from the work itself (`beat`). One that gives none for too long, or whose
process does not answer (`lose`), takes its group with it: the group is retired, its workers are ended, and the trial is
handed out again. A lane that does not come up in time is given up, and after some of these its cells are.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from rayscale.on_ray.lanes.lane import Lane, Running
from rayscale.on_ray.lanes.rules import LaneRules
from rayscale.runs.events import Event
from rayscale.runs.outcomes import TrialOutcome
from rayscale.system.failures import Failure

LANE_FAILURES = 3  # lanes of one size in a row that may end before they are given a trial, whose own limit counts then
WATCH_SECONDS = 1.0
OVERDUE_SECONDS = 60.0  # for Ray to end a lane that did not come up


class LanePool(LaneRules):
    """Hands trials to lanes and keeps their outcomes until the driver has made them durable.

    Whoever opens lanes must call `lane_ended` when one is gone.
    """

    # ---- Tune's side

    async def submit(self, trial_id: str) -> Any:
        """Queue a trial and wait until its record is durable; returns what `acknowledge` was given of it."""
        async with self._changed:
            if trial_id not in self._rows and trial_id not in self._submitted:  # Tune may ask again after a loss
                self._submitted.add(trial_id)
                self._waiting.append(self._cells[trial_id])
                self._settle()
            await self._changed.wait_for(lambda: trial_id in self._rows)
            return self._rows[trial_id]

    # ---- the driver's side

    async def collect(self, known: int, seconds: float) -> list[TrialOutcome]:
        """Outcomes after the first `known`, waiting up to `seconds` for one."""
        async with self._changed:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(lambda: len(self._outcomes) > known), seconds)
            return self._outcomes[known:]

    async def acknowledge(self, trial_id: str, row: Any) -> None:
        """The record of this trial is durable: whoever waits for it gets this."""
        async with self._changed:
            self._rows[trial_id] = row
            if trial_id in self._by_id:
                self._by_id[trial_id].pop("model", None)  # the pool no longer holds the weights
            for lane in self._lanes.values():
                lane.holding.discard(trial_id)
            self._changed.notify_all()

    async def snapshot(self, known_events: int = 0) -> dict[str, Any]:
        """What runs now: for each lane at work its trial, its progress and for how long; and the events since."""
        if self._watch_error is not None:
            raise RuntimeError("the watch over the lanes has stopped") from self._watch_error
        at_work = [lane.current for lane in self._lanes.values() if lane.current]
        running = [{"trial_id": r.cell.trial_id, "seconds": self._now() - r.started, **r.progress} for r in at_work]
        return {
            "running": running,
            "lanes_starting": sum(lane.starting for lane in self._lanes.values()),
            "slots": self._slots,
            "room": self._room,
            "waits": self._wait(),
            "events": self._accounts.events[known_events:],
        }

    async def say(self, event: Event) -> None:
        """Something for the run's events: `event` and its details."""
        self._accounts.events.append(event)

    async def resize(self, slots: int, room: int | None = None, placed: Collection[str] | None = None) -> None:
        """The cluster has this many slots now, of which other jobs leave `room`; Ray has found places for the workers
        of the trainers `placed` (None: of all)."""
        async with self._changed:
            now = self._now()
            for lane in self._lanes.values():
                pending = lane.trainer is not None and placed is not None and lane.trainer not in placed and not lane.up
                if lane.pending and not pending and not lane.up:
                    self._disturb(lane)
                if pending or lane.pending:
                    lane.since = now  # its time to come up counts from its place on
                lane.pending = pending
                if pending and lane.closed:  # it would wait for ever
                    self._withdraw(str(lane.trainer))
            room = slots if room is None else min(room, slots)
            if (slots, room) != (self._slots, self._room):
                if slots != self._slots:
                    self._accounts.events.append({"event": "slots_changed", "slots": slots})
                self._slots, self._room = slots, room
                self._settle()

    async def place(self, lane_id: int, trainer: str) -> None:
        """The trainer of a lane asks Ray for the places of its workers now."""
        async with self._changed:
            lane = self._lanes.get(lane_id)
            if lane is None or lane.closed:
                self._withdraw(trainer)
            else:
                lane.trainer = trainer

    async def stop(self) -> None:
        """Hand out nothing more, let every lane close after its trial, and wait until all are gone."""
        async with self._changed:
            self._stopped = True
            for lane in self._lanes.values():
                lane.closed = True
            self._changed.notify_all()
            await self._changed.wait_for(lambda: not self._lanes)

    # ---- the workers' side

    async def next_trial(
        self, lane_id: int, group: str, rank: int, last: int, member: Any = None
    ) -> tuple[int, Any, int | None] | None:
        """The trial after the one with the number `last`, waiting as long as it takes; None when the lane closes.

        It comes with its serial number, and with the most rows at once where memory did not suffice for the usual ones.
        No rank waits for work inside a collective, where it would run into the process group's time-out.
        """
        async with self._changed:
            lane = self._lanes.get(lane_id)
            if lane is None:  # given up; it came late
                return None
            self._join(lane, group, rank, member)
            with lane.vitals.waiting(rank, self._now):
                while lane_id in self._lanes and group not in lane.retired:
                    if lane.current is not None and lane.current.serial > last:
                        return lane.current.serial, lane.current.cell.payload, lane.current.micro_batch
                    # A closing lane whose worker owns a model that the driver has not written yet waits for it.
                    if lane.current is None and lane.closed and not lane.holding:
                        return None
                    if lane.current is None and not lane.closed and self._assign(lane):
                        continue
                    await self._changed.wait()
            return None

    async def ready(self, lane_id: int, serial: int, rank: int, error: Failure | None) -> bool:
        """Wait until every rank has set the trial up; False when one could not, and the trial is over.

        So a failure in setting up costs no restart: no rank has entered a collective yet.
        """
        async with self._changed:
            if not (place := self._at(lane_id, serial)):
                return False
            lane, running = place
            running.ready[rank] = error
            if error is not None:
                self._fail(lane, error)
            self._changed.notify_all()
            with lane.vitals.waiting(rank, self._now):
                await self._changed.wait_for(lambda: lane.current is not running or len(running.ready) == lane.size)
            return lane.current is running

    def has(self, lane_id: int, group: str) -> bool:
        """Whether this group of processes is still one of a lane, or may yet become one."""
        lane = self._lanes.get(lane_id)
        return lane is not None and group not in lane.retired

    def _at(self, lane_id: int, serial: int) -> tuple[Lane, Running] | None:
        """The lane and the trial with this serial number; None if it runs there no more, as when its group retired."""
        lane = self._lanes.get(lane_id)
        running = lane.current if lane else None
        return (lane, running) if lane and running and running.serial == serial else None

    async def beat(self, lane_id: int, serial: int, rank: int, state: dict[str, Any]) -> None:
        """A sign of life of a rank at its trial: `phase`, and what else is known of its progress."""
        if place := self._at(lane_id, serial):
            lane, running = place
            lane.vitals.hear(rank, state.get("phase"), self._now())
            if rank == 0:
                running.progress = state

    async def finish(self, lane_id: int, serial: int, outcome: TrialOutcome) -> None:
        """The trial is done; `outcome` is what rank 0 measured."""
        async with self._changed:
            if place := self._at(lane_id, serial):
                lane, running = place
                if outcome.get("model"):
                    lane.holding.add(running.cell.trial_id)
                self._end(lane, {**outcome, "exclusive": running.exclusive, "size": lane.size})

    async def fail(self, lane_id: int, serial: int, error: Failure, restart: bool) -> None:
        """A rank raised: the trial is tried again, or ends failed when attempts are used up or the error is permanent.

        `restart` says that this group of processes ends now, and with it every rank that waits in a collective.
        """
        async with self._changed:
            if place := self._at(lane_id, serial):
                (self._drop if restart else self._fail)(place[0], error)

    async def lose(self, lane_id: int, group: str, error: Failure) -> None:
        """A process of this group is gone or does not answer: the group ends, and its trial is handed out again."""
        async with self._changed:
            lane = self._lanes.get(lane_id)
            if lane is not None and lane.group == group and not lane.done:
                self._drop(lane, error)

    async def lane_ended(self, lane_id: int, error: str | None) -> None:
        """A lane's trainer is gone, as asked or with an error; its slots are free."""
        async with self._changed:
            lane = self._lanes.pop(lane_id, None)
            if lane is None:  # given up before
                return
            if lane.done:  # whatever Ray calls the end of its processes
                error = None
            if lane.current is not None:
                self._fail(lane, {"message": f"the lane ended: {error}", "code": "lane_ended"})
            size = lane.size
            if error:
                self._accounts.events.append({"event": "lane_ended", "lane": lane_id, "gpus": size, "reason": error})
            if error and not lane.begun:
                self._lane_failures[size] += 1
                others = any(other.size == size and not other.starting for other in self._lanes.values())
                if self._lane_failures[size] >= LANE_FAILURES and not others:
                    self._give_up(size, f"{LANE_FAILURES} lanes of {size} workers ended before a trial: {error}")
            self._settle()

    # ---- the watch

    async def watch(self) -> None:
        """Look after the lanes for ever; what ends that is raised where the driver looks next."""
        try:
            while True:
                await asyncio.sleep(WATCH_SECONDS)
                await self.look()
        except Exception as error:
            self._watch_error = error
            raise

    async def look(self) -> None:
        """End what hangs: groups with a silent rank, lanes that do not come up, cells that fit nowhere any more."""
        now = self._now()
        overdue: list[tuple[int, str]] = []
        async with self._changed:
            for lane in list(self._lanes.values()):
                if lane.current is not None:
                    for rank in lane.vitals.silent(now, self._hang_seconds, lane.size):
                        host = getattr(lane.members.get(rank), "host", None)
                        message = lane.vitals.describe(rank, now)
                        self._drop(lane, {"message": message, "code": "hang", "rank": rank, "host": host})
                        break
                elif lane.loading and now - lane.since > self._start_seconds:
                    if not lane.strays_ended:  # a worker that hangs while it starts; without it Ray tries again
                        lane.strays_ended = True
                        known = [member for other in self._lanes.values() for member in other.members.values()]
                        self._end_strays(known, self._start_seconds)
                    elif now - lane.since > self._start_seconds + OVERDUE_SECONDS:
                        reason = f"{len(lane.members)} of its workers came up in {now - lane.since:.0f} s"
                        overdue.append((lane.lane_id, reason))
            self._look_for_room(now)
            self._look_for_waiting(now)
        for lane_id, reason in overdue:
            await self.lane_ended(lane_id, reason)

    def _look_for_waiting(self, now: float) -> None:
        """Note since when others hold what this run needs for any of its trials."""
        busy = any(not lane.pending for lane in self._lanes.values())
        fits = any(cell.workers <= self._slots for cell in self._waiting)
        if busy or not fits or self._stopped:
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = now

    def _wait(self) -> dict[str, Any] | None:
        """For how long this run has waited for slots, and how many trials want how many; None while it does not."""
        if self._waits_since is None:
            return None
        sizes = Counter(cell.workers for cell in self._waiting if cell.workers <= self._slots)
        return {"seconds": self._now() - self._waits_since, "sizes": dict(sizes)}

    def _look_for_room(self, now: float) -> None:
        """Give cells up that want more slots than the cluster has had for a while, once nothing else is left."""
        wide = [cell for cell in self._waiting if cell.workers > self._slots]
        if not wide or self._lanes or len(wide) < len(self._waiting):
            self._stuck_since = None
            return
        self._stuck_since = now if self._stuck_since is None else self._stuck_since
        if now - self._stuck_since > self._start_seconds:
            for size in {cell.workers for cell in wide}:
                self._give_up(size, f"a trial wants {size} worker slots; the cluster has {self._slots} left")
            self._changed.notify_all()
