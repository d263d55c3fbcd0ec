"""What a trial will take: seconds and memory, by rule, or by what finished trials of the same kind took."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rayscale.runs.packing import LANE_SECONDS, START_UP_SECONDS, SlotUse, packed_seconds
from rayscale.runs.sweeps import CELL
from rayscale.runs.trial import Trial
from rayscale.system.groups import grouped

# What a trial is assumed to cost until trials of the run were measured; plan shows the basis beside each figure.
FLOP_PER_SECOND = {"cpu": 2.0e10, "cuda": 5.0e13}
SECONDS_PER_STEP = {"cpu": 0.01, "cuda": 0.02}
#: What each further trial on a GPU adds to a second of a trial: on an H100 1.4 s became 3.1 s by fours (docs/LOG.md).
SHARING_SECONDS = 0.4
INLINE_SECONDS = 10.0  # the same without Ray: imports and data preparation

#: Rows at once. On a CPU small micro-batches of sorted rows waste less padding and stay in the cache: measured on texts
#: of 48 tokens in global batches of 32, 8 rows take 0.6 of the time that 32 take. On a GPU nothing was measured.
MICRO_BATCH = {"cpu": 8, "cuda": 64}

#: Encoders that run without padding (nn/attention). Nothing is wasted on rows of other lengths there, so they take
#: more rows at once, up to so many and so many padded tokens. Measured on 42 tokens in the mean: on a CPU 16 rows take
#: 0.8 of the time that 8 take at 128 wide; on an H100 256 rows take 0.42 of what 64 take, in the shape of BERT-large.
UNPADDED = ("bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")
UNPADDED_ROWS = {"cpu": (32, 2048), "cuda": (512, 65_536)}

#: Memory of a worker before it holds a model: on a CPU the record counts the whole process, and Python with torch,
#: transformers and Ray is 630 MB of it (smallest peak of the demo's 30 trials, a model of 31,200 parameters). On a GPU
#: the record counts what torch allocated there.
WORKER_BYTES = {"cpu": 630_000_000, "cuda": 0}


@dataclass(frozen=True)
class Copies:
    """An augmentation as a plan sees it: its name, copies of each row, and the digest of what decides about them."""

    name: str = "none"
    copies: int = 0
    digest: str | None = None


@dataclass(frozen=True)
class Supply:
    """What the text offers: rows for training and their mean length in tokens (an estimate, before tokenising).

    `exact` is False where the rows of large files were estimated; the data's own check comes after preparation then.
    `train_tokens` and `held_out_tokens` (the smaller of validation and test) are those of the tokenizer that makes the
    fewest, None where nobody asked, guessed from the length of the text while `estimated`. `counts` says what became of
    every row: the `data` of plan.json.
    """

    fingerprint: str
    train_rows: int
    mean_tokens: float
    n_labels: int
    exact: bool = True
    held_out_rows: int = 0  # validation and test rows: each trial evaluates all of them
    train_tokens: float | None = None
    held_out_tokens: float | None = None
    estimated: bool = True
    counts: Mapping[str, Any] = field(default_factory=dict)
    guessing_loss: float | None = None  # of a classifier: the entropy of the test labels' shares, where they are known
    augmentations: tuple[Copies, ...] = (Copies(),)  # one at least: each is a cell of every size and seed


@dataclass(frozen=True)
class Planned:
    """A trial and its expected cost; `alone` asks that nothing runs beside it, so that its speed is measured.

    `share` is what it takes of each of its GPUs; 1 unless several trials share one. `peak_memory_bytes` is that of one
    worker, in the memory that the record counts: a process's on a CPU, a GPU's. `trained` are the
    parameters that an optimizer keeps moments of: all, but with adapters.
    """

    trial: Trial
    params: int
    seconds: float
    peak_memory_bytes: int
    basis: str
    alone: bool
    trained: int
    share: float = 1.0

    @property
    def gpu_seconds(self) -> float:
        """Seconds x GPUs (or slots) that it takes."""
        return self.seconds * self.trial.gpus * self.share

    @property
    def cell(self) -> tuple[Any, ...]:
        """What the trials of a sweep of learning rates share."""
        return tuple(getattr(self.trial, name) for name in CELL)

    def row(self) -> dict[str, Any]:
        """The row of `plan --json`."""
        trial = self.trial
        return {
            "trial_id": trial.trial_id,
            "model": trial.model.name,
            "params": self.params,
            "trained_params": self.trained,
            "data_requested": trial.data_requested,
            "gpus": trial.gpus,
            "seed": trial.seed,
            "augment": trial.augment,
            "learning_rate": trial.settings.learning_rate,
            "seconds": self.seconds,
            "gpu_seconds": self.gpu_seconds,
            "peak_memory_bytes": self.peak_memory_bytes,
            "basis": self.basis,
            "alone": self.alone,
            "share": self.share,
        }


@dataclass(frozen=True)
class Measured:
    """What a finished trial took; its `share` of a GPU is as in `Planned`, None where that is not known."""

    trial: Trial
    steps: int
    train_seconds: float
    eval_seconds: float
    share: float | None = 1.0


def cost(trial: Trial, params: int, non_embedding: int, supply: Supply, stored_params: int, trained: int) -> Planned:
    """What the rule says; pairs and cuts are chosen by it alone, so that results do not change the plan.

    `stored_params` are those of the model at the checkpoint's full depth, in memory while it is loaded; 0 without one.
    `trained` are all, or with adapters theirs and the head's.
    """
    kind, settings, device = trial.task.kind, trial.settings, trial.device
    language = trial.data_axis == "tokens"
    vocabulary, width = trial.model.vocabulary or 0, trial.model.width or 0
    length = trial.task.length if language else min(supply.mean_tokens, trial.task.length)
    if kind.windowed:
        length = supply.mean_tokens  # longer ones are read in windows
    evaluated = supply.held_out_rows * (supply.mean_tokens if language else length)
    tokens = trial.data_requested * (1 if language else length)
    tokens *= 1 + trial.copies  # copies are about as long as their rows
    # Forward and backward are 6 FLOP per parameter and token, forward alone 2 (Kaplan et al. 2020, arXiv 2001.08361).
    # Of the backward pass 2 are the gradient of a weight, which frozen ones have no need of.
    twice = settings.gradient_checkpointing
    multiplied = non_embedding + (vocabulary * width if kind.writes else 0)
    learning, work = multiplied, "6 FLOP x parameters"
    if trial.model.lora:
        multiplied, learning = multiplied + trained, trained
        work = "(4 FLOP x frozen + 6 FLOP x trained parameters)"
    passes = (6 if twice else 4) * multiplied + 2 * learning
    flops = passes * tokens * settings.epochs + 2 * multiplied * evaluated
    seconds = flops / FLOP_PER_SECOND[device] / trial.gpus + steps_of(trial) * SECONDS_PER_STEP[device]
    basis = f"rule: {work} x tokens at an assumed speed, plus evaluation and time per step"
    rows = micro_batch_rows(trial)
    # A layer that is computed twice keeps its input; of one at a time there is all.
    kept = trial.model.layers + 16 if twice else trial.model.layers * 16
    activations = 4 * rows * length * (width or 256) * (kept + 4)
    logits = 12 * rows * length * vocabulary if kind.writes else 0
    # Weights, gradients and two moments of 4 bytes each, of frozen weights no more than these; a checkpoint's own ones
    # beside the model made from them.
    frozen = params if trial.model.lora else 0
    memory = WORKER_BYTES[device] + 16 * trained + 4 * (frozen + stored_params) + activations + logits
    return Planned(trial, params, float(seconds), int(memory), basis, False, trained)


def share_gpus(planned: Planned, trials: int) -> Planned:
    """The estimate where so many trials share a GPU: each is slower, and costs its share."""
    if trials == 1:
        return planned
    slower = 1 + SHARING_SECONDS * (trials - 1)
    return replace(planned, seconds=planned.seconds * slower, share=1 / trials)


def micro_batch_rows(trial: Trial) -> int:
    """The most rows that a worker computes at once, where memory suffices for them."""
    rows = MICRO_BATCH[trial.device]
    if trial.model.family in UNPADDED:
        most, tokens = UNPADDED_ROWS[trial.device]
        rows = max(rows, min(most, tokens // trial.task.length))
    return min(rows, -(-trial.settings.global_batch // trial.gpus))


def steps_of(trial: Trial) -> int:
    """Optimizer steps of a whole trial."""
    windows = trial.data_axis == "tokens"
    rows = trial.data_requested // trial.task.length if windows else trial.data_requested
    return trial.settings.epochs * -(-rows * (1 + trial.copies) // trial.settings.global_batch)


def learn(planned: Sequence[Planned], measured: Sequence[Measured]) -> list[Planned]:
    """The estimates by what finished trials took that differ in data size and seed only, at most.

    Trials that had a GPU to themselves tell nothing of those that share one, nor the other way round.
    Training is scaled by the number of steps; evaluation is of the same rows, whatever the data size.
    """
    by_kind = grouped((_kind(run.trial, run.share), run) for run in measured)
    alike = ((cell, by_kind.get(_kind(cell.trial, cell.share))) for cell in planned)
    return [_learnt(cell, runs) if runs else cell for cell, runs in alike] if by_kind else list(planned)


def _learnt(planned: Planned, alike: Sequence[Measured]) -> Planned:
    step_seconds = statistics.median(run.train_seconds / run.steps for run in alike)
    eval_seconds = statistics.median(run.eval_seconds for run in alike)
    seconds = step_seconds * steps_of(planned.trial) + eval_seconds
    number = f"{len(alike)} finished trial{'s' * (len(alike) > 1)}"
    return replace(planned, seconds=seconds, basis=f"measured: {number} of this model, setting and GPU count")


def _kind(trial: Trial, share: float | None) -> str:
    """What the time of a step and of the evaluation depends on."""
    keys = ("epochs", "global_batch", "precision", "gradient_checkpointing", "compile")
    settings = [getattr(trial.settings, key) for key in keys]
    data = (trial.task.model_dump(), trial.data_fingerprint, trial.augment_digest)
    where = (trial.device, trial.gpus, trial.threads, share)
    return json.dumps((trial.model.identity, data, settings, where), sort_keys=True)


def wall_seconds(planned: Sequence[Planned], slots: int, executor: str = "lanes") -> float:
    """Wall seconds of a whole run, start-up included; inline trials run one after the other, and start no lane."""
    pieces = [SlotUse(p.trial.gpus, p.seconds, p.alone) for p in planned]
    if executor == "inline":
        return INLINE_SECONDS + packed_seconds(pieces, 1)
    lanes = len({piece.gpus for piece in pieces})
    return START_UP_SECONDS + LANE_SECONDS * max(0, lanes - 1) + packed_seconds(pieces, slots)
