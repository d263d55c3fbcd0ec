"""Classification of whole texts: cross entropy over the classes; the metrics of the confusion matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import transformers
from torch import nn
from torch.nn.functional import cross_entropy

from rayscale.errors import InputError
from rayscale.nn.metrics import class_table, classification_metrics
from rayscale.nn.objectives import Inputs, Objective, Score, one_per_row

if TYPE_CHECKING:
    from rayscale.nn.group import Group
    from rayscale.text.prepared import Prepared, Split


def losses(model: nn.Module, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """(summed loss, logits (rows, classes)). Raises InputError for rows without labels."""
    if inputs.labels is None:
        raise InputError("the rows of this split have no labels; prepare the data again", code="no_labels")
    logits = model(input_ids=inputs.ids, attention_mask=inputs.mask).logits.float()
    return cross_entropy(logits, inputs.labels, reduction="sum"), logits


class _Confusion:
    """Counts of (true class, predicted class)."""

    def __init__(self, prepared: Prepared, split: Split) -> None:
        self._labels = prepared.labels
        self._counts: torch.Tensor | None = None

    def add(self, model: nn.Module, inputs: Inputs, outputs: torch.Tensor, rows: np.ndarray) -> None:
        assert inputs.labels is not None
        classes = len(self._labels)
        found = torch.bincount(inputs.labels * classes + outputs.argmax(-1), minlength=classes * classes)
        self._counts = found if self._counts is None else self._counts + found

    def finish(self, group: Group, loss: float) -> Score:
        classes = len(self._labels)
        mine = np.zeros(classes * classes) if self._counts is None else self._counts.cpu().numpy()
        confusion = group.add(mine).reshape(classes, classes)
        right, predicted, true = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
        return Score(classification_metrics(confusion), class_table(self._labels, right, predicted, true))


OBJECTIVE = Objective(transformers.AutoModelForSequenceClassification, one_per_row, losses, _Confusion)
