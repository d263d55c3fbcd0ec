"""A rank or a lane that is killed, or stopped, in the middle of a trial: replaced, and the numbers stay the same."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util.placement_group import placement_group, placement_group_table

from rayscale.on_ray.data.parcels import wrap
from rayscale.on_ray.data.prepare import prepare
from rayscale.on_ray.lanes.lane import Cell
from rayscale.on_ray.lanes.worker import Handed, LaneSettings, open_host, open_pool
from rayscale.on_ray.session.cleanup_process import VARIABLE, users
from rayscale.on_ray.session.session import Session
from rayscale.plan.draft import draft_plan
from rayscale.runs.trial import Trial
from rayscale.study.study import load_study
from rayscale.system.machine import this_machine
from rayscale.system.storage import Store
from rayscale.text.tokens.encode import spec_of
from tests.ray.conftest import STUDY, write_study
from tests.ray.test_lanes import numbers

HANG_SECONDS = 12.0  # well above what a busy machine makes a rank wait
LONG = STUDY.replace("[40, 80, 160]", "[300]").replace("epochs: 1", "epochs: 40").replace("[1x32, 2x32]", "[1x32]")


def processes(name: str) -> list[int]:
    """The processes of this Ray that go by this name."""
    return [pid for pid in users(os.environ[VARIABLE])
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(f"ray::{name}".encode())]  # fmt: skip


class Pool:
    """A pool of one lane that runs the same trial under several names, one after the other."""

    def __init__(self, session: Session, trial: Trial, handed: Handed, names: list[str]) -> None:
        cells = [Cell(name, trial.gpus, False, handed) for name in names]
        settings = LaneSettings(session.worker_resources, "cpu", HANG_SECONDS, "none")
        self.actor = open_pool(cells, trial.gpus, 2, None, settings, open_host({}))
        self.outcomes: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []

    def begin(self, name: str) -> None:
        self.actor.submit.remote(name)

    def until_step(self, name: str, step: int) -> None:
        for _ in range(1200):
            now = ray.get(self.actor.snapshot.remote())
            if any(each["trial_id"] == name and each.get("step", 0) >= step for each in now["running"]):
                return
            time.sleep(0.05)
        raise AssertionError(f"{name} does not come to step {step}: {now}")

    def end(self, name: str) -> dict[str, Any]:
        for _ in range(60):
            self.outcomes += ray.get(self.actor.collect.remote(len(self.outcomes), 5.0))
            if self.outcomes and self.outcomes[-1]["trial_id"] == name:
                ray.get(self.actor.acknowledge.remote(name, {}))
                self.events = ray.get(self.actor.snapshot.remote())["events"]
                return self.outcomes[-1]
        raise AssertionError(f"{name} does not end: {ray.get(self.actor.snapshot.remote())}")


@pytest.mark.faults
@pytest.mark.parametrize("gpus", [1, 2])
def test_row_16_and_17_killed_and_stopped_ranks_and_a_killed_lane_change_no_number(
    tmp_path: Path, session: Session, gpus: int
) -> None:
    if session.machine.slots < gpus:
        pytest.skip(f"needs {gpus} physical cores, this machine has {session.machine.slots}")
    plan = draft_plan(load_study(write_study(tmp_path, LONG)), this_machine("cpu"), Store.open(tmp_path / "run"))
    trial = next(p.trial for p in plan.trials if p.trial.gpus == gpus)
    prepared = prepare(plan.study, [spec_of(trial.model)], [0])[spec_of(trial.model).name]
    handed = Handed(trial.to_json(), wrap(prepared.path, several_nodes=False), None)
    own = placement_group([{"CPU": 0.01}])  # as Tune makes them; where a lane dies, only that lane's group goes
    ray.get(own.ready())
    pool = Pool(session, trial, handed, ["clean", "killed", "stopped", "lane", "after"])
    pool.begin("clean")
    clean = pool.end("clean")
    for name, number, code in (
        ("killed", signal.SIGKILL, "worker_died"),
        ("stopped", signal.SIGSTOP, "hang"),
        ("lane", signal.SIGKILL, "lane_ended"),
    ):
        pool.begin(name)
        pool.until_step(name, 50)
        victim = processes("TrainController" if name == "lane" else "RayTrainWorker")[-1]
        os.kill(victim, number)
        outcome = pool.end(name)
        assert numbers(outcome) == numbers(clean)
        assert outcome["attempts"] == 2
        (failure,) = outcome["failures"]
        # A rank that loses another in a collective may say so before the loss itself is seen.
        assert failure["code"] in {code} | ({"collective", "worker_died"} if gpus > 1 or name == "lane" else set())
        assert failure["step"] >= 50
        assert not Path(f"/proc/{victim}").exists()
    pool.begin("after")
    after = pool.end("after")
    assert (numbers(after), after["attempts"]) == (numbers(clean), 1)
    told = [event["event"] for event in pool.events if event["event"] != "trial_started"]
    assert told == ["trial_retried"] * 3 + ["lane_ended"]
    assert placement_group_table(own)["state"] == "CREATED"
