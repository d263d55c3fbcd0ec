"""Masks of padded batches, made without asking the device.

Given a mask of (rows, longest), an encoder of transformers first asks whether anything is masked at all, and waits for
the device to answer: in every micro-batch the queue of a GPU runs empty. A mask in the shape of its attention is taken
as it is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

WITHOUT_MASKS = "rayscale_without_masks"
#: Decoders that need none: their positions are counted from the left, where every row begins.
UNMASKED = ("gpt2",)


def spread_masks(model: PreTrainedModel) -> None:
    """Make the body of an encoder take masks of (rows, longest) without a look at their content, from now on."""

    def enter(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        mask: torch.Tensor | None = named.get("attention_mask")
        if mask is None:
            return given, named
        rows, longest = mask.shape
        return given, {**named, "attention_mask": mask.bool()[:, None, None, :].expand(rows, 1, longest, longest)}

    model.base_model.register_forward_pre_hook(enter, with_kwargs=True)


def leave_out_masks(model: PreTrainedModel) -> None:
    """Make a decoder (see UNMASKED) mask what comes later alone, from now on; its outputs for padding are void then.

    Padding follows the tokens of a row, so these do not see it. transformers would ask a mask of (rows, longest) for
    its content, and attend by a slower kernel with it; and where none is given, too, while a step is recorded.
    """
    # An attention whose masks transformers does not know gets none.
    AttentionInterface.register(WITHOUT_MASKS, sdpa_attention_forward)
    model.config._attn_implementation_internal = WITHOUT_MASKS
