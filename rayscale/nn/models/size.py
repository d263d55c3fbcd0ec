"""How large a model is: its parameters, of which kinds, and the FLOP of a token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from rayscale.nn.models.lora import adapter_parameters
from rayscale.plan.parameters import DEPTH_KEYS, EMBEDDING_WEIGHT, WIDTH_KEYS


@dataclass(frozen=True)
class Size:
    """What a model costs. `token_params` are multiplied once per token, `example_params` once per example (see
    rayscale.plan.parameters.training_flops); embedding tables are in `params` only, unless tied to an output head.

    Adapters are multiplied, but no `params`: the saved model has none. `frozen` counts the weights beside them that do
    not learn, without layers, whose attention has no weights.
    """

    params: int
    params_non_embedding: int
    token_params: int
    example_params: int
    layers: int
    width: int
    decoder_params: int = 0  # those among token_params that work on what is written, not on what is read
    frozen: Size | None = None


def body_parameters(model: PreTrainedModel) -> set[int]:
    """`id` of every parameter of the body; the rest, a pooler included, is the head of the task."""
    return {id(p) for name, p in model.base_model.named_parameters() if "pooler." not in name}


def measure_size(model: PreTrainedModel, head_per_token: bool = False) -> Size:
    """Counts of a model's parameters by how often a forward pass multiplies them (see `Size`).

    `head_per_token`: the head of the task works on every token, not on one state of each example.
    """
    size, added = _measure(model, head_per_token, lambda _: True), adapter_parameters(model)
    if not added:
        return size
    more = sum(p.numel() for p in model.parameters() if id(p) in added)
    frozen = _measure(model, head_per_token, lambda parameter: not parameter.requires_grad)
    params, non_embedding = size.params - more, size.params_non_embedding - more
    return replace(size, params=params, params_non_embedding=non_embedding, frozen=replace(frozen, layers=0))


def _measure(model: PreTrainedModel, head_per_token: bool, counts: Callable[[nn.Parameter], bool]) -> Size:
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    tables |= {id(parameter) for name, parameter in model.named_parameters() if EMBEDDING_WEIGHT.search(name)}
    body = body_parameters(model)
    total = non_embedding = token = example = 0
    for parameter in filter(counts, model.parameters()):
        total += parameter.numel()
        if id(parameter) in tables:
            continue
        non_embedding += parameter.numel()
        if id(parameter) in body or head_per_token:
            token += parameter.numel()
        else:
            example += parameter.numel()
    output = model.get_output_embeddings()
    if output is not None:
        # The language-model head works on every token, whether tied to the embedding or not.
        head = sum(p.numel() for p in output.parameters() if counts(p))
        writing = sum(p.numel() for p in output.parameters() if counts(p) and id(p) not in tables)
        token, example = token + head, example - writing
    config: Any = model.config
    depth = next(int(getattr(config, key)) for key in DEPTH_KEYS if isinstance(getattr(config, key, None), int))
    width = next(int(getattr(config, key)) for key in WIDTH_KEYS if isinstance(getattr(config, key, None), int))
    writing = 0
    if config.is_encoder_decoder:
        writer: Any = model.get_decoder()
        writing = sum(p.numel() for p in writer.parameters() if counts(p) and id(p) not in tables)
        writing += sum(p.numel() for p in output.parameters() if counts(p)) if output is not None else 0
    return Size(total, non_embedding, token, example, depth, width, writing)
