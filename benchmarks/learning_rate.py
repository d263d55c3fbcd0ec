"""`learning_rate: auto` against a dense sweep: what a given rule loses, and whether the law stays what it is.

3 model sizes x 3 data sizes x 2 tasks, from scratch: BERT ladders on sentences with a sentiment (lines `text TAB 0|1`),
GPT-2 ladders on the built-in corpus. Rates in factors of two for the first seed, the best of them by validation loss
and its two neighbours for the other ones; the sweep's best has the lowest validation loss in the mean of the seeds, and
is compared with `auto` on test rows. The law of a task is one power of the data size,
log loss = size + slope x log data. `--cells tuning` are other sizes of models and data, and a third task (the package
that a paragraph of the corpus is from): what a rule may be fitted to.

Every trial is a line of the file of results: a run that was stopped goes on, and all is judged from what is there.

    python benchmarks/learning_rate.py --sentences sst2_train.tsv --dev sst2_dev.tsv --out rates.jsonl
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from rayscale.nn.training.train import train_trial
from rayscale.plan.rate_transfer import Best, best_rate, fit_optimum
from rayscale.runs.trial import TRAINING_VERSION, ModelSpec, Trial
from rayscale.study.sections import Task
from rayscale.system.machine import cpu_name
from rayscale.text.prepared import Split
from rayscale.text.sources.corpus import ensure_corpus

VOCABULARY, WINDOW = 1024, 64
HELD_OUT_WINDOWS, VALIDATION_ROWS, TEST_ROWS = 400, 1000, 1100
CORPUS_CHARACTERS, PACKAGE_ROWS = 1_500_000, 7000
CLASSIFY, PACKAGES, CONTINUE = "sequence-classification", "packages sequence-classification", "causal-lm"
RATES = {
    CLASSIFY: tuple(1e-3 * 2**power for power in range(-1, 4)),  # 0.0005 to 0.008
    PACKAGES: tuple(1e-3 * 2**power for power in range(-1, 4)),
    CONTINUE: tuple(1e-3 * 2**power for power in range(6)),  # 0.001 to 0.032
}
FAMILIES = {CLASSIFY: "bert", PACKAGES: "bert", CONTINUE: "gpt2"}
SIZES = {"reported": ((1, 32), (1, 64), (1, 128)), "tuning": ((1, 48), (1, 96))}
DATA = {
    "reported": {CLASSIFY: (1200, 2400, 4800), PACKAGES: (), CONTINUE: (30_720, 61_440, 122_880)},
    "tuning": {CLASSIFY: (900, 1800, 3600), PACKAGES: (1000, 4000), CONTINUE: (20_480, 40_960, 163_840, 327_680)},
}


@dataclass(frozen=True)
class Cell:
    """One model size at one data size (rows, or tokens) of a task."""

    task: str
    layers: int
    width: int
    data: int

    @property
    def cost(self) -> float:
        """About what a trial takes: a row of sentences three times is as long as 75 tokens."""
        return self.data * (1 if self.task == CONTINUE else 75) * self.layers * (self.width + 64)


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
        wanted = requested // WINDOW if axis == "tokens" else requested
        return np.random.default_rng(seed).permutation(len(self.splits["train"]))[:wanted]


def main() -> None:
    """Train what is not in the file of results yet, and print what `auto` loses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", required=True)
    parser.add_argument("--dev", required=True)
    parser.add_argument("--out", type=Path, default=Path("learning_rate.jsonl"))
    parser.add_argument("--cells", choices=sorted(SIZES), default="reported")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=math.inf, help="no trial begins later")
    given = parser.parse_args()
    cells = [Cell(task, *size, data) for task in FAMILIES for size in SIZES[given.cells]
             for data in DATA[given.cells][task]]  # fmt: skip
    until = time.monotonic() + 60 * given.minutes
    made: dict[str, Made] = {}
    results = read_results(given.out)

    def ensure(cell: Cell, rate: float | str, seed: int) -> None:
        if key(cell, rate, seed) in results or time.monotonic() > until:
            return
        if not made:
            made.update({CLASSIFY: read_sentences(given.sentences, given.dev), CONTINUE: read_corpus(),
                         PACKAGES: read_packages()})  # fmt: skip
        results[key(cell, rate, seed)] = train(made[cell.task], cell, rate, seed)
        with given.out.open("a") as file:
            file.write(json.dumps([key(cell, rate, seed), results[key(cell, rate, seed)]]) + "\n")

    for seed in range(given.seeds):
        # Cheap cells first, and of each the whole sweep: what is there can be judged whenever it stops.
        for cell in sorted(cells, key=lambda each: each.cost):
            for rate in (*rates_of(cell, results, seed), "auto"):
                ensure(cell, rate, seed)
    for cell, rate in transferred(cells, results, given.seeds).items():
        for seed in range(given.seeds):
            ensure(cell, rate, seed)
    report(cells, results, given.seeds)


