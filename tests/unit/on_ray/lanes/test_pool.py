"""The rules of the lane pool, without Ray: plain asyncio with workers played by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from rayscale.on_ray.lanes.lane import Cell
from rayscale.on_ray.lanes.pool import LANE_FAILURES, LanePool


class Lanes:
    """Plays every worker of every lane that the pool opens."""

    def __init__(self, seconds: float = 0.0, breaks: dict[str, int] | None = None, starts: bool = True) -> None:
        self.log: list[tuple[str, frozenset[str], bool]] = []  # trial, what else ran, exclusive
        self.opened: list[int] = []
        self.running: set[str] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.used = self.most = 0
        self.seconds, self.breaks, self.starts = seconds, dict(breaks or {}), starts

    def open(self, pool: LanePool, lane_id: int, size: int) -> None:
        self.opened.append(size)
        self.used += size
        self.most = max(self.most, self.used)
        task = asyncio.get_running_loop().create_task(self.lane(pool, lane_id, size))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def lane(self, pool: LanePool, lane_id: int, size: int) -> None:
        await asyncio.sleep(0)
        if not self.starts:
            self.used -= size
            await pool.lane_ended(lane_id, "no machine")
            return
        restart, group = True, 0
        while restart:
            group += 1
            ranks = [self.rank(pool, lane_id, f"{lane_id}-{group}", rank, size) for rank in range(size)]
            restart = any(await asyncio.gather(*ranks))
        self.used -= size
        await pool.lane_ended(lane_id, None)

    async def rank(self, pool: LanePool, lane_id: int, group: str, rank: int, size: int) -> bool:
        seen = 0
        while (handed := await pool.next_trial(lane_id, group, rank, seen)) is not None:
            seen, name, _ = handed
            if not await pool.ready(lane_id, seen, rank, None):
                continue
            if rank == 0:
                self.log.append((name, frozenset(self.running), False))
                self.running.add(name)
            await asyncio.sleep(self.seconds)
            broken = self.breaks.get(name, 0) > 0
            if rank == 0:
                self.running.discard(name)
                self.breaks[name] = self.breaks.get(name, 0) - 1
                if not broken:
                    await pool.finish(lane_id, seen, {"status": "ok", "measured": {}})
            if broken:
                await pool.fail(lane_id, seen, {"message": "broke", "code": "exception"}, restart=size > 1)
                if size > 1:
                    return True
        return False


def play(
    cells: list[Cell], slots: int, lanes: Lanes, retries: int = 1, per_lane: int | None = None, share: float = 1.0
) -> dict[str, dict[str, Any]]:
    """Submit all cells at once, as a driver and Tune would; returns outcomes by trial."""

    async def whole() -> dict[str, dict[str, Any]]:
        pool = LanePool(cells, slots, retries, per_lane, lambda *lane: lanes.open(pool, *lane), share=share)
        waiting: list[Coroutine[Any, Any, Any]] = [pool.submit(cell.trial_id) for cell in cells]
        submitted = [asyncio.ensure_future(each) for each in waiting]
        outcomes: list[dict[str, Any]] = []
        while len(outcomes) < len(cells):
            for outcome in await pool.collect(len(outcomes), 5.0):
                outcomes.append(outcome)
                await pool.acknowledge(outcome["trial_id"], outcome)
        await asyncio.gather(*submitted)
        await pool.stop()
        await asyncio.gather(*lanes.tasks)
        return {outcome["trial_id"]: outcome for outcome in outcomes}

    return asyncio.run(asyncio.wait_for(whole(), 20))


def cell(name: str, gpus: int, alone: bool = False) -> Cell:
    return Cell(name, gpus, alone, name)


@pytest.mark.parametrize("slots", [2, 3, 4, 7])
def test_every_cell_ends_and_slots_are_never_exceeded(slots: int) -> None:
    cells = [cell(f"{gpus}-{n}", gpus) for gpus in (2, 1) for n in range(5)]
    lanes = Lanes(seconds=0.001)
    outcomes = play(cells, slots, lanes)
    assert {o["status"] for o in outcomes.values()} == {"ok"}
    assert lanes.most <= slots
    assert lanes.opened[0] == 2  # larger allocations first


def test_a_lane_serves_many_trials() -> None:
    lanes = Lanes()
    play([cell(str(n), 1) for n in range(20)], 1, lanes)
    assert lanes.opened == [1]


def test_a_slot_left_over_by_large_cells_serves_small_ones_meanwhile() -> None:
    lanes = Lanes(seconds=0.005)
    play([cell(f"two-{n}", 2) for n in range(4)] + [cell(f"one-{n}", 1) for n in range(4)], 3, lanes)
    assert any(name.startswith("one") and any(o.startswith("two") for o in others) for name, others, _ in lanes.log)


def test_what_trials_that_share_a_gpu_lost_costs_their_share() -> None:
    costs = {}
    for share in (1.0, 0.25):
        outcome = play([cell("a", 1)], 2, Lanes(seconds=0.02, breaks={"a": 1}), share=share)["a"]
        seconds = sum(failure["seconds"] for failure in outcome["failures"])
        assert seconds > 0
        costs[outcome["share"]] = outcome["lost_seconds"] / seconds
    assert costs == {1.0: pytest.approx(1.0), 0.25: pytest.approx(0.25)}


def test_lone_trials_run_with_nothing_beside_them() -> None:
    cells = [cell(str(n), 1) for n in range(6)] + [cell(f"alone-{n}", 1, alone=True) for n in range(3)]
    lanes = Lanes(seconds=0.003)
    outcomes = play(cells, 2, lanes)
    assert all(not others for name, others, _ in lanes.log if name.startswith("alone"))
    assert all(outcomes[f"alone-{n}"]["exclusive"] for n in range(3))
    shared = [o["exclusive"] for name, o in outcomes.items() if not name.startswith("alone")]
    assert not all(shared)


@pytest.mark.row
def test_row_14_a_trial_that_breaks_is_tried_again_and_then_failed_with_its_reason() -> None:
    lanes = Lanes(breaks={"a": 1, "b": 9})
    outcomes = play([cell("a", 1), cell("b", 1), cell("c", 1)], 1, lanes, retries=2)
    assert (outcomes["a"]["status"], outcomes["a"]["attempts"]) == ("ok", 2)
    assert (outcomes["b"]["status"], outcomes["b"]["attempts"]) == ("failed", 3)
    assert outcomes["b"]["error"]["message"] == "broke"
    assert outcomes["c"]["status"] == "ok"
    assert lanes.opened == [1]


def test_a_rank_that_raises_in_a_group_restarts_it_and_others_go_on() -> None:
    lanes = Lanes(breaks={"a": 1})
    outcomes = play([cell("a", 2), cell("b", 2)], 2, lanes)
    assert [outcomes[name]["status"] for name in "ab"] == ["ok", "ok"]
    assert outcomes["a"]["attempts"] == 2
    assert outcomes["b"]["attempts"] == 1


def test_isolated_trials_have_a_lane_each() -> None:
    lanes = Lanes()
    play([cell(str(n), 1) for n in range(5)], 2, lanes, per_lane=1)
    assert lanes.opened == [1] * 5


def test_lanes_that_cannot_start_fail_their_cells_with_the_reason() -> None:
    lanes = Lanes(starts=False)
    outcomes = play([cell("a", 1), cell("b", 1)], 1, lanes)
    assert len(lanes.opened) == LANE_FAILURES
    assert all("no machine" in o["error"]["message"] for o in outcomes.values())


def test_a_worker_that_dies_without_a_word_costs_an_attempt_of_its_trial_only() -> None:
    async def whole() -> list[dict[str, Any]]:
        pool = LanePool([cell("a", 1), cell("b", 1)], 1, 1, None, lambda *_: None)
        submitted = [asyncio.ensure_future(pool.submit(name)) for name in "ab"]
        await asyncio.sleep(0)
        serial, first, _ = await pool.next_trial(0, "old", 0, 0) or (0, None, None)
        again, second, _ = await pool.next_trial(0, "new", 0, 0) or (0, None, None)
        assert first == second == "a"
        await pool.finish(0, serial, {"status": "ok"})  # the dead process' word comes late and does not count
        assert await pool.collect(0, 0.01) == []
        await pool.finish(0, again, {"status": "ok"})
        serial, third, _ = await pool.next_trial(0, "new", 0, again) or (0, None, None)
        assert third == "b"
        await pool.finish(0, serial, {"status": "ok"})
        outcomes = await pool.collect(0, 1.0)
        for outcome in outcomes:
            await pool.acknowledge(outcome["trial_id"], outcome)
        await asyncio.gather(*submitted)
        return outcomes

    outcomes = asyncio.run(asyncio.wait_for(whole(), 10))
    assert [(o["trial_id"], o["attempts"]) for o in outcomes] == [("a", 2), ("b", 1)]


def test_a_failed_set_up_on_one_rank_ends_the_trial_on_all_without_a_restart() -> None:
    async def whole() -> list[dict[str, Any]]:
        pool = LanePool([cell("a", 2)], 2, 0, None, lambda *_: None)
        submitted = asyncio.ensure_future(pool.submit("a"))
        await asyncio.sleep(0)
        (serial, *_), _ = await asyncio.gather(*(pool.next_trial(0, "g", rank, 0) for rank in range(2)))  # type: ignore[misc]
        error = {"message": "no such file", "code": "wrong_input", "permanent": True}
        went_on = await asyncio.gather(pool.ready(0, serial, 0, None), pool.ready(0, serial, 1, error))
        assert went_on == [False, False]
        outcomes = await pool.collect(0, 1.0)
        await pool.acknowledge("a", outcomes[0])
        await submitted
        return outcomes

    outcomes = asyncio.run(asyncio.wait_for(whole(), 10))
    assert outcomes[0]["status"] == "failed"
    assert outcomes[0]["error"]["message"] == "no such file"


@pytest.mark.row
def test_row_16_lanes_that_die_at_work_cost_attempts_of_their_trial_and_no_other_cell() -> None:
    deaths = LANE_FAILURES + 1

    async def whole() -> list[dict[str, Any]]:
        opened: list[int] = []
        pool = LanePool([cell("a", 1), cell("b", 1)], 1, deaths, None, lambda lane_id, size: opened.append(lane_id))
        submitted = [asyncio.ensure_future(pool.submit(name)) for name in ("a", "b")]
        await asyncio.sleep(0)
        for lane_id in range(deaths):
            handed = await pool.next_trial(lane_id, f"group {lane_id}", 0, 0)
            assert handed is not None
            assert handed[1] == "a"
            await pool.lane_ended(lane_id, "its trainer was killed")
        seen = 0
        for name in ("a", "b"):
            seen, got, _ = await pool.next_trial(deaths, "the last group", 0, seen) or (0, None, None)
            assert got == name
            await pool.finish(deaths, seen, {"status": "ok", "measured": {}})
        outcomes = await pool.collect(0, 5.0)
        for outcome in outcomes:
            await pool.acknowledge(outcome["trial_id"], outcome)
        await asyncio.gather(*submitted)
        return outcomes

    outcomes = asyncio.run(asyncio.wait_for(whole(), 20))
    assert [(each["trial_id"], each["status"], each["attempts"]) for each in outcomes] == [
        ("a", "ok", deaths + 1),
        ("b", "ok", 1),
    ]


@pytest.mark.parametrize("slots", [2, 4, 5, 8])
def test_lone_trials_of_every_size_are_alone_whatever_the_slots(slots: int) -> None:
    cells = [cell(f"{gpus}-{name}", gpus, alone=name == "alone") for gpus in (2, 1) for name in ("a", "b", "alone")]
    lanes = Lanes(seconds=0.003)
    outcomes = play(cells, slots, lanes)
    assert all(not others for name, others, _ in lanes.log if name.endswith("alone"))
    assert all(outcomes[f"{gpus}-alone"]["exclusive"] for gpus in (2, 1))


def waiting_pool(cells: list[Cell], slots: int) -> tuple[LanePool, list[int], list[str]]:
    """A pool whose cells are submitted; the lanes it opened, and the trainers it withdrew."""
    opened: list[int] = []
    withdrawn: list[str] = []
    pool = LanePool(cells, slots, 2, None, lambda lane_id, size: opened.append(lane_id), withdraw=withdrawn.append)
    return pool, opened, withdrawn


def test_the_end_of_a_closing_lanes_worker_neither_disturbs_a_lone_trial_nor_is_a_fault() -> None:
    async def whole() -> None:
        pool, opened, _ = waiting_pool([cell("a", 1), cell("b", 1), cell("alone", 1, alone=True)], 2)
        submitted = [asyncio.ensure_future(pool.submit(name)) for name in ("a", "b", "alone")]
        await asyncio.sleep(0.01)
        handed = await asyncio.gather(*(pool.next_trial(lane_id, f"g{lane_id}", 0, 0) for lane_id in opened))
        for lane_id, trial in zip(opened, handed, strict=True):
            assert trial is not None
            await pool.finish(lane_id, trial[0], {"status": "ok"})
        # One cell is left, so one of two lanes is.
        handed = await asyncio.gather(*(pool.next_trial(lane_id, f"g{lane_id}", 0, 2) for lane_id in opened))
        ((closes, _),) = [pair for pair in zip(opened, handed, strict=True) if pair[1] is None]
        ((lives, lone),) = [pair for pair in zip(opened, handed, strict=True) if pair[1] is not None]
        assert lone is not None
        await pool.lose(closes, f"g{closes}", {"message": "the process is gone", "code": "worker_died"})
        await pool.lane_ended(closes, "ActorDiedError")
        await pool.finish(lives, lone[0], {"status": "ok"})
        outcomes = {outcome["trial_id"]: outcome for outcome in await pool.collect(0, 1.0)}
        assert outcomes["alone"]["exclusive"]
        assert {event["event"] for event in (await pool.snapshot())["events"]} == {"trial_started"}
        for task in submitted:
            task.cancel()

    asyncio.run(asyncio.wait_for(whole(), 20))


def test_a_lane_that_waits_for_a_place_is_withdrawn_before_a_lone_trial_starts() -> None:
    async def whole() -> None:
        pool, opened, withdrawn = waiting_pool([cell("a", 1, alone=True), cell("b", 1, alone=True)], 4)
        submitted = [asyncio.ensure_future(pool.submit(name)) for name in "ab"]
        await asyncio.sleep(0.01)
        first, second = opened
        await pool.place(first, "first")
        await pool.place(second, "second")
        await pool.resize(4, 4, {"first"})  # the other one has no place yet
        lone = await pool.next_trial(first, "g", 0, 0)
        assert lone is not None
        assert withdrawn == ["second"]
        await pool.lane_ended(second, "withdrawn")
        await pool.resize(4, 4, {"first"})
        await pool.finish(first, lone[0], {"status": "ok"})
        assert (await pool.collect(0, 1.0))[0]["exclusive"]
        assert {event["event"] for event in (await pool.snapshot())["events"]} == {"trial_started"}
        for task in submitted:
            task.cancel()

    asyncio.run(asyncio.wait_for(whole(), 20))
