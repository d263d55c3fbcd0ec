"""Trials that are interrupted and resumed, alone or by each rank of a group."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch.distributed as dist
from made import LENGTH, Made, make_classification, make_language, make_trial

from rayscale.nn.training import keeper, train
from rayscale.runs.savepoints import Saving, mark
from rayscale.runs.trial import Trial
from rayscale.system.storage import Store


class InterruptedTrialError(Exception):
    """A trial was stopped on purpose."""


def saving(folder: Path, say: Callable[[dict[str, Any]], None], token: str | None = None) -> Saving:
    """Savepoints in this folder, written before training goes on."""
    store = Store.open(folder)
    return Saving(store, token or mark(store), 3600.0, 30.0, say)


@contextmanager
def saved_after(*steps: int) -> Iterator[None]:
    """Savepoints after these steps, whatever the clock says."""
    with mock.patch.object(keeper.Rhythm, "due", lambda self, step, busy: step in steps):
        yield


@contextmanager
def interrupted_in(step: int) -> Iterator[None]:
    """Training raises in the step of this number, from 1, having computed a part of it."""
    whole, done = train.take_step, 0

    def breaking(*given: Any) -> Any:
        nonlocal done
        done += 1
        if done == step:
            raise InterruptedTrialError
        return whole(*given)

    with mock.patch.object(train, "take_step", breaking):
        yield


def cases(folder: Path) -> Iterator[tuple[str, Trial, Made]]:
    """Trials with dropout, three epochs and a ragged last batch; a curve point after every second step."""
    training = {"epochs": 3, "schedule": "cosine"}
    trial = make_trial(data_requested=300, trial_id="classify", training=training)
    yield "classify", trial, make_classification(folder)
    watched = {"schedule": "plateau", "early_stopping": 5, "optimizer": "adafactor"}
    language = make_trial(
        "causal-lm", data_requested=53 * LENGTH, trial_id="continue", training={**training, **watched}
    )
    yield "continue", language, make_language(folder)


def run(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    """For each case: trained at once, and in three attempts; what both gave, and the events of the attempts."""
    results: dict[str, Any] = {}
    for name, trial, made in cases(folder):
        more: dict[str, Any] = {"rank": rank, "world_size": world_size}
        whole = train.train_trial(trial, made, **more, save_to=folder / f"{name}-{world_size}-whole")
        events: list[dict[str, Any]] = []
        keep = saving(folder / f"run-{world_size}", events.append, token="shared")
        more["saving"] = keep
        if rank == 0:
            keep.store.write("checkpoints/driver.json", b'{"token": "shared"}')
        if world_size > 1:
            dist.barrier()
        with saved_after(4, 9, 13):
            for stop in (12, 5):  # in step 12, three after a savepoint; then in step 14, right after the next
                with interrupted_in(stop):
                    try:
                        train.train_trial(trial, made, **more)
                    except InterruptedTrialError:
                        pass
            pieces = train.train_trial(trial, made, **more, save_to=folder / f"{name}-{world_size}-pieces")
        results[name] = {"whole": whole, "pieces": pieces, "events": events}
    return results


def write(rank: int, world_size: int, folder: Path) -> None:
    """Run all cases; results go to a file in the folder, models of rank 0 to folders in it."""
    (folder / f"rank-{world_size}-{rank}.json").write_text(json.dumps(run(rank, world_size, folder)))
