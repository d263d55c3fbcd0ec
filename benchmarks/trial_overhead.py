"""What a trial costs beside training: a lane that stays up against one TorchTrainer per trial (executor: isolated).

Real trials of the demo (its smallest cell), in one Ray, interleaved: lane, isolated, lane, isolated, ... Overhead is
wall time less train and eval seconds; CPU-seconds are those of the whole machine, so run nothing beside it.

    python benchmarks/trial_overhead.py [--trials 5]
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

SETTLE_SECONDS = 3.0  # after each trial, so that processes that end late count for the trial that started them


def main() -> None:
    """Measure and print a table of medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=5, help="trials of each kind, the first not counted (default 5)")
    count = parser.parse_args().trials
    study = load_study(Path(rayscale.__file__).with_name("demo.yaml"))
    plan = draft_plan(study, this_machine("cpu"), Store.open("runs/demo"))
    trial = min((p for p in plan.trials if p.trial.gpus == 1), key=lambda p: p.seconds).trial
    with connect("local", "cpu", 60) as session:
        prepared = prepare(study, [spec_of(trial.model)], [0])[spec_of(trial.model).name]
        handed = Handed(trial.to_json(), wrap(prepared.path, several_nodes=False), None)
        settings = LaneSettings(session.worker_resources, "cpu", 60, "none")
        host = open_host()
        cells = [Cell(str(n), 1, False, handed) for n in range(count)]
        pools = {
            "lane": open_pool(cells, 1, 0, None, settings, host),
            "isolated": open_pool(cells, 1, 0, 1, settings, host),
        }
        rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in pools}
        for number in range(count):
            for name, pool in pools.items():
                rows[name].append(measure(pool, number))
                overhead, cpu, busy = rows[name][-1]
                print(
                    f"{name:9} trial {number + 1}: {overhead:6.2f} s overhead, {cpu:6.2f} CPU-s, {busy:.2f} s at work"
                )
    print(
        f"\n{trial.model.name}, {trial.data_requested} {trial.data_axis}, 1 worker; {cpu_name()}, {os.cpu_count()} CPUs"
    )
    print(f"Medians of {count - 1} trials after the first")
    print(f"{'':9} {'overhead s':>11} {'CPU-s':>7} {'of these beyond training':>25}")
    medians = {name: [statistics.median(column) for column in zip(*values[1:], strict=True)]
               for name, values in rows.items()}  # fmt: skip
    for name, (overhead, cpu, busy) in medians.items():
        print(f"{name:9} {overhead:11.3f} {cpu:7.2f} {cpu - busy:25.2f}")
    wall = medians["isolated"][0] / medians["lane"][0]
    cpu = medians["isolated"][1] / medians["lane"][1]
    print(f"{'ratio':9} {wall:10.1f}x {cpu:6.1f}x")


def measure(pool: Any, number: int) -> tuple[float, float, float]:
    """Overhead seconds, CPU-seconds and train-and-eval seconds of one trial."""
    cpu, started = cpu_seconds(), time.monotonic()
    waiting = pool.submit.remote(str(number))
    outcomes: list[dict[str, Any]] = []
    while not outcomes:
        outcomes = ray.get(pool.collect.remote(number, 5.0))
    wall = time.monotonic() - started
    ray.get(pool.acknowledge.remote(str(number), {}))
    ray.get(waiting)
    time.sleep(SETTLE_SECONDS)
    measured = outcomes[0]["measured"]
    busy = measured["train_seconds"] + measured["eval_seconds"]
    return wall - busy, cpu_seconds() - cpu, busy


def cpu_seconds() -> float:
    """User and system time of the whole machine since it started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system = (int(field) for field in fields[:3])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
