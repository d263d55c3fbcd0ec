"""Trials that are interrupted go on from their last whole savepoint, and end as if they had never stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made import make_trial
from rank_processes import run_ranks
from resume_worker import InterruptedTrialError, cases, interrupted_in, run, saved_after, saving, write
from safetensors.torch import load_file

from rayscale.errors import MemoryTrialError
from rayscale.nn.training import train
from rayscale.runs.attempts import Attempt, earlier_attempts, earlier_drivers
from rayscale.runs.savepoints import DamagedError, Savepoints, forget
from rayscale.system.storage import Store

#: What two runs of a trial may not share: times, what is made of them, and the memory of a process that did more.
TIMES = {"train_seconds", "eval_seconds", "examples_per_second", "tokens_per_second", "mfu", "peak_memory_bytes"}


def timeless(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in TIMES}


def check_equal(found: dict[str, Any], folder: Path, ranks: int) -> None:
    assert set(found) == {"classify", "continue"}
    for name, each in found.items():
        assert timeless(each["pieces"]) == timeless(each["whole"])
        whole, pieces = (
            load_file(folder / f"{name}-{ranks}-{kind}" / "model.safetensors") for kind in ("whole", "pieces")
        )
        assert whole.keys() == pieces.keys()
        assert all(whole[part].equal(pieces[part]) for part in whole)
        assert [event["step"] for event in each["events"] if event["event"] == "trial_resumed"] == [9, 13]


def test_a_trial_in_pieces_equals_the_whole_bit_for_bit(tmp_path: Path) -> None:
    check_equal(json.loads(json.dumps(run(0, 1, tmp_path))), tmp_path, 1)


def test_a_trial_of_three_ranks_in_pieces_equals_the_whole_bit_for_bit(tmp_path: Path) -> None:
    run_ranks(write, 3, tmp_path)
    check_equal(json.loads((tmp_path / "rank-3-0.json").read_text()), tmp_path, 3)


@pytest.fixture
def interrupted(tmp_path: Path) -> Any:
    """A trial that was stopped after savepoints at steps 4 and 9: its parts, and the savepoints."""
    _, trial, made = next(cases(tmp_path))
    events: list[dict[str, Any]] = []
    keep = saving(tmp_path / "run", events.append)
    with saved_after(4, 9), interrupted_in(12), pytest.raises(InterruptedTrialError):
        train.train_trial(trial, made, saving=keep)
    places = sorted((tmp_path / "run" / "checkpoints" / trial.trial_id).glob("[!.]*/weights.safetensors"))
    assert len(places) == 2
    return trial, made, keep, events, places


@pytest.mark.row
@pytest.mark.parametrize("harm", ["cut", "flipped", "missing", "no manifest"])
def test_row_19_a_damaged_savepoint_is_told_and_the_one_before_it_serves(interrupted: Any, harm: str) -> None:
    trial, made, keep, events, places = interrupted
    content = places[-1].read_bytes()
    middle = len(content) // 2
    if harm == "cut":
        places[-1].write_bytes(content[:middle])
    elif harm == "flipped":
        places[-1].write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    else:
        (places[-1] if harm == "missing" else places[-1].with_name("manifest.json")).unlink()
    result = train.train_trial(trial, made, saving=keep)
    assert timeless(result) == timeless(train.train_trial(trial, made))
    told = {event["event"]: event for event in events}
    assert told["trial_resumed"]["step"] == 4
    assert (told["checkpoint_damaged"]["step"], told["checkpoint_damaged"]["fell_back_to"]) == (
        9,
        told["trial_resumed"]["from"],
    )


@pytest.mark.row
def test_row_19_with_none_left_a_trial_begins_again_and_says_so(interrupted: Any) -> None:
    trial, made, keep, events, places = interrupted
    for place in places:
        place.write_bytes(b"")
    assert timeless(train.train_trial(trial, made, saving=keep)) == timeless(train.train_trial(trial, made))
    assert sum(event["event"] == "checkpoint_damaged" for event in events) == 2
    forget(keep.store, trial.trial_id)
    assert not Savepoints(keep.store, trial.trial_id, {}).steps()


def test_the_savepoint_of_another_trial_is_not_taken(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    Savepoints(store, "one", {"seed": 0}).write(3, {"a": b"x"})
    assert Savepoints(store, "one", {"seed": 0}).read(3) == {"a": b"x"}
    with pytest.raises(DamagedError):
        Savepoints(store, "one", {"seed": 1}).read(3)


SAVES = """
import sys
from rayscale.runs.savepoints import Savepoints
from rayscale.system.storage import Store
kept = Savepoints(Store.open(sys.argv[1]), "one", {"seed": 0})
print("ready", flush=True)
for step in range(1, 1_000_000):
    kept.write(step, {"model": bytes([step % 251]) * 200_000, "state": str(step).encode()})
