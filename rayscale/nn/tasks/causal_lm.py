"""Language modelling: cross entropy of each token given those before it in its window; perplexity and bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from torch import nn
from torch.nn.functional import cross_entropy

from rayscale.nn.models.objectives import IGNORED, Inputs, Objective, Score

if TYPE_CHECKING:
    from rayscale.nn.ranks import Group
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


class _Bits:
    """The loss in other units: its exponential, bits per token, and bits per character, for which these are counted.

    The characters are those that the targets add to the text of their window: all of it but its first token's, which
    has no loss. The end of a document is a target without characters. The bits of models with different tokenizers can
    be compared by character, not by token.
    """

    def __init__(self, prepared: Prepared, split: Split) -> None:
        self._tokenizer = Tokenizer.from_file(str(prepared.tokenizer_folder / "tokenizer.json"))
        self._split = split
        self._targets = self._characters = 0

    def add(self, model: nn.Module, inputs: Inputs, outputs: torch.Tensor, rows: np.ndarray) -> None:
        windows = [window.tolist() for window in self._split.rows(rows)]
        self._targets += sum(map(len, windows)) - len(windows)
        if self._tokenizer.decoder is not None:  # without one, nobody knows the text between two tokens
            self._characters += self._count(windows) - self._count([window[:1] for window in windows])

    def _count(self, rows: Sequence[list[int]]) -> int:
        return sum(map(len, self._tokenizer.decode_batch(rows, skip_special_tokens=True)))

    def finish(self, group: Group, loss: float) -> Score:
        targets, characters = (float(total) for total in group.add([self._targets, self._characters]))
        bits = loss / math.log(2)
        metrics = {"bits_per_token": bits}
        if loss < LARGEST_EXPONENT:
            metrics["perplexity"] = math.exp(loss)
        if characters:
            metrics["bits_per_character"] = bits * targets / characters
        return Score(metrics)


# Language models forget squared gradients sooner than AdamW's default does (Brown et al. 2020, arXiv 2005.14165).
OBJECTIVE = Objective(transformers.AutoModelForCausalLM, targets, losses, _Bits, betas=(0.9, 0.95))
