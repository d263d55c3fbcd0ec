"""Row 18: memory does not suffice for the usual micro-batch. A smaller one gives the same numbers, or the reason."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from made import make_classification, make_trial
from resume_worker import saved_after, saving

from rayscale.errors import MemoryTrialError
from rayscale.nn.training import train
from rayscale.nn.training.kept_model import KeptModel
from rayscale.on_ray.data import stream
from rayscale.on_ray.inline import run_here
from rayscale.on_ray.lanes.lane import Cell
from rayscale.on_ray.lanes.pool import LanePool
from rayscale.on_ray.lanes.retry import why_not_again
from rayscale.on_ray.lanes.worker import Handed, LaneSettings, LaneWorker, judge_death
from rayscale.runs.trial import ModelSpec, Trial

pytestmark = pytest.mark.row
TRIAL = make_trial(data_requested=120, trial_id="hungry", training={"global_batch": 8})
SAME = ("train_loss", "validation_loss", "eval_loss", "accuracy", "f1_macro", "steps", "tokens", "flops")


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A device on which `rows` fit at once from step `step` of an attempt on."""
    room, whole = {"rows": 64, "step": 1}, train.take_step

    def step(parallel: Any, model: Any, optimizer: Any, job: Any, *rest: Any) -> Any:
        room["left"] = room.get("left", room["step"]) - 1
        if job.micro_batch > room["rows"] and room["left"] <= 0:
            room["left"] = room["step"]
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return whole(parallel, model, optimizer, job, *rest)

    monkeypatch.setattr(train, "take_step", step)
    return room


@pytest.fixture
def trial(tiny_bert: Path) -> Trial:
    return replace(TRIAL, model=ModelSpec("tiny", "pretrained", "bert", 3, path=str(tiny_bert)))


def run(trial: Trial, folder: Path, said: list[dict[str, Any]], keep: Any = None) -> dict[str, Any]:
    made = make_classification(folder)
    return run_here(
        trial, made, keep_model=False, saving=keep, progress=lambda told: None, say=said.append, let_raise=False
    )  # type: ignore[arg-type]


def test_row_18_memory_that_does_not_suffice_halves_the_micro_batch_and_changes_no_number(
    trial: Trial, tmp_path: Path, memory: dict[str, int]
) -> None:
    said: list[dict[str, Any]] = []
    usual = run(trial, tmp_path, said)
    assert (said, usual["attempts"], usual["measured"]["micro_batch"]) == ([], 1, 8)
    memory["rows"] = 3
    small = run(trial, tmp_path, said)
    assert (small["status"], small["attempts"], small["measured"]["micro_batch"]) == ("ok", 3, 2)
    assert [(each["event"], each["code"], each["micro_batch"]) for each in said] == [
        ("trial_retried", "out_of_memory", 4), ("trial_retried", "out_of_memory", 2)
    ]  # fmt: skip
    assert small["measured"]["global_batch"] == usual["measured"]["global_batch"]
    assert small["lost_seconds"] > 0
    for name in SAME:
        assert small["measured"][name] == pytest.approx(usual["measured"][name], rel=2e-5), name


def test_row_18_memory_that_runs_out_late_goes_on_from_the_savepoint(
    trial: Trial, tmp_path: Path, memory: dict[str, int]
) -> None:
    usual = run(trial, tmp_path, [])
    memory |= {"rows": 4, "step": 12, "left": 12}
    said: list[dict[str, Any]] = []
    with saved_after(10):
        small = run(trial, tmp_path, said, saving(tmp_path / "run", said.append))
    assert small["measured"]["micro_batch"] == 4
    assert [each["step"] for each in said if each["event"] == "trial_resumed"] == [10]
    for name in SAME:
        assert small["measured"][name] == pytest.approx(usual["measured"][name], rel=2e-5), name


def test_row_18_too_little_for_one_row_is_a_failed_record_that_says_so(
    trial: Trial, tmp_path: Path, memory: dict[str, int]
) -> None:
    memory["rows"] = 0
    failed = run(trial, tmp_path, [])
    assert (failed["status"], failed["attempts"]) == ("failed", 4)  # 8, 4, 2 and 1 rows at once
    assert "out of memory with micro-batches of 1" in failed["error"]["message"]
    assert "use a smaller model" in failed["error"]["message"]


