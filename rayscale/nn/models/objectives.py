"""What a task asks of a model: its head, how many targets a row has, the summed loss of a padded batch, the metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn

from rayscale.plan.parameters import training_flops
from rayscale.study.tasks import part_of

if TYPE_CHECKING:
    from rayscale.nn.models.size import Size
    from rayscale.nn.ranks import Group
    from rayscale.text.prepared import Prepared, Split

IGNORED = -100
#: The extra that holds the lengths (windows,) of windows: the model's mask of them comes in its place. OWNERS: the row
#: that each is of, by its place in the batch.
WINDOWS, OWNERS = "windows", "owners"


@dataclass(frozen=True)
class Inputs:
    """A padded batch on its device: ids (rows, width), mask like ids or None without padding, labels (rows,) or None.

    `extra` holds what else the task wants, by name. A model that runs unpadded gets a `Packing` in the place of a mask.
    `keys` (rows,): by which dropout goes, see `attention.dropout`; None where nothing is dropped, or not by rows.
    """

    ids: torch.Tensor
    mask: Any
    labels: torch.Tensor | None
    extra: Mapping[str, Any] = field(default_factory=dict)
    keys: torch.Tensor | None = None


class Tally(Protocol):
    """Counts what the metrics of a task need, batch by batch, on every rank."""

    def add(self, model: nn.Module, inputs: Inputs, outputs: torch.Tensor, rows: np.ndarray) -> None:
        """Count a batch: what the loss was computed from, and the rows' numbers in the split."""

    def finish(self, group: Group, loss: float) -> Score:
        """The metrics over all ranks, every one of which must call it; `loss` is the mean per target."""


@dataclass(frozen=True)
class Score:
    """Metrics by column of the trial table; `classes`: precision, recall and F1 of each class (see `class_table`).

    `signature` says by which rules they were counted, where the task knows several: as sacrebleu's signatures do,
    scores under different ones are not comparable.
    """

    metrics: Mapping[str, float]
    classes: tuple[Mapping[str, Any], ...] = ()
    signature: str | None = None


def longest_row(split: Split) -> int:
    """Tokens of the longest input: that of a row."""
    return int(split.lengths.max(initial=0))


def plain_flops(size: Size, split: Split, rows: np.ndarray) -> float:
    """One pass, forward and backward, over these rows by a model that reads each token once."""
    return flops_of_lengths(size, split.lengths[rows], len(rows))


def flops_of_lengths(size: Size, lengths: np.ndarray, rows: int) -> float:
    """One pass over this number of rows, in pieces of these lengths; attention stays within a piece."""
    lengths = lengths.astype(np.int64)
    tokens, pairs = int(lengths.sum()), int((lengths**2).sum())
    return training_flops(size.token_params, size.example_params, size.layers, size.width, tokens, pairs, rows)


@dataclass(frozen=True)
class Objective:
    """A task as the training loop sees it.

    `head` is the transformers Auto class that has the task's head. `targets(split)`: targets of each row, which losses
    are divided by. `losses(model, inputs)`: (summed loss in nats, what it was computed from, such as logits).
    `tally(prepared, split)` counts for the metrics. `extra(split, rows, width)`: arrays of int64 that a batch of these
    rows, padded to `width`, carries besides ids, mask and labels. `betas` are AdamW's. `head_per_token`: the new head
    works on every token. `config` goes into the model's config, for those who load it.
    `flops(size, split, rows)`: floating-point operations of one pass over rows. `longest(split)`: tokens of the longest
    input of the model. `writing(prepared)`: the settings of `generate` with which what it writes is scored.
    """

    head: Any
    targets: Callable[[Split], np.ndarray]
    losses: Callable[[nn.Module, Inputs], tuple[torch.Tensor, torch.Tensor]]
    tally: Callable[[Prepared, Split], Tally]
    extra: Callable[[Split, np.ndarray, int], dict[str, np.ndarray]] = lambda split, rows, width: {}
    betas: tuple[float, float] = (0.9, 0.999)
    head_per_token: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    flops: Callable[[Size, Split, np.ndarray], float] = plain_flops
    longest: Callable[[Split], int] = longest_row
    writing: Callable[[Prepared], dict[str, Any]] = lambda prepared: {}

    def pass_flops(self, size: Size, split: Split, rows: np.ndarray) -> float:
        """`flops` of one pass, frozen weights considered: 4 per parameter and token instead of 6.

        Forward, the gradient of what goes in and that of the weight are 2 each (Kaplan et al. 2020, arXiv 2001.08361);
        a frozen weight has no use for the last (Schulman et al. 2025, "LoRA Without Regret": 2/3 of a full pass).
        """
        whole = self.flops(size, split, rows)
        return whole - self.flops(size.frozen, split, rows) / 3 if size.frozen else whole


def find_objective(task_type: str) -> Objective:
    """Raises InputError for an unknown task."""
    objective: Objective = part_of("nn", task_type, "OBJECTIVE")
    return objective


def bare(model: nn.Module) -> Any:
    """The model itself, where DistributedDataParallel hides it."""
    return getattr(model, "module", model)


def one_per_row(split: Split) -> np.ndarray:
    """One target for each row."""
    return np.ones_like(split.lengths)


TYPES = "token_type_ids"


def kinds_of(model: nn.Module) -> int:
    """How many kinds of tokens (texts of a pair) the model tells apart; 0 if it has no table for them."""
    return int(getattr(bare(model).config, "type_vocab_size", 0) or 0)