def key(cell: Cell, rate: float | str, seed: int) -> str:
    """Of a trial; another version of training may have another `auto`."""
    name = f"auto, version {TRAINING_VERSION}" if rate == "auto" else f"{rate:.6g}"
    return f"{cell.task} {cell.layers}x{cell.width} {cell.data}, {name}, seed {seed}"


def rates_of(cell: Cell, results: dict[str, dict[str, Any]], seed: int) -> tuple[float, ...]:
    """The rates that are swept with this seed, ascending."""
    rates = RATES[cell.task]
    if not seed:
        return rates
    first = {rate: results.get(key(cell, rate, 0)) for rate in rates}
    if None in first.values():
        return ()
    place = rates.index(min(rates, key=lambda rate: mean([first[rate]], "validation_loss")))
    return rates[max(0, place - 1) : place + 2]


def transferred(cells: Iterable[Cell], results: dict[str, dict[str, Any]], seeds: int) -> dict[Cell, float]:
    """The rates that the small cells of each task foretell for its others: the small ones are the two smaller models at
    the two smaller data sizes."""
    found = {}
    for task in FAMILIES:
        mine = [cell for cell in cells if cell.task == task]
        widths, sizes = sorted({cell.width for cell in mine}), sorted({cell.data for cell in mine})
        small = [cell for cell in mine if cell.width in widths[:2] and cell.data in sizes[:2]]
        best = []
        for cell in small:
            seen = {rate: [result for seed in range(seeds) if (result := results.get(key(cell, rate, seed)))]
                    for rate in RATES[task]}  # fmt: skip
            where = best_rate({rate: mean(trials, "validation_loss") for rate, trials in seen.items() if trials})
            if where is not None:
                best.append(Best(cell.width, cell.layers, seen[RATES[task][0]][0]["steps"], *where))
        if len(sizes) > 2 and best:
            law = fit_optimum(best, "family")
            steps = {cell: results[key(cell, RATES[task][0], 0)]["steps"] for cell in mine if cell not in small}
            found |= {cell: law.rate(cell.width, cell.layers, count) for cell, count in steps.items()}
    return found


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """By key; a line that a stop cut short is passed over, and its trial trained again."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            name, result = json.loads(line)
        except ValueError:
            continue
        found[name] = result
    return found


def train(made: Made, cell: Cell, rate: float | str, seed: int) -> dict[str, Any]:
    """One cell at one rate: its losses and the rate in figures."""
    language = cell.task == CONTINUE
    settings = {"epochs": 1 if language else 3, "global_batch": 8 if language else 32, "batching": "random",
                "learning_rate": rate, "optimizer": "adamw", "schedule": "linear", "warmup": 0.1, "precision": "auto",
                "weight_decay": 0.01}  # fmt: skip
    family = FAMILIES[cell.task]
    model = ModelSpec(f"{family}-{cell.layers}x{cell.width}", "family", family, cell.layers, cell.width, VOCABULARY)
    task = Task.model_validate({"type": cell.task.split()[-1], "max_length": WINDOW})
    axis = "tokens" if language else "examples"
    trial = Trial("rate", "rate", task, model, axis, cell.data, 1, seed, "none", settings, "cpu", 1, "made")
    began = time.process_time()
    result = train_trial(trial, made)  # type: ignore[arg-type]
    names = ("status", "learning_rate", "steps", "train_loss", "validation_loss", "eval_loss")
    return {**{name: result[name] for name in names}, "cpu_seconds": round(time.process_time() - began, 2)}


def report(cells: Iterable[Cell], results: dict[str, dict[str, Any]], seeds: int) -> None:
    """Print the table, the medians and the laws of all cells that are whole."""
    print(f"{cpu_name()}, 1 thread, training version {TRAINING_VERSION}; test loss in nats, mean of {seeds} seeds, "
          "best rate by validation loss")  # fmt: skip
    print("| task | model | data | sweep's best rate | its loss | auto's rate | its loss | auto loses | "
          "noise of a seed | transferred rate | its loss | it loses |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    carried = transferred(cells, results, seeds)
    lost: list[float] = []
    excesses: dict[str, list[float]] = {}
    laws: dict[str, list[tuple[Any, int, float, float]]] = {}
    for cell in cells:
        rates = rates_of(cell, results, seeds - 1)
        trials = {rate: [results.get(key(cell, rate, seed)) for seed in range(seeds)] for rate in (*rates, "auto")}
        if not rates or any(each is None for found in trials.values() for each in found):
            continue
        validation = {rate: mean(trials[rate], "validation_loss") for rate in rates}
        best = min(rates, key=lambda rate: validation[rate])
        swept, auto = mean(trials[best], "eval_loss"), mean(trials["auto"], "eval_loss")
        edge = " (edge)" if best in (RATES[cell.task][0], RATES[cell.task][-1]) else ""
        row = (cell.task, f"{cell.layers}x{cell.width}", cell.data, f"{best:.2g}{edge}", f"{swept:.4f}",
               f"{trials['auto'][0]['learning_rate']:.2g}", f"{auto:.4f}", f"{auto / swept - 1:+.1%}",
               spread(trials[best]), "", "", "")  # fmt: skip
        further = [results.get(key(cell, carried[cell], seed)) for seed in range(seeds)] if cell in carried else [None]
        if None not in further:
            loss = mean(further, "eval_loss")
            row = (*row[:-3], f"{carried[cell]:.2g}", f"{loss:.4f}", f"{loss / swept - 1:+.1%}")
            lost.append(loss / swept - 1)
        print("| " + " | ".join(map(str, row)) + " |")
        excesses.setdefault(cell.task, []).append(auto / swept - 1)
        laws.setdefault(cell.task, []).append(((cell.layers, cell.width), cell.data, swept, auto))
    for task, found in laws.items():
        median = statistics.median(excesses[task])
        print(
            f"{task}: auto loses {median:+.2%} in the median of {len(found)} cells, {max(excesses[task]):+.1%} at most"
        )
        if len({data for _, data, _, _ in found}) > 2:
            slope, half = fit([(group, data, swept) for group, data, swept, _ in found])
            own, _ = fit([(group, data, auto) for group, data, _, auto in found])
            inside = "within" if abs(own - slope) <= half else "outside"
            print(f"{task}: exponent of the data by the sweep {-slope:.4f} +- {half:.4f} (95%), by auto {-own:.4f}: "
                  f"{inside}")  # fmt: skip
    whole = [each for found in excesses.values() for each in found]
    if whole:
        median, seconds = statistics.median(whole), sum(each["cpu_seconds"] for each in results.values())
        print(f"all: auto loses {median:+.2%} in the median of {len(whole)} cells, at most {max(whole):+.1%}; "
              f"{seconds:.0f} CPU-seconds in the file")  # fmt: skip
    if lost:
        median = statistics.median(lost)
        print(f"transfer from the small cells loses {median:+.2%} in the median of {len(lost)} others, at most "
              f"{max(lost):+.1%}")  # fmt: skip


def mean(trials: list[Any], column: str) -> float:
    """Over seeds; infinite where one diverged."""
    losses = [each[column] for each in trials]
    return math.inf if None in losses else statistics.fmean(losses)


def spread(trials: list[Any]) -> str:
    """The deviation between the seeds' test losses, in percent of their mean."""
    losses = [each["eval_loss"] for each in trials]
    return f"{statistics.stdev(losses) / statistics.fmean(losses):.1%}" if len(losses) > 1 else "?"


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


