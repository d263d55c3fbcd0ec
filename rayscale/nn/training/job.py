"""A job: a trial resolved against its data, its model and its device; the same on every rank."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rayscale.errors import DataError, TrialError
from rayscale.nn import devices
from rayscale.nn.attention.dropout import NOT_BY_ROW, row_keys, window_keys
from rayscale.nn.attention.masks import UNMASKED, leave_out_masks, spread_masks
from rayscale.nn.attention.unpadded import can_unpad, is_encoder, pack, unpad
from rayscale.nn.models.build import padding_token
from rayscale.nn.models.layers import compile_layers, recompute_layers
from rayscale.nn.models.objectives import OWNERS, WINDOWS, Inputs, Objective, find_objective
from rayscale.nn.models.size import measure_size
from rayscale.nn.models.used_rows import rest_unused
from rayscale.nn.ranks import Group
from rayscale.nn.training import batches
from rayscale.nn.training.kept_model import FREE, KeptModel, ModelRecipe, ReadyModel
from rayscale.plan.estimate import micro_batch_rows
from rayscale.plan.heads import PADDED_LEFT, READS_PADDING
from rayscale.plan.learning_rates import resolve_adapter_rate, resolve_head_factor, resolve_rate
from rayscale.study.tasks import find_kind

if TYPE_CHECKING:
    from rayscale.runs.trial import Trial
    from rayscale.study.training import TrialSettings
    from rayscale.text.prepared import Prepared, Split


@dataclass(frozen=True)
class Job:
    """All that the training loop needs to know; `rows` are numbers in the training split."""

    trial: Trial
    prepared: Prepared
    objective: Objective
    group: Group
    ready: ReadyModel
    rows: np.ndarray
    micro_batch: int
    usual_micro_batch: int  # before memory turned out too small for it
    steps: int
    learning_rate: float
    head_factor: float
    body_factor: float  # of what learns in the body beside adapters: a pooler
    longest: int  # tokens of the longest input: beyond it nothing is padded, a model may have no more positions
    reads_padding: bool  # see heads.READS_PADDING
    padded_left: bool  # see heads.PADDED_LEFT
    width: int  # to which batches are padded at least: on a GPU all of a model that is not padded inside are alike

    @property
    def settings(self) -> TrialSettings:
        """Those of training."""
        return self.trial.settings

    @property
    def train_lengths(self) -> np.ndarray:
        """Tokens of every row of the training split (int64)."""
        return self.prepared.split("train").lengths

    def share(self, batch: np.ndarray) -> list[batches.MicroBatch]:
        """This rank's micro-batches of a global batch."""
        group = self.group
        return batches.share_global_batch(batch, self.train_lengths, self.micro_batch, group.rank, group.world_size)

    @property
    def drops_by_row(self) -> bool:
        """Whether dropout goes by row, so that it is the same on any number of workers.

        Not on GPUs: attention drops its weights within a kernel, which draws them by their place in the batch.
        """
        by_batch = self.reads_padding or self.padded_left or self.trial.model.family in NOT_BY_ROW
        return self.group.device.type == "cpu" and not by_batch

    def to_device(self, split: Split, rows: np.ndarray, least: int = 0, key: int | None = None) -> Inputs:
        """The rows of a split as one batch on the device, at least `least` wide; a multiple of 8 on GPUs.

        With the `key` of a step dropout goes by row.
        """
        device = self.group.device
        multiple = 8 if device.type == "cuda" and not self.reads_padding else 1
        ids, lengths = batches.pad_rows(split, rows, padding_token(self.ready.model), multiple, least, self.longest)

        def send(given: np.ndarray) -> torch.Tensor:
            tensor = torch.from_numpy(given)
            return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

        def mask(lengths: np.ndarray, width: int) -> Any:
            if self.ready.unpadded:
                return pack(lengths, width, device, fill=device.type == "cuda")
            full = int(lengths.min()) == width
            return None if full else send(moved((np.arange(width) < lengths[:, None]).astype(np.int64)))

        def moved(padded: np.ndarray) -> np.ndarray:
            return batches.move_right(padded, lengths) if self.padded_left else padded

        labels = None if split.labels is None else send(np.asarray(split.labels[rows], dtype=np.int64))
        extra = self.objective.extra(split, rows, ids.shape[1])
        sent: dict[str, Any] = {name: send(column) for name, column in extra.items() if name not in (WINDOWS, OWNERS)}
        keys = None if key is None else row_keys(key, rows)
        if WINDOWS in extra:  # the model reads these, not the rows
            sent[WINDOWS] = mask(extra[WINDOWS], extra["places"].shape[1])
            keys = None if keys is None else window_keys(keys, extra[OWNERS])
            return Inputs(send(ids), None, labels, sent, None if keys is None else send(keys))
        masked = mask(lengths, ids.shape[1])
        return Inputs(send(moved(ids)), masked, labels, sent, None if keys is None else send(keys))


