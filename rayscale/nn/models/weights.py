"""The weights of a model, taken out and put back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


def read_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters that learn, tied ones once, and the buffers that a saved model has: the model's own memory.

    Frozen ones are always what the checkpoint makes of them.
    """
    saved = model.state_dict().keys()
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved}
    return {**{name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}, **buffers}


def write_weights(weights: Mapping[str, torch.Tensor], model: nn.Module) -> None:
    """Overwrite what `read_weights` gives."""
    with torch.no_grad():
        for name, tensor in read_weights(model).items():
            tensor.copy_(weights[name])
