"""The ranks of one trial: who am I, and sums over all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from rayscale.errors import TrialError


@dataclass(frozen=True)
class Group:
    """One rank's view of the workers of a trial. The process group exists already when there is more than one."""

    rank: int
    world_size: int
    device: torch.device

    @classmethod
    def join(cls, rank: int, world_size: int, device: str) -> Group:
        """Raises TrialError if the process group is missing or has another size."""
        there = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        if world_size > 1 and there != world_size:
            text = f"the trial wants {world_size} workers, the process group has {there}"
            raise TrialError(f"{text}; start it in a lane of {world_size}", code="wrong_group")
        return cls(rank, world_size, torch.device(device))

    def add(self, values: np.ndarray | list[float]) -> np.ndarray:
        """Sum over ranks, elementwise, in float64; the same on every rank. Every rank must call it."""
        return self._reduce(values, dist.ReduceOp.SUM if self.world_size > 1 else None)

    def largest(self, values: np.ndarray | list[float]) -> np.ndarray:
        """Largest over ranks, elementwise, in float64. Every rank must call it."""
        return self._reduce(values, dist.ReduceOp.MAX if self.world_size > 1 else None)

    def gather(self, content: bytes) -> list[bytes]:
        """What each rank gave, by rank; the same on every rank. Every rank must call it."""
        if self.world_size == 1:
            return [content]
        sizes = [0.0] * self.world_size
        sizes[self.rank] = float(len(content))
        lengths = [int(size) for size in self.add(sizes)]
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        padded = padded.to(self.device)
        received = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(received, padded)
        return [part[:n].cpu().numpy().tobytes() for part, n in zip(received, lengths, strict=True)]

    def _reduce(self, values: np.ndarray | list[float], operation: dist.ReduceOp.RedOpType | None) -> np.ndarray:
        array = np.asarray(values, dtype=np.float64)
        if operation is None:
            return array
        tensor = torch.tensor(array, device=self.device)
        dist.all_reduce(tensor, operation)
        return tensor.cpu().numpy()
