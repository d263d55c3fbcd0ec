"""Whether the trials that are on a GPU at once fit its memory, by their estimates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rayscale.estimate import Planned
from rayscale.machine import Machine

GIGA = 1e9
CONTEXT_BYTES = 500_000_000  # of each process on a GPU beside what torch allocates there: assumed, not measured


@dataclass(frozen=True)
class Crowding:
    """`trials` at once on a GPU of `gpu_bytes`, each of at most `peak_bytes` with its process.

    Each is counted as the largest of the plan, since a lane keeps the memory that its largest trial took.
    """

    trials: int
    peak_bytes: int
    gpu_bytes: int
    gpu: str

    @property
    def fitting(self) -> int:
        """How many fit."""
        return self.gpu_bytes // self.peak_bytes

    @property
    def found(self) -> str:
        """What is needed beside what there is."""
        together = f"{self.trials} trials that share a GPU take" if self.trials > 1 else "a trial takes"
        needed = self.trials * self.peak_bytes / GIGA
        return f"{together} up to {needed:.1f} GB by estimate, {self.gpu} has {self.gpu_bytes / GIGA:.1f} GB"

    @property
    def mend(self) -> str:
        """What to write instead; empty where all fit."""
        if self.fitting >= self.trials:
            return ""
        shares = f"run.trials_per_gpu: {max(1, self.fitting)}"
        if self.fitting:
            return f"write {shares}"
        smaller = "training.gradient_checkpointing: true, smaller models or lora"
        return f"write {f'{shares}, and ' if self.trials > 1 else ''}{smaller}, or use GPUs with more memory"


def crowd(planned: Sequence[Planned], machine: Machine) -> Crowding | None:
    """That of a plan; None without trials on GPUs, or where their memory is not known."""
    if not planned or machine.device != "cuda" or not machine.gpu_bytes:
        return None
    peak = max(each.peak_memory_bytes for each in planned) + CONTEXT_BYTES
    return Crowding(min(machine.trials_per_gpu, len(planned)), peak, machine.gpu_bytes, machine.device_name)
