"""Evaluation: every rank takes its batches of a split, sums are added over ranks, and only then divided."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from rayscale.nn import batches
from rayscale.nn.job import Job

# Padded tokens per batch: on CPUs the logits of more fall out of the cache (measured: 4,096 takes 5 times as long).
TOKENS = {"cpu": 1024, "cuda": 8192}


def evaluate(
    model: nn.Module, job: Job, split_name: str, *, rows: np.ndarray | None = None, beat: Callable[[], None]
) -> tuple[float, np.ndarray | None]:
    """(mean loss per target, confusion matrix) over `rows` of a split (None: all), the same on every rank.

    The matrix has shape (labels, labels), rows the true ones; it is None for tasks without labels. `beat` is called
    after every batch. The model is left in evaluation mode.
    """
    group, split = job.group, job.prepared.split(split_name)
    rows, lengths = np.arange(len(split)) if rows is None else rows, split.lengths
    classes = len(job.prepared.labels) if job.task_type == "sequence-classification" else 0
    loss_sum = torch.zeros((), dtype=torch.float64, device=group.device)
    counts = torch.zeros(classes * classes, dtype=torch.int64, device=group.device)
    # Where memory was too small for a micro-batch, it may be for these batches too.
    tokens = TOKENS[group.device.type] * job.micro_batch // job.usual_micro_batch
    model.eval()
    with torch.inference_mode():
        for chosen in batches.cut_evaluation(rows, lengths, group.rank, group.world_size, tokens):
            inputs = job.to_device(split, chosen)
            with job.autocast():
                loss, logits = job.objective.losses(model, inputs)
            loss_sum += loss.double()
            if classes and inputs.labels is not None:
                counts += torch.bincount(inputs.labels * classes + logits.argmax(-1), minlength=classes * classes)
            beat()
    targets = float(job.objective.targets(lengths[rows]).sum())
    total = group.add(np.concatenate([[loss_sum.item()], counts.cpu().numpy()]))
    return float(total[0]) / targets, total[1:].reshape(classes, classes) if classes else None
