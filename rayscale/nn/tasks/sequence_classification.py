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
from rayscale.nn.models.objectives import TYPES, Inputs, Objective, Score, kinds_of, one_per_row

if TYPE_CHECKING:
    from rayscale.nn.ranks import Group
    from rayscale.text.prepared import Prepared, Split


def extra(split: Split, rows: np.ndarray, width: int) -> dict[str, np.ndarray]:
    """For pairs, which tokens belong to the second text (1) and which do not (0)."""
    if "second" not in split.numbers:
        return {}
    places, ends = np.arange(width), split.lengths[rows]
    inside = (places >= split.numbers["second"][rows][:, None]) & (places < ends[:, None])
    return {TYPES: inside.astype(np.int64)}


def losses(model: nn.Module, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """(summed loss, logits (rows, classes)). Raises InputError for rows without labels."""
    if inputs.labels is None:
        raise InputError("the rows of this split have no labels; prepare the data again", code="no_labels")
    kinds = {} if kinds_of(model) < 2 else {name: value for name, value in inputs.extra.items() if name == TYPES}
    logits = model(input_ids=inputs.ids, attention_mask=inputs.mask, **kinds).logits.float()
    return cross_entropy(logits, inputs.labels, reduction="sum"), logits


class _Confusion:
    """Counts of (true class, predicted class)."""

    def __init__(self, prepared: Prepared, split: Split) -> None:
        self._labels = prepared.labels
        self._counts: torch.Tensor | None = None

    def add(self, model: nn.Module, inputs: Inputs, outputs: torch.Tensor, rows: np.ndarray) -> None:
        assert inputs.labels is not None
        classes = len(self._labels)
        counts = torch.bincount(inputs.labels * classes + outputs.argmax(-1), minlength=classes * classes)
        self._counts = counts if self._counts is None else self._counts + counts

    def finish(self, group: Group, loss: float) -> Score:
        classes = len(self._labels)
        mine = np.zeros(classes * classes) if self._counts is None else self._counts.cpu().numpy()
        confusion = group.add(mine).reshape(classes, classes)
        right, predicted, true = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
        return Score(classification_metrics(confusion), class_table(self._labels, right, predicted, true))


OBJECTIVE = Objective(
    transformers.AutoModelForSequenceClassification,
    one_per_row,
    losses,
    _Confusion,
    extra=extra,
    config={"problem_type": "single_label_classification"},  # a checkpoint may come from another one
)
