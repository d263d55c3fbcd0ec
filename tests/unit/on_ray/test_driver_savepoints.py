"""Where trials are saved: a folder that nodes do not see, and checkpoints that nobody needs any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayscale.errors import InputError
from rayscale.on_ray import driver_savepoints
from rayscale.plan.plan import make_plan
from rayscale.runs.savepoints import Savepoints, sees
from rayscale.study.study import load_study
from rayscale.system.machine import Machine
from rayscale.system.storage import Store
from tests.unit.plan.test_plan import SUPPLY


@pytest.mark.parametrize("every", [1e-3, 300.0, None])
def test_a_folder_that_a_node_does_not_see_is_refused_where_a_trial_needs_it(
    study_file: Path, every: float | None
) -> None:
    study = load_study(study_file)
    study = study.model_copy(update={"run": study.run.model_copy(update={"checkpoint_seconds": every})})
    pending = make_plan(study, Machine("cpu", 2, "a processor", "a cluster"), SUPPLY).trials
    store = Store.open(study_file.parent / "run")
    assert driver_savepoints.check_seen([], study, pending, store) is None
    if every == 1e-3:
        with pytest.raises(InputError, match=r"run.storage: .*/run is not seen by 2 nodes \(far, further\)") as told:
            driver_savepoints.check_seen(["far", "further"], study, pending, store)
        assert told.value.exit_code == 2
        assert "checkpoint_seconds: null" in told.value.message
    else:
        said = driver_savepoints.check_seen(["far"], study, pending, store)
        assert (said is None) == (every is None)
        assert said is None or "trained without checkpoints" in said


def test_checkpoints_of_trials_that_go_on_stay_and_the_last_one_takes_the_folder_with_it(
    study_file: Path, tmp_path: Path
) -> None:
    store, study = Store.open(tmp_path / "run"), load_study(study_file)
    saving = driver_savepoints.begin_saving(store, study)
    assert saving is not None
    assert sees(store, saving.token)
    for name in ("planned", "given-up"):
        Savepoints(store, name, {}).write(7, {"model": b"x"})
    assert driver_savepoints.clear(store, {"planned", "not-begun"}) is None
    assert Savepoints(store, "planned", {}).steps() == [7]
    assert not store.exists("checkpoints/given-up")
    assert driver_savepoints.clear(store, set()) is None
    assert not store.exists("checkpoints")
    never = study.model_copy(update={"run": study.run.model_copy(update={"checkpoint_seconds": None})})
    assert driver_savepoints.begin_saving(store, never) is None
    assert not store.exists("checkpoints")
