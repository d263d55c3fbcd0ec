"""Softmax attention of tokens that lie side by side, row after row, rows of equal length beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rayscale.nn.attention.dropout import Lines


@dataclass(frozen=True)
class Rows:
    """So many rows with this many queries and keys each."""

    number: int
    queries: int
    keys: int


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, groups: Sequence[Rows], scale: float,
    drop: Lines | None,
) -> torch.Tensor:  # fmt: skip
    """Attention within each row; tensors of (tokens, heads, size), the result like `query`.

    `drop`: what is dropped of the weights, lines of (queries, heads).

    In float32 where bfloat16 is given, also under autocast: on a CPU products of so few numbers take longer in
    bfloat16.
    """
    full = torch.float32 if query.dtype == torch.bfloat16 else query.dtype
    with torch.autocast(query.device.type, enabled=False):
        states = _Attention.apply(query.to(full), key.to(full), value.to(full), groups, scale, drop)
    return states.to(query.dtype)


class _Attention(torch.autograd.Function):
    """By hand, since autograd would copy whole tensors for each group that is cut out of them."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        groups: Sequence[Rows],
        scale: float,
        drop: Lines | None,
    ) -> torch.Tensor:
        weights = []
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
        kept = [None] * len(groups) if drop is None else _kept(drop, groups)
        for (q, k, v), o, keep in zip(_cut(query, key, value, groups), _queries(out, groups), kept, strict=True):
            weight = torch.softmax(torch.matmul(q, k.transpose(-1, -2)).mul_(scale), dim=-1)
            o.copy_(torch.matmul(weight if keep is None else weight * keep, v))
            weights.append(weight)
        ctx.save_for_backward(query, key, value)
        ctx.rest = groups, scale, weights, kept
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        groups, scale, weights, kept = ctx.rest
        query, key, value = ctx.saved_tensors
        grads = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (query, key, value)]
        given, wanted = _cut(query, key, value, groups), _cut(grads[0], grads[1], grads[2], groups)
        above = _queries(gradient, groups)
        for (q, k, v), (gq, gk, gv), g, weight, keep in zip(given, wanted, above, weights, kept, strict=True):
            gv.copy_(torch.matmul((weight if keep is None else weight * keep).transpose(-1, -2), g))
            inner = torch.matmul(g, v.transpose(-1, -2))
            if keep is not None:
                inner *= keep
            inner = torch._softmax_backward_data(inner, weight, -1, weight.dtype).mul_(scale)
            gq.copy_(torch.matmul(inner, k))
            gk.copy_(torch.matmul(inner.transpose(-1, -2), q))
        return (*grads, None, None, None)


def _kept(drop: Lines, groups: Sequence[Rows]) -> Sequence[torch.Tensor]:
    """What the weights (rows, heads, queries, keys) of each group are multiplied by."""
    heads = drop.seeds.shape[1]
    seeds = drop.seeds.split([rows.number * rows.queries for rows in groups])
    lines = [part.view(rows.number, -1, heads, 2).transpose(1, 2) for part, rows in zip(seeds, groups, strict=True)]
    return drop.factors_of(lines, [rows.keys for rows in groups])


def _cut(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, groups: Sequence[Rows]
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """(query, key, value) of each group: views of (rows, heads, tokens, size)."""
    shapes = [(rows.number, rows.keys) for rows in groups]
    return list(zip(_queries(query, groups), _view(key, shapes), _view(value, shapes), strict=True))


def _queries(packed: torch.Tensor, groups: Sequence[Rows]) -> list[torch.Tensor]:
    return _view(packed, [(rows.number, rows.queries) for rows in groups])


def _view(packed: torch.Tensor, shapes: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
    pieces = packed.split([rows * tokens for rows, tokens in shapes])
    return [piece.unflatten(0, shape).transpose(1, 2) for piece, shape in zip(pieces, shapes, strict=True)]
