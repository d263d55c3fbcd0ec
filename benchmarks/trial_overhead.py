"""What a trial costs beside training: a lane that stays up against one TorchTrainer per trial (executor: isolated).

Real trials of the demo (its smallest cell), in one Ray, in blocks by turns: lane, isolated, lane, isolated, ... The
first trial of each kind warms up and is not counted. Overhead is wall time less train and eval seconds. CPU-seconds are
those of the whole machine while the block ran and until its processes had ended, less what the same idle Ray took in
the same time (measured before each round): run nothing beside it.

    python benchmarks/trial_overhead.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

import ray

import rayscale
from rayscale.draft import draft_plan
from rayscale.machine import cpu_name, this_machine
from rayscale.on_ray.data import prepare
from rayscale.on_ray.lanes import Handed, LaneSettings, open_host, open_pool
from rayscale.on_ray.parcels import wrap
from rayscale.on_ray.pool import Cell
from rayscale.on_ray.session import connect
from rayscale.storage import Store
from rayscale.study import load_study
from rayscale.text.tokenise import spec_of

BLOCK = {"lane": 6, "isolated": 2}  # trials in a block
SETTLE_SECONDS = 6.0  # after each block: processes that end late count for the block that started them
IDLE_SECONDS = 10.0


def main() -> None:
    """Measure and print a table of medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="blocks of each kind (default 3)")
    rounds = parser.parse_args().rounds
    study = load_study(Path(rayscale.__file__).with_name("demo.yaml"))
    plan = draft_plan(study, this_machine("cpu"), Store.open("runs/demo"))
    trial = min((p for p in plan.trials if p.trial.gpus == 1), key=lambda p: p.seconds).trial
    with connect("local", "cpu", 60) as session:
        prepared = prepare(study, [spec_of(trial.model)], [0])[spec_of(trial.model).name]
        handed = Handed(trial.to_json(), wrap(prepared.path, several_nodes=False), None)
        settings = LaneSettings(session.worker_resources, "cpu", 60, "none")
        host = open_host()
        kinds = {name: Kind(name, handed, settings, host, 1 + rounds * size) for name, size in BLOCK.items()}
        for kind in kinds.values():
            kind.run(1)
        overheads: dict[str, list[float]] = {name: [] for name in BLOCK}
        spent: dict[str, list[float]] = {name: [] for name in BLOCK}
        at_work: dict[str, list[float]] = {name: [] for name in BLOCK}
        time.sleep(SETTLE_SECONDS)
        for number in range(rounds):
            cpu = cpu_seconds()
            time.sleep(IDLE_SECONDS)
            idle = (cpu_seconds() - cpu) / IDLE_SECONDS
            for name, kind in kinds.items():
                cpu, started = cpu_seconds(), time.monotonic()
                measured = kind.run(BLOCK[name])
                time.sleep(SETTLE_SECONDS)
                wall = time.monotonic() - started
                spent[name].append((cpu_seconds() - cpu - idle * wall) / BLOCK[name])
                overheads[name] += [overhead for overhead, _ in measured]
                at_work[name] += [busy for _, busy in measured]
                print(
                    f"round {number + 1} {name:9}: overhead {', '.join(f'{each[0]:.2f}' for each in measured)} s; "
                    f"{spent[name][-1]:.2f} CPU-s a trial (idle Ray: {idle:.2f} CPU-s a second)"
                )
    print(f"\n{trial.model.name}, {trial.data_requested} {trial.data_axis}, 1 worker of 1 thread; {cpu_name()}, "
          f"{os.cpu_count()} CPUs")  # fmt: skip
    print(f"Medians of {rounds} rounds; the first trial of each kind is not counted")
    print(f"{'':9} {'overhead s':>11} {'CPU-s':>7} {'train+eval s':>13} {'CPU-s beyond':>13}")
    rows = {}
    for name in BLOCK:
        overhead, cpu, busy = (statistics.median(each[name]) for each in (overheads, spent, at_work))
        rows[name] = (overhead, cpu, cpu - busy)
        print(f"{name:9} {overhead:11.3f} {cpu:7.2f} {busy:13.2f} {cpu - busy:13.2f}")
    ratios = [far / near for far, near in zip(rows["isolated"], rows["lane"], strict=True)]
    print(f"{'ratio':9} {ratios[0]:10.1f}x {ratios[1]:6.1f}x {'':13} {ratios[2]:12.1f}x")


class Kind:
    """One way to run trials: a pool of the lane's kind that runs one trial after another."""

    def __init__(self, name: str, handed: Handed, settings: LaneSettings, host: Any, count: int) -> None:
        cells = [Cell(f"{name}-{n}", 1, False, handed) for n in range(count)]
        self.name = name
        self.done = 0
        self.pool = open_pool(cells, 1, 0, 1 if name == "isolated" else None, settings, host)

    def run(self, count: int) -> list[tuple[float, float]]:
        """Overhead and train-and-eval seconds of the next `count` trials."""
        return [self._one() for _ in range(count)]

    def _one(self) -> tuple[float, float]:
        cell, started = f"{self.name}-{self.done}", time.monotonic()
        self.done += 1
        waiting = self.pool.submit.remote(cell)
        outcomes: list[dict[str, Any]] = []
        while not outcomes:
            outcomes = ray.get(self.pool.collect.remote(self.done, 5.0))
        wall = time.monotonic() - started
        ray.get(self.pool.acknowledge.remote(cell, {}))
        ray.get(waiting)
        measured = outcomes[0]["measured"]
        busy = measured["train_seconds"] + measured["eval_seconds"]
        return wall - busy, busy


def cpu_seconds() -> float:
    """User and system time of the whole machine since it started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system = (int(field) for field in fields[:3])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
