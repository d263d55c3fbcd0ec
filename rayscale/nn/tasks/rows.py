"""Lists of different length, one for each row, as one array."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rayscale.text.prepared import Ragged


def pad_lists(lists: Ragged, rows: np.ndarray, width: int, fill: int) -> np.ndarray:
    """int64 of shape (rows, width): each list from the left, then `fill`."""
    starts, lengths = lists.offsets[rows], lists.offsets[rows + 1] - lists.offsets[rows]
    columns = np.arange(width)
    inside = columns < lengths[:, None]
    padded = np.full((len(rows), width), fill, dtype=np.int64)
    padded[inside] = lists.values[(starts[:, None] + columns)[inside]]
    return padded


def count_lists(lists: Ragged, counted: np.ndarray) -> np.ndarray:
    """How many values of each row's list are `counted`, an array of bool like the flat values."""
    sums = np.concatenate([[0], np.cumsum(counted, dtype=np.int64)])
    return sums[lists.offsets[1:]] - sums[lists.offsets[:-1]]
