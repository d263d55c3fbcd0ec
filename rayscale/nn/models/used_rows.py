"""The rows of an embedding table that a trial reads; the others rest until it is saved.

A token that occurs in no text of the trial gets no gradient: AdamW only decays its row, by factors known beforehand.
Small models on large vocabularies otherwise spend most of a step on rows of zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn.functional import embedding
from transformers import PreTrainedModel

from rayscale.nn.models.build import padding_token

if TYPE_CHECKING:
    from rayscale.text.prepared import Prepared

# Above this share of the table nothing is gained.
LARGEST_SHARE = 0.75


class UsedRows(nn.Module):
    """Stands for an embedding table; `weight` has the rows `used` (numbers of tokens, ascending) of it."""

    def __init__(self, table: nn.Embedding, used: torch.Tensor) -> None:
        super().__init__()
        self.table = [table]  # in a list: its rows are no parameters of the model while this stands for it
        self.weight = nn.Parameter(table.weight.detach()[used].clone())
        place = torch.full((table.num_embeddings,), -1, device=used.device)
        place[used] = torch.arange(len(used), device=used.device)
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("used", used, persistent=False)
        self.padding = None if table.padding_idx is None else int(place[table.padding_idx])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings of these tokens, all of which must be among the used ones."""
        return embedding(self.place[ids], self.weight, self.padding)  # type: ignore[index]


def rest_unused(model: PreTrainedModel, prepared: Prepared) -> None:
    """Let the model's embedding table hold only the tokens of these texts, where that leaves out enough of it.

    Models that write text keep the whole table: it is tied to their output, or read for what they write.
    """
    table = input_table(model)
    used = find_used(model, table, prepared)
    if used is not None:
        assert isinstance(table, nn.Embedding)
        model.set_input_embeddings(UsedRows(table, torch.from_numpy(used).to(table.weight.device)))


def input_table(model: PreTrainedModel) -> nn.Module | None:
    """The embedding table of the model's tokens; None where it has none of its own, as those that read characters."""
    try:
        return model.get_input_embeddings()
    except NotImplementedError:
        return None


def find_used(model: PreTrainedModel, table: nn.Module | None, prepared: Prepared) -> np.ndarray | None:
    """The tokens of these texts, ascending, where the other rows of this table are to rest; else None."""
    if type(table) is not nn.Embedding or model.get_output_embeddings() is not None:
        return None
    if not table.weight.requires_grad:  # beside adapters nothing is spent on it
        return None
    used = np.zeros(table.num_embeddings, dtype=bool)
    # Besides those of the texts a model reads what pads its batches, and what it puts before or between texts itself.
    named = (value for key, value in model.config.to_dict().items() if key.endswith("_token_id"))
    for token in (padding_token(model), table.padding_idx, *named):
        if isinstance(token, int) and 0 <= token < len(used):
            used[token] = True
    for name in ("train", "validation", "test"):
        used[prepared.split(name).used] = True
    return np.flatnonzero(used) if used.mean() <= LARGEST_SHARE else None


def wake_unused(model: PreTrainedModel, decay: float) -> None:
    """Give the model its whole table back: trained rows as they are, the others times `decay`."""
    rows = input_table(model)
    if isinstance(rows, UsedRows):
        table = rows.table[0]
        with torch.no_grad():
            table.weight.mul_(decay)
            table.weight.index_copy_(0, rows.used, rows.weight)  # type: ignore[arg-type]
        model.set_input_embeddings(table)
