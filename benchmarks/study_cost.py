"""What a study costs: `rayscale run` against Ray Tune with a TorchTrainer for each trial, from the command to its end.

Twenty BERT classifiers from scratch on the built-in corpus (which package does this paragraph document?): 2 sizes x 5
data sizes x 2 seeds, 3 epochs. The rivals (study_cost_rivals.py) train the same rows, tokens and steps from the same
initial weights at the same rate, as many at once as there are cores, one thread each: one by a tutorial's loop, one by
the Trainer of transformers at its best settings (group_by_length, bf16). Wall time counts everything from the start of
the command to the last loss. rayscale's also holds cleaning and splitting of the text, its vocabulary, tokenising,
keeping of the best model, fits and report: the rivals are given the split texts and the vocabulary. The corpus itself
is made before.

Each round runs one side after the other, in another order than the round before. Every measured side is a line of
FOLDER/results.jsonl; the same command goes on with what is missing. A side that was interrupted begins anew. The
table at the end counts all lines with this number of trials.

    pip install accelerate                     # the Trainer needs it
    python benchmarks/study_cost.py --out FOLDER [--trials 20] [--rounds 1] [--sides rayscale,tutorial,trainer]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

import rayscale
from rayscale.plan.parameters import family_config
from rayscale.study.study import load_study
from rayscale.system.machine import cpu_name, physical_cores
from rayscale.text.folders import clean_folder
from rayscale.text.prepared import SPLITS, find_tokens
from rayscale.text.shards import read_table
from rayscale.text.sources.corpus import ensure_corpus
from rayscale.text.tokens.encode import TokenizerSpec

SIDES = ("rayscale", "tutorial", "trainer")
NAMES = {"rayscale": "rayscale run", "tutorial": "Tune + TorchTrainer + tutorial's loop",
         "trainer": "Tune + TorchTrainer + Trainer, best settings"}  # fmt: skip
VOCABULARY, LENGTH = 2048, 128
#: Data sizes and seeds, for two models, by the number of trials.
GRIDS = {20: ([250, 500, 1000, 2000, 4000], 2), 4: ([250, 500], 1)}
TRAINING = {"epochs": 3, "global_batch": 32, "learning_rate": 0.002, "warmup": 0.1, "weight_decay": 0.01}
MODELS = ("1x64", "2x128")


def main() -> None:
    """Measure what is missing, print what there is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of results, the study and its cache")
    parser.add_argument("--trials", type=int, choices=sorted(GRIDS), default=20, help="of the study (default 20)")
    parser.add_argument("--rounds", type=int, default=1, help="how often each side should be measured (default 1)")
    parser.add_argument("--sides", default=",".join(SIDES), help="those to measure now (default: all)")
    asked = parser.parse_args()
    sides = asked.sides.split(",")
    if unknown := set(sides) - set(SIDES):
        parser.error(f"unknown sides {', '.join(sorted(unknown))}; there are {', '.join(SIDES)}")
    out = asked.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    os.environ["RAYSCALE_CACHE"] = str(out / "cache")
    ensure_corpus()
    study = write_study(out, asked.trials)
    for number in range(asked.rounds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            if sum(line["side"] == side for line in measured(out, asked.trials)) <= number:
                measure(out, study, side, asked.trials)
    tell(measured(out, asked.trials), asked.trials)


def write_study(out: Path, trials: int) -> Path:
    """The study file of that many trials."""
    sizes, seeds = GRIDS[trials]
    study = {
        "name": f"cost-{trials}",
        "task": {"type": "sequence-classification", "text": "text", "label": "label", "max_length": LENGTH},
        "data": {"train": "builtin"},
        "models": [{"family": "bert", "sizes": list(MODELS), "vocabulary": VOCABULARY}],
        "grid": {"examples": sizes, "gpus": [1], "seeds": seeds},
        "training": TRAINING,
        "run": {"accelerator": "cpu"},
    }
    path = out / f"study-{trials}.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def measured(out: Path, trials: int) -> list[dict[str, Any]]:
    """The lines of this number of trials."""
    path = out / "results.jsonl"
    lines = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return [line for line in lines if line["trials"] == trials]


def measure(out: Path, study: Path, side: str, trials: int) -> None:
    """Run one side once, alone, and append what it took."""
    run, lost = out / f"run-{trials}", out / "losses.json"
    # One thread a worker; without .pyc files every process of Ray would compile its imports anew.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["OMP_NUM_THREADS"] = "1"
    if side == "rayscale":
        for folder in (run, out / "cache" / "prepared", out / "cache" / "first-looks"):
            shutil.rmtree(folder, ignore_errors=True)
        command = [sys.executable, "-m", "rayscale", "run", str(study), "--out", str(run), "--yes"]
    else:
        given = give(out, study, trials)
        lost.unlink(missing_ok=True)
        rivals = str(Path(__file__).with_name("study_cost_rivals.py"))
        command = [sys.executable, rivals, side, str(given), str(lost), str(physical_cores())]
    print(f"{datetime.now(UTC):%H:%M:%S} {NAMES[side]}: {trials} trials", flush=True)
    began, load = time.monotonic(), os.getloadavg()[0]
    with open(out / f"{side}.log", "w") as log:
        subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, check=True)
    seconds = time.monotonic() - began
    line = {"side": side, "trials": trials, "seconds": seconds, "load_before": load, "cpu": cpu_name(),
            "cores": physical_cores(), "ended": datetime.now(UTC).isoformat(timespec="seconds")}  # fmt: skip
    line |= told_by(run) if side == "rayscale" else json.loads(lost.read_text())
    with open(out / "results.jsonl", "a") as results:
        results.write(json.dumps(line) + "\n")
    print(f"  {seconds:.0f} s, of which its trials trained {line['busy_seconds']:.0f} s in all", flush=True)


