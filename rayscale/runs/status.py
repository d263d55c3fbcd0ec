"""How far a run has come: the one count of its trials and the one estimate of the time left, live and from a folder."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rayscale.runs.events import read_events
from rayscale.runs.folder import Run
from rayscale.runs.lease import has_ended, read_owner
from rayscale.runs.ledger import Ledger, TrialRecord
from rayscale.runs.packing import SlotUse, packed_seconds, start_up_left

LEAST_SHARE = 0.05  # of a trial's steps: before that its pace is mostly start-up


@dataclass(frozen=True)
class RunStatus:
    """Planned trials by what became of them: ok + diverged + failed + running + waiting = all of the plan.

    A stopped trial waits: the next run goes on with it. `gpu_seconds` is what records and running trials cost;
    `last_error` the reason of the failed or diverged trial that ended last.
    """

    ok: int
    diverged: int
    failed: int
    running: int
    waiting: int
    eta_seconds: float
    gpu_seconds: float
    last_error: str | None

    @property
    def done(self) -> int:
        """Trials whose result stands: they are not run again."""
        return self.ok + self.diverged


def count_status(
    rows: Sequence[Mapping[str, Any]],
    records: Mapping[str, TrialRecord],
    running: Mapping[str, float],
    slots: int,
    shares: Mapping[str, float] | None = None,
    starting: float | None = None,
) -> RunStatus:
    """How far a run is, from the plan's rows, the records by trial id, and the seconds that each running trial has run.

    `shares`: which share of its steps a running trial has done, where that is known. A record of a running trial is
    that of an earlier attempt and does not count. `starting`: how long ago a run began whose first trial has not begun
    yet; the time left counts what is left of its start.
    """
    planned = {row["trial_id"]: row for row in rows}
    kept = {trial_id: record for trial_id, record in records.items() if trial_id in planned}
    running = {trial_id: seconds for trial_id, seconds in running.items() if trial_id in planned}
    settled = {i: r for i, r in kept.items() if i not in running and r.row["status"] != "stopped"}
    counts = Counter(record.row["status"] for record in settled.values())
    left = [row for row in rows if row["trial_id"] not in settled]
    # Where nothing has ended yet, what runs says how slow this machine is.
    paces = {i: running[i] / share for i, share in (shares or {}).items() if i in running and share >= LEAST_SHARE}
    slowness = _slowness(planned, kept, {**{i: s for i, s in running.items() if s > planned[i]["seconds"]}, **paces})

    def rest(row: Mapping[str, Any]) -> float:
        whole = paces.get(row["trial_id"], row["seconds"] * slowness)
        return max(0.0, whole - running.get(row["trial_id"], 0.0))

    pieces = [
        # What runs already has its slots; whether it is alone delays only those after it.
        SlotUse(row["gpus"], rest(row), bool(row.get("alone")) and row["trial_id"] not in running)
        for row in sorted(left, key=lambda row: row["trial_id"] not in running)
    ]
    waiting = start_up_left(starting, len({row["gpus"] for row in left})) if starting is not None and left else 0.0
    wrong = [record for record in settled.values() if record.row["status"] != "ok" and record.row["error"]]
    last = max(wrong, key=lambda record: record.row["ended_at"] or "", default=None)
    spent = sum(record.row["device_seconds"] or 0.0 for record in kept.values())
    spent += sum(seconds * planned[i]["gpus"] * planned[i].get("share", 1.0) for i, seconds in running.items())
    return RunStatus(
        ok=counts["ok"],
        diverged=counts["diverged"],
        failed=counts["failed"],
        running=len(running),
        waiting=len(left) - len(running),
        eta_seconds=packed_seconds(pieces, slots) + waiting,
        gpu_seconds=spent,
        last_error=last.row["error"] if last else None,
    )


def _slowness(
    planned: Mapping[str, Mapping[str, Any]], records: Mapping[str, TrialRecord], paces: Mapping[str, float]
) -> float:
    """Seconds measured over seconds estimated, the median of the trials that were timed and share GPUs as planned.

    Before the first has ended that of the running ones, from the seconds that each will take (`paces`); else 1.
    """
    ratios = [
        (record.row["train_seconds"] + (record.row["eval_seconds"] or 0.0)) / planned[trial_id]["seconds"]
        for trial_id, record in records.items()
        if record.row["train_seconds"]
        and planned[trial_id]["seconds"]
        and record.row["share"] == planned[trial_id].get("share", 1.0)
    ]
    ratios = ratios or [paces[i] / planned[i]["seconds"] for i in paces if planned[i]["seconds"]]
    return statistics.median(ratios) if ratios else 1.0


def read_status(run: Run) -> dict[str, Any]:
    """Progress of a run: the object of `status --json`; trials run now only while a run has not ended.

    `done` = `ok` + `diverged`; `cut` are cells that the plan leaves out, each with the reason; `unplanned` counts
    records of cells that the study no longer asks for.
    """
    plan = run.plan
    begun: dict[str, str] = {}
    started: str | None = None  # when the run that is going on began, until its first trial did
    events, broken = read_events(run.store)
    for event in events:
        if event["event"] in ("run_started", "run_stopped", "run_ended"):
            begun.clear()
            started = event["at"] if event["event"] == "run_started" else None
        elif event["event"] == "trial_started":
            begun[event["trial_id"]] = event["at"]
            started = None
        elif event["event"] == "trial_finished":
            begun.pop(event["trial_id"], None)
    if has_ended(run.store):
        begun.clear()  # killed before it could say so
        started = None
    owner = read_owner(run.store)
    records, damaged = Ledger(run.store).read()
    by_id = {record.trial_id: record for record in records}
    now = datetime.now(UTC)
    running = {
        trial_id: max(0.0, (now - datetime.fromisoformat(at)).total_seconds())
        for trial_id, at in begun.items()
        # A record from before the start is that of an earlier attempt; times of one form compare as text.
        if trial_id not in by_id or (by_id[trial_id].row["ended_at"] or "~") < at
    }
    starting = (now - datetime.fromisoformat(started)).total_seconds() if started else None
    status = count_status(plan["trials"], by_id, running, plan["machine"]["slots"], starting=starting)
    counts = asdict(status)
    planned = {row["trial_id"] for row in plan["trials"]}
    return {
        "study": plan["study"],
        "done": status.done,
        "gpu_hours": counts.pop("gpu_seconds") / 3600,
        **counts,
        "cut": list(plan.get("cut") or []),
        "unplanned": sum(record.trial_id not in planned for record in records),
        "damaged": [{"file": file.name, "reason": file.reason} for file in damaged],
        "set_aside": Ledger(run.store).aside(),
        "broken_events": broken,
        "owner": {"host": owner.host, "pid": owner.pid, "since": owner.since} if owner else None,
    }
