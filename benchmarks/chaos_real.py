"""Faults of real runs: kill -9 of a driver, a rank, a lane, a node or the GCS while trials train.

Studies alternate between a Ray of the run's own and a cluster of three nodes on this machine. A rank, a lane or a node
is lost under a driver that goes on; where the driver or its Ray dies, the same command is given again.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from random import Random
from statistics import fmean, median
from typing import Any

from chaos_log import Log, draws, durable, events, fate, judge
from chaos_strikes import END_SECONDS, MARK, Driver, Nodes, cluster, strike, until

import rayscale as rs

PART = "real"
STUDY = """\
name: chaos
task: {type: causal-lm, text: text, max_length: 64}
data: {train: builtin, validation_fraction: 0.02, test_fraction: 0.02}
models:
  - {family: gpt2, sizes: [1x32, 2x64], vocabulary: 512}
grid: {tokens: [60000, 90000], gpus: [1, 2]}
training: {epochs: 8, global_batch: 8, learning_rate: 2e-3}
run: {accelerator: cpu, retries: 100, checkpoint_seconds: 3}
"""
INTERVAL_SECONDS, SLOTS = 3.0, 2
#: What strikes, and how often: on a Ray of the run's own, and on a cluster.
FAULTS = ({"driver": 3, "rank": 4, "lane": 3, "gcs": 2}, {"driver": 3, "rank": 3, "lane": 3, "node": 3})
PER_STUDY = 10  # faults; then it is let to its end, and the next study strikes on the other kind of Ray
STARTING = 0.15  # share of the faults that do not wait for training
START_SECONDS = 12.0  # in which these strike
LIMIT_SECONDS = 400  # for something to go on
STUDY_SECONDS = 3000  # for what is left of a study without further faults
NOTICE_SECONDS = 20.0  # after which a loss counts as one that met no trial
WORDS_SECONDS = 3.0  # for an event to reach the file
ASIDE = ("attempts", "exclusive")  # what a fault may change: how often, and what else ran or started meanwhile


def run(seed: int, count: int, log: Log, work: Path) -> None:
    """Strike until the log holds `count` faults, then let the last study end. Raises RuntimeError for a driver that
    fails by itself or a study that does not go on."""
    work.mkdir(parents=True, exist_ok=True)
    study, clean = work / "study.yaml", work / "clean"
    study.write_text(STUDY)
    _mark(work)
    while True:
        kills, number, folder, lived = log.place(PART, seed, work)
        if kills >= count and not lived:
            return
        most = min(count, kills + PER_STUDY - len(lived))
        _end(Driver(["run", str(study), "--out", str(clean), "--yes"], work / "clean.told"))
        on_cluster = number % 2 == 1
        with cluster() if on_cluster else nullcontext() as nodes:
            course = _Course(study, folder, nodes)
            try:
                while kills < most and (line := course.suffer(seed, kills)):
                    log.add(kind="kill", part=PART, seed=seed, kill=kills, study=number, **line)
                    kills += 1
                    told = {key: line[key] for key in ("fault", "phase", "detected_seconds", "recovered_seconds")}
                    print(f"real: {kills} of {count} faults, study {number}: {told}", flush=True)
                _end(course.driver)
            finally:
                course.driver.stop()
        log.add(kind="study", part=PART, seed=seed, study=number, **course.told(), **_useful(folder),
                **judge(folder, clean, ASIDE))  # fmt: skip


def figures(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What the faults cost: redone steps in intervals, times, and the share of device seconds that studies used."""
    kills, studies = ([line for line in lines if line["kind"] == kind] for kind in ("kill", "study"))
    resumed = [each for line in kills for each in line["interrupted"] if each["redone_steps"] is not None]
    redone = [each["redone_steps"] / each["interval_steps"] for each in resumed if each["interval_steps"]]
    of = {
        fault: [line for line in kills if line["fault"] == fault] for fault in ("driver", "rank", "lane", "node", "gcs")
    }
    times: dict[str, Any] = {f"faults_{fault}": len(found) for fault, found in of.items()}
    times["detected_rank_seconds_median_and_most"] = _middle_and_most(of["rank"], "detected_seconds")
    times["detected_lane_or_node_seconds_median_and_most"] = _middle_and_most(
        of["lane"] + of["node"], "detected_seconds"
    )
    for fault, found in of.items():
        times[f"recovered_{fault}_seconds_median_and_most"] = _middle_and_most(found, "recovered_seconds")
    times["recovered_seconds_median_and_most"] = _middle_and_most(kills, "recovered_seconds")
    ended = {line["study"] for line in studies}
    spent = SLOTS * sum(line["seconds"] for line in lines if line["study"] in ended)
    useful = sum(line["useful_device_seconds"] for line in studies)
    return {
        **times,
        "interrupted_trials": sum(len(line["interrupted"]) for line in kills),
        "interrupted_trials_whose_redone_steps_are_known": len(redone),
        "redone_intervals_mean": round(fmean(redone), 3) if redone else None,
        "redone_intervals_most": round(max(redone), 3) if redone else None,
        "effective_training_time_ratio": round(useful / spent, 4) if spent else None,
        "seconds_between_faults": round(sum(line["seconds"] for line in lines) / len(kills), 1) if kills else None,
    }


