"""What the parts of chaos.py share: the results file, one line per kill, and the comparison with a run without faults.

A part is a module beside this one with `figures(lines)`, what its lines tell beyond what all parts have in common,
`misses(figures)`, the bounds that they break in words, and a function `run(seed, count, log, work)`:

    seed    what every kill is drawn from, by its number alone (`draws`), so that a run that goes on draws the same
    count   kills that the part is to reach in all, those of `log` included
    log     a Log: `log.of(part, seed)` are the lines so far, `log.add(...)` adds one, on disk when it returns
    work    a folder of its own, which stays: an earlier call may have left a study in the middle

It writes a line of kind "kill" for every kill (part, seed, kill, and what it killed and where) and one of kind "study"
for every study that came to its end, made by `judge`. chaos.py adds them up; a part prints only how far it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

import rayscale as rs

TIMES_AND_PLACES = [
    "host", "started_at", "ended_at", "train_seconds", "eval_seconds", "device_seconds", "examples_per_second",
    "tokens_per_second", "mfu", "peak_memory_bytes",
]  # fmt: skip


class Log:
    """A file of JSON lines that survives a kill of the one who writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        if (content := path.read_bytes()) and not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)  # cut off by a kill: that kill is drawn again

    def add(self, **line: Any) -> None:
        """Append one line and flush it."""
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def of(self, part: str, seed: int) -> list[dict[str, Any]]:
        """The lines of a part under this seed."""
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [line for line in lines if line["part"] == part and line["seed"] == seed]

    def place(self, part: str, seed: int, folders: Path) -> Place:
        """How far a part has come under this seed. Raises RuntimeError where the folder of its study is gone.

        A folder of a life whose kill was not written down is cleared away.
        """
        lines = self.of(part, seed)
        number = sum(line["kind"] == "study" for line in lines)
        lived = [line for line in lines if line.get("study") == number]
        folder = folders / f"{seed}-{number}"
        if any(line["records"] for line in lived) and not folder.exists():
            raise RuntimeError(f"{folder} is gone, whose kills are in {self.path}; give a new file with --results")
        if not lived:
            shutil.rmtree(folder, ignore_errors=True)
        return Place(sum(line["kind"] == "kill" for line in lines), number, folder, lived)


class Place(NamedTuple):
    """Kills in all, the study that is under way, its folder, and its lines so far."""

    kills: int
    study: int
    folder: Path
    lived: list[dict[str, Any]]


def draws(part: str, seed: int, kill: int) -> random.Random:
    """The chance of one kill: the same whenever and however often it is asked for."""
    return random.Random(f"{part} {seed} {kill}")


def durable(run: Path) -> dict[str, str]:
    """The records on disk, each with its digest: what no later driver may run again, change or lose."""
    files = sorted((run / "trials").glob("*.json"))
    return {file.stem: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def events(run: Path) -> list[dict[str, Any]]:
    """The events of a run; none before it has begun."""
    return rs.load(run).events if (run / "plan.json").exists() else []


def fate(before: dict[str, str], now: dict[str, str], since: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What became of the records (`durable`) that were there before these events: counts for a line of the log."""
    new = list(since)
    return {
        "found": len(before),
        "records": len(now),
        "vanished": sum(each not in now for each in before),
        "changed": sum(each in now and now[each] != digest for each, digest in before.items()),
        "run_again": len(run_again(new, before)),
        "begun_trials": sum(each["event"] == "trial_started" for each in new),
    }


def run_again(since: Iterable[dict[str, Any]], finished: Iterable[str]) -> list[str]:
    """Trials that were begun although their record was durable before these events."""
    known = set(finished)
    return [each["trial_id"] for each in since if each["event"] == "trial_started" and each["trial_id"] in known]


def judge(run: Path, clean: Path, aside: Sequence[str] = ()) -> dict[str, Any]:
    """How a study that was killed and run to its end differs from one without faults.

    `lost` and `duplicated` are counts of trials, `equal` whether the tables are the same bit for bit, times, hosts
    and the columns `aside` not looked at, with the differing columns in `differ`.
    """
    ours, theirs = (
        pd.read_parquet(each / "trials.parquet").drop(columns=[*TIMES_AND_PLACES, *aside]) for each in (run, clean)
    )
    twice = Counter(ours["trial_id"])
    finished = Counter(each["trial_id"] for each in events(run) if each["event"] == "trial_finished")
    same_rows = list(ours["trial_id"]) == list(theirs["trial_id"])
    differ = [name for name in theirs if not same_rows or not _same(ours[name], theirs[name])]
    return {
        "trials": len(theirs),
        "lost": len(set(theirs["trial_id"]) - set(ours["trial_id"])),
        "duplicated": sum(max(twice[each], finished[each]) > 1 for each in twice),
        "equal": not differ,
        "differ": differ,
        "damaged": len(rs.load(run).damaged),
    }


def _same(ours: pd.Series, theirs: pd.Series) -> bool:
    """Bit for bit: floats by their representation."""
    if ours.dtype == "float64":
        return ours.to_numpy().tobytes() == theirs.to_numpy().tobytes()
    return ours.equals(theirs)
