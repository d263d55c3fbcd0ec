"""A run folder read back: the study as given, the plan, the trials, the fit, and how far a run has come."""

from __future__ import annotations

import io
import json
import statistics
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import yaml

from rayscale.errors import InputError
from rayscale.ledger import Damaged, Ledger, TrialRecord, table
from rayscale.storage import Store


@dataclass(frozen=True)
class Run:
    """A run folder. Everything is read when asked for, so a run in progress shows its latest state."""

    store: Store

    @property
    def folder(self) -> str:
        """Where the run lies: a path or URI."""
        return self.store.location

    @property
    def study(self) -> dict[str, Any]:
        """study.yaml as given."""
        return yaml.safe_load(self.store.read("study.yaml"))

    @property
    def plan(self) -> dict[str, Any]:
        """plan.json: the object of `rayscale plan --json`."""
        return json.loads(self.store.read("plan.json"))

    @property
    def records(self) -> list[TrialRecord]:
        """The whole records of the ledger, by trial id."""
        return Ledger(self.store).read()[0]

    @property
    def damaged(self) -> list[Damaged]:
        """Record files that cannot be trusted, with the reason."""
        return Ledger(self.store).read()[1]

    @property
    def trials(self) -> pd.DataFrame:
        """The trial table, one row per finished trial; columns as in `rayscale.ledger.COLUMNS`."""
        if records := self.records:
            return table(records)
        if self.store.exists("trials.parquet"):
            return pq.read_table(io.BytesIO(self.store.read("trials.parquet"))).to_pandas()
        return table([])

    @property
    def fit(self) -> dict[str, Any] | None:
        """fit.json, or None before the first fit."""
        return json.loads(self.store.read("fit.json")) if self.store.exists("fit.json") else None

    @property
    def events(self) -> list[dict[str, Any]]:
        """What happened, in order, each with `at` (UTC) and `event`. A line cut off by a crash ends the list."""
        found: list[dict[str, Any]] = []
        if self.store.exists("events.jsonl"):
            for line in self.store.read("events.jsonl").splitlines():
                try:
                    found.append(json.loads(line))
                except ValueError:
                    continue  # cut off by a crash; later runs append whole lines after it
        return found

    def curves(self, trial_id: str) -> pd.DataFrame:
        """Training curve of a trial: step, train_loss, validation_loss, learning_rate."""
        name = f"curves/{trial_id}.parquet"
        if not self.store.exists(name):
            raise InputError(f"no curve of trial '{trial_id}' in {self.folder}; see run.trials.trial_id",
                             code="no_curve")  # fmt: skip
        return pq.read_table(io.BytesIO(self.store.read(name))).to_pandas()


def load(path: str | Path) -> Run:
    """Open a run folder by path or URI; needs no cluster. Raises InputError if it is none."""
    store = Store.open(path)
    if not store.exists("plan.json") and not store.exists("trials.parquet"):
        raise InputError(
            f"{path} is no run folder (it has neither plan.json nor trials.parquet); `rayscale run STUDY` makes one",
            code="no_run",
        )
    return Run(store)


def log_event(store: Store, event: str, **details: Any) -> None:
    """Append one line to events.jsonl."""
    line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **details}
    store.append("events.jsonl", (json.dumps(line, allow_nan=False) + "\n").encode())


def status(run: Run) -> dict[str, Any]:
    """Progress of a run: the object of `status --json`; trials run now only while a run has not ended."""
    if not run.store.exists("plan.json"):
        raise InputError(f"{run.folder} has no plan.json, so there is no progress to tell", code="no_plan")
    plan = run.plan
    rows = plan["trials"]
    planned = {row["trial_id"]: row for row in rows}
    records = {r.trial_id: r for r in run.records if r.trial_id in planned}
    running: set[str] = set()
    for event in run.events:
        if event["event"] in ("run_started", "run_stopped", "run_ended"):
            running.clear()
        elif event["event"] == "trial_started":
            running.add(event["trial_id"])
        elif event["event"] == "trial_finished":
            running.discard(event["trial_id"])
    running = {trial_id for trial_id in running if trial_id in planned and trial_id not in records}
    failed = [r for r in records.values() if r.row["status"] == "failed"]
    left = [row for row in rows if row["trial_id"] not in records]
    slowness = statistics.median(
        [
            (r.row["train_seconds"] + (r.row["eval_seconds"] or 0)) / planned[i]["seconds"]
            for i, r in records.items()
            if r.row["train_seconds"] and planned[i]["seconds"]
        ]
        or [1.0]
    )
    slots = plan["machine"]["slots"]
    last = max(failed, key=lambda r: r.row["ended_at"] or "", default=None)
    return {
        "study": plan["study"],
        "done": len(records) - len(failed),
        "failed": len(failed),
        "running": len(running),
        "waiting": len(left) - len(running),
        "eta_seconds": sum(row["gpu_seconds"] for row in left) * slowness / slots,
        "gpu_hours": sum(r.row["device_seconds"] or 0 for r in records.values()) / 3600,
        "last_error": last.row["error"] if last else None,
        "damaged": [{"file": d.name, "reason": d.reason} for d in run.damaged],
    }
