"""Softmax attention on a GPU of tokens that lie side by side, row after row, rows of any length."""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: Sizes of heads that the kernels take are multiples of this, up to a widest.
HEAD_MULTIPLE, WIDEST_HEAD = 8, 256


@dataclass(frozen=True)
class Bounds:
    """Where rows begin and end: int32 `ends` (rows + 1,) on the device, 0 first; tokens of the `longest` row."""

    ends: torch.Tensor
    longest: int


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, queries: Bounds, keys: Bounds, scale: float,
    dropout: float,
) -> torch.Tensor:  # fmt: skip
    """Attention within each row; tensors of (tokens, heads, size), the result like `query`; nothing is waited for.

    These are the operations behind `torch.nested` and `torch.nn.attention.varlen`: the latter has no dropout and no
    float32, the former takes longer to wrap its arguments than a small model's layer to run.
    """
    where = queries.ends, keys.ends, queries.longest, keys.longest
    if query.dtype == torch.float32:
        outputs = torch.ops.aten._efficient_attention_forward(
            query[None], key[None], value[None], None, *where, dropout, 0, torch.is_grad_enabled(), scale=scale
        )
        return outputs[0][0]
    outputs = torch.ops.aten._flash_attention_forward(query, key, value, *where, dropout, False, False, scale=scale)
    return outputs[0]
