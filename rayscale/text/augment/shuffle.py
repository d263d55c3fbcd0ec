"""The augmenters `swap` and `delete`: words change places or go, at random (Wei and Zou 2019, arXiv 1901.11196)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

from pydantic import Field

from rayscale.study.augmenters import Augmenter, Example, Settings, Step
from rayscale.text.augment.seeded_random import Draws
from rayscale.text.augment.segments import cut


class ShuffleSettings(Settings):
    """`share` of the words of a text are swapped or deleted, one at least where there are two."""

    share: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.1


def _open(change: Callable[[Example, float], Example], settings: ShuffleSettings) -> Step:
    return lambda rows: [change(row, settings.share) for row in rows]


def _swap(row: Example, share: float) -> Example:
    """Pairs of words change places, each place at most once."""
    words = cut(row.text, row.segmenter)
    count = len(words.words)
    pairs = max(1, round(share * count / 2)) if count > 1 else 0
    places = Draws(row.seed).order(range(count))[: 2 * pairs]
    order = list(range(count))
    for one, other in zip(places[::2], places[1::2], strict=True):
        order[one], order[other] = order[other], order[one]
    return row.saying(words.moved(order))


def _delete(row: Example, share: float) -> Example:
    """Words go; one always stays."""
    words = cut(row.text, row.segmenter)
    count = len(words.words)
    gone = min(max(1, round(share * count)), count - 1)
    lost = set(Draws(row.seed).order(range(count))[: max(0, gone)])
    return row.saying(words.without(lost))


SWAP = Augmenter(ShuffleSettings, partial(_open, _swap), lambda settings: 1)
DELETE = Augmenter(ShuffleSettings, partial(_open, _delete), lambda settings: 1)
