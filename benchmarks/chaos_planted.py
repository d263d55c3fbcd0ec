"""Kills of the driver on planted studies: no workers, the same ledger, lease and command as a real one."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from chaos_log import Log, draws, durable, events, fate, judge

PART = "planted"
LAW = "chinchilla:A=20,B=30,E=0.8,alpha=0.3,beta=0.35"
STUDY = """\
name: chaos
task: {type: sequence-classification, text: text, label: label}
data: {train: rows.csv}
models:
  - {family: bert, sizes: [1x32, 2x64, 3x64], vocabulary: 512}
grid: {examples: [20, 40, 60, 80, 120], gpus: [1], seeds: 32}
training: {epochs: 1, learning_rate: 1e-3}
run: {accelerator: cpu}
"""
SECONDS_A_TRIAL = 0.02
STARTING = 0.25  # share of the kills while a driver starts; the others come once it has begun
WINDOW_SECONDS = 0.6  # after it has begun
KILLS_AT_THE_END = 3  # of one study, once all its records are durable
LIMIT_SECONDS = 300  # of one driver
DRIVER = """\
import sys
from rayscale.cli.terminal import Terminal
from rayscale.plan.simulated_run import run_simulated
run_simulated(sys.argv[1], sys.argv[2], out=sys.argv[3], observer=Terminal(json=False, yes=True),
            seconds_a_trial=float(sys.argv[4]))
"""


def run(seed: int, count: int, log: Log, work: Path) -> None:
    """Kill drivers until the log holds `count` kills, then let the last study end. Raises RuntimeError for a driver
    that fails by itself."""
    work.mkdir(parents=True, exist_ok=True)
    study, clean = _study(work), work / "clean"
    starting = _clean(study, clean)
    trials = len(durable(clean))
    while True:
        kills, number, folder, lived = log.place(PART, seed, work)
        if kills >= count and not lived:
            return
        at_end = sum(line["records"] == trials for line in lived)
        life = _Life(study, folder)
        if kills >= count or at_end >= KILLS_AT_THE_END:
            life.end()
            log.add(kind="study", part=PART, seed=seed, study=number, **life.told(), **judge(folder, clean))
            continue
        where = _kill(life, seed, kills, starting)
        if where is None:  # it ended before the kill came
            log.add(kind="study", part=PART, seed=seed, study=number, **life.told(), **judge(folder, clean))
            continue
        told = life.told()
        log.add(kind="kill", part=PART, seed=seed, kill=kills, study=number, **where, **told)
        if (kills + 1) % 20 == 0:
            print(f"planted: {kills + 1} of {count} kills, study {number}: {told['records']} of {trials} trials")


def figures(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The effective-training-time ratio: trials that count to trials that were begun, where all take as long; the time
    that drivers take to start is not in it, and is told beside it."""
    begun = sum(line["begun_trials"] for line in lines)
    counted = sum(line["trials"] for line in lines if line["kind"] == "study")
    return {"effective_training_time_ratio": round(counted / begun, 4) if begun else 1.0}


def misses(sums: dict[str, Any]) -> list[str]:
    """No bounds beyond those of all parts."""
    return []


class _Life:
    """One driver, from its start to its end or kill, and what it did to the records that it found."""

    def __init__(self, study: Path, folder: Path) -> None:
        self.folder, self.found, self.past = folder, durable(folder), len(events(folder))
        self.log = folder / "events.jsonl"
        self.size = self.log.stat().st_size if self.log.exists() else 0
        self.since = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(study), LAW, str(folder), str(SECONDS_A_TRIAL)],
            cwd=study.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    @property
    def begun(self) -> bool:
        """Whether it has written an event."""
        return self.log.exists() and self.log.stat().st_size > self.size

    def kill(self) -> bool:
        """End it at once; False if it had ended by itself."""
        self.process.send_signal(signal.SIGKILL)
        _, errors = self.process.communicate()
        if self.process.returncode not in (0, -signal.SIGKILL):
            raise RuntimeError(f"a driver failed by itself ({self.process.returncode}): {errors}")
        return self.process.returncode != 0

    def end(self) -> None:
        """Let it run to its end."""
        _, errors = self.process.communicate(timeout=LIMIT_SECONDS)
        if self.process.returncode:
            raise RuntimeError(f"a driver failed by itself ({self.process.returncode}): {errors}")

    def told(self) -> dict[str, Any]:
        """What became of the records, and how many trials it ran."""
        since = events(self.folder)[self.past :]
        return {
            "seconds": round(time.monotonic() - self.since, 3),
            **fate(self.found, durable(self.folder), since),
        }


def _kill(life: _Life, seed: int, kill: int, starting: float) -> dict[str, Any] | None:
    """Kill it at the moment that is drawn for this kill; where that was, or None if it had ended."""
    chance = draws(PART, seed, kill)
    phase = "start" if chance.random() < STARTING else "work"
    delay = chance.uniform(0, starting if phase == "start" else WINDOW_SECONDS)
    until = time.monotonic() + LIMIT_SECONDS
    while phase == "work" and not life.begun and life.process.poll() is None:
        if time.monotonic() > until:
            life.kill()
            raise RuntimeError(f"a driver did not begin within {LIMIT_SECONDS} s")
        time.sleep(0.002)
    time.sleep(delay)
    return {"phase": phase, "delay": round(delay, 4)} if life.kill() else None


def _study(work: Path) -> Path:
    rows = [f"row number {i} about {'cats' if i % 2 else 'dogs'},{'cat' if i % 2 else 'dog'}" for i in range(200)]
    (work / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (work / "study.yaml").write_text(STUDY)
    return work / "study.yaml"


def _clean(study: Path, folder: Path) -> float:
    """Run the study without faults, anew each time; how long a driver takes to begin."""
    shutil.rmtree(folder, ignore_errors=True)
    life = _Life(study, folder)
    while not life.begun and life.process.poll() is None:
        time.sleep(0.002)
    starting = time.monotonic() - life.since
    life.end()
    return starting
