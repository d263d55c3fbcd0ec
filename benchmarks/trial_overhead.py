"""What a trial costs beside training: a lane that stays up against one TorchTrainer per trial (executor: isolated).

Real trials of the demo (its smallest cell), in one Ray, in blocks by turns: lane, isolated, lane, isolated, ... The
lane's first trial is not counted. Overhead is wall time less train and eval seconds. CPU-seconds are
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
from rayscale.on_ray.data.parcels import wrap
from rayscale.on_ray.data.prepare import prepare
from rayscale.on_ray.lanes.lane import Cell
from rayscale.on_ray.lanes.worker import Handed, LaneSettings, open_host, open_pool
from rayscale.on_ray.session.session import connect
from rayscale.plan.draft import draft_plan
from rayscale.study.study import load_study
from rayscale.system.machine import cpu_name, this_machine
from rayscale.system.storage import Store
from rayscale.text.tokens.encode import spec_of

BLOCK = {"lane": 6, "isolated": 2}  # trials in a block
SETTLE_SECONDS = 6.0  # after each block: processes that end late count for the block that started them
IDLE_SECONDS = 10.0


def main() -> None:
    """Measure and print a table of medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="blocks of each kind (default 3)")
    rounds = parser.parse_args().rounds
    study = load_study(Path(rayscale.__file__).parent / "cli" / "demo.yaml")
    plan = draft_plan(study, this_machine("cpu"), Store.open("runs/demo"))
    trial = min((p for p in plan.trials if p.trial.gpus == 1), key=lambda p: p.seconds).trial
    with connect("local", "cpu", 60) as session:
        prepared = prepare(study, [spec_of(trial.model)], [trial.seed])[spec_of(trial.model).name]
        handed = Handed(trial.to_json(), wrap(prepared.path, several_nodes=False), None)
        settings = LaneSettings(session.worker_resources, "cpu", 60, "none")
        host = open_host({})
        lane = open_pool(cells_of("lane", 1 + rounds * BLOCK["lane"], handed), 1, 0, None, settings, host)
        run(lane, ["lane-0"])
        overheads: dict[str, list[float]] = {name: [] for name in BLOCK}
        spent: dict[str, list[float]] = {name: [] for name in BLOCK}
        at_work: dict[str, list[float]] = {name: [] for name in BLOCK}
        time.sleep(SETTLE_SECONDS)
        for number in range(rounds):
            cpu = cpu_seconds()
            time.sleep(IDLE_SECONDS)
            idle = (cpu_seconds() - cpu) / IDLE_SECONDS
            for name, size in BLOCK.items():
                cpu, started = cpu_seconds(), time.monotonic()
                if name == "lane":
                    busy = run(lane, [f"lane-{1 + number * size + n}" for n in range(size)])
                else:  # a pool for this block alone: one that had more to do would start the next trainer while idle
                    cells = cells_of(f"isolated-{number}", size, handed)
                    busy = run(open_pool(cells, 1, 0, 1, settings, host), [cell.trial_id for cell in cells])
                wall = time.monotonic() - started
                time.sleep(SETTLE_SECONDS)
                spent[name].append((cpu_seconds() - cpu - idle * (time.monotonic() - started)) / size)
                overheads[name].append((wall - busy) / size)
                at_work[name].append(busy / size)
                print(f"round {number + 1} {name:9}: {size} trials, each {overheads[name][-1]:.2f} s overhead and "
                      f"{spent[name][-1]:.2f} CPU-s (idle Ray: {idle:.2f} CPU-s a second)", flush=True)  # fmt: skip
    print(f"\n{trial.model.name}, {trial.data_requested} {trial.data_axis}, 1 worker of 1 thread; {cpu_name()}, "
          f"{os.cpu_count()} CPUs")  # fmt: skip
    print(f"Medians of {rounds} rounds; the lane's first trial is not counted")
    print(f"{'':9} {'overhead s':>11} {'CPU-s':>7} {'train+eval s':>13} {'CPU-s beyond':>13}")
    rows = {}
    for name in BLOCK:
        overhead, cpu, busy = (statistics.median(each[name]) for each in (overheads, spent, at_work))
        rows[name] = (overhead, cpu, cpu - busy)
        print(f"{name:9} {overhead:11.3f} {cpu:7.2f} {busy:13.2f} {cpu - busy:13.2f}")
    ratios = [far / near for far, near in zip(rows["isolated"], rows["lane"], strict=True)]
    print(f"{'ratio':9} {ratios[0]:10.1f}x {ratios[1]:6.1f}x {'':13} {ratios[2]:12.1f}x")


def cells_of(name: str, count: int, handed: Handed) -> list[Cell]:
    """So many cells of the same trial."""
    return [Cell(f"{name}-{n}", 1, False, handed) for n in range(count)]


def run(pool: Any, trial_ids: list[str]) -> float:
    """Run these trials one after the other; returns their train and eval seconds together."""
    busy = 0.0
    for trial_id in trial_ids:
        known = len(ray.get(pool.collect.remote(0, 0.0)))
        waiting = pool.submit.remote(trial_id)
        outcomes: list[dict[str, Any]] = []
        while not outcomes:
            outcomes = ray.get(pool.collect.remote(known, 5.0))
        ray.get(pool.acknowledge.remote(trial_id, {}))
        ray.get(waiting)
        busy += outcomes[0]["measured"]["train_seconds"] + outcomes[0]["measured"]["eval_seconds"]
    return busy


def cpu_seconds() -> float:
    """User and system time of the whole machine since it started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system = (int(field) for field in fields[:3])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