def test_row_18_too_little_for_the_model_is_tried_no_smaller_and_says_so(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*given: Any, **more: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(train, "prepare_job", build)
    said: list[dict[str, Any]] = []
    failed = run(trial, tmp_path, said)
    assert (failed["status"], failed["attempts"], said) == ("failed", 1, [])
    assert failed["error"]["message"].startswith("out of memory while the model was built (CUDA out of memory")
    assert why_not_again([failed["error"]] * 3, 2) == "all 3 attempts failed"


def test_row_18_a_pool_hands_the_trial_out_with_half_the_micro_batch_and_counts_no_retry() -> None:
    async def whole() -> tuple[list[int | None], dict[str, Any], list[dict[str, Any]]]:
        pool, asked, serial = LanePool([Cell("a", 1, False, "a")], 1, 0, None, lambda *_: None), [], 0
        submitted = asyncio.ensure_future(pool.submit("a"))
        await asyncio.sleep(0)
        for rows in (8, 4, 2, 1):
            serial, _, most = await pool.next_trial(0, "g", 0, serial) or (0, None, None)
            asked.append(most)
            told = {"message": "out of memory", "code": "out_of_memory", "micro_batch": rows, "permanent": rows == 1}
            await pool.fail(0, serial, told, restart=False)
        (outcome,) = await pool.collect(0, 1.0)
        await pool.acknowledge("a", outcome)
        await submitted
        return asked, outcome, (await pool.snapshot())["events"]

    asked, outcome, events = asyncio.run(asyncio.wait_for(whole(), 10))
    assert asked == [None, 4, 2, 1]
    assert (outcome["status"], outcome["attempts"]) == ("failed", 4)
    assert [event.get("micro_batch", event["event"]) for event in events] == [
        "trial_started", 4, "trial_started", 2, "trial_started", 1, "trial_started",
    ]  # fmt: skip


class _Method:
    """Stands for an actor's method: what it is called with is noted, and a call returns `answer`."""

    def __init__(self, answer: Any = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answer = answer

    def remote(self, *given: Any) -> Any:
        self.calls.append(given)
        return self.answer


class _Pool:
    def __init__(self) -> None:
        self.ready, self.fail, self.finish = _Method(True), _Method(), _Method()
        self.beat, self.say = _Method(), _Method()


@pytest.mark.parametrize(
    ("error", "ranks", "restarts"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), 1, False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), 1, True),
        (ValueError("shapes differ"), 1, False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), 2, True),  # others wait for it
    ],
)
def test_row_18_a_lack_of_cuda_memory_costs_a_lane_of_one_worker_no_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, ranks: int, restarts: bool
) -> None:
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(stream, "open_prepared", lambda parcel: None)

    def train_trial(*given: Any, **more: Any) -> Any:
        raise error

    pool = _Pool()
    worker = LaneWorker(pool, 0, LaneSettings({}, "cuda", 60, "none"), 0, ranks, "cuda")
    monkeypatch.setattr(train, "train_trial", train_trial)
    try:
        worker.serve(1, Handed(TRIAL.to_json(), tmp_path, None), None)  # type: ignore[arg-type]
        raised = False
    except type(error):
        raised = True
    ((_, _, told, restart),) = pool.fail.calls
    assert (raised, restart) == (restarts, restarts)
    assert str(error) in told["message"]


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (ray.exceptions.OutOfMemoryError("Memory on the node was 30.8GB / 31GB"), "out_of_memory"),
        (
            ray.exceptions.RayActorError(error_msg="Task was killed due to the node running low on memory."),
            "out_of_memory",
        ),
        (ray.exceptions.RayActorError(error_msg="its node has died"), "node_died"),
        (ray.exceptions.RayActorError(error_msg="its worker process has died"), "worker_died"),
    ],
)
def test_row_18_a_worker_that_ray_ends_for_memory_is_not_one_that_died(failure: Exception, code: str) -> None:
    assert judge_death(failure)[0] == code


@pytest.mark.parametrize(("rows", "asked"), [(8, 4), (1, "given up"), (None, None)])
def test_row_18_a_worker_ended_for_memory_halves_the_micro_batch_that_it_last_told(
    rows: int | None, asked: int | str | None
) -> None:
    async def whole() -> int | str | None:
        pool = LanePool([Cell("a", 1, False, "a")], 1, 1, None, lambda *_: None)
        submitted = asyncio.ensure_future(pool.submit("a"))
        await asyncio.sleep(0)
        serial, _, _ = await pool.next_trial(0, "g", 0, 0) or (0, None, None)
        await pool.beat(0, serial, 0, {"phase": "train", "step": 3, "micro_batch": rows})
        await pool.lose(0, "g", {"message": "out of memory", "code": "out_of_memory"})
        found = await pool.collect(0, 0.01)
        handed = None if found else await pool.next_trial(0, "h", 0, 0)
        submitted.cancel()
        return "given up" if found else handed and handed[2]

    assert asyncio.run(asyncio.wait_for(whole(), 10)) == asked


@pytest.mark.parametrize("holds", [True, False])
def test_a_trial_that_lacks_memory_while_a_model_is_kept_is_tried_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holds: bool
) -> None:
    worker = LaneWorker(None, 0, LaneSettings({}, "cuda", 60, "none"), 0, 1, "cuda:0")
    made, train_trial, kept_models = make_classification(tmp_path), train.train_trial, []
    if holds:
        worker.measure(TRIAL, made)
    assert worker.kept is not None
    assert (worker.kept.ready is not None) == holds

    def lacking(*given: Any, kept: KeptModel, **more: Any) -> dict[str, Any]:
        kept_models.append(kept.ready)
        if len(kept_models) == 1:
            kept.ready = None
            raise MemoryTrialError("out of memory", 8)
        return train_trial(*given, **more, kept=kept)

    monkeypatch.setattr(train, "train_trial", lacking)
    if holds:
        assert worker.measure(TRIAL, made)["micro_batch"] == 8
        assert kept_models[0] is not kept_models[1] is None
    else:
        with pytest.raises(MemoryTrialError):
            worker.measure(TRIAL, made)


def test_a_cpu_keeps_no_model() -> None:
    assert LaneWorker(None, 0, LaneSettings({}, "cpu", 60, "none"), 0, 1, "cpu").kept is None
