"""The events of a run: every kind of line in events.jsonl, with its fields.

`event` names the kind, so a type checker knows the fields of an event whose kind was asked for. Lines that were read
have `at` (UTC) too.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal, NotRequired, TypedDict

from rayscale.system.redaction import redact_all
from rayscale.system.storage import Store

FILE = "events.jsonl"


class _Event(TypedDict):
    at: NotRequired[str]


class RunStarted(_Event):
    """A driver begins; `study` is its file, `simulated` the law of a run without training."""

    event: Literal["run_started"]
    host: NotRequired[str]
    study: str | None
    pending: NotRequired[int]
    simulated: NotRequired[str]


class RunEnded(_Event):
    event: Literal["run_ended"]


class RunNote(_Event):
    """A driver was stopped before its run was done; savepoints that nobody needs could not be deleted."""

    event: Literal["run_stopped", "checkpoints_left"]
    reason: str


class ResultsFetched(_Event):
    """The folder was brought here from the cluster that ran `job`; `command` does it again."""

    event: Literal["results_fetched"]
    study: str
    command: str
    job: str


class UnfinishedWritesRemoved(_Event):
    event: Literal["unfinished_writes_removed"]
    files: int


class RecordSetAside(_Event):
    """The record in `file` is damaged and is called `now` from here on."""

    event: Literal["record_set_aside"]
    file: str
    reason: str
    now: str


class CellsCut(_Event):
    event: Literal["cells_cut"]
    cells: int
    reason: str


class _TrialEvent(_Event):
    trial_id: str


class TrialStarted(_TrialEvent):
    event: Literal["trial_started"]


class TrialFinished(_TrialEvent):
    event: Literal["trial_finished"]
    status: str


class TrialRetried(_TrialEvent):
    """Attempt number `attempt` failed after `seconds`; the next has micro-batches of `micro_batch` (None: as usual)."""

    event: Literal["trial_retried"]
    attempt: int
    code: str | None
    message: str | None
    seconds: float | None
    step: int | None
    host: NotRequired[str | None]
    micro_batch: int | None


_From = TypedDict("_From", {"from": str | None})  # written so since `from` is a keyword


class TrialResumed(_TrialEvent, _From):
    """A later attempt begins at `step`, 0 for its beginning, `from` a savepoint."""

    event: Literal["trial_resumed"]
    step: int
    steps: int
    steps_redone: float | None
    interval_steps: float | None


class CheckpointSaved(_TrialEvent):
    event: Literal["checkpoint_saved"]
    step: int
    bytes: int
    seconds: float


class CheckpointFailed(_TrialEvent):
    event: Literal["checkpoint_failed"]
    step: int
    reason: str


class CheckpointDamaged(_TrialEvent):
    """A savepoint cannot be read; the trial takes `fell_back_to`, or begins again (None)."""

    event: Literal["checkpoint_damaged"]
    file: str
    step: int
    reason: str
    fell_back_to: str | None


class CheckpointsOff(_Event):
    event: Literal["checkpoints_off"]
    hosts: list[str]
    reason: str


class HeadReused(_TrialEvent):
    """The checkpoint's own head was kept, for the classes have the same names."""

    event: Literal["head_reused"]
    classes: list[str] | None


class DropoutByWorker(_TrialEvent):
    event: Literal["dropout_by_worker"]
    workers: int


class TrialNote(_TrialEvent):
    """No CUDA graphs of a trial's steps; a saved model that could not be compared, or fetched."""

    event: Literal["steps_not_recorded", "model_not_kept", "model_lost"]
    reason: str


class LaneEnded(_Event):
    event: Literal["lane_ended"]
    lane: int
    gpus: int
    reason: str


class WaitingForSlots(_Event):
    """Other jobs hold the slots; `sizes`: waiting trials by workers."""

    event: Literal["waiting_for_slots"]
    reason: str
    sizes: dict[str, int]


class SlotsFree(_Event):
    event: Literal["slots_free"]
    room: int
    slots: int


class SlotsChanged(_Event):
    event: Literal["slots_changed"]
    slots: int


Event = (
    RunStarted | RunEnded | RunNote | ResultsFetched | UnfinishedWritesRemoved | RecordSetAside | CellsCut
    | TrialStarted | TrialFinished | TrialRetried | TrialResumed | TrialNote | HeadReused | DropoutByWorker
    | CheckpointSaved | CheckpointFailed | CheckpointDamaged | CheckpointsOff
    | LaneEnded | WaitingForSlots | SlotsFree | SlotsChanged
)  # fmt: skip


def log_event(store: Store, event: Event) -> None:
    """Append one line to events.jsonl; secrets are taken out of texts."""
    details: dict[str, Any] = redact_all(event)
    line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **details}
    store.append(FILE, (json.dumps(line, allow_nan=False) + "\n").encode())


def read_events(store: Store) -> tuple[list[Event], int]:
    """What happened, in order, and how many lines a crash cut off."""
    events: list[Event] = []
    lines = [line for line in store.read(FILE).split(b"\n") if line.strip()] if store.exists(FILE) else []
    for line in lines:
        with suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and {"at", "event"} <= set(event):
                events.append(event)  # type: ignore[arg-type]  # the kinds of its writer
    return events, len(lines) - len(events)
