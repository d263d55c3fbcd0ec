"""Chance for one row: numbers from a 64-bit seed, the same on any machine and under any version of Python or numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from rayscale.text.normalise import finish

_MASK = 0xFFFFFFFFFFFFFFFF
_GOLDEN = 0x9E3779B97F4A7C15

T = TypeVar("T")


class Draws:
    """SplitMix64 (Steele et al. 2014): small, quick to start, and fixed for ever."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def _next(self) -> int:
        self._state = x = (self._state + _GOLDEN) & _MASK
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
        return x ^ (x >> 31)

    def uniform(self) -> float:
        """A number from 0 to below 1."""
        return (self._next() >> 11) * 2.0**-53

    def below(self, count: int) -> int:
        """A whole number from 0 to below `count` (at most 2 ** 32)."""
        return ((self._next() >> 32) * count) >> 32

    def order(self, items: Sequence[T]) -> list[T]:
        """The items in random order (Fisher and Yates)."""
        mixed = list(items)
        for last in range(len(mixed) - 1, 0, -1):
            place = self.below(last + 1)
            mixed[last], mixed[place] = mixed[place], mixed[last]
        return mixed

    def weighted(self, totals: Sequence[float]) -> int:
        """A place chosen with the weights whose running sums are `totals` (ascending, the last above 0)."""
        wanted = self.uniform() * totals[-1]
        return next((place for place, total in enumerate(totals) if wanted < total), len(totals) - 1)


def uniforms(seeds: np.ndarray, step: int, count: int) -> np.ndarray:
    """Numbers between 0 and 1 (both excluded), (rows, count) float64: of each row's seed (uint64), a step and a place.

    What a row draws depends on no other row of its batch.
    """
    with np.errstate(over="ignore"):
        x = np.asarray(seeds, dtype=np.uint64)[:, None] + np.uint64(((step + 1) * 0xD1B54A32D192ED03) & _MASK)
        x = finish(x) + np.arange(1, count + 1, dtype=np.uint64)[None, :] * np.uint64(_GOLDEN)
        return ((finish(x) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
