"""Rows of different length through an encoder without padding: linear layers see one long row of real tokens.

The model keeps its padded interface: ids and mask of (rows, longest) go into its body, hidden states of (rows, longest,
width) come out. In between tokens lie side by side, rows of equal length beside each other, and attention runs over
each group of them. The mathematics is that of the padded model; on a CPU, where no other kernel does this, most of the
time of a random batch goes into padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from rayscale.estimate import UNPADDED
from rayscale.nn.dropout import quicken_dropout
from rayscale.nn.grouped_attention import Rows, attend

ATTENTION = "rayscale_unpadded"
# Architectures that hand keywords on to their attention and take positions, and where their layers are.
LAYERS = {kind: "transformer" if kind == "distilbert" else "encoder" for kind in UNPADDED}
AFTER_PADDING = ("camembert", "roberta", "xlm-roberta")  # their positions count from behind the padding token
LAYERS_OF_BERT = tuple(kind for kind, name in LAYERS.items() if name == "encoder")


@dataclass(frozen=True)
class Packing:
    """A batch of `shape` (rows, longest), packed.

    `places`: where the packed tokens lie in the padded batch. `order`: the rows as they follow each other.
    `groups`: such of equal length. `firsts`: where rows begin among the packed tokens.
    """

    shape: tuple[int, int]
    places: torch.Tensor
    order: torch.Tensor
    groups: tuple[Rows, ...]
    firsts: torch.Tensor


def is_encoder(model: PreTrainedModel) -> bool:
    """Whether this is an encoder of a known architecture."""
    return model.config.model_type in LAYERS and not model.config.is_decoder


def can_unpad(model: PreTrainedModel) -> bool:
    """Whether this model can run unpadded: a known encoder, on a CPU. GPUs pad micro-batches of similar length."""
    return model.device.type == "cpu" and is_encoder(model)


def unpad(model: PreTrainedModel) -> None:
    """Make the model's body run unpadded from now on.

    Where the head of the task reads first tokens only, as classifiers of texts do, the last layer of a BERT computes
    no others: the hidden states that come out are of (rows, 1, width) then.
    """
    AttentionInterface.register(ATTENTION, _attend)
    # The setter of transformers would ask whether the name is a kernel of the hub.
    model.config._attn_implementation_internal = ATTENTION
    quicken_dropout(model)
    body, kind = model.base_model, model.config.model_type
    layers = getattr(body, LAYERS[kind])
    first_position = model.config.pad_token_id + 1 if kind in AFTER_PADDING else 0
    now: list[Packing] = []

    def enter(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        ids = given[0] if given else named["input_ids"]
        packing = pack(ids.shape, named.get("attention_mask"))
        now[:] = [packing]
        positions = [torch.arange(each.keys).repeat(each.number) for each in packing.groups]
        flat = {name: value.flatten()[packing.places][None]
                for name, value in named.items() if name == "token_type_ids" and value is not None}  # fmt: skip
        named = {**named, **flat, "input_ids": ids.flatten()[packing.places][None], "attention_mask": None,
                 "position_ids": torch.cat(positions)[None] + first_position, "packing": packing}  # fmt: skip
        return (), named

    def leave(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        packing, states = now.pop(), output.last_hidden_state[0]
        whole = len(states) == len(packing.places)
        shape, places = (packing.shape, packing.places) if whole else ((packing.shape[0], 1), packing.order)
        padded = states.new_zeros(shape[0] * shape[1], states.shape[-1]).index_copy(0, places, states)
        output.last_hidden_state = padded.view(*shape, states.shape[-1])
        return output

    body.register_forward_pre_hook(enter, with_kwargs=True)
    layers.register_forward_hook(leave)
    if kind in LAYERS_OF_BERT and type(model).__name__.endswith("ForSequenceClassification"):
        last = layers.layer[-1]
        last.forward = lambda states, *_, packing, **__: _first_tokens(last, states, packing)


def pack(shape: torch.Size, mask: torch.Tensor | None) -> Packing:
    """The packing of a batch of (rows, longest) with this mask, None where nothing is padded."""
    rows, longest = shape
    lengths = torch.full((rows,), longest) if mask is None else mask.sum(1)
    order = torch.argsort(lengths, stable=True)
    sorted_lengths = lengths[order]
    found, counts = torch.unique_consecutive(sorted_lengths, return_counts=True)
    groups = tuple(Rows(number, length, length) for number, length in zip(counts.tolist(), found.tolist(), strict=True))
    ends = sorted_lengths.cumsum(0)
    firsts = ends - sorted_lengths
    shift = (order * longest - firsts).repeat_interleave(sorted_lengths)
    return Packing((rows, longest), torch.arange(int(ends[-1])) + shift, order, groups, firsts)


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
    q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))
    return attend(q, k, v, packing.groups, scale, dropout)[None], None


def _first_tokens(layer: nn.Module, states: torch.Tensor, packing: Packing) -> torch.Tensor:
    """The output (1, rows, width) of a layer of BERT for the first token of each row."""
    part: Any = layer.attention
    own, firsts = part.self, states[:, packing.firsts]
    query, key, value = (
        project(given)[0].unflatten(-1, (own.num_attention_heads, -1))
        for project, given in ((own.query, firsts), (own.key, states), (own.value, states))
    )
    groups = [Rows(each.number, 1, each.keys) for each in packing.groups]
    seen = attend(query, key, value, groups, own.scaling, own.dropout.p if own.training else 0.0)
    found: torch.Tensor = layer.feed_forward_chunk(part.output(seen.flatten(1)[None], firsts))  # type: ignore[operator]
    return found