def misses(sums: dict[str, Any]) -> list[str]:
    """The bounds of this part that its figures break."""
    bounds = {
        "redone_intervals_mean": (sums["redone_intervals_mean"] or 0.0, 0.6),
        "detected_rank_seconds_most": (sums["detected_rank_seconds_median_and_most"][1] or 0.0, 5.0),
        "recovered_rank_seconds_median": (sums["recovered_rank_seconds_median_and_most"][0] or 0.0, 30.0),
    }
    return [f"{name} is {value}, above {most}" for name, (value, most) in bounds.items() if value > most]


class _Course:
    """A study on its way through its faults."""

    def __init__(self, study: Path, folder: Path, nodes: Nodes | None) -> None:
        self.folder, self.nodes = folder, nodes
        address = ["--address", nodes.cluster.address] if nodes else []
        self.words = ["run", str(study), "--out", str(folder), "--yes", *address]
        self.since, self.known, self.past = time.monotonic(), durable(folder), len(events(folder))
        self.begin()

    def begin(self) -> None:
        """Give the command."""
        self.driver = Driver(self.words, self.folder.with_suffix(".told"))

    def suffer(self, seed: int, kill: int) -> dict[str, Any] | None:
        """Let the fault of this number strike and see the study go on: the line of it. None if the study ended."""
        chance = draws(PART, seed, kill)
        fault = _pick(chance, FAULTS[self.nodes is not None])
        phase = "start" if chance.random() < STARTING else "work"
        delay = chance.uniform(0, START_SECONDS if phase == "start" else 2 * INTERVAL_SECONDS)
        if phase == "work" and not until(lambda: bool(_at_work(self.folder)), self.driver, LIMIT_SECONDS):
            return None
        time.sleep(delay)
        running, accounts = _at_work(self.folder), _accounts(self.folder)
        past = len(events(self.folder))
        struck = strike(fault, self.driver, self.nodes, chance)
        if struck is None:
            return None
        if fault == "gcs":
            self.driver.process.wait(END_SECONDS)
            self.driver.check(1)
            self.driver.forget_logs()
        if fault in ("driver", "gcs"):
            self.begin()
            detected, interrupted = None, running
        else:
            detected, interrupted = self._notice(past, struck["at"])
        recovered = self._await_training(interrupted, accounts, struck["at"])
        told = {"fault": fault, "phase": phase, "delay": round(delay, 3), **struck}
        return {
            **told,
            "detected_seconds": detected,
            "recovered_seconds": recovered,
            "interrupted": self._redone(interrupted, past),
            **self.told(),
        }

    def _notice(self, past: int, at: float) -> tuple[float | None, list[str]]:
        """How long it took until the driver knew which trials were interrupted, and these."""
        give_up = time.monotonic() + NOTICE_SECONDS
        while time.monotonic() < give_up and not self.driver.ended:
            if found := _retried(events(self.folder)[past:]):
                time.sleep(1.0)  # a node may take two trials with it
                found = _retried(events(self.folder)[past:])
                first = min(datetime.fromisoformat(each["at"]).timestamp() for each in found)
                return round(first - at, 3), sorted({each["trial_id"] for each in found})
            time.sleep(0.05)
        return None, []

    def _await_training(self, interrupted: list[str], accounts: set[str], at: float) -> float | None:
        """How long it took until every interrupted trial took steps again, or had its record; None if none was."""

        def back() -> bool:
            again = {name.split("/")[0] for name in _accounts(self.folder) - accounts}
            return set(interrupted) <= again | set(durable(self.folder))

        if not interrupted or not until(back, self.driver, LIMIT_SECONDS):
            return None
        return round(time.time() - at, 3)

    def _redone(self, interrupted: list[str], past: int) -> list[dict[str, Any]]:
        """What each interrupted trial lost, as it told when it went on."""
        give_up, told = time.monotonic() + WORDS_SECONDS, dict[str, dict[str, Any]]()
        while set(interrupted) - set(told) and time.monotonic() < give_up:
            for each in events(self.folder)[past:]:
                if each["event"] == "trial_resumed":
                    told.setdefault(each["trial_id"], each)
            time.sleep(0.05)
        return [
            {
                "trial_id": each,
                "step": told.get(each, {}).get("step"),
                "redone_steps": told.get(each, {}).get("steps_redone"),
                "interval_steps": told.get(each, {}).get("interval_steps"),
            }
            for each in interrupted
        ]

    def told(self) -> dict[str, Any]:
        """What became of the records since the last line, and how many trials were begun."""
        before, now, all_events = self.known, durable(self.folder), events(self.folder)
        new = all_events[self.past :]
        seconds = time.monotonic() - self.since
        self.known, self.past, self.since = now, len(all_events), time.monotonic()
        return {"seconds": round(seconds, 3), **fate(before, now, new)}