def read_sentences(path: str, dev: str) -> Made:
    """Shuffled rows, [CLS] before each; the test rows are the dev file and some of the others."""
    read = [[line.rsplit("\t", 1) for line in Path(each).read_text().splitlines() if "\t" in line]
            for each in (path, dev)]  # fmt: skip
    mixed = [read[0][place] for place in np.random.default_rng(0).permutation(len(read[0]))]
    rows = {"validation": mixed[:VALIDATION_ROWS],
            "test": mixed[VALIDATION_ROWS : VALIDATION_ROWS + TEST_ROWS] + read[1],
            "train": mixed[VALIDATION_ROWS + TEST_ROWS :]}  # fmt: skip
    tokenizer = learn_tokenizer(text for text, _ in rows["train"])
    splits = {}
    for name, part in rows.items():
        found = tokenizer.encode_batch_fast([text for text, _ in part])
        labels = np.array([int(label) for _, label in part], dtype=np.int32)
        splits[name] = make_split([[1, *each.ids][:WINDOW] for each in found], labels)
    return Made(splits, ["negative", "positive"], {"pad": 0})


def paragraphs() -> list[list[str]]:
    """Those of the built-in corpus in random order, each with its package."""
    rows = [json.loads(line) for line in ensure_corpus().read_text().splitlines()]
    return [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]


