"""How trials train: the section of a study, and the same for one trial with every default filled in."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, Strict, model_serializer

from rayscale.study.values import Count, Part, Positive, Share, Text


def _rates(value: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(value)) < max(2, len(value)):
        raise ValueError("give two or more different numbers")
    return value


class Transfer(Part):
    """Learning rates predicted from the sweep of another run: a run folder (relative to the study file) or address."""

    transfer: Text


class Training(Part):
    """How each trial trains; the global batch is in examples (windows, for causal-lm) whatever the GPU count.

    `batching: bucketed` lets rows of similar length meet: faster, with other batches. A list of learning rates is a
    sweep: every cell is trained at each, and the one with the lowest validation loss counts. `momentum` is that of sgd,
    `cooldown` the last share of the steps of constant_with_cooldown. With plateau the rate is multiplied by
    `plateau_factor` after `plateau_patience` validations in a row without a lower loss. After `early_stopping` of them
    training ends, and the weights of the lowest loss are kept. `TrialSettings` has the defaults of what is null here.
    `gradient_checkpointing` takes less memory and a third more work. `precision: tf32` (CUDA) multiplies matrices in
    TF32, all else in float32. `compile` (CUDA) has torch.compile make kernels of each layer: half a minute at first,
    then large models train faster.
    """

    epochs: Count | None = None
    global_batch: Count = 32
    batching: Literal["random", "bucketed"] = "random"
    learning_rate: Literal["auto"] | Positive | Annotated[tuple[Positive, ...], AfterValidator(_rates)] | Transfer = (
        "auto"
    )
    optimizer: Literal["adamw", "sgd", "adafactor"] = "adamw"
    momentum: Share | None = None
    schedule: Literal["linear", "cosine", "constant", "constant_with_cooldown", "plateau"] = "linear"
    cooldown: Annotated[float, Strict(), Field(gt=0, le=1)] | None = None
    plateau_patience: Count | None = None
    plateau_factor: Annotated[float, Strict(), Field(gt=0, lt=1)] | None = None
    early_stopping: Count | None = None
    warmup: Share = 0.1
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    gradient_checkpointing: Annotated[bool, Strict()] = False
    compile: Annotated[bool, Strict()] = False
    weight_decay: Annotated[float, Strict(), Field(ge=0, le=1)] = 0.01

    @model_serializer(mode="wrap")
    def _given_keys(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What is left open or off is no part of a trial's id: a new key of the interface makes no other trials of old
        # studies.
        return {
            key: value for key, value in plain(self).items() if key == "epochs" or not (value is None or value is False)
        }

    @property
    def rates(self) -> tuple[float | str | Transfer, ...]:
        """The learning rates of every cell, ascending: one, unless it is swept."""
        return tuple(sorted(self.learning_rate)) if isinstance(self.learning_rate, tuple) else (self.learning_rate,)


class TrialSettings(Training):
    """The training of one trial, nothing left open; a study that omits a key gets the default that is here."""

    epochs: Count
    learning_rate: Literal["auto"] | float = "auto"
    momentum: Share = 0.9
    cooldown: Annotated[float, Strict(), Field(gt=0, le=1)] = 0.2
    plateau_patience: Count = 1
    plateau_factor: Annotated[float, Strict(), Field(gt=0, lt=1)] = 0.5
