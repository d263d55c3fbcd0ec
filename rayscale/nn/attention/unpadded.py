"""Rows of different length through an encoder without padding: linear layers see one long row of real tokens.

The model keeps its padded interface: ids and mask of (rows, longest) go into its body, hidden states of (rows, longest,
width) come out. In between tokens lie side by side, rows of equal length beside each other. On a CPU attention runs
over each such group, on a GPU over all rows at once. The mathematics is that of the padded model; most of the time of a
random batch would otherwise go into padding.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from rayscale.nn.attention import grouped, ragged
from rayscale.nn.attention.dropout import attention_lines, places_along
from rayscale.nn.attention.grouped import Rows
from rayscale.nn.attention.ragged import HEAD_MULTIPLE, WIDEST_HEAD, Bounds
from rayscale.plan.estimate import UNPADDED
from rayscale.plan.heads import AFTER_PADDING

ATTENTION = "rayscale_unpadded"
# Architectures that hand keywords on to their attention and take positions, and where their layers are.
LAYERS = {kind: "transformer" if kind == "distilbert" else "encoder" for kind in UNPADDED}
RAGGED_CAPABILITY = (8, 0)  # Ampere: what flash attention needs
PACKED_SIZES = 32  # about how many sizes the packed batches of one number of rows have on a GPU
LAYERS_OF_BERT = tuple(kind for kind, name in LAYERS.items() if name == "encoder")


@dataclass(frozen=True)
class Packing:
    """A batch of `shape` (rows, width), packed; all tensors are on the device of the model.

    `sources`: where in the padded batch the packed tokens come from; `places`: where they belong; `positions`: in their
    rows. `order`: the rows as they follow each other. `firsts`: where rows begin among the packed tokens. `groups`:
    rows of equal length, for CPUs; `bounds`: of all rows, for GPUs. Idle rows come last: nothing is read of what the
    model makes of them, and they belong to a place behind the batch.
    """

    shape: tuple[int, int]
    sources: torch.Tensor
    places: torch.Tensor
    positions: torch.Tensor
    order: torch.Tensor
    firsts: torch.Tensor
    groups: tuple[Rows, ...]
    bounds: Bounds | None

    @property
    def idle(self) -> int:
        """How many rows are idle."""
        return len(self.order) - self.shape[0]

    def numbers(self, keys: torch.Tensor) -> torch.Tensor:
        """Those of the packed tokens as lines of dropout, of the keys of rows."""
        return (keys[:, None] + places_along(self.shape[1], 0, keys.device)).flatten()[self.sources]

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, dropout: float
    ) -> torch.Tensor:
        """Attention within each row, tensors of (tokens, heads, size); queries are of all tokens, or of first ones."""
        all_of_them = len(query) == len(key)
        if self.bounds is None:
            groups = self.groups if all_of_them else tuple(replace(rows, queries=1) for rows in self.groups)
            drop = attention_lines(dropout, query.shape[1], firsts=not all_of_them)
            return grouped.attend(query, key, value, groups, scale, drop)
        one_by_one = torch.arange(len(self.order) + 1, dtype=torch.int32, device=query.device)
        queries = self.bounds if all_of_them else Bounds(one_by_one, 1)
        return ragged.attend(query, key, value, queries, self.bounds, scale, dropout)


def is_encoder(model: PreTrainedModel) -> bool:
    """Whether this is an encoder of a known architecture."""
    return model.config.model_type in LAYERS and not getattr(model.config, "is_decoder", False)


def can_unpad(model: PreTrainedModel) -> bool:
    """Whether this model can run unpadded: a known encoder, on a GPU one that its kernels take."""
    if not is_encoder(model):
        return False
    heads: int = model.config.num_attention_heads
    return model.device.type == "cpu" or (
        torch.cuda.get_device_capability(model.device) >= RAGGED_CAPABILITY
        and model.config.hidden_size % (heads * HEAD_MULTIPLE) == 0
        and model.config.hidden_size // heads <= WIDEST_HEAD
    )


def unpad(model: PreTrainedModel) -> None:
    """Make the model's body run unpadded from now on.

    Where the head of the task reads first tokens only, as classifiers of texts do, the last layer of a BERT computes
    no others: the hidden states that come out are of (rows, 1, width) then.
    """
    AttentionInterface.register(ATTENTION, _attend)
    # The setter of transformers would ask whether the name is a kernel of the hub.
    model.config._attn_implementation_internal = ATTENTION
    body, kind = model.base_model, model.config.model_type
    layers = getattr(body, LAYERS[kind])
    first_position = model.config.pad_token_id + 1 if kind in AFTER_PADDING else 0
    now: list[Packing] = []

    def enter(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        ids = given[0] if given else named["input_ids"]
        packing = named.get("attention_mask")
        if not isinstance(packing, Packing):
            rows, width = ids.shape
            lengths = np.full(rows, width) if packing is None else packing.sum(1).cpu().numpy()
            packing = pack(lengths, width, ids.device)
        now[:] = [packing]
        flat = {name: value.flatten()[packing.sources][None]
                for name, value in named.items() if name == "token_type_ids" and value is not None}  # fmt: skip
        named = {**named, **flat, "input_ids": ids.flatten()[packing.sources][None], "attention_mask": None,
                 "position_ids": packing.positions[None] + first_position, "packing": packing}  # fmt: skip
        return (), named

    def leave(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        packing, states = now.pop(), output.last_hidden_state[0]
        (rows, width), size = packing.shape, states.shape[-1]
        columns, places = (width, packing.places) if len(states) == len(packing.places) else (1, packing.order)
        padded = states.new_zeros(rows * columns + bool(packing.idle), size).index_copy(0, places, states)
        output.last_hidden_state = padded[: rows * columns].view(rows, columns, size)
        return output

    body.register_forward_pre_hook(enter, with_kwargs=True)
    layers.register_forward_hook(leave)
    if kind in LAYERS_OF_BERT and type(model).__name__.endswith("ForSequenceClassification"):
        last = layers.layer[-1]
        last.forward = lambda states, *_, packing, **__: _first_tokens(last, states, packing)


def pack(lengths: np.ndarray, width: int, device: torch.device, *, fill: bool = False) -> Packing:
    """The packing of rows of these lengths in tokens, padded to `width`, for a model on `device`; waits for nothing.

    With `fill` idle rows fill it up to one of few sizes, so that the same work comes back (see `cuda_graphs`).
    """
    rows, order = len(lengths), np.argsort(lengths, kind="stable")
    lengths = lengths[order].astype(np.int64)
    idle = _idle_rows(int(lengths.sum()), rows, width) if fill else lengths[:0]
    every = np.concatenate([lengths, idle])
    ends = every.cumsum()
    firsts = ends - every
    places = np.arange(lengths.sum()) + (order * width - firsts[:rows]).repeat(lengths)
    positions = places - (order * width).repeat(lengths)
    unread = np.zeros(idle.sum(), np.int64)
    parts = [
        np.concatenate([places, unread]), np.concatenate([places, unread + rows * width]),
        np.concatenate([positions, unread]), np.concatenate([order, np.full(len(idle), rows)]), firsts,
    ]  # fmt: skip
    groups: tuple[Rows, ...] = ()
    bounds = None
    if device.type == "cpu":
        begins = np.flatnonzero(np.diff(every, prepend=0)).tolist()
        spans = itertools.pairwise([*begins, len(every)])
        groups = tuple(Rows(stop - start, int(every[start]), int(every[start])) for start, stop in spans)
        sent = [torch.from_numpy(part) for part in parts]
    else:
        parts.append(np.concatenate([[0], ends]))
        moved = torch.from_numpy(np.concatenate(parts)).pin_memory().to(device, non_blocking=True)  # in one piece
        *sent, ends_there = moved.split([len(part) for part in parts])
        bounds = Bounds(ends_there.int(), width + 1)  # an idle row may be one longer
    return Packing((rows, width), sent[0], sent[1], sent[2], sent[3], sent[4], groups, bounds)


def _idle_rows(tokens: int, rows: int, width: int) -> np.ndarray:
    """Lengths of the idle rows, none of them empty, behind so many tokens in so many rows."""
    number = -(-rows // PACKED_SIZES)
    step = number * width
    left = -(-(tokens + number) // step) * step - tokens
    return np.diff(np.linspace(0, left, number + 1).astype(np.int64))


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packing: Packing,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers asks of an attention function: (1, heads, tokens, size) in, (1, tokens, heads, size) out."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return packing.attend(q, k, v, scale, dropout)[None], None


def _first_tokens(layer: nn.Module, states: torch.Tensor, packing: Packing) -> torch.Tensor:
    """The output (1, rows, width) of a layer of BERT for the first token of each row."""
    part: Any = layer.attention
    attention, firsts = part.self, states[:, packing.firsts]
    query, key, value = (
        project(given)[0].unflatten(-1, (attention.num_attention_heads, -1))
        for project, given in ((attention.query, firsts), (attention.key, states), (attention.value, states))
    )
    context = packing.attend(query, key, value, attention.scaling, attention.dropout.p if attention.training else 0.0)
    output: torch.Tensor = layer.feed_forward_chunk(part.output(context.flatten(1)[None], firsts))  # type: ignore[operator]
    return output
