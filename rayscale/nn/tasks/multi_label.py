"""Multi-label classification: a yes or no for every class, the binary cross entropies of a text added up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import transformers
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from rayscale.nn.metrics import averages, class_table
from rayscale.nn.models.objectives import Inputs, Objective, Score, one_per_row
from rayscale.nn.tasks.rows import pad_lists

if TYPE_CHECKING:
    from rayscale.nn.ranks import Group
    from rayscale.text.prepared import Prepared, Split

_NONE = -1


def extra(split: Split, rows: np.ndarray, width: int) -> dict[str, np.ndarray]:
    """`classes` (rows, most classes of a row): their numbers, then _NONE."""
    classes = split.lists["classes"]
    return {"classes": pad_lists(classes, rows, max(1, int(classes.lengths[rows].max())), _NONE)}


def losses(model: nn.Module, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """(loss summed over texts and classes, logits (rows, classes))."""
    logits = model(input_ids=inputs.ids, attention_mask=inputs.mask).logits.float()
    return binary_cross_entropy_with_logits(logits, _wanted(inputs, logits), reduction="sum"), logits


def _wanted(inputs: Inputs, logits: torch.Tensor) -> torch.Tensor:
    """1 where a row has the class (rows, classes)."""
    classes = inputs.extra["classes"]
    wanted = torch.zeros(len(logits), logits.shape[1] + 1, device=logits.device)  # _NONE writes to the last column
    wanted.scatter_(1, torch.where(classes == _NONE, logits.shape[1], classes), 1.0)
    return wanted[:, :-1]


class _Classes:
    """Counts of each class: how often right, predicted (more likely than not), true; and of rows that are all right."""

    def __init__(self, prepared: Prepared, split: Split) -> None:
        self._labels = prepared.labels
        self._counts = np.zeros((3, len(self._labels)))
        self._exact = self._rows = 0

    def add(self, model: nn.Module, inputs: Inputs, outputs: torch.Tensor, rows: np.ndarray) -> None:
        true, marked_rows = _wanted(inputs, outputs) > 0, outputs > 0
        for count, marked in zip(self._counts, (true & marked_rows, marked_rows, true), strict=True):
            count += marked.sum(0).cpu().numpy()
        self._exact += int((true == marked_rows).all(1).sum())
        self._rows += len(outputs)

    def finish(self, group: Group, loss: float) -> Score:
        total = group.add(np.concatenate([self._counts.ravel(), [self._exact, self._rows]]))
        counts = total[:-2].reshape(3, -1)
        return Score({**averages(*counts, all_classes=True), "exact_match": float(total[-2] / total[-1])},
                     class_table(self._labels, *counts, all_classes=True))  # fmt: skip


OBJECTIVE = Objective(
    transformers.AutoModelForSequenceClassification,
    one_per_row,
    losses,
    _Classes,
    extra=extra,
    config={"problem_type": "multi_label_classification"},
)
