"""Keeps a trial's progress: finds its last whole savepoint, and writes new ones while training continues."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from rayscale.errors import StorageError
from rayscale.nn.models.weights import write_weights
from rayscale.nn.ranks import Group
from rayscale.nn.training import resume
from rayscale.nn.training.heartbeat import Heartbeat
from rayscale.runs.attempts import Attempt, earlier_attempts
from rayscale.runs.events import Event
from rayscale.runs.savepoints import KEPT, DamagedError, Savepoints, Saving, sees

if TYPE_CHECKING:
    from rayscale.nn.training.course import Course
    from rayscale.nn.training.job import Job

LOOKED_AT = KEPT + 2  # a crash between writing a savepoint and deleting an old one leaves one more
BEAT_SECONDS = 0.2
ACCOUNT_SHARE = 0.1  # of the time between savepoints: an attempt that is shorter leaves no account


class SavepointKeeper:
    """One rank's part in keeping a trial's progress; every method but `close` must be called by all ranks.

    Without `saving`, or where one rank does not see the storage, it does nothing: the trial is trained without
    savepoints.
    """

    def __init__(self, saving: Saving | None, job: Job) -> None:
        self.job, self.saving = job, saving
        blind = saving is None or not sees(saving.store, saving.token)
        self.on = not job.group.largest([float(blind)])[0]
        self._saved: resume.SavedState | None = None
        self._writer: _Writer | None = None
        self._attempt: Attempt | None = None
        self._stopped = False
        if self.on:
            assert saving is not None
            owner = resume.owner_of(job.trial, job.group.world_size)
            self.savepoints = Savepoints(saving.store, job.trial.trial_id, owner)

    def find(self, model: nn.Module) -> Job:
        """Puts the weights of the last savepoint that every rank can read into the model; reports what is damaged.

        Returns the job as it resumes: with the micro-batch of the savepoint, if that is smaller.
        """
        if not self.on:
            return self.job
        group, first = self.job.group, self.job.group.rank == 0
        steps = self.savepoints.steps()[:LOOKED_AT] if first else []
        listed = group.add(np.pad(np.asarray(steps, dtype=float), (0, LOOKED_AT - len(steps))))
        damaged: list[tuple[int, str | None]] = []
        for step in (int(step) for step in listed if step):
            saved, reason = self._read(step)
            if not group.largest([float(saved is None)])[0]:
                self._saved = saved
                break
            if first:
                damaged.append((step, reason))
        if first:
            self._report(damaged, self._saved.state["step"] if self._saved else 0)
        if self._saved is not None:
            write_weights(self._saved.weights, model)
            smaller = min(self.job.micro_batch, self._saved.state["micro_batch"])
            self.job = replace(self.job, micro_batch=smaller)
        return self.job

    def _read(self, step: int) -> tuple[resume.SavedState | None, str | None]:
        try:
            return resume.parse(self.savepoints.read(step)), None
        except DamagedError as error:
            return None, str(error)

    def _report(self, damaged: list[tuple[int, str | None]], step: int) -> None:
        """Say what could not be read, and where the trial resumes: 0 is its beginning."""
        assert self.saving is not None
        trial_id = self.job.trial.trial_id
        place = self.savepoints.name(step) if step else None
        for number, reason in damaged:
            file, why = self.savepoints.name(number), reason or "another worker could not read it"
            self.tell({"event": "checkpoint_damaged", "trial_id": trial_id, "file": file, "step": number, "reason": why,
                       "fell_back_to": place})  # fmt: skip
            if reason:
                self.savepoints.drop(number)
        store = self.saving.store
        earlier = earlier_attempts(store, trial_id)
        if earlier or step or damaged:
            last = earlier[-1] if earlier else None
            # On object storage the account is as old as the savepoint: how far the attempt came is not known.
            redone = max(0, last.step - step) if last and store.local is not None else None
            self.tell({"event": "trial_resumed", "trial_id": trial_id, "from": place, "step": step,
                       "steps": self.job.steps, "steps_redone": redone,
                       "interval_steps": last.interval_steps if last else None})  # fmt: skip

    @property
    def resumes(self) -> bool:
        """Whether training resumes from a savepoint; the same on all ranks."""
        return self._saved is not None

    def begin(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, course: Course, pulse: Heartbeat
    ) -> resume.Position:
        """Training begins: sets optimizer, course and generators to where it resumes, and returns where that is."""
        self._model, self._optimizer, self._course, self._pulse = model, optimizer, course, pulse
        group, at, saved = self.job.group, resume.Position(0), self._saved
        if saved is not None:
            state = saved.state
            at = resume.Position(state["step"], state["ranks"][group.rank]["loss_sum"], state["target_sum"])
            resume.put_optimizer(saved, model, optimizer)
            resume.restore_course(saved, course, group.device)
            resume.put_generators(saved, group)
            self._saved = None  # its tensors take twice the memory of the model
        if self.on:
            assert self.saving is not None
            self._rhythm = Rhythm(self.saving.seconds, at.step, group)
            if group.rank == 0:
                gpus = group.world_size * self.saving.share
                quiet = self.saving.seconds * ACCOUNT_SHARE
                self._attempt = Attempt(self.saving.store, self.job.trial.trial_id, gpus, quiet)
        return at

    def after_step(self, step: int, loss_sum: torch.Tensor, target_sum: float, clock: Callable[[], float]) -> float:
        """Saves if it is time to; returns the seconds that training stood still for it.

        `clock` gives the training seconds so far, and `loss_sum` is this rank's.
        """
        if not self.on:
            return 0.0
        if self._attempt is not None:
            self._attempt.tell(step, self._rhythm.interval_steps)
        if not self._rhythm.due(step, busy=self._stopped or self._is_writing()):
            return 0.0
        loss = float(loss_sum.item())  # waits for the device
        trained, began = clock(), time.perf_counter()
        self._save(resume.Position(step, loss, target_sum), trained)
        self._rhythm.restart(step)
        return time.perf_counter() - began

    def _save(self, at: resume.Position, trained: float) -> None:
        assert self.saving is not None
        job, course = self.job, resume.tell_course(self._course, trained)
        epoch, batch = divmod(at.step, job.steps // job.settings.epochs)
        state = {"epoch": epoch, "batch": batch, "micro_batch": job.micro_batch, "course": course}
        files = resume.capture(self._model, self._optimizer, job.group, at, state, self._course.watch.weights)
        if self._attempt is not None:
            if sees(self.saving.store, self.saving.token):
                self._writer = _Writer(self.savepoints, at.step, files)
                self._attempt.keep()
                until = time.monotonic() + self.saving.wait_seconds
                while self._writer.is_alive() and time.monotonic() < until:
                    self._pulse.beat()
                    self._writer.join(BEAT_SECONDS)
            else:
                self._stopped = True  # another driver has taken the run over; its workers train this trial
        job.group.add([0.0])  # no rank's clock runs while another waits for the disk
        self._is_writing()

    def _is_writing(self) -> bool:
        """Whether a savepoint is still being written; tells of one that has been."""
        if self._writer is None or self._writer.is_alive():
            return self._writer is not None
        writer, self._writer = self._writer, None
        trial_id, step = self.job.trial.trial_id, writer.step
        if writer.error is None:
            self.tell({"event": "checkpoint_saved", "trial_id": trial_id, "step": step, "bytes": writer.bytes,
                       "seconds": round(writer.seconds, 3)})  # fmt: skip
        else:
            self.tell({"event": "checkpoint_failed", "trial_id": trial_id, "step": step, "reason": writer.error})
        return False

    def tell(self, event: Event) -> None:
        """Something about the trial for the run's events; for the log of this process where nothing is saved."""
        if self.saving is None:
            logging.getLogger(__name__).warning("%s", event)
        else:
            self.saving.say(event)

    def close(self) -> None:
        """Training ended, well or not: what is being written is written to its end."""
        if self._writer is not None:
            self._pulse.enter("save")
            self._writer.join()
            self._is_writing()
        if self._attempt is not None:
            self._attempt.close()


