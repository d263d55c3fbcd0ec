"""What is left for a run of a cluster that others use, and what it says and does while it waits."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace as Some
from typing import Any

import pytest
import ray
from ray._private.state import state

from rayscale.errors import ClusterError
from rayscale.on_ray import cluster
from rayscale.on_ray.session import capacity
from rayscale.on_ray.session.capacity import SLOT, Capacity
from rayscale.on_ray.session.occupancy import (
    ENTRY_LENGTH,
    LOOKS,
    QUIET_SECONDS,
    SAY_SECONDS,
    Holder,
    Wait,
    _described,
    held_by_others,
    look_at,
    waiting_text,
)

SLOTS = Capacity(SLOT, 1, {"CPU": 0, SLOT: 1})
SHARED = Capacity("GPU", 1, {"CPU": 0, "GPU": 0.3333}, 3)
CORES = Capacity("CPU", 2.0, {"CPU": 1.8})


@pytest.mark.parametrize(
    ("capacity", "nodes", "held"),
    [
        (SLOTS, [({SLOT: 2.0}, {SLOT: 2.0}, 0), ({"CPU": 2.0}, {}, 0)], 0),
        (SLOTS, [({SLOT: 2.0}, {SLOT: 0.0}, 1), ({SLOT: 3.0}, {SLOT: 1.0}, 0)], 3),
        (SLOTS, [({SLOT: 2.0}, {SLOT: 2.0}, 2)], 0),  # Ray tells late what is taken
        (SHARED, [({"GPU": 2.0}, {"GPU": 0.6667}, 1)], 3),
        (CORES, [({"CPU": 8.0}, {"CPU": 2.18}, 2)], 1),
    ],
)
def test_others_hold_what_is_neither_free_nor_ours(capacity: Capacity, nodes: list[Any], held: int) -> None:
    assert held_by_others(nodes, capacity) == held


def test_a_place_that_was_just_given_back_is_not_taken_for_another_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    held = 0
    nodes = [{"NodeID": "n", "Resources": {SLOT: 4.0}}]
    for module, name, value in (
        (cluster, "head_table", lambda *_, **__: []), (cluster, "living_nodes", lambda: nodes),
        (capacity, "living_nodes", lambda: nodes), (Capacity, "most", lambda _: 0),
        (ray, "get_runtime_context", lambda: Some(get_job_id=lambda: "ours")),
        (state, "available_resources_per_node", lambda: {"n": {SLOT: 4.0 - held}}),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    looks, rooms = deque[int](maxlen=LOOKS), []
    for number in (0, 2, 0, 2, 2, 2, 1):
        held = number
        rooms.append(look_at(SLOTS, looks).room)
    assert rooms == [4, 4, 4, 4, 4, 2, 3]


def test_the_words_name_what_is_asked_what_is_free_and_who_holds_the_rest() -> None:
    job = Some(
        job_id=bytes([2, 0, 0, 0]), entrypoint="python  their_job.py\n" + "x" * 200, driver_pid=7,
        driver_address=Some(ip_address="10.0.0.9"), config=Some(ray_namespace="theirs"),
    )  # fmt: skip
    known, unknown = _described({"02000000": 2.0, "03000000": 1.0, "04000000": 0.1}, 1.0, [job])
    assert (len(known.entry), unknown) == (ENTRY_LENGTH, Holder("03000000", 1))
    text = waiting_text({2: 3, 1: 1}, 4, 1, [known, unknown], 90)
    assert "1 trial of 1 slot and 3 trials of 2 slots left to run, 1 of 4 slots free" in text
    assert "job 02000000 (`python their_job.py xx" in text
    assert "process 7 on 10.0.0.9, namespace theirs) holds 2; job 03000000 holds 1" in text
    assert "Ray does not say who" in waiting_text({2: 1}, 2, 0, [], 0)
    assert "nodes may be starting" in waiting_text({2: 1}, 2, 2, [], 0)


def test_a_wait_is_told_every_half_minute_and_ends_at_its_limit_alone() -> None:
    told: list[Any] = []
    wait = Wait(None, told.append)
    now = {"room": 0, "slots": 2, "holders": ()}
    assert not wait.look({**now, "waits": None}, 0)
    for second in range(100):
        assert wait.look({**now, "waits": {"seconds": float(second), "sizes": {2: 1}}}, second)
    assert not wait.look({**now, "room": 2, "waits": None}, 100)
    assert [each["event"] for each in told] == ["waiting_for_slots"] * 4 + ["slots_free"]
    assert QUIET_SECONDS < SAY_SECONDS
    limited = Wait(10.0, told.append)
    assert limited.look({**now, "waits": {"seconds": 10.0, "sizes": {2: 1}}}, 0)
    with pytest.raises(ClusterError, match=r"run.wait_seconds: 10\. Waiting for .* Run the same command") as error:
        limited.look({**now, "waits": {"seconds": 10.1, "sizes": {2: 1}}}, 0)
    assert error.value.code == "slots_busy"
