"""Whose Ray is whose: a caller's is used and left up, and one of a run's own is found by nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.services import find_gcs_addresses

from rayscale.errors import InputError
from rayscale.on_ray import run_study
from rayscale.on_ray.session.session import connect
from rayscale.plan.observer import Observer
from tests.ray.conftest import STUDY, write_study

ONE = STUDY.replace("[40, 80, 160]", "[40]").replace("[1x32, 2x32]", "[1x32]").replace("[1, 2]", "[1]")


@pytest.fixture
def theirs() -> Iterator[str]:
    """A Ray of the caller's, as in a notebook."""
    ray.init(num_cpus=2, resources={"slot": 1}, include_dashboard=False, log_to_driver=False)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.mark.faults
def test_row_45_a_callers_ray_is_used_and_left_up(tmp_path: Path, theirs: str) -> None:
    run = run_study(write_study(tmp_path, ONE), out=str(tmp_path / "run"))
    assert run is not None
    assert run.trials.status.tolist() == ["ok"]
    assert theirs in run.plan["machine"]["origin"]
    assert ray.is_initialized()
    assert ray.get(ray.remote(lambda: 7).remote()) == 7
    with pytest.raises(InputError, match=r"has joined the Ray at .*; call ray.shutdown\(\) first"):
        run_study(write_study(tmp_path, ONE), out=str(tmp_path / "other"), address="127.0.0.1:1")
    assert ray.is_initialized()


class Impatient(Observer):
    """Stops the run as soon as a trial is at work."""

    def show(self, progress: Any) -> None:
        if progress.running:
            raise KeyboardInterrupt


@pytest.mark.faults
def test_row_45_a_run_that_is_stopped_gives_the_slots_of_a_callers_ray_back(tmp_path: Path, theirs: str) -> None:
    long = ONE.replace("epochs: 1", "epochs: 500")
    with pytest.raises(KeyboardInterrupt):
        run_study(write_study(tmp_path, long), out=str(tmp_path / "run"), observer=Impatient())
    assert ray.is_initialized()
    seat = ray.remote(num_cpus=0, resources={"slot": 1})(lambda: 7).remote()
    assert ray.get(seat, timeout=60) == 7


@pytest.mark.faults
def test_row_46_nobody_finds_a_runs_own_ray() -> None:
    find_gcs_addresses.cache_clear()
    before = set(find_gcs_addresses())
    with connect("local", "cpu", 60):
        find_gcs_addresses.cache_clear()
        assert set(find_gcs_addresses()) <= before
        assert ray.get(ray.remote(lambda: 7).remote()) == 7
    find_gcs_addresses.cache_clear()
