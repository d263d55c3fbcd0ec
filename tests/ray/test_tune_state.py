"""What Ray Tune keeps of a run is a convenience: row 28 of the fault matrix."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from ray.tune import ExperimentAnalysis

from rayscale.on_ray import run_study
from rayscale.on_ray.session.session import Session
from rayscale.runs.folder import load
from tests.ray.conftest import STUDY, write_study


@pytest.mark.faults
def test_row_28_tunes_state_damaged_or_deleted_is_built_anew_and_no_trial_runs_again(
    tmp_path: Path, session: Session
) -> None:
    text = STUDY.replace("gpus: [1, 2]", "gpus: [1]").replace("[1x32, 2x32]", "[1x32]")
    study, out = write_study(tmp_path, text), tmp_path / "run"
    assert run_study(study, out=str(out)) is not None
    whole = load(out).trials
    states = list((out / "tune").glob("experiment_state*.json"))
    assert len(whole) == 3
    assert states
    missing = []
    for harm in ("damaged", "deleted"):
        # A record less, so that there is something to run and Tune is asked at all.
        missing.append(load(out).trials.trial_id[len(missing)])
        (out / "trials" / f"{missing[-1]}.json").unlink()
        if harm == "damaged":
            for file in out.glob("tune/**/*.json"):
                file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        else:
            shutil.rmtree(out / "tune")
        assert run_study(study, out=str(out)) is not None
        begun = Counter(event["trial_id"] for event in load(out).events if event["event"] == "trial_started")
        assert begun == Counter(whole.trial_id) + Counter(missing)
        table = ExperimentAnalysis(str(out / "tune")).dataframe()
        assert set(table["config/rayscale_trial_id"]) == set(whole.trial_id)
        now = load(out).trials
        pd.testing.assert_frame_equal(now[["trial_id", "eval_loss"]], whole[["trial_id", "eval_loss"]])
