"""The ledger and the run folder."""

from __future__ import annotations

import errno
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayscale.errors import InputError, StorageError
from rayscale.plan.estimate import Supply
from rayscale.plan.plan import make_plan
from rayscale.runs.events import log_event
from rayscale.runs.folder import load
from rayscale.runs.ledger import COLUMNS, Ledger, TrialRecord, make_record, table
from rayscale.runs.status import read_status
from rayscale.runs.trial import Trial
from rayscale.study.study import load_study
from rayscale.system import disk
from rayscale.system.machine import Machine
from rayscale.system.storage import Store


@pytest.fixture
def trials(study_file: Path) -> list[Trial]:
    plan = make_plan(load_study(study_file), Machine("cpu", 2, "x", "this machine"), Supply("f", 160, 12.0, 2))
    return [planned.trial for planned in plan.trials]


def test_a_record_is_read_as_it_was_written(tmp_path: Path, trials: list[Trial]) -> None:
    ledger = Ledger(Store.open(tmp_path / "run"))
    record = make_record(trials[0], status="ok", eval_loss=1.25, error="naïve \u2028 text", tokens=12)
    ledger.write(record)
    assert ledger.read() == ([record], [])


def test_the_table_has_the_documented_columns_in_order(tmp_path: Path, trials: list[Trial]) -> None:
    store = Store.open(tmp_path / "run")
    records = [make_record(trial, status="ok", eval_loss=1.0) for trial in trials]
    Ledger(store).write_table(records)
    read = pq.read_table(io.BytesIO(store.read("trials.parquet"))).to_pandas()
    assert list(read.columns) == list(COLUMNS)
    pd.testing.assert_frame_equal(read, table(records))


def test_numbers_that_are_not_finite_become_null(trials: list[Trial]) -> None:
    record = make_record(trials[0], status="diverged", train_loss=float("nan"), eval_loss=float("inf"))
    assert record.row["train_loss"] is None
    assert record.row["eval_loss"] is None


def test_a_wrong_column_or_status_is_a_bug_and_says_so(trials: list[Trial]) -> None:
    with pytest.raises(ValueError, match="no such columns"):
        make_record(trials[0], status="ok", loss=1.0)
    with pytest.raises(ValueError, match="status must be"):
        make_record(trials[0], status="fine")


@pytest.mark.row
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(cut=st.integers(0, 10_000), flip=st.booleans())
def test_row_27_a_damaged_record_is_named_and_harms_no_other(
    tmp_path_factory: pytest.TempPathFactory, trials: list[Trial], cut: int, flip: bool
) -> None:
    folder = tmp_path_factory.mktemp("run")
    ledger = Ledger(Store.open(folder))
    good, bad = (make_record(trial, status="ok", eval_loss=0.5) for trial in trials[:2])
    ledger.write(good)
    ledger.write(bad)
    file = folder / "trials" / f"{bad.trial_id}.json"
    content = file.read_bytes()
    place = cut % len(content)
    file.write_bytes(content[:place] + (bytes([content[place] ^ 1]) + content[place + 1 :] if flip else b""))
    records, damaged = ledger.read()
    assert good in records
    # A flipped bit in the white space between values leaves the content whole.
    assert (bad in records) != bool([d for d in damaged if bad.trial_id in d.name])


def test_a_run_is_loaded_without_a_cluster(tmp_path: Path, study_file: Path, trials: list[Trial]) -> None:
    store = Store.open(tmp_path / "run")
    plan = make_plan(load_study(study_file), Machine("cpu", 2, "x", "this machine"), Supply("f", 160, 12.0, 2))
    store.write("plan.json", json.dumps(plan.to_json()).encode())
    store.write("study.yaml", study_file.read_bytes())
    log_event(store, {"event": "run_started", "study": None})
    for trial in trials[:3]:
        log_event(store, {"event": "trial_started", "trial_id": trial.trial_id})
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    records: list[TrialRecord] = [
        make_record(trials[0], status="ok", train_seconds=3.0, device_seconds=3.5),
        make_record(trials[1], status="failed", error="it broke", ended_at=now),
    ]
    for record in records:
        Ledger(store).write(record)
    (tmp_path / "run" / "events.jsonl").open("ab").write(b'{"at": "cut off')
    run = load(tmp_path / "run")
    found = read_status(run)
    assert (found["done"], found["failed"], found["running"], found["waiting"]) == (1, 1, 1, len(trials) - 3)
    assert found["last_error"] == "it broke"
    assert set(run.trials.status) == {"ok", "failed"}
    assert run.study["name"] == "toy"


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run folder"):
        load(tmp_path)


def test_a_renamed_model_keeps_its_trials(tmp_path: Path, study_file: Path, trials: list[Trial]) -> None:
    store = Store.open(tmp_path / "run")
    for trial in trials[:3]:
        Ledger(store).write(make_record(trial, status="ok"))
    text = study_file.read_text().replace("grid:", "  - {family: bert, sizes: [1x32], vocabulary: 1024}\ngrid:")
    study_file.write_text(text)
    plan = make_plan(load_study(study_file), Machine("cpu", 2, "x", "this machine"), Supply("f", 160, 12.0, 2))
    store.write("plan.json", json.dumps(plan.to_json()).encode())
    names = {p.trial.trial_id: p.trial.model.name for p in plan.trials}
    table = load(tmp_path / "run").trials
    assert len(table) == 3
    assert list(table["model"]) == [names[trial_id] for trial_id in table["trial_id"]]


def test_a_record_that_cannot_be_read_is_an_error_with_its_place(
    tmp_path: Path, trials: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, record = Ledger(Store.open(tmp_path / "run")), make_record(trials[0], status="ok")
    ledger.write(record)

    def broken(path: str) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(disk, "read", broken)
    for use in (ledger.read, lambda: ledger.write(record)):
        with pytest.raises(StorageError, match=f"{record.trial_id}.json: cannot be read: Input/output error; check"):
            use()
