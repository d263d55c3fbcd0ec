"""How long trials take on a number of slots: packed greedily, in order."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

START_UP_SECONDS = 40.0  # Ray, data preparation and the first lane
LANE_SECONDS = 20.0  # a lane of another size


@dataclass(frozen=True)
class SlotUse:
    """A trial as a piece of work: slots it takes, seconds it lasts, whether nothing may run beside it."""

    gpus: int
    seconds: float
    alone: bool = False


def packed_seconds(pieces: Iterable[SlotUse], slots: int) -> float:
    """Wall seconds until the last of the pieces ends on `slots`, each begun as soon as those before it allow."""
    free = [0.0] * slots  # when each slot is free again
    heapq.heapify(free)
    for piece in pieces:
        taken = [heapq.heappop(free) for _ in range(min(piece.gpus, slots))]
        start = max([*taken, *free]) if piece.alone else max(taken)
        for _ in taken:
            heapq.heappush(free, start + piece.seconds)
    return max(free, default=0.0)


def start_up_left(elapsed_seconds: float, sizes: int) -> float:
    """Seconds until the first trial of a run begins that began so long ago, and those that lanes of further sizes take.

    What takes longer than expected is expected to take a quarter more.
    """
    return max(START_UP_SECONDS - elapsed_seconds, elapsed_seconds / 4) + LANE_SECONDS * max(0, sizes - 1)
