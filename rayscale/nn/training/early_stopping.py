"""What validations decide while a trial trains: when the rate falls on a plateau, when to stop, which weights stay."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from rayscale.study.training import TrialSettings


@dataclass
class EarlyStopping:
    """The validation losses so far; they are the same on all ranks, so that all decide alike.

    `factor` is what the rate is multiplied by. With early stopping `weights` are those of the lowest loss, and `decay`
    what weight decay alone had made of a weight until then.
    """

    early_stopping: int | None = None  # validations in a row without a lower loss
    patience: int | None = None  # the same, until the rate falls; None: it does not
    fall: float = 0.5
    best: float | None = None
    waited: int = 0  # since the lowest loss
    waited_on_rate: int = 0  # since then, or since the rate fell
    factor: float = 1.0
    decay: float = 1.0
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: TrialSettings) -> EarlyStopping:
        """What a trial's settings ask for."""
        patience = settings.plateau_patience if settings.schedule == "plateau" else None
        return cls(settings.early_stopping, patience, settings.plateau_factor)

    @property
    def decides(self) -> bool:
        """Whether anything depends on the validations."""
        return bool(self.early_stopping or self.patience)

    @property
    def stops(self) -> bool:
        """Whether training is to end."""
        return self.early_stopping is not None and self.waited >= self.early_stopping

    def see(self, loss: float, weights: Mapping[str, torch.Tensor], decay: float) -> None:
        """A validation; `weights` are those validated, copied where they are the best so far and early stopping asks
        for it. A loss that is no number is no improvement."""
        if loss < (math.inf if self.best is None else self.best):
            self.best, self.waited, self.waited_on_rate = loss, 0, 0
            if self.early_stopping:
                self.decay = decay
                self.weights = {name: tensor.detach().clone() for name, tensor in weights.items()}
            return
        self.waited += 1
        self.waited_on_rate += 1
        if self.patience and self.waited_on_rate >= self.patience:
            self.factor *= self.fall
            self.waited_on_rate = 0
