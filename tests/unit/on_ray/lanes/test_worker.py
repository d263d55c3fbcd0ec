"""What a lane's worker says that a trial cost, without Ray and without training."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import ray

from rayscale.nn.training import train
from rayscale.on_ray.data import stream
from rayscale.on_ray.lanes.worker import Handed, LaneSettings, LaneWorker
from rayscale.runs.trial import ModelSpec, Trial
from rayscale.study.sections import Task

SECONDS = 90.0
TRIAL = Trial(
    "a", "toy", Task(type="causal-lm", max_length=64), ModelSpec("bert-1x32", "family", "bert", 1, 32, 512),
    "tokens", 1000, 1, 0, "none", {}, "cuda", 1, "f" * 64,
)  # fmt: skip


class Clock:
    """A clock that training alone moves."""

    def __init__(self) -> None:
        self.time = datetime(2030, 1, 1, tzinfo=UTC)

    def now(self, zone: Any) -> datetime:
        return self.time


class Method:
    """An actor's method that answers True and remembers what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def remote(self, *given: Any) -> bool:
        self.calls.append(given)
        return True


class Pool:
    def __init__(self) -> None:
        self.ready, self.finish = Method(), Method()


@pytest.mark.parametrize(("size", "share"), [(1, 0.25), (1, 1.0), (2, 1.0)])
def test_a_trial_is_charged_its_share_of_the_time_on_its_gpus(
    size: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, pool = Clock(), Pool()

    def train_trial(*given: Any, **more: Any) -> dict[str, Any]:
        clock.time += timedelta(seconds=SECONDS)
        return {"status": "ok", "steps": 3}

    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(stream, "open_prepared", lambda parcel: None)
    monkeypatch.setattr(train, "train_trial", train_trial)
    settings = LaneSettings({"CPU": 0, "GPU": share}, "cuda", 60, "none", share=share)
    worker = LaneWorker(pool, 0, settings, 0, size, "cpu", clock.now)
    worker.serve(1, Handed(TRIAL.to_json(), None, None), None)  # type: ignore[arg-type]
    ((_, _, outcome),) = pool.finish.calls
    measured = outcome["measured"]
    assert (outcome["status"], measured["steps"]) == ("ok", 3)
    began, ended = (datetime.fromisoformat(measured[f"{what}_at"]) for what in ("started", "ended"))
    assert (ended - began).total_seconds() == SECONDS
    assert measured["device_seconds"] == SECONDS * size * share
