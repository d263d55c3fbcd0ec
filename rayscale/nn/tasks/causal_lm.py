"""Language modelling: cross entropy of the next token at every place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import transformers
from torch import nn
from torch.nn.functional import cross_entropy

from rayscale.nn.objectives import IGNORED, Inputs, Objective, Score

if TYPE_CHECKING:
    from rayscale.nn.group import Group
    from rayscale.text.prepared import Prepared, Split

LARGEST_EXPONENT = 700.0


def targets(split: Split) -> np.ndarray:
    """Every token but the first is one."""
    return split.lengths - 1


def losses(model: nn.Module, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """(summed loss, logits (rows, longest, vocabulary))."""
    logits = model(input_ids=inputs.ids, attention_mask=inputs.mask, use_cache=False).logits.float()
    # Shifting the targets, not the logits, saves a copy of the largest tensor there is.
    wanted = torch.full_like(inputs.ids, IGNORED)
    wanted[:, :-1] = inputs.ids[:, 1:]
    if inputs.mask is not None:
        wanted[:, :-1].masked_fill_(inputs.mask[:, 1:] == 0, IGNORED)
    return cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum"), logits


class _Perplexity:
    """The exponential of the loss: nothing to count."""

    def __init__(self, prepared: Prepared, split: Split) -> None:
        pass

    def add(self, model: nn.Module, inputs: Inputs, outputs: torch.Tensor, rows: np.ndarray) -> None:
        pass

    def finish(self, group: Group, loss: float) -> Score:
        return Score({"perplexity": math.exp(loss)} if loss < LARGEST_EXPONENT else {})


# Language models forget squared gradients sooner than AdamW's default does (Brown et al. 2020, arXiv 2005.14165).
OBJECTIVE = Objective(transformers.AutoModelForCausalLM, targets, losses, _Perplexity, betas=(0.9, 0.95))
