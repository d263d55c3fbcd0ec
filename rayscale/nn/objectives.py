"""What a task asks of a model: how many targets a row has, and the summed loss of a padded batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from rayscale.errors import InputError

IGNORED = -100


@dataclass(frozen=True)
class Inputs:
    """A padded batch on its device: ids (rows, longest), mask like ids or None without padding, labels (rows,)."""

    ids: torch.Tensor
    mask: torch.Tensor | None
    labels: torch.Tensor | None


@dataclass(frozen=True)
class Objective:
    """`targets(lengths)`: targets per row. `losses(model, inputs)`: (summed loss in nats, logits), logits of shape
    (rows, classes) or (rows, longest, vocabulary)."""

    targets: Callable[[np.ndarray], np.ndarray]
    losses: Callable[[nn.Module, Inputs], tuple[torch.Tensor, torch.Tensor]]


def find_objective(task_type: str) -> Objective:
    """Raises InputError for an unknown task."""
    if task_type not in OBJECTIVES:
        raise InputError(f"unknown task '{task_type}'; known: {', '.join(OBJECTIVES)}", code="unknown_task")
    return OBJECTIVES[task_type]


def _one_per_row(lengths: np.ndarray) -> np.ndarray:
    return np.ones_like(lengths)


def _one_per_next_token(lengths: np.ndarray) -> np.ndarray:
    return lengths - 1


def _classify(model: nn.Module, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    if inputs.labels is None:
        raise InputError("the rows of this split have no labels; prepare the data again", code="no_labels")
    logits = model(input_ids=inputs.ids, attention_mask=inputs.mask).logits.float()
    return cross_entropy(logits, inputs.labels, reduction="sum"), logits


def _predict_next(model: nn.Module, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    logits = model(input_ids=inputs.ids, attention_mask=inputs.mask).logits.float()
    # Shifting the targets, not the logits, saves a copy of the largest tensor there is.
    targets = torch.full_like(inputs.ids, IGNORED)
    targets[:, :-1] = inputs.ids[:, 1:]
    if inputs.mask is not None:
        targets[:, :-1].masked_fill_(inputs.mask[:, 1:] == 0, IGNORED)
    return cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"), logits


OBJECTIVES = {
    "sequence-classification": Objective(_one_per_row, _classify),
    "causal-lm": Objective(_one_per_next_token, _predict_next),
}
