"""`learning_rate: auto` against a sweep in factors of two, on text that its constants were not fitted to.

3 model sizes x 3 data sizes x 2 tasks, from scratch: BERT ladders on sentences with a sentiment (lines `text TAB 0|1`),
GPT-2 ladders on a book. The sweep's best is chosen on validation rows and compared on test rows, like `auto`. The law
is one power of the data size for all sizes of a task, log loss = size + slope x log data; its slope is fitted to both.

    python benchmarks/learning_rate.py --sentences sst2_train.tsv --book tinyshakespeare.txt
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from rayscale.machine import cpu_name
from rayscale.nn.train import train_trial
from rayscale.text.prepared import Split
from rayscale.trial import ModelSpec, Trial

VOCABULARY, WINDOW, HELD_OUT = 1024, 64, 400
RATES = tuple(1e-3 * 2**power for power in range(6))  # to 0.032
CLASSIFY, CONTINUE = "sequence-classification", "causal-lm"
SIZES = ((1, 32), (1, 64), (1, 128))
DATA = {CLASSIFY: (1500, 3000, 6000), CONTINUE: (20_480, 40_960, 81_920)}


@dataclass(frozen=True)
class Made:
    """Prepared data in memory, as `train_trial` reads it."""

    splits: dict[str, Split]
    labels: list[str]
    token_ids: dict[str, int]
    vocab_size: int = VOCABULARY
    tokenizer_folder: Path = Path()

    def split(self, name: str) -> Split:
        return self.splits[name]

    def subset(self, axis: str, requested: int, seed: int) -> np.ndarray:
        return np.arange(requested // WINDOW if axis == "tokens" else requested)


def main() -> None:
    """Train all cells at all rates and print what `auto` loses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", required=True)
    parser.add_argument("--book", required=True)
    given = parser.parse_args()
    print(f"{cpu_name()}, 1 thread; test loss in nats")
    began, excesses = time.process_time(), []
    for task, made in ((CLASSIFY, read_sentences(given.sentences)), (CONTINUE, read_book(given.book))):
        cells = []
        for layers, width in SIZES:
            for size in DATA[task]:
                swept = {rate: train(task, made, layers, width, size, rate) for rate in RATES}
                auto = train(task, made, layers, width, size, "auto")
                rate = min(RATES, key=lambda each: swept[each]["validation_loss"] or math.inf)
                excess = auto["eval_loss"] / swept[rate]["eval_loss"] - 1
                cells.append(((layers, width), size, swept[rate]["eval_loss"], auto["eval_loss"]))
                excesses.append(excess)
                edge = " (at the edge of the sweep)" if rate in (RATES[0], RATES[-1]) else ""
                print(
                    f"{task} {layers}x{width} {size:6}: sweep {swept[rate]['eval_loss']:.4f} at {rate:.2g}{edge}, "
                    f"auto {auto['eval_loss']:.4f} at {auto['learning_rate']:.2g}, {excess:+.1%}",
                    flush=True,
                )
        slope, half = fit([(group, size, swept) for group, size, swept, _ in cells])
        own, _ = fit([(group, size, auto) for group, size, _, auto in cells])
        inside = "within" if abs(own - slope) <= half else "outside"
        print(
            f"{task}: exponent of the data by the sweep {-slope:.4f} +- {half:.4f} (95%), by auto {-own:.4f}: {inside}"
        )
    excesses.sort()
    print(f"auto loses {statistics.median(excesses):+.2%} in the median of {len(excesses)} cells, "
          f"{excesses[-1]:+.1%} at most; {time.process_time() - began:.0f} CPU-seconds")  # fmt: skip


def train(task: str, made: Made, layers: int, width: int, size: int, rate: float | str) -> dict[str, Any]:
    """One cell at one rate."""
    family, axis = ("bert", "examples") if task == CLASSIFY else ("gpt2", "tokens")
    settings = {"epochs": 3 if task == CLASSIFY else 1, "global_batch": 32 if task == CLASSIFY else 8,
                "batching": "random", "learning_rate": rate, "optimizer": "adamw", "momentum": None,
                "schedule": "linear", "cooldown": None, "warmup": 0.1, "precision": "auto",
                "weight_decay": 0.01}  # fmt: skip
    model = ModelSpec(f"{family}-{layers}x{width}", "family", family, layers, width, VOCABULARY)
    named = {"type": task, "text": "text", "label": "label", "max_length": WINDOW}
    trial = Trial("rate", "rate", named, model, axis, size, 1, 0, "none", settings, "cpu", 1, "made")
    return train_trial(trial, made)  # type: ignore[arg-type]


def fit(cells: list[tuple[Any, int, float]]) -> tuple[float, float]:
    """(slope of log loss in log data with an offset for each group, half of its 95% interval)."""
    groups = sorted({group for group, _, _ in cells})
    design = np.array([[math.log(size), *(group == each for each in groups)] for group, size, _ in cells], dtype=float)
    target = np.log([loss for _, _, loss in cells])
    found, _, _, _ = np.linalg.lstsq(design, target, rcond=None)
    free = len(cells) - design.shape[1]
    variance = float(((target - design @ found) ** 2).sum()) / free * np.linalg.inv(design.T @ design)[0, 0]
    return float(found[0]), float(student.ppf(0.975, free) * math.sqrt(variance))


def learn_tokenizer(texts: Iterator[str]) -> Tokenizer:
    """A byte-level BPE of VOCABULARY entries."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    wanted = {"vocab_size": VOCABULARY, "special_tokens": ["[PAD]", "[CLS]"], "initial_alphabet": alphabet}
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(**wanted, show_progress=False))
    return tokenizer


def read_sentences(path: str) -> Made:
    """Shuffled rows of sst2, [CLS] before each."""
    rows = [line.rsplit("\t", 1) for line in Path(path).read_text().splitlines() if "\t" in line]
    rows = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]
    tokenizer = learn_tokenizer(text for text, _ in rows)
    ids = [[1, *found.ids][:WINDOW] for found in tokenizer.encode_batch_fast([text for text, _ in rows])]
    labels = np.array([int(label) for _, label in rows], dtype=np.int32)
    return Made(cut(ids, labels), ["negative", "positive"], {"pad": 0})


def read_book(path: str) -> Made:
    """Windows of the book in random order."""
    text = Path(path).read_text()
    tokens = learn_tokenizer(iter(text.splitlines(keepends=True))).encode(text).ids
    whole = len(tokens) // WINDOW
    windows = np.array(tokens[: whole * WINDOW]).reshape(whole, WINDOW)[np.random.default_rng(0).permutation(whole)]
    return Made(cut(windows.tolist(), None), [], {})


def cut(ids: list[list[int]], labels: np.ndarray | None) -> dict[str, Split]:
    """Test and validation rows from the front, the rest for training."""
    parts = {"test": slice(HELD_OUT), "validation": slice(HELD_OUT, 2 * HELD_OUT), "train": slice(2 * HELD_OUT, None)}
    made = {}
    for name, part in parts.items():
        rows = ids[part]
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        keys = np.arange(len(rows), dtype=np.uint64)
        own = None if labels is None else labels[part]
        made[name] = Split(np.concatenate(rows).astype(np.int32), offsets, own, keys)
    return made


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
