"""Run a study: the driver. It asks for consent, prepares the text, opens lanes, and makes every record durable.

Only this process writes the run's folder; workers send what they measured by actor calls.
"""

from __future__ import annotations

import io
import json
import socket
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from rayscale.checkpoints import find_checkpoint
from rayscale.draft import draft_plan, run_store
from rayscale.errors import ClusterError, InputError
from rayscale.finish import finish
from rayscale.ledger import Ledger, TrialRecord, make_record
from rayscale.machine import this_machine
from rayscale.on_ray.place import place, versions
from rayscale.on_ray.progress import Progress
from rayscale.plan import Plan, Planned
from rayscale.report.terminal import Snapshot
from rayscale.run_folder import Run, log_event
from rayscale.storage import Store
from rayscale.study import Study, load_study
from rayscale.text.prepared import Prepared
from rayscale.text.tokenise import spec_of

POLL_SECONDS = 0.5


class Observer(Protocol):
    """Who is told how the run goes; the command line shows it, a notebook may ignore it."""

    def consent(self, plan: Plan, pending: Sequence[Planned]) -> bool:
        """Whether to go on with this plan."""

    def phase(self, text: str) -> None:
        """A new phase began."""

    def show(self, snapshot: Snapshot) -> None:
        """The state of the run, twice a second."""


class Silent:
    """An observer that agrees to everything and says nothing."""

    def consent(self, plan: Plan, pending: Sequence[Planned]) -> bool:
        """Always."""
        return True

    def phase(self, text: str) -> None:
        """Not shown."""

    def show(self, snapshot: Snapshot) -> None:
        """Not shown."""


def run_study(
    study: Study | str | Path,
    *,
    out: str | None = None,
    address: str = "local",
    retry_failed: bool = False,
    only: str | None = None,
    executor: str | None = None,
    observer: Observer | None = None,
) -> Run | None:
    """Run what the study's ledger does not hold yet, then fit and report; returns the run, or None without consent.

    `address` is local (a Ray of our own), auto or HOST:PORT; `only` is one trial id; `executor` overrides
    the study's. Raises InputError before Ray starts (on a cluster: before anything is scheduled) for a study that
    cannot run, ClusterError when Ray fails. A trial that raises is a failed record, not an exception.
    """
    path = study if isinstance(study, (str, Path)) else None
    study = study if isinstance(study, Study) else load_study(study)
    store = run_store(study, out)
    store.check_writable()
    driver = _Driver(study, store, observer or Silent(), executor or study.run.executor, retry_failed, only)
    try:
        with ExitStack() as stack:
            local = address == "local"
            machine = this_machine(study.run.accelerator) if local else driver.connect(stack, address).machine
            if not driver.begin(draft_plan(study, machine, store), path):
                return None
            if not driver.prepare_here():
                driver.use(stack, address)
            driver.execute()
        driver.observer.phase("fitting the laws")
        finish(store)
    except BaseException as error:
        if driver.agreed:
            log_event(store, "run_stopped", reason=type(error).__name__)
        raise
    log_event(store, "run_ended")
    return Run(store)


