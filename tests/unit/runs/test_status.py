"""How far a run has come: every planned trial is counted once, and live view and folder say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayscale.on_ray.progress import Progress
from rayscale.plan.draft import draft_plan
from rayscale.plan.plan import Plan
from rayscale.runs.events import log_event
from rayscale.runs.folder import Run
from rayscale.runs.ledger import Ledger, TrialRecord, make_record
from rayscale.runs.packing import LANE_SECONDS, START_UP_SECONDS, SlotUse, packed_seconds, start_up_left
from rayscale.runs.status import count_status, read_status
from rayscale.study.study import load_study
from rayscale.system.machine import Machine
from rayscale.system.storage import Store


@pytest.fixture
def plan(study_file: Path, tmp_path: Path) -> Plan:
    return draft_plan(load_study(study_file), Machine("cpu", 2, "x", "this machine"), Store.open(tmp_path / "run"))


def records_of(plan: Plan, *statuses: str) -> dict[str, TrialRecord]:
    found = [
        make_record(p.trial, status=status, error=None if status == "ok" else f"{status}!", ended_at=f"2026-01-0{n}",
                    train_seconds=2 * p.seconds, eval_seconds=0.0, device_seconds=10.0)
        for n, (p, status) in enumerate(zip(plan.trials, statuses, strict=False), 1)
    ]  # fmt: skip
    return {record.trial_id: record for record in found}


def test_every_planned_trial_is_counted_once(plan: Plan) -> None:
    rows = [p.row() for p in plan.trials]
    records = records_of(plan, "ok", "diverged", "failed", "stopped")
    seen = count_status(rows, records, {rows[4]["trial_id"]: 1.0}, 2)
    assert (seen.ok, seen.diverged, seen.failed, seen.running, seen.waiting) == (1, 1, 1, 1, len(rows) - 4)
    assert seen.done == 2
    assert seen.last_error == "failed!"  # the stopped one goes on: its end was no error
    assert seen.gpu_seconds == 40.0 + 1.0  # what runs is paid for, too


def test_a_failed_trial_that_runs_again_is_running_and_not_failed(plan: Plan) -> None:
    rows, records = [p.row() for p in plan.trials], records_of(plan, "failed")
    seen = count_status(rows, records, {rows[0]["trial_id"]: 0.0}, 2)
    assert (seen.failed, seen.running, seen.waiting) == (0, 1, len(rows) - 1)


def test_the_time_left_learns_from_what_was_measured_and_from_what_runs(plan: Plan) -> None:
    rows = [{**p.row(), "seconds": 10.0, "alone": False} for p in plan.trials]
    assert count_status(rows, {}, {}, 2).eta_seconds == 40.0  # 8 trials of 10 s, two at a time
    begun = {row["trial_id"]: 4.0 for row in rows[:2]}
    assert count_status(rows, {}, begun, 2).eta_seconds == 36.0
    slow = make_record(plan.trials[0].trial, status="ok", train_seconds=15.0, eval_seconds=5.0)
    assert count_status(rows, {slow.trial_id: slow}, {}, 2).eta_seconds == 80.0
    quartered = make_record(plan.trials[0].trial, status="ok", train_seconds=80.0, share=0.25)
    assert count_status(rows, {quartered.trial_id: quartered}, {}, 2).eta_seconds == 40.0, (
        "it shared a GPU, these do not"
    )
    late = {row["trial_id"]: 1e6 for row in rows}
    assert count_status(rows, {}, late, 2).eta_seconds == 0.0


def test_the_time_left_follows_the_steps_of_what_runs(plan: Plan) -> None:
    rows = [{**planned.row(), "seconds": 10.0, "alone": False} for planned in plan.trials]
    first = rows[0]["trial_id"]
    blind = count_status(rows, {}, {first: 60.0}, 1)
    assert blind.gpu_seconds == 60.0
    assert blind.eta_seconds == pytest.approx(7 * 60.0)  # it took six times the estimate and has not ended
    half = count_status(rows, {}, {first: 60.0}, 1, {first: 0.5})
    later = count_status(rows, {}, {first: 90.0}, 1, {first: 0.75})
    assert half.eta_seconds == pytest.approx(60.0 + 7 * 120.0)
    assert later.eta_seconds == pytest.approx(half.eta_seconds - 30.0)


def test_the_time_left_counts_the_start_of_a_run(plan: Plan) -> None:
    rows = [{**planned.row(), "gpus": 1 + number % 2} for number, planned in enumerate(plan.trials)]
    work = count_status(rows, {}, {}, 2).eta_seconds
    left = [count_status(rows, {}, {}, 2, starting=seconds).eta_seconds - work for seconds in (0.0, 30.0, 400.0)]
    assert left == pytest.approx([start_up_left(0.0, 2), start_up_left(30.0, 2), 100.0 + LANE_SECONDS])
    assert left[0] == START_UP_SECONDS + LANE_SECONDS
    assert left[0] > left[1] > LANE_SECONDS
    work = count_status([planned.row() for planned in plan.trials], {}, {}, 2).eta_seconds
    progress, first = Progress(plan), plan.trials[0].trial.trial_id
    told = {"trial_id": first, "seconds": 0.0, "step": None, "steps": None, "train_loss": None}
    waiting, begun, after = (progress.look({}, running, "") for running in ([], [told], []))
    assert waiting.eta_seconds is not None
    assert waiting.eta_seconds > work + 30
    assert (begun.eta_seconds, after.eta_seconds) == pytest.approx((work, work))
    inline = Progress(plan, starts=False).look({}, [], "")
    assert inline.eta_seconds == pytest.approx(work)


def test_the_live_view_and_the_folder_say_the_same(plan: Plan, tmp_path: Path) -> None:
    run = Run(Store.open(tmp_path / "run"))
    import json

    run.store.write("plan.json", json.dumps(plan.to_json()).encode())
    records = records_of(plan, "ok", "diverged", "failed")
    for record in records.values():
        Ledger(run.store).write(record)
    log_event(run.store, {"event": "run_started", "study": None})
    live, seen = Progress(plan).look(records, [], "training"), read_status(run)
    assert (live.done, live.failed, live.waiting) == (seen["done"], seen["failed"], seen["waiting"])
    assert live.eta_seconds == pytest.approx(seen["eta_seconds"], rel=0.2)  # they look a moment apart
    assert (live.last_error, live.gpu_seconds / 3600) == (seen["last_error"], seen["gpu_hours"])
    assert (seen["ok"], seen["diverged"]) == (1, 1)


def test_packing_runs_lone_trials_by_themselves() -> None:
    pieces = [SlotUse(1, 4.0), SlotUse(1, 2.0), SlotUse(1, 1.0, alone=True)]
    assert packed_seconds(pieces, 2) == 5.0
    assert packed_seconds(pieces[:2], 2) == 4.0
    assert packed_seconds([], 2) == 0.0
