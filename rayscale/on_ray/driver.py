"""Run a study: the driver. It asks for consent, prepares the text, opens lanes, and makes every record durable.

Only this process writes the run's folder; workers send what they measured by actor calls.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml

from rayscale.errors import InputError, LeaseLostError, StorageError, first_line
from rayscale.on_ray import driver_savepoints
from rayscale.on_ray.event_text import event_text
from rayscale.on_ray.progress import Progress
from rayscale.on_ray.training import TrialRunner
from rayscale.plan.augmentations import FEW_CHILDREN, childless
from rayscale.plan.draft import draft_plan, run_store, with_children, write_plan
from rayscale.plan.estimate import Planned
from rayscale.plan.observer import Observer
from rayscale.plan.plan import Plan
from rayscale.report.notes import cut_notes
from rayscale.report.rebuild import rebuild_report
from rayscale.runs.attempts import earlier_drivers
from rayscale.runs.events import Event, log_event
from rayscale.runs.folder import Run, recover, refuse_another_study, remove_unused
from rayscale.runs.lease import hold
from rayscale.runs.ledger import Ledger, planned_only
from rayscale.runs.outcomes import Outcomes
from rayscale.runs.savepoints import Saving
from rayscale.study.augment_key import read
from rayscale.study.study import RunSettings, Study, load_study
from rayscale.system.machine import check_address, this_machine
from rayscale.system.signals import Stopped, before_end, came, check, deferred
from rayscale.system.storage import Store
from rayscale.text.augment.children import find_all
from rayscale.text.error_places import naming_fields
from rayscale.text.preparation import Here
from rayscale.text.prepared import Prepared
from rayscale.text.review.row_counts import token_counts
from rayscale.text.rows.clean import BUILT_IN, list_sources
from rayscale.text.sources.opening import unpacked_size
from rayscale.text.tokens.encode import spec_of
from rayscale.text.workers import Workers

#: Bytes of text that this process prepares by itself for an inline run.
SMALL_BYTES = 20_000_000

EXECUTORS: tuple[str, ...] = get_args(RunSettings.model_fields["executor"].annotation)


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

    `address` is local (a Ray of our own), auto or HOST:PORT; a Ray that the caller's process has joined before is used
    instead, and left up. `only` is one trial id; `executor` overrides the study's. Raises InputError before Ray starts
    (on a cluster: before anything is scheduled) for a study that cannot run, ClusterError when Ray fails. A trial that
    raises is a failed record, not an exception; with both `only` and the executor inline it passes through.
    """
    if executor is not None and executor not in EXECUTORS:
        raise InputError(f"found '{executor}'; use one of: {', '.join(EXECUTORS)}", where="--executor")
    path = study if isinstance(study, (str, Path)) else None
    check_address(address)
    study = study if isinstance(study, Study) else load_study(study)
    store = run_store(study, out)
    store.check_writable()
    observer = observer or Observer()
    with hold(store, say=observer.say) as lease:
        executor = executor or study.run.executor
        outcomes = Outcomes(Ledger(store, lease.check), study.run.keep, executor, {}, fetch=_fetch_model)
        done = _drive(_Driver(study, outcomes, observer, retry_failed, only), path, address)
    if done is None:
        remove_unused(store)
    return done


def _fetch_model(files: Any) -> dict[str, Any]:
    """The files of a kept model, which a worker put into Ray's store. Raises LookupError if they went with it."""
    if isinstance(files, dict):
        return files
    import ray

    try:
        return ray.get(files)
    except ray.exceptions.RayError as error:
        raise LookupError(first_line(error)) from None


def _drive(driver: _Driver, path: str | Path | None, address: str) -> Run | None:
    study, store = driver.study, driver.store
    with ExitStack() as stack, driver.telling_of_an_end():
        # Whether the caller has joined a Ray, without importing it.
        joined = "ray" in sys.modules and sys.modules["ray"].is_initialized()
        if address == "local" and not joined:
            machine = this_machine(study.run.accelerator, driver.trials_per_gpu)
        else:
            machine = driver.connect(stack, address).machine
        if not driver.begin(draft_plan(study, machine, store), path):
            return None
        if not driver.prepare_here():
            driver.use(stack, address)
        driver.execute()
    with driver.telling_of_an_end():
        driver.observer.phase("fitting the laws")
        driver.outcomes.ledger.guard()
        rebuild_report(store)
    log_event(store, {"event": "run_ended"})
    return Run(store)


