"""Tagging: cross entropy over the tags of all tagged tokens; F1 of entities, or of tags where they mark none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import transformers
from torch import nn
from torch.nn.functional import cross_entropy

from rayscale.nn.metrics import averages, class_table
from rayscale.nn.models.objectives import IGNORED, Inputs, Objective, Score
from rayscale.nn.tasks.rows import count_lists, pad_lists
from rayscale.text.tasks.entities import entities, kind_of, scheme_of, signature

if TYPE_CHECKING:
    from rayscale.nn.ranks import Group
    from rayscale.text.prepared import Prepared, Split


def targets(split: Split) -> np.ndarray:
    """Tagged tokens of each row."""
    tags = split.lists["targets"]
    return count_lists(tags, tags.values != IGNORED)


def extra(split: Split, rows: np.ndarray, width: int) -> dict[str, np.ndarray]:
    """`targets` like the ids."""
    return {"targets": pad_lists(split.lists["targets"], rows, width, IGNORED)}


def losses(model: nn.Module, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """(summed loss, logits (rows, longest, tags))."""
    logits = model(input_ids=inputs.ids, attention_mask=inputs.mask).logits.float()
    wanted = inputs.extra["targets"]
    return cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum"), logits


class _Tags:
    """Counts of each class: how often right, predicted, true. Classes are kinds of entities, or tags."""

    def __init__(self, prepared: Prepared, split: Split) -> None:
        self._labels = prepared.labels
        self._scheme = scheme_of(self._labels)
        kinds = sorted({kind_of(label) for label in self._labels if label != "O"}) if self._scheme else self._labels
        self._kinds = {kind: number for number, kind in enumerate(kinds)}
        self._counts = np.zeros((3, len(self._kinds)))
        self._right = self._all = 0

    def add(self, model: nn.Module, inputs: Inputs, outputs: torch.Tensor, rows: np.ndarray) -> None:
        wanted, guesses = inputs.extra["targets"].cpu().numpy(), outputs.argmax(-1).cpu().numpy()
        for true_row, found_row in zip(wanted, guesses, strict=True):
            tagged = true_row != IGNORED
            true = [self._labels[number] for number in true_row[tagged]]
            predicted = [self._labels[number] for number in found_row[tagged]]
            self._all += len(true)
            self._right += sum(one == other for one, other in zip(true, predicted, strict=True))
            there, claimed = self._things(true), self._things(predicted)
            for count, things in zip(self._counts, (there & claimed, claimed, there), strict=True):
                for kind, *_ in things:
                    count[self._kinds[kind]] += 1

    def _things(self, tags: list[str]) -> set[tuple[str, int, int]]:
        if self._scheme is None:
            return {(tag, place, place) for place, tag in enumerate(tags)}
        return entities(tags, self._scheme)

    def finish(self, group: Group, loss: float) -> Score:
        total = group.add(np.concatenate([self._counts.ravel(), [self._right, self._all]]))
        right, predicted, true = total[:-2].reshape(3, -1)
        accuracy = {"accuracy": float(total[-2] / total[-1])} if total[-1] else {}
        classes = class_table(list(self._kinds), right, predicted, true)
        return Score({**accuracy, **averages(right, predicted, true)}, classes, signature(self._scheme))


OBJECTIVE = Objective(
    transformers.AutoModelForTokenClassification, targets, losses, _Tags, extra=extra, head_per_token=True
)
