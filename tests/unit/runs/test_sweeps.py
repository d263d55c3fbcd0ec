"""Of a sweep one trial stands for its cell, and bears its cost."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rayscale.plan.estimate import Supply
from rayscale.plan.plan import make_plan
from rayscale.runs.fit_rows import counted
from rayscale.runs.ledger import Ledger, make_record, table
from rayscale.study.study import load_study
from rayscale.system.machine import Machine
from rayscale.system.storage import Store

RATES = (1e-4, 1e-3, 1e-2)


@pytest.fixture
def swept(study_file: Path) -> list:
    """The three trials of two cells."""
    study_file.write_text(study_file.read_text().replace("learning_rate: 1e-3", "learning_rate: [1e-3, 1e-2, 1e-4]"))
    plan = make_plan(load_study(study_file), Machine("cpu", 2, "x", "this machine"), Supply("f", 160, 12.0, 2))
    trials = sorted((p.trial for p in plan.trials if p.trial.model.name == "bert-1x32" and not p.trial.seed),
                    key=lambda t: (t.data_requested, t.training["learning_rate"]))  # fmt: skip
    assert [t.training["learning_rate"] for t in trials[:6]] == [*RATES, *RATES]
    return trials[:6]


def records(swept: list, validation: list[float | None], status: list[str]) -> list:
    return [
        make_record(trial, status=what, validation_loss=loss, eval_loss=9 - (loss or 0), device_seconds=2.0**number,
                    learning_rate=trial.training["learning_rate"])
        for number, (trial, loss, what) in enumerate(zip(swept, validation, status, strict=True))
    ]  # fmt: skip


def test_the_best_on_validation_rows_counts_and_bears_the_whole_cost(tmp_path: Path, swept: list) -> None:
    made = records(swept, [0.5, 0.4, None, 0.3, 0.3, 0.9], ["ok", "ok", "diverged", "ok", "ok", "ok"])
    store = Store.open(tmp_path)
    Ledger(store).write_table(made)
    for trials in (table(made), pq.read_table(io.BytesIO(store.read("trials.parquet"))).to_pandas()):
        assert list(trials["status"]) == ["outdone", "ok", "diverged", "ok", "outdone", "outdone"]
        assert list(trials["learning_rate"][trials["status"] == "ok"]) == [1e-3, 1e-4]  # the lower of equal ones
        assert trials["device_seconds"].tolist()[1::2] == pytest.approx([7, 56, float("nan")], nan_ok=True)
        assert trials["device_seconds"].sum() == 63
        assert len(counted(trials)) == 2
    assert [r.row["status"] for r in made] == ["ok", "ok", "diverged", "ok", "ok", "ok"], "records stay as measured"


def test_a_cell_without_a_choice_counts_once(swept: list) -> None:
    made = records(swept, [None, None, None, 0.4, None, None], ["ok", "ok", "diverged", "ok", "ok", "failed"])
    trials = table(made)
    assert list(trials["status"]) == ["ok", "outdone", "diverged", "ok", "outdone", "failed"]
    assert trials["device_seconds"][[0, 3]].tolist() == [7, 56]
    failed = table(records(swept, [None] * 6, ["failed"] * 6))
    assert set(failed["status"]) == {"failed"}
    assert failed["device_seconds"].sum() == 63
