"""How many workers fit, and what each asks of Ray."""

from __future__ import annotations

import pytest

from rayscale.on_ray.session.capacity import SLOT, local_capacity
from rayscale.system.machine import Machine


@pytest.mark.parametrize("trials", range(1, 21))
def test_workers_that_share_gpus_fit_on_them_as_ray_counts(trials: int) -> None:
    capacity = local_capacity(Machine("cuda", 8 * trials, "a GPU", "this machine", trials))
    units = round(capacity.worker["GPU"] * 10_000)  # Ray rounds so
    assert units / 10_000 == capacity.worker["GPU"]
    assert 10_000 // units == trials
    assert capacity.fit({"GPU": 8.0}) == 8 * trials
    assert capacity.fit({"CPU": 64.0}) == 0


def test_a_worker_on_a_cpu_takes_a_slot() -> None:
    capacity = local_capacity(Machine("cpu", 2, "a CPU", "this machine"))
    assert (capacity.worker, capacity.fit({SLOT: 2.0})) == ({"CPU": 0, SLOT: 1}, 2)