def _mark(work: Path) -> None:
    """Mark all processes that come of this one, and give them a cache and a token of their own."""
    token = work / "auth_token"
    if not token.exists():
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
    os.environ |= {
        MARK: secrets.token_hex(16),
        "RAYSCALE_CACHE": str(work / "cache"),
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_worker_niceness": "0",  # by Ray's default, 15, workers wait for whatever else a shared machine does
    }


def _pick(chance: Random, weights: dict[str, int]) -> str:
    return chance.choices(list(weights), list(weights.values()))[0]


def _end(driver: Driver) -> None:
    try:
        driver.process.wait(STUDY_SECONDS)
        driver.check(0)
    finally:
        driver.stop()


def _accounts(folder: Path) -> set[str]:
    """The attempts of unfinished trials that took steps, as TRIAL/attempts/NUMBER."""
    base = folder / "checkpoints"
    return {str(file.relative_to(base)) for file in base.glob("*/attempts/*.json")}


def _at_work(folder: Path) -> list[str]:
    """The trials that took a step in the last second."""
    found = set()
    for name in _accounts(folder):
        try:
            if time.time() - (folder / "checkpoints" / name).stat().st_mtime < 1.0:
                found.add(name.split("/")[0])
        except FileNotFoundError:  # its record is durable since
            continue
    return sorted(found)


def _retried(told: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in told if each["event"] == "trial_retried"]


def _useful(folder: Path) -> dict[str, float]:
    """Device seconds that went into what counts: of the steps that led to the results, and of evaluation."""
    trials = rs.load(folder).trials
    seconds = ((trials.train_seconds + trials.eval_seconds) * trials.gpus).sum()
    return {"useful_device_seconds": round(float(seconds), 3)}


def _middle_and_most(lines: list[dict[str, Any]], name: str) -> list[float | None]:
    found = [line[name] for line in lines if line[name] is not None]
    return [round(median(found), 2), round(max(found), 2)] if found else [None, None]
