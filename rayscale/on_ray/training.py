"""Train what is pending, in lanes or in this process, and make every outcome a durable record."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayscale.errors import ClusterError
from rayscale.on_ray.session.occupancy import Wait
from rayscale.plan.estimate import Planned
from rayscale.plan.heads import check_positions
from rayscale.plan.plan import Plan
from rayscale.report.terminal.run import WAITING
from rayscale.runs.events import Event
from rayscale.runs.outcomes import Outcomes
from rayscale.runs.savepoints import Saving
from rayscale.study.checkpoints import read_config
from rayscale.study.study import Study
from rayscale.text.augment.children import name_of
from rayscale.text.prepared import Prepared
from rayscale.text.tokens.encode import spec_of

if TYPE_CHECKING:
    from rayscale.on_ray.session.session import Session

POLL_SECONDS = 0.5
INTERRUPT_SECONDS = 2.0  # Tune looks at its trials every 0.1 s


@dataclass(frozen=True)
class TrialRunner:
    """The trials to run, their prepared text by name, and where their outcomes go.

    `log` takes an event of the run; `show` what runs now and the phase, twice a second, and raises when the run is to
    stop.
    """

    study: Study
    plan: Plan
    pending: Sequence[Planned]
    prepared: Mapping[str, Prepared]
    outcomes: Outcomes
    saving: Saving | None
    only: str | None
    log: Callable[[Event], None]
    show: Callable[[Sequence[Mapping[str, Any]], str], None]

    def check_subsets(self) -> None:
        """Refuse before the first trial what the last could not read. Raises InputError."""
        most: dict[str, int] = {}  # tokens that each checkpoint is to read at once
        for planned in self.pending:
            trial, prepared = planned.trial, self._prepared(planned)
            prepared.subset(trial.data_axis, trial.data_requested, trial.seed)
            if trial.model.path:
                longest = max(split["longest"] for split in prepared.manifest["splits"].values())
                # A windowed task keeps whole texts, and reads them max_length tokens at a time.
                read = min(longest, prepared.manifest["max_length"])
                most[trial.model.path] = max(read, most.get(trial.model.path, 0))
        for path, tokens in most.items():
            check_positions(path, read_config(path), tokens)

    def _prepared(self, planned: Planned) -> Prepared:
        return self.prepared[name_of(spec_of(planned.trial.model).name, planned.trial.augment)]

    # ---- in this process

    def run_inline(self) -> None:
        """One after the other, without Ray."""
        from rayscale.on_ray.inline import run_here

        for planned in self.pending:
            trial = planned.trial
            self.log({"event": "trial_started", "trial_id": trial.trial_id})

            def progress(now: dict[str, Any], trial_id: str = trial.trial_id, began: float = time.monotonic()) -> None:
                self.show([{"trial_id": trial_id, "seconds": time.monotonic() - began, **now}], "training")

            outcome = run_here(
                trial, self._prepared(planned), keep_model=self.study.run.keep != "none", progress=progress,
                saving=replace(self.saving, say=self.log) if self.saving else None, say=self.log,
                let_raise=self.only is not None,
            )  # fmt: skip
            self.outcomes.add(trial, outcome)

    # ---- on Ray

    def run_in_lanes(self, session: Session, host: Any) -> None:
        """In lanes that last, or in one per trial; `host` holds their trainers. Raises ClusterError."""
        import ray

        from rayscale.on_ray.lanes.worker import LaneSettings, end_lanes, open_pool
        from rayscale.on_ray.tune import run_grid

        run, machine = self.study.run, self.plan.machine
        capacity = None if session.local else session.capacity
        settings = LaneSettings(
            session.worker_resources, machine.device, run.hang_seconds, run.keep, self.saving,
            share=machine.share, capacity=capacity,
        )  # fmt: skip
        trials_per_lane = 1 if self.outcomes.executor == "isolated" else None
        pool = open_pool(self._cells(session), machine.slots, run.retries, trials_per_lane, settings, host)
        for trial_id, record in self.outcomes.records.items():
            ray.get(pool.acknowledge.remote(trial_id, self.outcomes.reports(record)))
        recorded = set(self.outcomes.records)
        planned = [p for p in self.plan.trials if not self.only or p.trial.trial_id in {*recorded, self.only}]
        room = [machine.slots]  # as the pool finds it
        work = partial(run_grid, planned, recorded, lambda: room[0], pool, self.outcomes.store)
        grid = _Thread(target=work, daemon=True, name="rayscale-tune")
        grid.start()
        try:
            self._collect(pool, grid, room)
            grid.join()
        except ray.exceptions.RayActorError as error:
            session.guard.check()
            reason = str(error).strip().splitlines()[-1].partition(" Some common causes")[0]
            raise ClusterError(f"the process that hands out the trials died: {reason}", code="pool_died") from error
        except BaseException:
            if not session.local:
                end_lanes(pool, host)
            raise
        finally:
            grid.interrupt()
        ray.wait([pool.stop.remote()], timeout=0.0 if session.local else 30.0)  # a Ray of our own ends anyway
        if grid.error:
            raise ClusterError(f"Ray Tune ended with an error: {grid.error}") from grid.error

    def _cells(self, session: Session) -> list[Any]:
        from rayscale.on_ray.data import parcels, stream
        from rayscale.on_ray.lanes.lane import Cell
        from rayscale.on_ray.lanes.worker import Handed

        several = session.nodes > 1 or not session.local
        streamed = self.study.data.reader == "stream"
        data = {str(prepared.path): prepared for prepared in map(self._prepared, self.pending)}
        offered = {
            folder: stream.offer(prepared, several) if streamed else parcels.wrap(prepared.path, several)
            for folder, prepared in data.items()
        }
        checkpoints = {planned.trial.model.path for planned in self.pending}
        wrapped = {folder: parcels.wrap(Path(folder), several) if folder else None for folder in checkpoints}
        cells = []
        for planned in self.pending:
            trial, folder = planned.trial, str(self._prepared(planned).path)
            handed = Handed(trial.to_json(), offered[folder], wrapped[trial.model.path])
            cells.append(Cell(trial.trial_id, trial.gpus, planned.alone, handed))
        return cells

    def _collect(self, pool: Any, grid: _Thread, room: list[int]) -> None:
        import ray

        waited = {p.trial.trial_id: p.trial for p in self.pending}
        known = events = 0
        wait = Wait(self.study.run.wait_seconds, self.log)
        while known < len(self.pending):
            self.outcomes.ledger.guard()
            if not grid.is_alive():
                raise ClusterError(f"Ray Tune ended before the trials did: {grid.error}") from grid.error
            outcomes = ray.get(pool.collect.remote(known, POLL_SECONDS))
            now = ray.get(pool.snapshot.remote(events))  # asked second, logged first: a trial begins before it ends
            events += len(now["events"])
            room[0] = now["room"]
            for event in now["events"]:
                self.log(event)
            for outcome in outcomes:
                known += 1
                record = self.outcomes.add(waited[outcome["trial_id"]], outcome)
                ray.get(pool.acknowledge.remote(record.trial_id, self.outcomes.reports(record)))
            waits = wait.look(now, time.monotonic())
            running = [trial for trial in now["running"] if trial["trial_id"] not in self.outcomes.records]
            self.show(running, WAITING if waits else "starting lanes" if now["lanes_starting"] else "training")


class _Thread(threading.Thread):
    """A thread that keeps its error."""

    error: BaseException | None = None

    def run(self) -> None:
        try:
            super().run()
        except BaseException as error:  # the main thread raises it
            self.error = error

    def interrupt(self) -> None:
        """Where it still runs, the run is stopped: let it end, and wait a little for that.

        Ray ends the whole process, with code 1, when a thread of it still asks a server that has gone.
        """
        if self.ident is not None and self.is_alive():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(SystemExit))
            self.join(INTERRUPT_SECONDS)