@dataclass
class _Driver:
    study: Study
    store: Store
    observer: Observer
    executor: str
    retry_failed: bool
    only: str | None
    agreed: bool = False
    session: Any = None
    host: Any = None
    pending: list[Planned] = field(default_factory=list)
    records: dict[str, TrialRecord] = field(default_factory=dict)
    prepared: dict[str, Prepared] = field(default_factory=dict)

    # ---- before

    def begin(self, plan: Plan, path: str | Path | None) -> bool:
        """Write study and plan, find what is left to run, ask. False if the answer is no."""
        self.plan, self.progress = plan, Progress(plan)
        ledger = Ledger(self.store)
        planned = {p.trial.trial_id: p for p in plan.trials}
        if self.only and self.only not in planned:
            raise InputError(
                f"no trial '{self.only}' in this study; `rayscale plan --json` lists their ids", code="unknown_trial"
            )
        earlier = ledger.read()[0]
        if any(r.row["executor"] == "simulated" for r in earlier):
            raise InputError(
                f"{self.store.location} holds simulated trials; give another folder with --out", code="simulated_run"
            )
        self.records = {r.trial_id: r for r in earlier if r.trial_id in planned}
        self.pending = [
            p
            for p in plan.trials
            if (p.trial.trial_id == self.only if self.only else not self._stands(p.trial.trial_id))
        ]
        if self.executor == "inline" and (wide := [p for p in self.pending if p.trial.gpus > 1]):
            raise InputError(
                f"executor inline runs in this one process; {len(wide)} of the trials want more than one GPU, such as "
                f"{wide[0].trial.trial_id}; use --only with a trial of one GPU, or executor lanes",
                code="inline_gpus",
            )
        self.agreed = self.observer.consent(plan, self.pending)
        if self.agreed:
            text = Path(path).read_bytes() if path else _as_yaml(self.study)
            self.store.write("study.yaml", text)
            self.store.write("plan.json", json.dumps(plan.to_json(), indent=1, allow_nan=False).encode())
            source = str(Path(path).absolute()) if path else None
            log_event(self.store, "run_started", host=socket.gethostname(), study=source, pending=len(self.pending))
        return self.agreed

    def _stands(self, trial_id: str) -> bool:
        record = self.records.get(trial_id)
        return record is not None and (record.finished or (record.row["status"] == "failed" and not self.retry_failed))

    def prepare_here(self) -> bool:
        """Whether no Ray is needed: nothing to train, or an inline run of text that is prepared already."""
        from rayscale.text.prepared import find_prepared

        if not self.pending:
            return True
        if self.executor != "inline":
            return False
        specs = {spec_of(p.trial.model) for p in self.pending}
        found = {spec.name: find_prepared(self.study, spec, self._seeds()) for spec in specs}
        if all(found.values()):
            self.prepared = {name: prepared for name, prepared in found.items() if prepared}
        return bool(self.prepared)

    def _seeds(self) -> list[int]:
        return sorted({p.trial.seed for p in self.plan.trials})

    # ---- with Ray

    def connect(self, stack: ExitStack, address: str) -> Any:
        """The Ray session of this run, started or joined once."""
        from rayscale.on_ray.session import connect

        if self.session is None:
            self.observer.phase("starting Ray" if address == "local" else f"connecting to Ray at {address}")
            self.session = stack.enter_context(
                connect(address, self.study.run.accelerator, self.study.run.hang_seconds)
            )
        return self.session

    def use(self, stack: ExitStack, address: str) -> None:
        """Start or keep Ray, and prepare the text."""
        from rayscale.on_ray.data import prepare
        from rayscale.on_ray.lanes import open_host

        self.connect(stack, address)
        if self.pending and self.executor != "inline":
            self.host = open_host()
        self.observer.phase("preparing the text")
        specs = list({spec_of(p.trial.model): None for p in self.plan.trials})
        self.prepared = prepare(self.study, specs, self._seeds(), self.observer.phase)

    def execute(self) -> None:
        """Run what is pending; every outcome is a durable record when this returns."""
        if not self.pending:
            return
        for planned in self.pending:  # refuse before the first trial what the last could not read
            trial = planned.trial
            self._prepared(planned).subset(trial.data_axis, trial.data_requested, trial.seed)
        if self.executor == "inline":
            self._execute_inline()
        else:
            self._execute_in_lanes()

    def _prepared(self, planned: Planned) -> Prepared:
        return self.prepared[spec_of(planned.trial.model).name]

    def _execute_inline(self) -> None:
        from rayscale.nn.train import train_trial
        from rayscale.on_ray import parcels

        for planned in self.pending:
            trial, started = planned.trial, datetime.now(UTC)
            log_event(self.store, "trial_started", trial_id=trial.trial_id)

            def progress(told: dict[str, Any], planned: Planned = planned) -> None:
                self._show([{"trial_id": planned.trial.trial_id, "seconds": 0.0, **told}])

            checkpoint = (
                str(find_checkpoint(trial.model.path, trial.model.revision).folder) if trial.model.path else None
            )
            with tempfile.TemporaryDirectory(prefix="rayscale-model-") as scratch:
                kept = Path(scratch) / "model" if self.study.run.keep != "none" else None
                # Exceptions pass through: this executor is for the debugger.
                measured = train_trial(
                    trial, self._prepared(planned), checkpoint=checkpoint, device=trial.device, progress=progress,
                    save_to=kept,
                )  # fmt: skip
                files = parcels.read_files(kept) if kept is not None and kept.is_dir() else None
            measured |= place(started, trial.gpus)
            outcome = {"status": measured["status"], "measured": measured, "exclusive": True, "attempts": 1}
            self._keep(planned, {**outcome, "model": [files] if files else []})

    def _execute_in_lanes(self) -> None:
        import ray

        from rayscale.on_ray.lanes import LaneSettings, open_pool
        from rayscale.on_ray.tune import run_grid

        self.observer.phase("starting lanes")
        run, slots = self.study.run, self.plan.machine.slots
        settings = LaneSettings(self.session.worker_resources, self.plan.machine.device, run.hang_seconds, run.keep)
        pool = open_pool(
            self._cells(), slots, run.retries, 1 if self.executor == "isolated" else None, settings, self.host
        )
        for trial_id, record in self.records.items():
            if trial_id not in {p.trial.trial_id for p in self.pending}:
                ray.get(pool.acknowledge.remote(trial_id, record.row))
        recorded = set(self.records) - {p.trial.trial_id for p in self.pending}
        planned = [p for p in self.plan.trials if not self.only or p.trial.trial_id in {*recorded, self.only}]
        grid = _Thread(lambda: run_grid(planned, recorded, slots, pool, self.store))
        grid.start()
        self._collect(pool, grid)
        grid.join()
        ray.wait([pool.stop.remote()], timeout=0.0 if self.session.local else 30.0)  # a Ray of our own ends anyway
        if grid.error:
            raise ClusterError(f"Ray Tune ended with an error: {grid.error}") from grid.error

    def _cells(self) -> list[Any]:
        from rayscale.on_ray import parcels
        from rayscale.on_ray.lanes import Handed
        from rayscale.on_ray.pool import Cell

        several = self.session.nodes > 1 or not self.session.local
        folders = {str(self._prepared(p).path) for p in self.pending} | {
            p.trial.model.path for p in self.pending if p.trial.model.path
        }
        wrapped = {folder: parcels.wrap(Path(folder), several) for folder in folders}
        return [
            Cell(
                p.trial.trial_id,
                p.trial.gpus,
                p.alone,
                Handed(
                    p.trial.to_json(),
                    wrapped[str(self._prepared(p).path)],
                    wrapped[p.trial.model.path] if p.trial.model.path else None,
                ),
            )
            for p in self.pending
        ]

    def _collect(self, pool: Any, grid: _Thread) -> None:
        import ray

        waited = {p.trial.trial_id: p for p in self.pending}
        known, begun = 0, set[str]()
        while known < len(self.pending):
            if not grid.is_alive():
                raise ClusterError(f"Ray Tune ended before the trials did: {grid.error}") from grid.error
            for outcome in ray.get(pool.collect.remote(known, POLL_SECONDS)):
                known += 1
                self._keep(waited[outcome["trial_id"]], outcome)
                ray.get(pool.acknowledge.remote(outcome["trial_id"], self.records[outcome["trial_id"]].row))
            now = ray.get(pool.snapshot.remote())
            for running in now["running"]:
                if running["trial_id"] not in begun:
                    begun.add(running["trial_id"])
                    log_event(self.store, "trial_started", trial_id=running["trial_id"])
            self._show(now["running"], "starting lanes" if now["lanes_starting"] else "training")

    # ---- outcomes

    def _keep(self, planned: Planned, outcome: Mapping[str, Any]) -> None:
        """Make one outcome durable: its model if it is wanted, curve, log, then the record, which says it is done."""
        trial = planned.trial
        error = outcome.get("error")
        measured = dict(outcome.get("measured") or place(datetime.now(UTC), trial.gpus))
        measured["device_seconds"] += outcome.get("lost_seconds", 0.0)  # attempts that failed were paid for too
        curve = measured.pop("curve", [])
        measured.pop("status", None)
        if error:
            measured["error"] = error["message"]
        if curve:
            self._write_curve(trial.trial_id, curve)
        if text := (error or {}).get("traceback") or (error or {}).get("message"):
            self.store.write(f"logs/{trial.trial_id}.log", text.encode())
        record = make_record(
            trial,
            status=outcome["status"],
            exclusive=bool(outcome.get("exclusive")),
            executor=self.executor,
            attempts=outcome["attempts"],
            versions=versions(),
            **measured,
        )
        self._keep_model(record, outcome.get("model") or [])
        Ledger(self.store).write(record)
        self.records[trial.trial_id] = record
        log_event(self.store, "trial_finished", trial_id=trial.trial_id, status=record.row["status"])

    def _write_curve(self, trial_id: str, curve: list[dict[str, Any]]) -> None:
        sink = io.BytesIO()
        pd.DataFrame(curve).to_parquet(sink)
        self.store.write(f"curves/{trial_id}.parquet", sink.getvalue())

    def _keep_model(self, record: TrialRecord, model: list[Any]) -> None:
        """Write models/<trial_id>/; with keep: best, only if no kept model validates better, and drop the loser.

        `model` holds the files by name, or the reference to them that a worker put; it is empty if none was saved.
        """
        if not model or record.row["status"] != "ok":
            return
        others = []
        if self.study.run.keep == "best":
            others = [i for i in self.records if i != record.trial_id and self.store.exists(f"models/{i}")]
            mine = record.row["validation_loss"]
            if mine is None or any((self.records[i].row["validation_loss"] or 0) <= mine for i in others):
                return
        files = model[0]
        if not isinstance(files, dict):
            import ray

            try:
                files = ray.get(files)
            except ray.exceptions.RayError as error:  # its worker died meanwhile; what it measured stands all the same
                reason = str(error).splitlines()[0]
                log_event(self.store, "model_lost", trial_id=record.trial_id, reason=reason)
                return
        for name, content in files.items():
            self.store.write(f"models/{record.trial_id}/{name}", content.tobytes())
        for other in others:
            self.store.delete_folder(f"models/{other}")

    def _show(self, running: Sequence[Mapping[str, Any]], phase: str = "training") -> None:
        self.observer.show(self.progress.look(self.records, running, phase))


class _Thread(threading.Thread):
    """A daemon thread that keeps its error."""

    def __init__(self, work: Any) -> None:
        super().__init__(daemon=True, name="rayscale-tune")
        self._work = work
        self.error: BaseException | None = None

    def run(self) -> None:
        """Do the work."""
        try:
            self._work()
        except BaseException as error:  # told to the main thread, which raises it
            self.error = error


def _as_yaml(study: Study) -> bytes:
    import yaml

    return yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False).encode()
