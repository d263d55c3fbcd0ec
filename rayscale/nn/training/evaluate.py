"""Evaluation: every rank takes its batches of a split, sums are added over ranks, and only then divided."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from rayscale.nn.devices import autocast
from rayscale.nn.models.objectives import Score
from rayscale.nn.training import batches
from rayscale.nn.training.job import Job

# Padded tokens per batch: on CPUs the logits of more fall out of the cache (measured: 4,096 takes 5 times as long).
TOKENS = {"cpu": 1024, "cuda": 8192}


def evaluate(
    model: nn.Module,
    job: Job,
    split_name: str,
    *,
    rows: np.ndarray | None = None,
    beat: Callable[[], None],
    scored: bool = False,
    as_saved: bool = False,
) -> tuple[float, Score | None]:
    """(mean loss per target, metrics if `scored`) over `rows` of a split (None: all), the same on every rank.

    `beat` is called after every batch. With `as_saved` the numbers are those of the model that is saved, in float32
    whatever precision it is trained in (on a GPU multiplied in TF32, unless fp32 was asked for). The model is
    left in evaluation mode.
    """
    group, split = job.group, job.prepared.split(split_name)
    rows, lengths = np.arange(len(split)) if rows is None else rows, split.lengths
    tally = job.objective.tally(job.prepared, split) if scored else None
    loss_sum = torch.zeros((), dtype=torch.float64, device=group.device)
    # Where memory was too small for a micro-batch, it may be for these batches too.
    tokens = TOKENS[group.device.type] * job.micro_batch // job.usual_micro_batch
    model.eval()
    precision = "fp32" if as_saved else job.ready.precision
    with torch.inference_mode():
        parts = batches.cut_evaluation(rows, lengths, group.rank, group.world_size, tokens, job.reads_padding)
        for chosen in split.ahead(parts, lambda part: part):
            inputs = job.to_device(split, chosen)
            with autocast(group.device, precision):
                summed, outputs = job.objective.losses(model, inputs)
                if tally is not None:
                    tally.add(model, inputs, outputs, chosen)
            loss_sum += summed.double()
            beat()
    targets = float(job.objective.targets(split)[rows].sum())
    loss = float(group.add([loss_sum.item()])[0]) / targets
    return loss, tally.finish(group, loss) if tally is not None and math.isfinite(loss) else None
