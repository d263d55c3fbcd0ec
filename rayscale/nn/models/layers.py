"""torch.compile of a model's layers, one by one: alike as they are, they share what is compiled."""

from __future__ import annotations

from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from rayscale.errors import InputError, TrialError
from rayscale.nn.attention.dropout import again


def compile_layers(model: PreTrainedModel, backend: str = "inductor") -> None:
    """Compile every layer of the model at its first call, for batches of all sizes.

    Raises TrialError for an architecture of which transformers does not say what its layers are.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        text = f"the layers of {model.config.model_type} models are not known; set training.compile to false"
        raise TrialError(text, code="no_compile", permanent=True)
    for layer in layers:
        layer.compile(dynamic=True, backend=backend)


def explain(error: Exception) -> TrialError | None:
    """What a failure to compile means to who started the trial; None for other errors."""
    from torch._dynamo.exc import TorchDynamoException  # takes seconds, which only those who compile pay

    if not isinstance(error, TorchDynamoException):
        return None
    cause = getattr(error, "inner_exception", error)
    reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    needs = "training.compile needs a C compiler on every node with GPUs, and layers that torch.compile understands"
    text = f"the layers cannot be compiled ({reason}); {needs}: install gcc, or set training.compile to false"
    return TrialError(text, code="no_compile", permanent=True)


def recompute_layers(model: PreTrainedModel) -> None:
    """Let every layer forget its activations: less memory for a third more work, the same numbers (dropout included).

    Raises InputError for an architecture of which transformers cannot do so.
    """
    # The name before the one of newer releases, in which it warns.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False, "context_fn": again})
    except ValueError as error:
        text = f"{model.config.model_type} models have no gradient checkpointing in transformers"
        raise InputError(text, fix="set training.gradient_checkpointing to false", code="no_checkpointing") from error