@dataclass
class _Driver:
    study: Study
    outcomes: Outcomes
    observer: Observer
    retry_failed: bool
    only: str | None
    agreed: bool = False
    stop_logged: bool = False
    logging_stop: threading.Lock = field(default_factory=threading.Lock)
    session: Any = None
    host: Any = None
    saving: Saving | None = None
    pending: list[Planned] = field(default_factory=list)
    prepared: dict[str, Prepared] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        """The run's folder."""
        return self.outcomes.store

    @property
    def trials_per_gpu(self) -> int:
        """How many trials share a GPU: none where one runs after the other in this process."""
        return 1 if self.outcomes.executor == "inline" else self.study.run.trials_per_gpu

    @contextmanager
    def telling_of_an_end(self) -> Iterator[None]:
        """Log and show that the run stops: before Ray is shut down, which takes seconds, or when it ends at once."""
        before_end.append(self._log_stop)
        try:
            yield
        except BaseException as error:
            if not isinstance(error, LeaseLostError):  # then events.jsonl is another driver's
                died = self.session.guard.reason if self.session else None
                with deferred():
                    self._log_stop(died or type(error).__name__)
            if isinstance(error, KeyboardInterrupt | Stopped) or came():
                self.observer.phase("stopping (a second signal ends it at once)")
                check()
            raise
        finally:
            before_end.remove(self._log_stop)

    def _log_stop(self, reason: str = "Stopped") -> None:
        with self.logging_stop:  # the thread that ends the process at once waits for the main thread's line
            if self.agreed and not self.stop_logged:
                with suppress(StorageError):  # the first error is the one to tell
                    log_event(self.store, {"event": "run_stopped", "reason": reason})
                self.stop_logged = True

    def begin(self, plan: Plan, path: str | Path | None) -> bool:
        """Write study and plan, find what is left to run, ask. False if the answer is no."""
        self.plan = plan
        planned = {p.trial.trial_id: p.trial.model.name for p in plan.trials}
        if self.only and self.only not in planned:
            reason = f"no trial '{self.only}' in this study; `rayscale plan --json` lists their ids"
            raise InputError(reason, code="unknown_trial", where="--only")
        earlier, damaged = self.outcomes.ledger.read()
        if any(r.row["executor"] == "simulated" for r in earlier):
            reason = f"{self.store.location} holds simulated trials; give another folder with --out"
            raise InputError(reason, code="simulated_run")
        refuse_another_study(self.store, self.study.name, bool(earlier))
        known = {r.trial_id: r for r in planned_only(earlier, planned)}
        stands = {i for i, r in known.items() if r.finished or (r.row["status"] == "failed" and not self.retry_failed)}
        again = {self.only} if self.only else set(planned) - stands
        self.pending = [p for p in plan.trials if p.trial.trial_id in again]
        self.outcomes.records = {i: record for i, record in known.items() if i not in again}
        if self.outcomes.executor == "inline" and (wide := [p for p in self.pending if p.trial.gpus > 1]):
            text = f"executor inline runs in this one process; {len(wide)} of the trials want more than one GPU"
            fix = "use --only with a trial of one GPU, or executor lanes"
            raise InputError(f"{text}, such as {wide[0].trial.trial_id}", fix=fix, code="inline_gpus")
        for damage in damaged:
            self.observer.say(damage.text)
        self.agreed = self.observer.consent(plan, self.pending, len(known))
        if self.agreed:
            if path:
                content = Path(path).read_bytes()
            else:
                content = yaml.safe_dump(self.study.model_dump(mode="json"), sort_keys=False).encode()
            recover(self.outcomes.ledger, damaged)
            self.store.write("study.yaml", content)
            plan.save(self.store)
            self._begin_saving()
            source = str(Path(path).absolute()) if path else None
            host = socket.gethostname()
            self._log({"event": "run_started", "host": host, "study": source, "pending": len(self.pending)})
        return self.agreed

    def _begin_saving(self) -> None:
        """Find what earlier drivers left of the trials that are pending, and let workers know this one's storage."""
        pending = [p.trial.trial_id for p in self.pending]
        self.outcomes.earlier = earlier_drivers(self.store, pending, Run(self.store).events)
        self._clear_savepoints()
        if pending:
            self.saving = driver_savepoints.begin_saving(self.store, self.study, self.plan.machine.share)

    def _clear_savepoints(self) -> None:
        """Keep those of planned trials without a record alone: they resume from there."""
        planned = {p.trial.trial_id for p in self.plan.trials}
        if reason := driver_savepoints.clear(self.store, planned - set(self.outcomes.records)):
            self._log({"event": "checkpoints_left", "reason": reason})

    def prepare_here(self) -> bool:
        """Whether no Ray is needed: nothing to train, or an inline run of text that is prepared already, or small."""
        if not self.pending:
            return True
        if self.outcomes.executor != "inline":
            return False
        specs = {spec_of(p.trial.model) for p in self.pending}
        with naming_fields(self.study):
            ready = find_all(self.study, list(specs), self._seeds())
        if all(ready.values()):
            self.prepared = {name: prepared for name, prepared in ready.items() if prepared}
        elif self.session is None and _is_small(self.study):
            self._prepare(Here())
        return bool(self.prepared)

    def _prepare(self, workers: Workers | None = None) -> None:
        from rayscale.on_ray.data.prepare import prepare

        self.observer.phase("preparing the text")
        specs = list({spec_of(p.trial.model): None for p in self.plan.trials})
        with naming_fields(self.study):
            self.prepared = prepare(self.study, specs, self._seeds(), self.observer.phase, workers)

    def _seeds(self) -> list[int]:
        return sorted({p.trial.seed for p in self.plan.trials})

    def connect(self, stack: ExitStack, address: str) -> Any:
        """The Ray session of this run, started or joined once."""
        from rayscale.on_ray.session.session import connect

        if self.session is None:
            self.observer.phase("starting Ray" if address == "local" else f"connecting to Ray at {address}")
            run = self.study.run
            self.session = stack.enter_context(connect(address, run.accelerator, run.hang_seconds, self.trials_per_gpu))
        return self.session

    def use(self, stack: ExitStack, address: str) -> None:
        """Start or keep Ray, and prepare the text."""
        from rayscale.on_ray.lanes.worker import open_host

        self.connect(stack, address)
        if self.saving and self.session.nodes > 1:
            blind = driver_savepoints.blind_nodes(self.saving, self.session.worker_resources)
            if text := driver_savepoints.check_seen(blind, self.study, self.pending, self.store):
                self._log({"event": "checkpoints_off", "hosts": blind, "reason": text})
        if self.pending and self.outcomes.executor != "inline":
            self.host = open_host(self.session.missing)
        self._prepare()

    def execute(self) -> None:
        """Run what is pending; every outcome is a durable record when this returns."""
        if not self.pending:
            return
        self._leave_out_childless()
        write_plan(self.store, self.plan, self.prepared)
        for text in cut_notes(token_counts(self.prepared)):  # a plan shows them with --verbose alone
            self.observer.say(text)
        if not self.pending:
            return
        self.progress = Progress(self.plan, starts=self.outcomes.executor != "inline")
        runner = TrialRunner(
            self.study, self.plan, self.pending, self.prepared, self.outcomes, self.saving, self.only,
            self._log, self._show,
        )  # fmt: skip
        with naming_fields(self.study):
            runner.check_subsets()
        if self.outcomes.executor == "inline":
            runner.run_inline()
        else:
            self.observer.phase("starting lanes")
            runner.run_in_lanes(self.session, self.host)
        self._clear_savepoints()

    def _leave_out_childless(self) -> None:
        """Now that children are made: cells that have none are not trained, which is said before any is.

        Raises InputError where nothing is left to train.
        """
        before, self.plan = self.plan, with_children(self.plan, self.prepared)
        left = {planned.trial.trial_id: planned for planned in self.plan.trials}
        if self.only and self.only not in left:
            why = childless((planned.trial for planned in before.trials), self.prepared)[self.only]
            raise InputError(f"{self.only} is not run: {why}", code="no_children", where="--only")
        for reason, cells in Counter(reason for _, reason in self.plan.cut[len(before.cut) :]).items():
            self._log({"event": "cells_cut", "cells": cells, "reason": reason})
        for note in self.plan.lint:
            if note[0] == FEW_CHILDREN and note not in before.lint:
                self.observer.say(note[1])
        self.pending = [left[planned.trial.trial_id] for planned in self.pending if planned.trial.trial_id in left]
        self.outcomes.records = {i: record for i, record in self.outcomes.records.items() if i in left}

    def _log(self, event: Event) -> None:
        log_event(self.store, event)
        if text := event_text(event):
            self.observer.say(text)

    def _show(self, running: Sequence[Mapping[str, Any]], phase: str) -> None:
        check()
        if self.session is not None:
            self.session.guard.check()
        self.observer.show(self.progress.look(self.outcomes.records, running, phase))


def _is_small(study: Study) -> bool:
    """Whether the text is prepared in this process in less time than Ray takes to start."""
    if any(read(entry).on_models for entry in study.data.augment):
        return False
    sources = [source.path for source in list_sources(study.data) if source.path != BUILT_IN]
    return sum(map(unpacked_size, sources)) <= SMALL_BYTES
