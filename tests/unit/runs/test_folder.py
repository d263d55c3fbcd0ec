"""A run folder read back: only planned cells count, each seed once, and a broken folder is named."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import rayscale as rs
from rayscale.errors import InputError
from rayscale.plan.draft import draft_plan
from rayscale.plan.plan import Plan
from rayscale.report.rebuild import rebuild_report
from rayscale.runs.folder import Run, refuse_another_study, remove_unused
from rayscale.runs.ledger import Ledger, make_record
from rayscale.runs.status import read_status
from rayscale.study.study import load_study
from rayscale.system.machine import Machine
from rayscale.system.storage import Store

MACHINE = Machine("cpu", 2, "x", "this machine")


def planned(study_file: Path, store: Store) -> Plan:
    return draft_plan(load_study(study_file), MACHINE, store)


@pytest.fixture
def run(study_file: Path, tmp_path: Path) -> Run:
    """A finished run at one and two GPUs; two GPUs are faster and change no loss."""
    store = Store.open(tmp_path / "run")
    study_file.write_text(study_file.read_text().replace("gpus: [1]", "gpus: [1, 2]"))
    plan = planned(study_file, store)
    store.write("plan.json", json.dumps(plan.to_json()).encode())
    store.write("study.yaml", study_file.read_bytes())
    for each in plan.trials:
        loss = 0.1 + 50 / each.params**0.5 + 0.3 / each.trial.data_requested**0.5 + 0.01 * each.trial.seed
        Ledger(store).write(
            make_record(
                each.trial, status="ok", params=each.params, examples=each.trial.data_requested, eval_loss=loss,
                examples_per_second=10.0 * each.trial.gpus, exclusive=True, device_seconds=1.0, train_seconds=1.0,
            )
        )  # fmt: skip
    return Run(store)


def test_cells_that_the_study_gave_up_stay_as_records_and_count_nowhere(run: Run, study_file: Path) -> None:
    everything = len(run.trials)
    study_file.write_text(study_file.read_text().replace("[20, 40, 80]", "[20, 40]").replace("{20: 2}", "1"))
    run.store.write("plan.json", json.dumps(planned(study_file, run.store).to_json()).encode())
    rebuild_report(run.store, bootstrap=10)
    kept = run.trials
    assert set(kept.data_requested) == {20, 40}
    assert set(kept.seed) == {0}
    pd.testing.assert_frame_equal(pd.read_parquet(f"{run.folder}/trials.parquet"), kept)
    assert len(run.records) == everything == len(kept) + len(run.unplanned)
    assert read_status(run)["unplanned"] == len(run.unplanned) > 0
    assert "records of cells that the study does not ask for now" in Path(run.folder, "report.html").read_text()


def test_the_rows_of_a_law_hold_each_seed_once(run: Run) -> None:
    rows = run.fit_rows
    assert len(run.trials) == 2 * len(rows)
    assert set(rows.gpus) == {1}
    assert not rows.duplicated(["model", "data_requested", "seed"]).any()
    fit = rs.fit_law(rows, "power", data="examples", target="eval_loss", bootstrap=5)
    verdict = rebuild_report(run.store, bootstrap=5)
    assert fit.rows_used == len(rows)
    assert verdict["fits"][0]["rows_used"] == len(rows)


def test_only_ok_rows_are_counted_by_a_law(run: Run) -> None:
    one = run.records[0]
    bad = replace(one, row={**one.row, "status": "diverged", "eval_loss": None})
    Ledger(run.store).write(bad)
    assert bad.trial_id in set(run.trials.trial_id)
    assert bad.trial_id not in set(run.fit_rows.trial_id)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("plan.json", None, "no such file"),
        ("plan.json", b'{"study": ', "damaged"),
        ("plan.json", b"[]", "it holds a list"),
        ("plan.json", b'{"study": "toy"}', "it lacks machine"),
        ("study.yaml", None, "no such file"),
        ("study.yaml", b"a: [", "damaged"),
        ("study.yaml", b"just words", "damaged"),
    ],
)
def test_a_report_of_a_broken_folder_names_the_file(run: Run, name: str, content: bytes | None, said: str) -> None:
    rebuild_report(run.store, bootstrap=5)
    before = Path(run.folder, "trials.parquet").read_bytes()
    file = Path(run.folder, name)
    file.write_bytes(content) if content is not None else file.unlink()
    with pytest.raises(InputError, match=said) as refused:
        rebuild_report(run.store, bootstrap=5)
    assert str(file) in str(refused.value)
    assert Path(run.folder, "trials.parquet").read_bytes() == before


@pytest.mark.parametrize("content", [b"[]", b"[1, 2", b"{}", b'{"fits": {}, "verdict": {}}', b"\xff"])
def test_a_damaged_fit_is_named_and_can_be_made_anew(run: Run, content: bytes) -> None:
    assert run.fit is None
    Path(run.folder, "fit.json").write_bytes(content)
    with pytest.raises(InputError, match=r"fit\.json: .*rayscale report"):
        assert run.fit
    rebuild_report(run.store, bootstrap=5)
    assert run.fit is not None


def test_a_folder_with_the_table_alone_is_read_but_not_reported(run: Run, tmp_path: Path) -> None:
    rebuild_report(run.store, bootstrap=5)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "trials.parquet").write_bytes(Path(run.folder, "trials.parquet").read_bytes())
    pd.testing.assert_frame_equal(rs.load(alone).trials, run.trials)
    with pytest.raises(InputError, match=r"plan\.json: no such file"):
        rebuild_report(Store.open(alone))
    (alone / "trials.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(InputError, match=r"trials\.parquet: cannot be read as parquet"):
        assert len(rs.load(alone).trials)


def test_a_run_of_another_study_is_not_overwritten(run: Run, tmp_path: Path) -> None:
    refuse_another_study(run.store, "toy", True)  # the same study, changed or not
    refuse_another_study(run.store, "other", False)  # nothing is lost where there are no trials
    with pytest.raises(InputError, match=r"holds the run of study 'toy', this one is 'other'; give another folder"):
        refuse_another_study(run.store, "other", True)


def test_a_folder_in_which_no_run_began_is_removed_and_no_other(run: Run, tmp_path: Path) -> None:
    remove_unused(run.store)
    assert run.records
    fresh = Store.open(tmp_path / "fresh")
    fresh.write("lease/owner.json", b"{}")
    remove_unused(fresh)
    assert not (tmp_path / "fresh").exists()


def test_opening_a_run_folder_waits_for_no_table_library() -> None:
    code = (
        "import sys, rayscale as rs; rs.load\n"
        "heavy = {'pandas', 'scipy', 'torch', 'ray', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
