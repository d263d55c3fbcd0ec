"""Lanes on a real Ray: what a trial measures does not depend on where, when and after what it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from rayscale.nn.metrics import METRICS
from rayscale.on_ray.data.parcels import wrap
from rayscale.on_ray.data.prepare import prepare
from rayscale.on_ray.lanes.lane import Cell
from rayscale.on_ray.lanes.worker import Handed, LaneSettings, open_host, open_pool
from rayscale.on_ray.session.capacity import local_capacity
from rayscale.on_ray.session.session import Session, connect
from rayscale.plan.draft import draft_plan
from rayscale.plan.plan import Plan
from rayscale.runs.trial import Trial
from rayscale.study.study import load_study
from rayscale.system.machine import Machine, this_machine
from rayscale.system.storage import Store
from rayscale.text.tokens.encode import spec_of
from tests import made_studies
from tests.ray.conftest import write_study

TIMES = {
    "train_seconds", "eval_seconds", "device_seconds", "examples_per_second", "tokens_per_second", "started_at",
    "ended_at", "peak_memory_bytes", "mfu",
}  # fmt: skip


def planned(folder: Path) -> Plan:
    study = load_study(write_study(folder))
    return draft_plan(study, this_machine("cpu"), Store.open(folder / "run"))


@pytest.fixture(scope="class")
def session() -> Iterator[Session]:
    """A local Ray that is told of a GPU: what asks for shares of one is placed, though there is none."""
    init = ray.init
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ray, "init", lambda **given: init(**{**given, "num_gpus": 1}))
        with connect("local", "cpu", 60) as found:
            yield found


class Seat:
    """A worker of a lane, as Ray places it."""

    def look(self) -> list[int]:
        """The GPUs that it has a share of."""
        return list(ray.get_gpu_ids())


def run_cells(
    session: Session, plan: Plan, trials: list[Trial], *, isolated: bool = False, hang_seconds: float = 60,
    pause: float = 0.0,
) -> list[dict[str, Any]]:  # fmt: skip
    """Run these trials one after the other, each under a name of its own, so that equal trials may run twice."""
    prepared = prepare(plan.study, [spec_of(trial.model) for trial in trials], [0])
    cells = []
    for number, trial in enumerate(trials):
        parcel = wrap(prepared[spec_of(trial.model).name].path, several_nodes=False)
        cells.append(Cell(str(number), trial.gpus, True, Handed(trial.to_json(), parcel, None)))
    settings = LaneSettings(session.worker_resources, "cpu", hang_seconds, "none")
    pool = open_pool(cells, session.machine.slots, 0, 1 if isolated else None, settings, open_host({}))
    outcomes: list[dict[str, Any]] = []
    for cell in cells:
        waiting = pool.submit.remote(cell.trial_id)
        while len(outcomes) <= int(cell.trial_id):
            outcomes += ray.get(pool.collect.remote(len(outcomes), 5.0))
        ray.get(pool.acknowledge.remote(cell.trial_id, {}))
        ray.get(waiting)
        time.sleep(pause)
    ray.get(pool.stop.remote())
    return outcomes


def numbers(outcome: dict[str, Any]) -> dict[str, Any]:
    assert outcome["status"] == "ok", outcome
    return {name: value for name, value in outcome["measured"].items() if name not in TIMES}


class TestTrials:
    """Tests that share a local Ray."""

    @pytest.mark.parametrize("gpus", [1, 2])
    def test_a_trial_measures_the_same_alone_first_last_after_a_failure_and_after_another_model(
        self, tmp_path: Path, session: Session, gpus: int
    ) -> None:
        plan = planned(tmp_path)
        if session.machine.slots < gpus:
            pytest.skip(f"needs {gpus} physical cores, this machine has {session.machine.slots}")
        trials = [p.trial for p in plan.trials if p.trial.gpus == gpus]
        mine = next(t for t in trials if t.model.name == "bert-2x32" and t.data_requested == 80)
        other = next(t for t in trials if t.model.name == "bert-1x32" and t.data_requested == 160)
        broken = replace(mine, data_requested=10**6)
        # This one fails in the middle: its model is built and trained for some steps before its loss is no number.
        exploding = replace(mine, training={**mine.training, "learning_rate": 1e30})
        outcomes = run_cells(session, plan, [mine, broken, mine, other, mine, exploding, mine])
        alone = run_cells(session, plan, [mine], isolated=True)[0]
        assert outcomes[1]["status"] == "failed"
        assert "1000000" in outcomes[1]["error"]["message"].replace(",", "")
        assert outcomes[5]["status"] == "diverged", outcomes[5]
        assert outcomes[5]["measured"]["steps"] > 0
        mine_only = [outcomes[place] for place in (0, 2, 4, 6)]
        for each in mine_only:
            assert numbers(each) == numbers(alone)

    def test_as_many_workers_as_share_a_gpu_are_placed_on_it_and_one_more_waits(self, session: Session) -> None:
        trials = 3  # thirds are rounded by Ray
        worker = local_capacity(Machine("cuda", trials, "a GPU", "this machine", trials)).worker
        actor = ray.remote(Seat).options(num_cpus=worker["CPU"], num_gpus=worker["GPU"])
        seats = [actor.remote() for _ in range(trials)]
        assert ray.get([seat.look.remote() for seat in seats]) == [[0]] * trials
        late = actor.remote()
        waits = late.look.remote()
        assert ray.wait([waits], timeout=0.5)[0] == []
        ray.kill(seats[0])
        assert ray.get(waits) == [0]
        for seat in (*seats[1:], late):
            ray.kill(seat)

    @pytest.mark.parametrize(("name", "better"), [("answers", "f1_words"), ("translation", "chrf")])
    def test_answers_and_translations_are_trained_and_scored_in_lanes(
        self, tmp_path: Path, session: Session, name: str, better: str
    ) -> None:
        study = load_study(made_studies.write_study(tmp_path, name, 400, sizes="[1x32]", examples="[320]", seeds=1))
        plan = draft_plan(study, this_machine("cpu"), Store.open(tmp_path / "run"))
        trial = plan.trials[0].trial
        short = replace(trial, training={**trial.training, "epochs": 1})
        outcomes = [numbers(outcome) for outcome in run_cells(session, plan, [short, trial])]
        scores = set(study.task.kind.metrics) - {"eval_loss"}
        for outcome in outcomes:
            assert {metric for metric in METRICS if outcome[metric] is not None} == scores
            assert 0 <= outcome["exact_match"] <= outcome[better]
            assert outcome[better] > 0
        assert outcomes[0]["eval_loss"] > outcomes[1]["eval_loss"]


def test_a_lane_that_waited_longer_than_its_process_groups_time_out_still_works(tmp_path: Path) -> None:
    with connect("local", "cpu", 3) as session:
        if session.machine.slots < 2:
            pytest.skip("needs two physical cores")
        plan = planned(tmp_path)
        trial = next(p.trial for p in plan.trials if p.trial.gpus == 2 and p.trial.data_requested == 40)
        first, second = run_cells(session, plan, [trial, trial], hang_seconds=3, pause=8)
    assert numbers(first) == numbers(second)
    assert (first["attempts"], second["attempts"]) == (1, 1)
