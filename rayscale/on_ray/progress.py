"""How a run stands at one moment: what is done, what runs, the time left, the law so far."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rayscale.plan.plan import Plan
from rayscale.report.terminal.run import RunningTrial, Snapshot
from rayscale.runs.fit_rows import with_guesses
from rayscale.runs.ledger import TrialRecord, table
from rayscale.runs.status import count_status
from rayscale.verdict.verdict import law_line

LAW_EVERY_SECONDS = 15.0  # fitting takes CPU from the trials


class Progress:
    """Looks at a run; remembers only when it began, whether a trial did, and the law that it fitted last.

    `starts`: whether lanes must start before the first trial begins.
    """

    def __init__(self, plan: Plan, *, starts: bool = True) -> None:
        self._trials = {planned.trial.trial_id: planned.trial for planned in plan.trials}
        self._rows = [planned.row() for planned in plan.trials]
        self._slots, self._axis = plan.machine.slots, plan.study.grid.axis
        self._guesses = plan.guessing_loss
        self._started = time.monotonic()
        self._starting, self._earlier = starts, -1  # records of earlier runs, once they are known
        self._law: str | None = None
        self._law_records, self._law_fitted = 0, float("-inf")

    def look(self, records: Mapping[str, TrialRecord], running: Sequence[Mapping[str, Any]], phase: str) -> Snapshot:
        """The state of the run from its records and from what the workers say of the trials they are at."""
        seconds = {trial["trial_id"]: trial["seconds"] for trial in running}
        begun = [trial for trial in running if trial.get("step") and trial.get("steps")]
        shares = {trial["trial_id"]: trial["step"] / trial["steps"] for trial in begun}
        self._earlier = len(records) if self._earlier < 0 else self._earlier
        self._starting = self._starting and not running and len(records) == self._earlier
        since = time.monotonic() - self._started if self._starting else None
        status = count_status(self._rows, records, seconds, self._slots, shares, since)
        return Snapshot(
            done=status.done,
            failed=status.failed,
            running=tuple(self._running(trial) for trial in running),
            waiting=status.waiting,
            eta_seconds=status.eta_seconds,
            gpu_seconds=status.gpu_seconds,
            law_line=self._fit(records),
            last_error=status.last_error,
            elapsed_seconds=time.monotonic() - self._started,
            phase=phase,
        )

    def _running(self, now: Mapping[str, Any]) -> RunningTrial:
        trial = self._trials[now["trial_id"]]
        cell = (trial.trial_id, trial.model.name, trial.data_requested, trial.gpus)
        return RunningTrial(*cell, now.get("step"), now.get("steps"), now.get("train_loss"), now["seconds"])

    def _fit(self, records: Mapping[str, TrialRecord]) -> str | None:
        if self._law_records != len(records) and time.monotonic() - self._law_fitted >= LAW_EVERY_SECONDS:
            self._law_records, self._law_fitted = len(records), time.monotonic()
            self._law = law_line(with_guesses(table(list(records.values())), self._guesses), self._axis)
        return self._law