class _Writer(threading.Thread):
    """Writes one savepoint from bytes of its own; a full or lost disk costs the savepoint, not the trial."""

    def __init__(self, savepoints: Savepoints, step: int, files: dict[str, bytes]) -> None:
        super().__init__(daemon=True, name="rayscale-savepoint")
        self.savepoints, self.step, self._files = savepoints, step, files
        self.error: str | None = None
        self.bytes, self.seconds = 0, 0.0
        self.start()

    def run(self) -> None:
        began = time.monotonic()
        try:
            self.bytes = self.savepoints.write(self.step, self._files)
        except (OSError, StorageError) as error:
            self.error = str(error)
        finally:
            self._files = {}
            self.seconds = time.monotonic() - began


class Rhythm:
    """Says after which steps to save, for a trial that resumes after `step` and is to be saved every `seconds`."""

    def __init__(self, seconds: float, step: int, group: Group) -> None:
        self.seconds, self.group = seconds, group
        self.interval_steps = 0.0  # steps between savepoints at the speed of the last look; 0 before the first
        self.restart(step)

    def restart(self, step: int) -> None:
        """A savepoint was just written after `step`, or training resumes from there."""
        self._began, self._from, self._look = time.monotonic(), step, step + 1

    def due(self, step: int, busy: bool) -> bool:
        """Whether to save after this step: no while any rank is `busy`. Every rank must ask after every step."""
        if step < self._look:
            return False
        elapsed, waits = self.group.largest([time.monotonic() - self._began, float(busy)])
        a_step = max(float(elapsed) / (step - self._from), 1e-9)
        self.interval_steps = max(1.0, self.seconds / a_step)
        left = (self.seconds - float(elapsed)) / a_step
        if left < 0.5 and not waits:
            return True
        ahead = left / 2 if left >= 0.5 else 1.0 / a_step  # while a rank is busy, about once a second
        self._look = step + (max(1, int(ahead)) if self.group.world_size > 1 else 1)  # a lone rank asks only itself
        return False