def prepare_job(
    trial: Trial,
    prepared: Prepared,
    checkpoint: str | None,
    group: Group,
    most: int | None = None,
    kept: KeptModel | None = None,
) -> Job:
    """Builds the model on its device, or takes the `kept` one, and resolves what the trial leaves open: rate,
    micro-batch (`most` at most, where memory did not suffice for the usual one), precision.

    Raises DataError for a subset or test split without rows and for too long rows, InputError as `build_model` does.
    """
    task_type, settings = trial.task.type, trial.settings
    train, test = prepared.split("train"), prepared.split("test")
    rows = np.asarray(prepared.subset(trial.data_axis, trial.data_requested, trial.seed))
    for name, length in (("training subset", len(rows)), ("test split", len(test))):
        if not length:
            raise DataError(f"the {name} has no rows; give more text or a larger data size", code="too_little_data")
    objective = find_objective(task_type)
    parts = {name: objective.targets(prepared.split(name)) for name in ("validation", "test")}
    for name, targets in {"training subset": objective.targets(train)[rows], **parts}.items():
        if len(targets) and not targets.sum():
            text = f"no row of the {name} has a target within task.max_length ({trial.task.max_length} tokens)"
            raise DataError(f"{text}; raise it", code="no_targets")
    longest = max(objective.longest(s) for s in (train, prepared.split("validation"), test))
    allowed = trial.task.max_length or longest
    if longest > allowed:
        text = f"a row has {longest} tokens, task.max_length is {allowed}; prepare the data again"
        raise DataError(text, code="too_long")
    needs = {
        "labels": prepared.labels,
        "vocab_size": prepared.vocab_size,
        "max_length": allowed if trial.model.kind == "family" else longest,
        "token_ids": prepared.token_ids,
        "checkpoint": checkpoint,
    }
    fixed = {name: value for name, value in trial.training.items() if name not in FREE}
    recipe = ModelRecipe(trial.model, trial.task, fixed, needs, group.device)
    ready = kept.take(recipe, trial.seed, prepared) if kept is not None else None
    ready = ready or _make_ready(recipe, trial, prepared, group, objective)
    size, model_type = ready.size, ready.model.config.model_type
    global_batch = min(settings.global_batch, len(rows))
    usual = min(math.ceil(global_batch / group.world_size), micro_batch_rows(trial))
    pretrained, setting = trial.model.kind == "pretrained", settings.learning_rate
    steps = settings.epochs * math.ceil(len(rows) / global_batch)
    body_rate = resolve_rate(
        setting,
        task_type=task_type,
        pretrained=pretrained,
        width=size.width,
        layers=size.layers,
        global_batch=settings.global_batch,
        batch_tokens=round(settings.global_batch * float(train.lengths[rows].mean())),
        steps=steps,
    )
    rate = resolve_adapter_rate(setting, body_rate) if trial.model.lora else body_rate
    head = resolve_head_factor(setting, task_type=task_type, pretrained=pretrained, layers=size.layers)
    return Job(
        trial=trial,
        prepared=prepared,
        objective=objective,
        group=group,
        ready=ready,
        rows=rows,
        micro_batch=min(usual, most or usual),
        usual_micro_batch=usual,
        steps=steps,
        learning_rate=rate,
        # What learns beside adapters learns as fast as beside a body that learns.
        head_factor=head * body_rate / rate,
        body_factor=body_rate / rate,
        longest=longest,
        reads_padding=model_type in READS_PADDING,
        padded_left=model_type in PADDED_LEFT and find_kind(task_type).labels_texts,
        width=longest if ready.unpadded and group.device.type == "cuda" else 0,
    )


def _make_ready(
    recipe: ModelRecipe, trial: Trial, prepared: Prepared, group: Group, objective: Objective
) -> ReadyModel:
    """A new model on its device, changed as it is trained there."""
    settings, cuda = trial.settings, group.device.type == "cuda"
    model = recipe.build(trial.seed)
    model.to(device=group.device)  # type: ignore[call-arg]
    size = measure_size(model, objective.head_per_token)
    precision = devices.resolve_precision(settings.precision, group, size.width)
    # torch.compile makes no backward pass of the kernel that attends to float32 without padding (PyTorch 2.11).
    unpadded = can_unpad(model) and (precision == "bf16" or not settings.compile)
    if unpadded:
        unpad(model)
    elif is_encoder(model):
        spread_masks(model)
    elif cuda and model.config.model_type in UNMASKED:
        leave_out_masks(model)
    if settings.gradient_checkpointing:
        recompute_layers(model)
    if settings.compile:
        if not cuda:
            text = "training.compile is for CUDA devices, and this is a CPU, where it gains nothing; set it to false"
            raise TrialError(text, code="no_compile", permanent=True)
        compile_layers(model)
    if settings.optimizer == "adamw":
        rest_unused(model, prepared)
    return ReadyModel(recipe, model, size, unpadded, precision)