"""


@pytest.mark.row
def test_row_20_killed_while_saving_a_part_is_never_read(tmp_path: Path) -> None:
    import random
    import time

    chance = random.Random(3)
    for number in range(6):
        place = tmp_path / str(number)
        process = subprocess.Popen([sys.executable, "-c", SAVES, str(place)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0.05, 0.4))
        process.kill()
        process.communicate()
        kept = Savepoints(Store.open(place), "one", {"seed": 0})
        assert kept.steps()
        for step in kept.steps():
            files = kept.read(step)
            assert files == {"model": bytes([step % 251]) * 200_000, "state": str(step).encode()}


@pytest.mark.row
def test_row_18_memory_that_does_not_suffice_is_told_with_the_micro_batch(tmp_path: Path, monkeypatch: Any) -> None:
    _, trial, made = next(cases(tmp_path))
    whole = train.take_step

    def hungry(parallel: Any, model: Any, optimizer: Any, job: Any, *rest: Any) -> Any:
        if job.micro_batch > 4:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate")
        return whole(parallel, model, optimizer, job, *rest)

    monkeypatch.setattr(train, "take_step", hungry)
    with pytest.raises(MemoryTrialError, match="out of memory with micro-batches of") as caught:
        train.train_trial(trial, made)
    assert not caught.value.permanent
    assert train.train_trial(trial, made, micro_batch=4)["micro_batch"] == 4
    assert MemoryTrialError("no", 1).permanent


def test_a_trial_that_is_saved_gives_the_numbers_of_one_that_is_not(tmp_path: Path) -> None:
    trial = make_trial(data_requested=100, trial_id="plain")
    made = next(cases(tmp_path))[2]
    keep = saving(tmp_path / "run", lambda event: None)
    with saved_after(1, 2, 3):
        saved = train.train_trial(trial, made, saving=keep)
    assert timeless(saved) == timeless(train.train_trial(trial, made))


def test_a_trial_shorter_than_the_time_between_savepoints_writes_nothing(tmp_path: Path) -> None:
    _, trial, made = next(cases(tmp_path))
    events: list[dict[str, Any]] = []
    keep = replace(saving(tmp_path / "run", events.append), seconds=300.0)
    before = (tmp_path / "run" / "checkpoints").stat().st_mtime_ns
    train.train_trial(trial, made, saving=keep)
    assert [path.name for path in (tmp_path / "run").rglob("*") if path.is_file()] == ["driver.json"]
    assert (tmp_path / "run" / "checkpoints").stat().st_mtime_ns == before
    assert events == []


def test_attempts_of_earlier_drivers_are_counted_and_paid_for(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    told = [{"event": name, "trial_id": trial} for name, trial in (
        ("trial_started", "a"), ("trial_finished", "a"), ("trial_started", "a"), ("trial_started", "b"),
        ("trial_started", "b"), ("trial_started", "c"), ("trial_finished", "c"),
    )]  # fmt: skip
    for _ in range(2):
        attempt = Attempt(store, "b", 2, quiet_seconds=0.0)
        attempt.tell(5, 1.0)
        attempt.close()
    found = earlier_drivers(store, ["a", "b", "c", "d"], told)
    assert {name: each.attempts for name, each in found.items()} == {"a": 1, "b": 2, "c": 0, "d": 0}
    assert found["b"].device_seconds == sum(each.device_seconds for each in earlier_attempts(store, "b"))
