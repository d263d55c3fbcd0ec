"""What a lane's worker says that a trial cost, without Ray and without training."""

from __future__ import annotations

import time
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from rayscale.on_ray.lanes.worker import LaneSettings, _Worker


@pytest.mark.parametrize(("size", "share"), [(1, 0.25), (1, 1.0), (2, 1.0)])
def test_a_trial_is_charged_its_share_of_the_time_on_its_gpus(size: int, share: float) -> None:
    worker: Any = object.__new__(_Worker)
    worker.settings = LaneSettings({"CPU": 0, "GPU": share}, "cuda", 60, "none", share=share)
    worker.rank, worker.size, worker.device, worker.kept = 0, size, "cpu", None

    def train(trial: Any, prepared: Any, **how: Any) -> dict[str, Any]:
        time.sleep(0.05)
        return {"status": "ok", "steps": 3}

    worker.train = SimpleNamespace(train_trial=train)
    told = worker._train(1, None, None, None, None)["measured"]
    began, ended = (datetime.fromisoformat(told[f"{what}_at"]) for what in ("started", "ended"))
    assert told["device_seconds"] >= 0.05 * size * share
    assert told["device_seconds"] == pytest.approx((ended - began).total_seconds() * size * share, abs=2e-3 * size)