def read_packages() -> Made:
    """Paragraphs of the built-in corpus, labelled with their package, [CLS] before each."""
    rows = paragraphs()[:PACKAGE_ROWS]
    names = sorted({name for _, name in rows})
    tokenizer = learn_tokenizer(text for text, _ in rows)
    ids = [[1, *each.ids][:WINDOW] for each in tokenizer.encode_batch_fast([text for text, _ in rows])]
    labels = np.array([names.index(name) for _, name in rows], dtype=np.int32)
    parts = {"test": slice(1500), "validation": slice(1500, 2500), "train": slice(2500, None)}
    return Made({name: make_split(ids[part], labels[part]) for name, part in parts.items()}, names, {"pad": 0})


def read_corpus() -> Made:
    """Windows of the built-in corpus in random order."""
    whole = "\n".join(text for text, _ in paragraphs())[:CORPUS_CHARACTERS]
    tokens = learn_tokenizer(iter(whole.splitlines(keepends=True))).encode(whole).ids
    count = len(tokens) // WINDOW
    windows = np.array(tokens[: count * WINDOW]).reshape(count, WINDOW)[np.random.default_rng(0).permutation(count)]
    parts = {"test": slice(HELD_OUT_WINDOWS), "validation": slice(HELD_OUT_WINDOWS, 2 * HELD_OUT_WINDOWS),
             "train": slice(2 * HELD_OUT_WINDOWS, None)}  # fmt: skip
    return Made({name: make_split(windows[part].tolist(), None) for name, part in parts.items()}, [], {})


def make_split(ids: list[list[int]], labels: np.ndarray | None) -> Split:
    """A split of these rows."""
    lengths = np.array([len(row) for row in ids], dtype=np.int64)
    values = np.concatenate([np.asarray(row) for row in ids]).astype(np.int32)
    return Split(values, np.cumsum(lengths) - lengths, lengths, labels, np.arange(len(ids), dtype=np.uint64))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
