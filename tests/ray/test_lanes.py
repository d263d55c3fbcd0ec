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
from rayscale.on_ray.lanes.worker import COLLECTIVE_SECONDS, Handed, LaneSettings, open_host, open_pool
from rayscale.on_ray.session.capacity import local_capacity
from rayscale.on_ray.session.session import Session, connect
from rayscale.plan.draft import draft_plan
from rayscale.plan.plan import Plan
from rayscale.runs.trial import Trial
from rayscale.study.study import Study, load_study
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
    session: Session, trials: list[tuple[Study, Trial]], *, isolated: bool = False, hang_seconds: float = 60,
    collective_seconds: float = COLLECTIVE_SECONDS, pause: float = 0.0,
) -> list[dict[str, Any]]:  # fmt: skip
    """Run these trials of these studies one after the other, each under a name of its own, so that equal trials may
    run twice."""
    cells = []
    for number, (study, trial) in enumerate(trials):
        spec = spec_of(trial.model)
        parcel = wrap(prepare(study, [spec], [0])[spec.name].path, several_nodes=False)
        cells.append(Cell(str(number), trial.gpus, True, Handed(trial.to_json(), parcel, None)))
    settings = LaneSettings(
        session.worker_resources, "cpu", hang_seconds, "none", collective_seconds=collective_seconds
    )
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
        order = [mine, broken, mine, other, mine, exploding, mine]
        outcomes = run_cells(session, [(plan.study, trial) for trial in order])
        alone = run_cells(session, [(plan.study, mine)], isolated=True)[0]
        assert outcomes[1]["status"] == "failed"
        assert "1000000" in outcomes[1]["error"]["message"].replace(",", "")
        assert outcomes[5]["status"] == "diverged", outcomes[5]
        assert outcomes[5]["measured"]["steps"] > 0
        for place in (0, 2, 4, 6):
            assert numbers(outcomes[place]) == numbers(alone)

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

    def test_answers_and_translations_are_trained_and_scored_in_lanes(self, tmp_path: Path, session: Session) -> None:
        trials, better = [], {"answers": "f1_words", "translation": "chrf"}
        for name in better:
            path = made_studies.write_study(tmp_path / name, name, 400, sizes="[1x32]", examples="[320]", seeds=1)
            study = load_study(path)
            trial = draft_plan(study, this_machine("cpu"), Store.open(tmp_path / name / "run")).trials[0].trial
            short = replace(trial, training={**trial.training, "epochs": 1})
            trials += [(study, short), (study, trial)]
        outcomes = [numbers(outcome) for outcome in run_cells(session, trials)]
        for (study, _), outcome in zip(trials, outcomes, strict=True):
            scores = set(study.task.kind.metrics) - {"eval_loss"}
            assert {metric for metric in METRICS if outcome[metric] is not None} == scores
        for (short, whole), metric in zip((outcomes[:2], outcomes[2:]), better.values(), strict=True):
            for outcome in (short, whole):
                assert 0 <= outcome["exact_match"] <= outcome[metric]
                assert outcome[metric] > 0
            assert short["eval_loss"] > whole["eval_loss"]

    def test_a_lane_that_waited_longer_than_its_process_groups_time_out_still_works(
        self, tmp_path: Path, session: Session
    ) -> None:
        if session.machine.slots < 2:
            pytest.skip("needs two physical cores")
        plan = planned(tmp_path)
        trial = next(p.trial for p in plan.trials if p.trial.gpus == 2 and p.trial.data_requested == 40)
        twice = [(plan.study, trial)] * 2
        first, second = run_cells(session, twice, hang_seconds=10, collective_seconds=0, pause=12)
        assert numbers(first) == numbers(second)
        assert (first["attempts"], second["attempts"]) == (1, 1)
