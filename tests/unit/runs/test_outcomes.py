"""Row 14: an exception in the middle of a trial, from the worker's word to the record and the log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rayscale.errors import TrialError
from rayscale.on_ray.lanes.lane import Cell
from rayscale.on_ray.lanes.pool import LanePool
from rayscale.plan.plan import make_plan
from rayscale.runs.attempts import Earlier
from rayscale.runs.folder import Run
from rayscale.runs.ledger import Ledger
from rayscale.runs.outcomes import Outcomes
from rayscale.runs.savepoints import Savepoints
from rayscale.runs.trial import Trial
from rayscale.study.study import load_study
from rayscale.system.failures import describe
from rayscale.system.storage import Store
from tests.unit.plan.test_plan import CPU, SUPPLY

pytestmark = pytest.mark.row


@pytest.fixture
def trials(study_file: Path) -> list[Trial]:
    return [planned.trial for planned in make_plan(load_study(study_file), CPU, SUPPLY).trials]


def fail_at(step: int, message: str) -> dict[str, Any]:
    try:
        raise TrialError(message)
    except TrialError as error:
        error.step = step  # type: ignore[attr-defined]
        return {**describe(error), "host": "here"}


async def play(
    names: list[str], failures: list[dict[str, Any]], retries: int
) -> tuple[list[dict[str, Any]], list[Any]]:
    """One lane: the first trial meets these failures, every other attempt is well."""
    pool = LanePool([Cell(name, 1, False, name) for name in names], 1, retries, None, lambda *_: None)
    submitted = [asyncio.ensure_future(pool.submit(name)) for name in names]
    await asyncio.sleep(0)
    serial, outcomes, left = 0, list[dict[str, Any]](), list(failures)
    while len(outcomes) < len(names):
        serial, name, _ = await pool.next_trial(0, "g", 0, serial) or (0, "", None)
        if name == names[0] and left:
            await pool.fail(0, serial, left.pop(0), restart=False)
        else:
            await pool.finish(0, serial, {"status": "ok"})
        outcomes += await pool.collect(len(outcomes), 0.01)
    for outcome in outcomes:
        await pool.acknowledge(outcome["trial_id"], outcome)
    await asyncio.gather(*submitted)
    return outcomes, (await pool.snapshot())["events"]


@pytest.mark.parametrize(
    ("failures", "retries", "attempts", "gave_up"),
    [
        ([fail_at(3, "a shelf broke"), fail_at(5, "a shelf broke")], 1, 2, "all 2 attempts failed"),
        ([fail_at(3, "a shelf broke")] * 2, 9, 2, "the same error came twice at step 3"),
        ([fail_at(3, "a shelf broke")], 0, 1, "the first attempt failed"),
        ([fail_at(3, "a shelf broke")], 1, 2, None),
    ],
)
def test_row_14_an_exception_at_a_step_is_tried_again_and_then_a_failed_record_with_its_reason(
    tmp_path: Path,
    trials: list[Trial],
    failures: list[dict[str, Any]],
    retries: int,
    attempts: int,
    gave_up: str | None,
) -> None:
    first, second = trials[:2]
    names = [first.trial_id, second.trial_id]
    told, events = asyncio.run(asyncio.wait_for(play(names, failures, retries), 20))
    store = Store.open(tmp_path / "run")
    outcomes = Outcomes(Ledger(store), "none", "lanes", {})
    for outcome in told:
        outcomes.add({first.trial_id: first, second.trial_id: second}[outcome["trial_id"]], outcome)
    records = {record.trial_id: record for record in Ledger(store).read()[0]}
    hit, other = records[first.trial_id].row, records[second.trial_id].row
    assert (other["status"], other["attempts"]) == ("ok", 1)
    assert (hit["status"], hit["attempts"]) == ("failed" if gave_up else "ok", attempts)
    log = store.read(f"logs/{first.trial_id}.log").decode()
    assert log.count("a shelf broke") >= len(failures)
    assert "Traceback" in log
    assert [event["step"] for event in events if event["event"] == "trial_retried"] == [
        each["step"] for each in failures[: attempts - 1]
    ]
    if gave_up:
        assert hit["error"] == "a shelf broke"
        assert f"Given up: {gave_up}." in log


def test_a_record_takes_the_place_of_the_savepoints_and_counts_what_earlier_drivers_spent(
    tmp_path: Path, trials: list[Trial]
) -> None:
    trial, store = trials[0], Store.open(tmp_path / "run")
    Savepoints(store, trial.trial_id, {}).write(7, {"model": b"x"})
    outcomes = Outcomes(Ledger(store), "none", "lanes", {}, {trial.trial_id: Earlier(2, 50.0)})
    place = {"host": "here", "started_at": "a", "ended_at": "b", "device_seconds": 5.0}
    outcomes.add(trial, {"status": "ok", "attempts": 2, "measured": place, "lost_seconds": 3.0, "share": 0.25})
    (record,) = Ledger(store).read()[0]
    assert (record.row["attempts"], record.row["device_seconds"], record.row["share"]) == (4, 58.0, 0.25)
    assert not store.exists(f"checkpoints/{trial.trial_id}")


def test_a_model_that_went_with_its_worker_is_said_and_its_record_stands(tmp_path: Path, trials: list[Trial]) -> None:
    def fetch(files: object) -> dict[str, object]:
        raise LookupError("its worker died")

    trial, store = trials[0], Store.open(tmp_path / "run")
    outcomes = Outcomes(Ledger(store), "all", "lanes", {}, fetch=fetch)
    place = {"host": "here", "started_at": "a", "ended_at": "b", "device_seconds": 5.0}
    outcomes.add(trial, {"status": "ok", "attempts": 1, "measured": place, "model": ["a reference"]})
    assert [record.row["status"] for record in Ledger(store).read()[0]] == ["ok"]
    (lost,) = [event for event in Run(store).events if event["event"] == "model_lost"]
    assert (lost["trial_id"], lost["reason"]) == (trial.trial_id, "its worker died")
    assert not store.exists(f"models/{trial.trial_id}")
