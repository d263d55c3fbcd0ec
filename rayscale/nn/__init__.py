"""Models and training, in torch and transformers: build a model, train one trial, score it.

`models` builds and measures them, `attention` is what runs faster or without padding, `training` is one trial from its
first step to its record, `tasks` say what a model learns and how it is scored, `augment` makes text by models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayscale.system.lazy import lazy

if TYPE_CHECKING:
    from rayscale.nn.models.build import build_model
    from rayscale.nn.training.kept_model import KeptModel
    from rayscale.nn.training.train import train_trial

__all__ = ["KeptModel", "build_model", "train_trial"]

__getattr__ = lazy(__name__, KeptModel="training.kept_model", build_model="models.build", train_trial="training.train")
