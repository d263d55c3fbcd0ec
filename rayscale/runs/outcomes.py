"""What trials gave, made durable: model, curve and log first, then the record, which says that the trial is done."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypedDict

import pandas as pd

from rayscale.runs.attempts import Earlier
from rayscale.runs.events import log_event
from rayscale.runs.folder import Run
from rayscale.runs.ledger import Ledger, TrialRecord, make_record
from rayscale.runs.provenance import provenance, versions
from rayscale.runs.savepoints import forget
from rayscale.runs.trial import Trial
from rayscale.system.failures import Failure
from rayscale.system.redaction import redact
from rayscale.system.storage import Store


class TrialOutcome(TypedDict, total=False):
    """What a trial gave. A worker says `status`, and where it was trained `measured` and perhaps `model` (what `fetch`
    takes, or nothing); where it failed `error`. Whoever handed the trial out adds how it ran: alone on the machine
    (`exclusive`), on how many slots (`size`), with which `share` of a GPU; and its `attempts`, the `failures` among
    them with their device-seconds `lost_seconds`."""

    trial_id: str
    status: str
    measured: dict[str, Any]
    model: list[Any]
    error: Failure
    exclusive: bool
    size: int
    share: float
    attempts: int
    failures: list[Failure]
    lost_seconds: float


@dataclass
class Outcomes:
    """The records of a run by trial id, and the one way in which one is added.

    `keep` is the study's `run.keep`; `earlier` are attempts under drivers before this one, by trial id. `fetch` gives
    the files of a model for the reference that a worker put; it raises LookupError with the reason if they are lost.
    """

    ledger: Ledger
    keep: str
    executor: str
    records: dict[str, TrialRecord]
    earlier: Mapping[str, Earlier] = field(default_factory=dict)
    fetch: Callable[[Any], dict[str, Any]] = dict

    @property
    def store(self) -> Store:
        """The run's folder."""
        return self.ledger.store

    def add(self, trial: Trial, outcome: TrialOutcome) -> TrialRecord:
        """Write what a trial gave; when this returns it survives a crash, and the trial's savepoints are gone."""
        self.ledger.guard()
        now = datetime.now(UTC)
        measured = dict(outcome.get("measured") or provenance(now, now, trial.gpus))
        earlier = self.earlier.get(trial.trial_id, Earlier())
        # Attempts that failed, or whose driver died, were paid for too.
        measured["device_seconds"] += outcome.get("lost_seconds", 0.0) + earlier.device_seconds
        curve, classes = measured.pop("curve", []), measured.pop("classes", ())
        measured.pop("status", None)
        if error := outcome.get("error"):
            measured["error"] = error["message"]
        for folder, rows in (("curves", curve), ("classes", classes)):
            if rows:
                sink = io.BytesIO()
                pd.DataFrame(list(rows)).to_parquet(sink)
                self.store.write(f"{folder}/{trial.trial_id}.parquet", sink.getvalue())
        if text := _attempts_text(outcome):
            self.store.write(f"logs/{trial.trial_id}.log", redact(text).encode())
        record = make_record(
            trial,
            status=outcome["status"],
            exclusive=bool(outcome.get("exclusive")),
            share=outcome.get("share", 1.0),
            executor=self.executor,
            attempts=outcome["attempts"] + earlier.attempts,
            versions=versions(),
            **measured,
        )
        self._keep_model(record, outcome.get("model") or [])
        self.settle(record)
        with suppress(OSError):  # a worker that is being ended may still write there; the end of the run tries again
            forget(self.store, trial.trial_id)
        return record

    def reports(self, record: TrialRecord) -> list[Mapping[str, Any]]:
        """What Tune is told of a recorded trial: the points of its curve, then the record."""
        run = Run(self.store)
        curve = run.curves(record.trial_id) if self.store.exists(f"curves/{record.trial_id}.parquet") else None
        points = [] if curve is None else curve.astype(object).where(curve.notna(), None).to_dict("records")
        return [*({str(name): value for name, value in point.items()} for point in points), record.row]

    def settle(self, record: TrialRecord) -> None:
        """Make a record durable, then say so."""
        self.ledger.write(record)
        self.records[record.trial_id] = record
        status = record.row["status"]
        log_event(self.store, {"event": "trial_finished", "trial_id": record.trial_id, "status": status})

    def _keep_model(self, record: TrialRecord, model: list[Any]) -> None:
        """Write models/<trial_id>/; with keep: best, only if no kept model validates better, and drop the loser.

        `model` holds what `fetch` takes; it is empty if none was saved.
        """
        if not model or record.row["status"] != "ok":
            return
        others = []
        if self.keep == "best":
            others = [i for i in self.records if i != record.trial_id and self.store.exists(f"models/{i}")]
            mine = record.row["validation_loss"]
            if mine is None:  # the plan refuses what it can count; of large files it cannot
                self._note("model_not_kept", record, "no validation rows, by which the best model is chosen")
                return
            if any((self.records[i].row["validation_loss"] or 0) <= mine for i in others):
                return
        try:
            files = self.fetch(model[0])
        except LookupError as error:  # its worker died meanwhile; what it measured stands all the same
            self._note("model_lost", record, str(error.args[0]))
            return
        for name, content in files.items():
            self.store.write(f"models/{record.trial_id}/{name}", content.tobytes())
        for other in others:
            self.store.delete_folder(f"models/{other}")

    def _note(self, event: Literal["model_not_kept", "model_lost"], record: TrialRecord, reason: str) -> None:
        log_event(self.store, {"event": event, "trial_id": record.trial_id, "reason": reason})


def _attempts_text(outcome: TrialOutcome) -> str:
    """Each attempt that failed with its reason, for people; empty if none did."""
    error = outcome.get("error")
    failures = outcome.get("failures") or ([error] if error else [])
    parts = []
    for number, failure in enumerate(failures, 1):
        facts = [f"attempt {number} of {outcome['attempts']}", str(failure.get("code", "failed"))]
        facts += [f"after {failure['seconds']:.1f} s"] if "seconds" in failure else []
        facts += [f"at step {failure['step']}"] if failure.get("step") is not None else []
        facts += [f"on {failure['host']}"] if failure.get("host") else []
        parts.append(f"{', '.join(facts)}: {failure['message']}\n{failure.get('traceback') or ''}")
    if error and error.get("gave_up"):
        parts.append(f"Given up: {error['gave_up']}.\n")
    return "\n".join(parts)
