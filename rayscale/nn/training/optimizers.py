"""Optimizers by the name that a study gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.optimization import Adafactor

from rayscale.errors import TrialError
from rayscale.nn.models.lora import adapter_parameters

if TYPE_CHECKING:
    from rayscale.nn.training.job import Job


def make_optimizer(model: PreTrainedModel, job: Job) -> torch.optim.Optimizer:
    """The optimizer of the job; each group has a `factor` by which its rate is multiplied.

    Biases and norms are not decayed: they do not multiply with inputs, and have no scale to keep down. Adafactor takes
    the rate as it is, without scaling it by the weights or the steps. Raises TrialError for an unknown name.
    """
    settings = job.settings
    name, decays = settings.optimizer, {True: settings.weight_decay, False: 0.0}
    # A pooler learns as the body does: it begins with nothing to unlearn (`build_model`).
    body = {id(parameter) for parameter in model.base_model.parameters()}
    added = adapter_parameters(model)
    sorted_out: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for parameter in (weight for weight in model.parameters() if weight.requires_grad):
        factor = job.body_factor if id(parameter) in body else job.head_factor
        sorted_out.setdefault((parameter.ndim > 1, 1.0 if id(parameter) in added else factor), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": parameters, "weight_decay": decays[matrix], "factor": factor}
        for (matrix, factor), parameters in sorted_out.items()
    ]
    rate = job.learning_rate
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=job.objective.betas, fused=True)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum)
    if name == "adafactor":
        return Adafactor(groups, lr=rate, scale_parameter=False, relative_step=False)
    raise TrialError(f"unknown optimizer '{name}'; known: adamw, sgd, adafactor", permanent=True)
