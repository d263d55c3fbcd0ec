"""Dropout from 16 random bits a number: on CPUs PyTorch's own draws take a tenth of a step."""

from __future__ import annotations

import torch
from torch import nn

STEPS = 1 << 16


def draw_factors(count: int, share: float) -> torch.Tensor:
    """`count` float32 numbers, each 0 with probability `share` (to within 2^-17) and otherwise such that the mean is 1.

    Drawn by torch's default generator.
    """
    dropped = round(share * STEPS)
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None).view(torch.int16)[:count]
    return torch.where(bits >= dropped - STEPS // 2, STEPS / max(1, STEPS - dropped), 0.0)


class QuickDropout(nn.Dropout):
    """nn.Dropout for CPUs."""

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """`given` with a share of its elements set to 0 in training."""
        if not self.training or not self.p:
            return given
        return given * draw_factors(given.numel(), self.p).view(given.shape).to(given.dtype)


def quicken_dropout(model: nn.Module) -> None:
    """Put QuickDropout in the place of every nn.Dropout of the model."""
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = QuickDropout
