"""One optimizer step: forward and backward passes over a rank's share of a global batch, then the update."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rayscale.nn.attention.dropout import FLAT, Masks, by_row, step_key
from rayscale.nn.attention.masks import UNMASKED
from rayscale.nn.attention.unpadded import Packing
from rayscale.nn.devices import autocast
from rayscale.nn.models.objectives import WINDOWS, Inputs, bare
from rayscale.nn.training.cuda_graphs import Pass, Recorder

if TYPE_CHECKING:
    from rayscale.nn.training.heartbeat import Heartbeat
    from rayscale.nn.training.job import Job

CLIP_NORM = 1.0


def make_pass(parallel: nn.Module, job: Job) -> Pass:
    """Forward and backward pass of a micro-batch."""
    flat = bare(parallel).config.model_type in FLAT
    # Not the job itself: a recorder keeps what is made here, and a job keeps the model with its recorder.
    losses, device, precision = job.objective.losses, job.group.device, job.ready.precision

    def compute(inputs: Inputs, factor: float | torch.Tensor) -> torch.Tensor:
        with by_row(_masks(inputs, flat)):  # what is computed once more in the backward pass, too
            with autocast(device, precision):
                loss, _ = losses(parallel, inputs)
            (loss * factor).backward()
        return loss.detach()

    return compute


def _masks(inputs: Inputs, flat: bool) -> Masks | None:
    """Those of dropout where it goes by row; `flat`: the tokens of all rows lie in one dimension."""
    if inputs.keys is None:
        return None
    packing = inputs.extra.get(WINDOWS, inputs.mask)
    if not isinstance(packing, Packing):
        return Masks(inputs.keys, width=inputs.ids.shape[1] if flat else None)
    tokens = packing.numbers(inputs.keys)
    return Masks(inputs.keys, (tokens, tokens[packing.firsts]))


def _key(job: Job, step: int) -> int | None:
    """The key of a step, None where dropout does not go by row."""
    return step_key(job.trial.seed, step) if job.drops_by_row else None


def take_step(
    compute: Pass,
    parallel: nn.Module,
    optimizer: torch.optim.Optimizer,
    job: Job,
    step: int,
    batch: np.ndarray,
    targets: float,
    rate: float,
    pulse: Heartbeat,
) -> torch.Tensor:
    """Optimizer step number `step`; returns this rank's summed loss (no synchronisation with the device)."""
    group, split, parts = job.group, job.prepared.split("train"), job.share(batch)
    key = _key(job, step)
    loss_sum = torch.zeros((), dtype=torch.float64, device=group.device)
    for number, part in enumerate(parts):
        unfinished = isinstance(parallel, DistributedDataParallel) and number + 1 < len(parts)
        if key is not None:
            torch.default_generator.manual_seed(key)  # what all rows have in common all workers draw alike
        with parallel.no_sync() if unfinished else contextlib.nullcontext():  # type: ignore[operator]
            # DDP takes the mean over ranks; the sum is wanted. A batch may have lost all its targets to `max_length`.
            factor = part.weight * group.world_size / max(targets, 1.0)
            loss = compute(job.to_device(split, part.rows, job.width, key), factor)
        loss_sum += loss.double() * part.weight
        pulse.beat()
    nn.utils.clip_grad_norm_(parallel.parameters(), CLIP_NORM)
    for settings in optimizer.param_groups:
        settings["lr"] = rate * settings["factor"]
    optimizer.step()
    optimizer.zero_grad(set_to_none=not isinstance(compute, Recorder))
    return loss_sum


def order_buckets(parallel: DistributedDataParallel, job: Job, batch: np.ndarray) -> None:
    """One pass through the model, of which nothing stays but the order of its gradients.

    After its first backward pass DDP packs gradients anew, in the order in which they came. With three ranks and more
    that is another order of sums, so a trial that resumes must have seen one pass, too.
    """
    rows = job.share(batch)[-1].rows
    make_pass(parallel, job)(job.to_device(job.prepared.split("train"), rows, key=_key(job, 0)), 1.0)
    parallel.zero_grad(set_to_none=True)


def can_record(job: Job, model_type: str) -> bool:
    """Whether passes can be recorded: on a GPU, without waiting for it, by a lone worker, nothing computed twice."""
    known = (job.ready.unpadded or model_type in UNMASKED) and job.trial.model.lora is None  # adapters were not tried
    twice = job.settings.gradient_checkpointing  # sets and reads the state of generators
    return job.group.device.type == "cuda" and job.group.world_size == 1 and known and not twice