def told_by(run: Path) -> dict[str, Any]:
    """Losses and steps by cell of a run of rayscale, and the seconds for which its workers trained and evaluated."""
    table = rayscale.load(str(run)).trials
    if not (table["status"] == "ok").all():
        raise SystemExit(f"{run}: {(table['status'] != 'ok').sum()} trials are not ok")
    cells = {f"{row.model}/{row.data_requested}/{row.seed}": row for row in table.itertuples()}
    return {
        "losses": {cell: row.eval_loss for cell, row in cells.items()},
        "steps": {cell: int(row.steps) for cell, row in cells.items()},
        "busy_seconds": float((table["train_seconds"] + table["eval_seconds"]).sum()),
    }


def give(out: Path, study: Path, trials: int) -> Path:
    """What the rivals are given: the split texts, the vocabulary, and for each cell its rows and its model's shape."""
    given, loaded = out / f"given-{trials}", load_study(study)
    sizes, seeds = GRIDS[trials]
    spec = TokenizerSpec("trained", "bert", VOCABULARY)
    prepared = find_tokens(clean_folder(loaded), spec, loaded.task.length, range(seeds))
    if prepared is None:
        raise SystemExit("the rivals read what rayscale has prepared: measure the side rayscale first")
    shutil.rmtree(given, ignore_errors=True)
    given.mkdir()
    for split in SPLITS:
        pq.write_table(read_table(clean_folder(loaded) / f"{split}.arrow").select(["text", "label"]), given / split)
    shutil.copytree(prepared.tokenizer_folder, given / "tokenizer")
    cells, labels = [], prepared.labels
    for size in MODELS:
        layers, width = map(int, size.split("x"))
        config = family_config("bert", layers, width, VOCABULARY, LENGTH, len(labels))
        config["pad_token_id"] = prepared.token_ids["pad"]
        for examples in sizes:
            for seed in range(seeds):
                rows = f"rows-{examples}-{seed}.npy"
                np.save(given / rows, prepared.subset("examples", examples, seed))
                cells.append({"name": f"bert-{size}/{examples}/{seed}", "config": config, "rows": rows, "seed": seed})
    about = {"cells": cells, "length": LENGTH, **TRAINING}
    (given / "cells.json").write_text(json.dumps(about))
    return given


def tell(lines: list[dict[str, Any]], trials: int) -> None:
    """Medians of wall time, ratios, and the losses beside each other."""
    by_side = {side: [line for line in lines if line["side"] == side] for side in SIDES}
    ours = by_side["rayscale"]
    if not ours:
        return
    wall = statistics.median(line["seconds"] for line in ours)
    print(f"\n{trials} trials, {ours[-1]['cpu']}, {ours[-1]['cores']} cores; medians over runs of the whole study")
    print(f"{'':46}{'runs':>5}{'wall s':>8}{'x rayscale':>11}{'training s':>11}{'mean test loss':>15}{'paired':>16}")
    for side, found in by_side.items():
        if not found:
            continue
        seconds = statistics.median(line["seconds"] for line in found)
        busy = statistics.median(line["busy_seconds"] for line in found)
        losses, steps = found[-1]["losses"], found[-1]["steps"]
        if steps != ours[-1]["steps"]:
            raise SystemExit(f"{side} made other steps than rayscale: {steps}, {ours[-1]['steps']}")
        differences = [losses[cell] - ours[-1]["losses"][cell] for cell in losses]
        error = statistics.stdev(differences) / len(differences) ** 0.5
        paired = "" if side == "rayscale" else f"{statistics.mean(differences):+.3f} ± {error:.3f}"
        print(f"{NAMES[side]:46}{len(found):5}{seconds:8.0f}{seconds / wall:11.2f}{busy:11.0f}"
              f"{statistics.mean(losses.values()):15.3f}{paired:>16}")  # fmt: skip


if __name__ == "__main__":
    main()
