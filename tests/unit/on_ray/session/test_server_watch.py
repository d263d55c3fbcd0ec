"""The watch of the lane pool, with a clock and workers moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rayscale.on_ray.lanes.lane import Cell
from rayscale.on_ray.lanes.pool import LANE_FAILURES, OVERDUE_SECONDS, LanePool

HANG, START = 60.0, 300.0


class Stage:
    """A pool whose lanes are only noted down, its clock, and who was ended."""

    def __init__(self, cells: list[Cell], slots: int = 2, retries: int = 2) -> None:
        self.now = 0.0
        self.opened: list[tuple[int, int]] = []
        self.ended: list[Any] = []
        self.strays: list[list[Any]] = []
        self.pool = LanePool(
            cells, slots, retries, None, lambda lane_id, size: self.opened.append((lane_id, size)),
            lambda: self.now, hang_seconds=HANG, start_seconds=START,
            end_workers=self.ended.extend, end_strays=lambda known, _: self.strays.append(list(known)),
        )  # fmt: skip
        self.submitted = [asyncio.ensure_future(self.pool.submit(cell.trial_id)) for cell in cells]

    async def hand_out(self, lane_id: int, size: int, group: str = "g", seen: int = 0) -> tuple[int, Any]:
        """All ranks of a lane come for a trial and set it up."""
        asked = [self.pool.next_trial(lane_id, group, rank, seen, f"{group}{rank}") for rank in range(size)]
        handed = await asyncio.gather(*asked)
        assert len(set(handed)) == 1
        assert handed[0] is not None
        ready = [self.pool.ready(lane_id, handed[0][0], rank, None) for rank in range(size)]
        assert all(await asyncio.gather(*ready))
        return handed[0][:2]

    async def pass_time(self, seconds: float) -> None:
        self.now += seconds
        await self.pool.look()

    async def events(self) -> list[dict[str, Any]]:
        return (await self.pool.snapshot())["events"]

    async def outcomes(self) -> list[dict[str, Any]]:
        return await self.pool.collect(0, 0.01)


def cell(name: str, gpus: int) -> Cell:
    return Cell(name, gpus, False, name)


def played(play: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(play(), 20))


def test_a_silent_rank_takes_its_group_with_it_and_the_trial_goes_to_the_next_one() -> None:
    async def play() -> None:
        stage = Stage([cell("a", 2)])
        await asyncio.sleep(0)
        serial, _ = await stage.hand_out(0, 2)
        for _ in range(3):
            for rank in range(2):
                await stage.pool.beat(0, serial, rank, {"phase": "train", "step": 5})
            await stage.pass_time(HANG / 2)
        assert stage.ended == []
        for _ in range(3):
            await stage.pool.beat(0, serial, 0, {"phase": "train", "step": 9})
            await stage.pass_time(HANG / 2)
        assert stage.ended == ["g0", "g1"]
        begun, event = await stage.events()
        assert begun == {"event": "trial_started", "trial_id": "a"}
        assert (event["event"], event["code"], event["step"], event["attempt"]) == ("trial_retried", "hang", 9, 1)
        assert "worker 1 gave no sign of life" in event["message"]
        again, name = await stage.hand_out(0, 2, "h")
        assert (again, name) == (serial + 1, "a")
        await stage.pool.finish(0, serial, {"status": "ok"})  # a late word of the group that was ended
        assert await stage.outcomes() == []
        await stage.pool.finish(0, again, {"status": "ok"})
        (outcome,) = await stage.outcomes()
        assert (outcome["attempts"], outcome["failures"][0]["code"]) == (2, "hang")
        assert outcome["lost_seconds"] == 150 * 2  # it was ended when 90 s had passed without a word

    played(play)


def test_ranks_that_wait_for_the_pool_need_not_say_anything() -> None:
    async def play() -> None:
        stage = Stage([cell("a", 1)])
        await asyncio.sleep(0)
        serial, _ = await stage.hand_out(0, 1)
        waits = asyncio.ensure_future(stage.pool.next_trial(0, "g", 0, serial, "g0"))
        await asyncio.sleep(0)
        await stage.pass_time(HANG * 100)
        assert stage.ended == []
        waits.cancel()

    played(play)


@pytest.mark.parametrize(("phase", "patience"), [("load", 10), ("save", 10), ("train", 1), ("validation", 1)])
def test_phases_without_a_word_in_between_may_take_longer(phase: str, patience: int) -> None:
    async def play() -> None:
        stage = Stage([cell("a", 1)])
        await asyncio.sleep(0)
        serial, _ = await stage.hand_out(0, 1)
        await stage.pool.beat(0, serial, 0, {"phase": phase})
        await stage.pass_time(HANG * patience)
        assert stage.ended == []
        await stage.pass_time(1)
        assert stage.ended == ["g0"]

    played(play)


def test_a_trial_that_hangs_every_time_fails_with_the_reason_and_the_next_one_runs() -> None:
    async def play() -> None:
        stage = Stage([cell("a", 1), cell("b", 1)], slots=1, retries=1)
        await asyncio.sleep(0)
        for group in "gh":
            serial, name = await stage.hand_out(0, 1, group)
            assert name == "a"
            await stage.pool.beat(0, serial, 0, {"phase": "train"})
            await stage.pass_time(HANG + 1)
        (outcome,) = await stage.outcomes()
        assert (outcome["status"], outcome["attempts"], outcome["error"]["code"]) == ("failed", 2, "hang")
        assert outcome["error"]["gave_up"] == "all 2 attempts failed"
        assert (await stage.hand_out(0, 1, "i"))[1] == "b"

    played(play)


def test_a_process_that_died_is_told_of_once_whoever_tells_first() -> None:
    async def play() -> None:
        stage = Stage([cell("a", 2)])
        await asyncio.sleep(0)
        serial, _ = await stage.hand_out(0, 2)
        await stage.pool.lose(0, "g", {"message": "the process of worker 1 died", "code": "worker_died"})
        await stage.pool.fail(0, serial, {"message": "Connection closed by peer", "code": "exception"}, restart=True)
        await stage.pool.lose(0, "g", {"message": "the process of worker 0 died", "code": "worker_died"})
        assert [event.get("code") for event in await stage.events()] == [None, "worker_died"]
        assert await stage.pool.next_trial(0, "g", 0, serial, "g0") is None
        assert (await stage.hand_out(0, 2, "h"))[1] == "a"

    played(play)


def test_a_lane_that_never_comes_up_is_given_up_and_its_cells_fail_with_the_cause() -> None:
    async def play() -> None:
        stage = Stage([cell("a", 2)])
        await asyncio.sleep(0)
        half = asyncio.ensure_future(stage.pool.next_trial(0, "g", 0, 0, "g0"))
        await asyncio.sleep(0)
        for attempt in range(LANE_FAILURES):
            assert len(stage.opened) == attempt + 1
            await stage.pass_time(START + 1)
            assert len(stage.strays) == attempt + 1  # first the workers that hang while they start are ended
            await stage.pass_time(OVERDUE_SECONDS)
        assert stage.strays[0] == ["g0"]  # the one that came up is none of them
        assert await half is None
        (outcome,) = await stage.outcomes()
        assert outcome["error"]["code"] == "lane_failed"
        assert "0 of its workers came up in 361 s" in outcome["error"]["message"]
        await stage.pool.lane_ended(0, "late")  # Ray's own word of it changes nothing any more

    played(play)


def test_fewer_slots_close_the_lane_that_cannot_come_up_and_more_open_one() -> None:
    async def play() -> None:
        stage = Stage([cell(str(n), 1) for n in range(4)], slots=2)
        await asyncio.sleep(0)
        assert len(stage.opened) == 2
        await stage.hand_out(1, 1, "up")
        await stage.pool.resize(1)
        assert await stage.pool.next_trial(0, "late", 0, 0, "late0") is None
        await stage.pool.lane_ended(0, None)
        await stage.pool.resize(2)
        assert len(stage.opened) == 3

    played(play)


def test_cells_wider_than_what_is_left_of_the_cluster_fail_with_both_figures_after_the_others() -> None:
    async def play() -> None:
        stage = Stage([cell("wide", 2), cell("narrow", 1)])
        await asyncio.sleep(0)
        await stage.pool.resize(1)
        await stage.pool.lane_ended(0, "its node is gone")
        lane_id, size = stage.opened[-1]
        assert size == 1
        serial, _ = await stage.hand_out(lane_id, 1)
        await stage.pass_time(START * 2)
        assert await stage.outcomes() == []
        await stage.pool.finish(lane_id, serial, {"status": "ok"})
        await stage.pool.lane_ended(lane_id, None)
        await stage.pass_time(1)
        await stage.pass_time(START + 1)
        outcome = (await stage.outcomes())[-1]
        assert outcome["error"]["message"] == "a trial wants 2 worker slots; the cluster has 1 left"

    played(play)


def test_a_cell_that_is_asked_for_again_is_not_run_twice() -> None:
    async def play() -> None:
        stage = Stage([cell("a", 1)])
        again = asyncio.ensure_future(stage.pool.submit("a"))
        await asyncio.sleep(0)
        serial, _ = await stage.hand_out(0, 1)
        await stage.pool.finish(0, serial, {"status": "ok"})
        assert await stage.pool.next_trial(0, "g", 0, serial, "g0") is None
        await stage.pool.acknowledge("a", {"status": "ok"})
        assert [await each for each in (*stage.submitted, again)] == [{"status": "ok"}] * 2

    played(play)


def test_a_lane_without_a_place_in_the_cluster_waits_for_ever_and_fails_nothing() -> None:
    async def play() -> None:
        stage = Stage([cell("a", 2)])
        await asyncio.sleep(0)
        await stage.pool.place(0, "its trainer")
        await stage.pool.resize(2, 2, placed=[])
        for _ in range(100):
            await stage.pass_time(START)
            await stage.pool.resize(2, 2, placed=[])
        now = await stage.pool.snapshot()
        assert now["waits"] == {"seconds": START * 99, "sizes": {2: 1}}
        assert (stage.opened, stage.strays, await stage.outcomes()) == ([(0, 2)], [], [])
        await stage.pool.resize(2, 2, placed=["its trainer"])
        await stage.pass_time(START - 1)  # from its place on it has the usual time to come up
        assert stage.strays == []
        assert (await stage.pool.snapshot())["waits"] is None
        assert (await stage.hand_out(0, 2))[1] == "a"

    played(play)


def test_slots_that_others_hold_are_left_and_smaller_trials_use_what_is_free() -> None:
    async def play() -> None:
        withdrawn: list[str] = []
        stage = Stage([cell("wide", 2), cell("narrow", 1)])
        stage.pool._withdraw = withdrawn.append
        await asyncio.sleep(0)
        assert stage.opened == [(0, 2)]
        await stage.pool.place(0, "trainer 0")
        await stage.pool.resize(2, 1, placed=[])
        assert withdrawn == ["trainer 0"]  # while it waits it holds on to nothing
        await stage.pool.lane_ended(0, "it was killed")
        assert stage.opened == [(0, 2), (1, 1)]
        serial, name = await stage.hand_out(1, 1)
        assert name == "narrow"
        await stage.pool.finish(1, serial, {"status": "ok"})
        assert await stage.pool.next_trial(1, "g", 0, serial, "g0") is None  # nor to the slot that it has no use for
        await stage.pool.lane_ended(1, None)
        await stage.pass_time(1)
        assert (await stage.pool.snapshot())["waits"] == {"seconds": 0.0, "sizes": {2: 1}}
        await stage.pool.resize(2, 2, placed=[])
        assert stage.opened[-1] == (2, 2)
        await stage.pool.lane_ended(2, None)
        assert [each["event"] for each in await stage.events()] == ["trial_started"]

    played(play)


def test_a_trainer_that_asks_for_places_when_its_lane_is_not_wanted_any_more_is_ended() -> None:
    async def play() -> None:
        withdrawn: list[str] = []
        stage = Stage([cell("wide", 2)])
        stage.pool._withdraw = withdrawn.append
        await asyncio.sleep(0)
        await stage.pool.resize(2, 1, placed=[])
        assert withdrawn == []
        await stage.pool.place(0, "late")
        assert withdrawn == ["late"]

    played(play)


def test_a_lane_that_is_closed_before_it_is_seen_to_wait_is_ended_too() -> None:
    async def play() -> None:
        withdrawn: list[str] = []
        stage = Stage([cell("a", 1), cell("b", 1)])
        stage.pool._withdraw = withdrawn.append
        await asyncio.sleep(0)
        await stage.pool.place(1, "trainer 1")
        for _ in "ab":
            serial, _ = await stage.hand_out(0, 1)
            await stage.pool.finish(0, serial, {"status": "ok"})
        assert withdrawn == []  # nothing is left for it, and nobody knows yet that it has no place
        await stage.pool.resize(2, 1, placed=["trainer 0"])
        assert withdrawn == ["trainer 1"]
        stopped = asyncio.ensure_future(stage.pool.stop())
        for lane_id in (0, 1):
            await stage.pool.lane_ended(lane_id, None)
        await stopped

    played(play)


def test_a_lane_that_was_without_a_place_runs_nothing_until_all_its_workers_are_there() -> None:
    async def play() -> None:
        stage = Stage([cell("a", 2)])
        await asyncio.sleep(0)
        await stage.pool.place(0, "its trainer")
        await stage.pool.resize(2, 2, placed=[])
        first = asyncio.ensure_future(stage.pool.next_trial(0, "g", 0, 0, "g0"))
        await asyncio.sleep(0)
        now = await stage.pool.snapshot()
        assert (now["running"], now["lanes_starting"]) == ([], 1)
        second = await stage.pool.next_trial(0, "g", 1, 0, "g1")
        assert await first == second
        assert second is not None

    played(play)
