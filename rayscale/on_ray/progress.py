"""How a run stands at one moment: what is done, what runs, the time left, the law so far."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rayscale.forecast import law_line
from rayscale.ledger import TrialRecord, table
from rayscale.plan import Plan, Planned, remaining_seconds
from rayscale.report.terminal import RunningTrial, Snapshot

LAW_EVERY_SECONDS = 15.0  # fitting takes CPU from the trials


class Progress:
    """Looks at a run; remembers only when it began and the law that it fitted last."""

    def __init__(self, plan: Plan) -> None:
        self._plan = {planned.trial.trial_id: planned for planned in plan.trials}
        self._slots, self._axis = plan.machine.slots, plan.study.grid.axis
        self._started = time.monotonic()
        self._law: str | None = None
        self._law_records, self._law_fitted = 0, float("-inf")

    def look(self, records: Mapping[str, TrialRecord], running: Sequence[Mapping[str, Any]], phase: str) -> Snapshot:
        """The state of the run from its records and from what the workers say of the trials they are at."""
        failed = [record for record in records.values() if record.row["status"] == "failed"]
        left = [planned for trial_id, planned in self._plan.items() if trial_id not in records]
        last = max(failed, key=lambda record: record.row["ended_at"] or "", default=None)
        return Snapshot(
            done=len(records) - len(failed),
            failed=len(failed),
            running=tuple(self._running(each) for each in running),
            waiting=len(left) - len(running),
            eta_seconds=self._eta(records, left, running),
            gpu_seconds=sum(record.row["device_seconds"] or 0 for record in records.values()),
            law_line=self._fit(records),
            last_error=last.row["error"] if last else None,
            elapsed_seconds=time.monotonic() - self._started,
            phase=phase,
        )

    def _running(self, told: Mapping[str, Any]) -> RunningTrial:
        trial = self._plan[told["trial_id"]].trial
        return RunningTrial(
            trial_id=trial.trial_id,
            model=trial.model.name,
            data_requested=trial.data_requested,
            gpus=trial.gpus,
            step=told.get("step"),
            steps=told.get("steps"),
            train_loss=told.get("train_loss"),
            seconds=told["seconds"],
        )

    def _eta(
        self, records: Mapping[str, TrialRecord], left: Sequence[Planned], running: Sequence[Mapping[str, Any]]
    ) -> float:
        """Seconds to go, by the plan's estimates scaled to what the finished trials of this run took."""
        ratios = [
            (record.row["train_seconds"] + (record.row["eval_seconds"] or 0)) / self._plan[trial_id].seconds
            for trial_id, record in records.items()
            if record.row["train_seconds"]
        ]
        total = remaining_seconds(left, self._slots, statistics.median(ratios) if ratios else 1.0)
        return max(0.0, total - sum(each["seconds"] for each in running) / max(1, self._slots))

    def _fit(self, records: Mapping[str, TrialRecord]) -> str | None:
        if self._law_records != len(records) and time.monotonic() - self._law_fitted >= LAW_EVERY_SECONDS:
            self._law_records, self._law_fitted = len(records), time.monotonic()
            self._law = law_line(table(list(records.values())), self._axis)
        return self._law
