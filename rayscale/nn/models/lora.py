"""Adapters by peft in a model, in their place: its class, its body and its head stay what the training loop knows."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rayscale.errors import InputError
from rayscale.plan.parameters import LAYER_NUMBER
from rayscale.study.lora import Lora


def adapt(model: PreTrainedModel, lora: Lora, seed: int, head: Iterable[nn.Parameter]) -> None:
    """Freeze the model but for the `head` of its task, and put adapters, drawn by `seed`, into its linear layers.

    Experts of a mixture stay as they are (see `Lora.choose`). Adapters begin as no change: B is zero. Raises InputError
    without peft, and as `Lora.choose` does.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        text = f"lora needs peft, which cannot be imported here ({error}); pip install 'rayscale[lora]'"
        raise InputError(text, code="missing_extra") from error
    linear = {name: module for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))}
    layers = {name: module for name, module in linear.items() if LAYER_NUMBER.search(f"{name}.")}
    chosen = lora.choose(layers)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type] # a float serves as well
        lora_dropout=lora.dropout,
        target_modules=[f"model.{name}" for name in chosen],
        fan_in_fan_out=isinstance(layers[chosen[0]], Conv1D),  # GPT-2 keeps its matrices the other way round
    )
    torch.manual_seed(seed)
    # Given the model itself, peft takes these names for those of older versions of transformers: with DeepSeek and
    # others it passes dense layers over, and gives all experts adapters of twice the rank.
    shell = nn.Module()
    shell.model = model
    inject_adapter_in_model(config, shell)
    model.peft_config = shell.peft_config  # type: ignore[assignment]
    for parameter in head:
        parameter.requires_grad_(True)


def adapter_parameters(model: nn.Module) -> set[int]:
    """`id` of every parameter of an adapter."""
    if not hasattr(model, "peft_config"):
        return set()
    return {id(parameter) for name, parameter in model.named_parameters() if ".lora_" in name}


def merge(model: PreTrainedModel) -> None:
    """Add the adapters to the weights beside which they stand: what is left is a model of transformers alone."""
    if not hasattr(model, "peft_config"):
        return
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            model.set_submodule(name, module.get_base_layer())
    del model.peft_config
