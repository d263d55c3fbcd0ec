"""What a trial costs in a process that keeps the model of the trial before, against one that builds it each time.

Trials of one model, each with a seed of its own, by turns: built, kept, built, kept, ... The texts are random (mean 43
tokens, cut at 128), the vocabulary is BERT's. `outside` is wall time less train and eval seconds; on a GPU recording
steps is part of train seconds. Both of a pair must have equal losses, or it ends.

    python benchmarks/kept_model.py [--models bert-2x128 minilm bert-base] [--device cuda] [--pairs 5] [--texts 16]
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from training_speed import Made, minilm

from rayscale.nn.training.kept_model import KeptModel
from rayscale.nn.training.train import train_trial
from rayscale.runs.trial import ModelSpec, Trial
from rayscale.study.sections import Task
from rayscale.system.machine import cpu_name
from rayscale.text.prepared import Split

VOCABULARY, LABELS, LONGEST, HELD_OUT = 30522, 77, 128, 4
MODELS = ("bert-2x128", "minilm", "bert-base")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--pairs", type=int, default=5, help="of trials, built and kept, for each model (default 5)")
    parser.add_argument("--texts", type=int, default=16, help="of a trial, 16 in a step (default 16)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    gc.freeze()  # as a lane does
    where = torch.cuda.get_device_name() if given.device == "cuda" else f"{cpu_name()}, one thread"
    print(f"{where}, {os.cpu_count()} CPUs; medians of {given.pairs} pairs, {given.texts} texts each\n")
    print(f"{'model':11} {'':6} {'outside s':>10} {'train+eval s':>13} {'all s':>7} {'CPU-s':>7}")
    with tempfile.TemporaryDirectory(prefix="rayscale-kept-") as scratch:
        made = make_texts(given.texts, Path(scratch))
        for name in given.models:
            spec = spec_of(name, Path(scratch))
            kept, told = KeptModel(), {"built": [], "kept": []}
            for seed in range(-1, given.pairs):  # the first pair warms up, and leaves the model that is kept
                pair = [measure(spec, made, max(seed, 0), given, each) for each in (None, kept)]
                if pair[0][1] != pair[1][1]:
                    raise SystemExit(f"losses differ: {pair}")
                for way, (figures, _) in zip(told, pair, strict=True):
                    if seed >= 0:
                        told[way].append(figures)
            for way, rows in told.items():
                outside, busy, whole, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
                print(f"{name:11} {way:6} {outside:10.3f} {busy:13.3f} {whole:7.3f} {cpu:7.3f}")


def measure(
    spec: ModelSpec, made: Made, seed: int, given: Any, kept: KeptModel | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """((outside, train and eval, all, CPU seconds), losses) of a trial."""
    training = {"epochs": 1, "global_batch": 16, "batching": "random", "learning_rate": 1e-4, "optimizer": "adamw",
                "schedule": "linear", "warmup": 0.0, "precision": "auto", "weight_decay": 0.01}  # fmt: skip
    task = Task(type="sequence-classification", max_length=LONGEST)
    trial = Trial("kept", "kept", task, spec, "examples", given.texts, 1, seed, "none", training, given.device, 1, "")
    started, cpu = time.perf_counter(), time.process_time()
    result = train_trial(trial, made, checkpoint=spec.path, device=given.device, kept=kept)  # type: ignore[arg-type]
    whole, cpu = time.perf_counter() - started, time.process_time() - cpu
    busy = result["train_seconds"] + result["eval_seconds"]
    return (whole - busy, busy, whole, cpu), tuple(
        result[name] for name in ("train_loss", "validation_loss", "eval_loss")
    )


def spec_of(name: str, scratch: Path) -> ModelSpec:
    """The model by its name; BERT-base is a checkpoint with weights drawn at random."""
    if name == "bert-2x128":
        return ModelSpec(name, "family", "bert", 2, 128, VOCABULARY)
    if name == "minilm":
        return ModelSpec(name, "pretrained", "bert", 6, path=str(minilm()))
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig()).save_pretrained(scratch / name)
    return ModelSpec(name, "pretrained", "bert", 12, path=str(scratch / name))


def make_texts(texts: int, folder: Path) -> Made:
    """Rows of words that are drawn by Zipf's law, with a label each."""
    draw = np.random.default_rng(0)

    def make(count: int) -> Split:
        lengths = draw.gamma(3.0, 14.0, count).clip(4, LONGEST).astype(np.int64)
        values = (1000 + draw.zipf(1.3, lengths.sum()) % (VOCABULARY - 1000)).astype(np.int32)
        labels = draw.integers(0, LABELS, count).astype(np.int32)
        return Split(values, np.cumsum(lengths) - lengths, lengths, labels, np.arange(count, dtype=np.uint64))

    splits = {"train": make(texts), "validation": make(HELD_OUT), "test": make(HELD_OUT)}
    return Made(splits, [str(number) for number in range(LABELS)], VOCABULARY, {"pad": 0}, folder)


if __name__ == "__main__":
    main()
