"""Gradient checkpointing: layers keep their inputs alone and are computed once more in the backward pass."""

from __future__ import annotations

from transformers import PreTrainedModel

from rayscale.errors import InputError
from rayscale.nn.dropout import again


def recompute_layers(model: PreTrainedModel) -> None:
    """Let every layer forget its activations: less memory for a third more work, the same numbers (dropout included).

    Raises InputError for an architecture of which transformers cannot do so.
    """
    # The name before the one of newer releases, in which it warns.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False, "context_fn": again})
    except ValueError as error:
        raise InputError(
            f"{model.config.model_type} models have no gradient checkpointing in transformers; "
            "set training.gradient_checkpointing to false",
            code="no_checkpointing",
        ) from error
