"""A cluster that others use too, and one that grows: `pytest -m faults tests/cluster/test_sharing.py` shows it all."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from rayscale.errors import ClusterError
from rayscale.on_ray import run_study
from rayscale.runs.folder import load
from tests.ray.conftest import STUDY, write_study
from tests.ray.started import Started

ONE = STUDY.replace("[40, 80, 160]", "[40]").replace("[1x32, 2x32]", "[1x32]").replace("[1, 2]", "[2]")
LONG = ONE.replace("[40]", "[160]").replace("epochs: 1", "epochs: 1500")  # longer than another run takes to start
HOLD = """\
import ray, sys, time
ray.init(sys.argv[1], namespace="their namespace", log_to_driver=False)
group = ray.util.placement_group([{"slot": 1}] * 2)
ray.get(group.ready())
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head without slots and a node with two."""
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    found.add_node(num_cpus=2, resources={"slot": 2})
    found.wait_for_nodes()
    yield found
    found.shutdown()


def until(true: Callable[[], bool], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.2)


def events(run: Path) -> list[dict[str, Any]]:
    return load(run).events if (run / "plan.json").exists() else []


@pytest.mark.faults
def test_row_43_of_two_jobs_on_two_slots_the_second_waits_says_for_whom_and_finishes(
    tmp_path: Path, cluster: Cluster
) -> None:
    jobs = []
    for name, study in (("first", LONG), ("second", ONE)):
        (tmp_path / name).mkdir()
        path = write_study(tmp_path / name, study.replace("name: toy", f"name: {name}"))
        out = tmp_path / name / "run"
        jobs.append(Started("run", str(path), "--out", str(out), "--address", cluster.address, "--yes",
                            log=tmp_path / f"{name}.log"))  # fmt: skip
        until(lambda out=out, name=name: any(e["event"] in ("trial_started", "waiting_for_slots") for e in events(out)))
    assert [job.ends(400) for job in jobs] == [0, 0], jobs[1].told
    assert "Waiting" in jobs[1].told
    assert "0 of 2 slots free" in jobs[1].told
    assert "holds 2" in jobs[1].told
    for name in ("first", "second"):
        trials = load(tmp_path / name / "run").trials
        assert trials.status.tolist() == ["ok"]
        assert trials.attempts.tolist() == [1]
    told = [e["event"] for e in events(tmp_path / "second" / "run")]
    assert told.index("waiting_for_slots") < told.index("slots_free") < told.index("trial_started")
    assert "lane_ended" not in told


@pytest.mark.faults
def test_row_43_a_wait_with_a_limit_ends_without_a_record_and_goes_on_when_slots_are_free(
    tmp_path: Path, cluster: Cluster
) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, cluster.address], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    try:
        study = write_study(tmp_path, ONE.replace("{accelerator: cpu}", "{accelerator: cpu, wait_seconds: 6}"))
        with pytest.raises(ClusterError, match=r"namespace their namespace\) holds 2") as told:
            run_study(study, out=str(tmp_path / "run"), address=cluster.address)
        assert told.value.code == "slots_busy"
        assert load(tmp_path / "run").records == []
    finally:
        other.kill()
        other.wait()
    run = run_study(study, out=str(tmp_path / "run"), address=cluster.address)
    assert run is not None
    assert run.trials.status.tolist() == ["ok"]


@pytest.mark.faults
def test_row_44_a_cluster_that_grows_from_two_slots_to_five_has_all_of_them_used(
    tmp_path: Path, cluster: Cluster
) -> None:
    cells = LONG.replace("gpus: [2]", "gpus: [1], seeds: 12").replace("epochs: 1500", "epochs: 100")
    study, out = write_study(tmp_path, cells), tmp_path / "run"

    def at_once() -> list[int]:
        """How many trials ran after each event."""
        steps = {"trial_started": 1, "trial_finished": -1}
        return list(accumulate(steps.get(event["event"], 0) for event in events(out)))

    job = Started("run", str(study), "--out", str(out), "--address", cluster.address, "--yes", log=tmp_path / "log")
    job.until(lambda: 2 in at_once())
    cluster.add_node(num_cpus=3, resources={"slot": 3})
    assert job.ends(400) == 0, job.told
    assert 5 in at_once()
    assert set(load(out).trials.status) == {"ok"}
    assert [event["slots"] for event in events(out) if event["event"] == "slots_changed"] == [5]
