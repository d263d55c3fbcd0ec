"""Which rows meet in which step, and which rank computes them: fixed by (seed, epoch), whatever the number of ranks.

A global batch is dealt to the ranks, and each rank's share cut into micro-batches of rows of similar length. The
gradient is a sum over the items of the global batch, so this changes how much is padded, not what is learnt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rayscale.text.prepared import Split


# Bucketed batches are sorted within this many of them, as the Trainer of transformers does.
BUCKET_BATCHES = 50


@dataclass(frozen=True)
class MicroBatch:
    """`rows` (numbers in the split) that one rank computes at once; `weight` 0 means: take part, add nothing."""

    rows: np.ndarray
    weight: float = 1.0


def order_rows(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The rows of a training subset in the order of one epoch."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def cut_global_batches(ordered: np.ndarray, global_batch: int) -> list[np.ndarray]:
    """Consecutive global batches; the last one is smaller when the rows do not divide, nothing is dropped."""
    return [ordered[start : start + global_batch] for start in range(0, len(ordered), global_batch)]


def cut_bucketed_batches(
    ordered: np.ndarray, lengths: np.ndarray, global_batch: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """Global batches of rows of similar length, in random order; as many and as large as those cut in order.

    Every BUCKET_BATCHES of them hold the rows that consecutive batches would hold, sorted by length (int64 `lengths` of
    all rows of the split).
    """
    cut: list[np.ndarray] = []
    for start in range(0, len(ordered), BUCKET_BATCHES * global_batch):
        bucket = ordered[start : start + BUCKET_BATCHES * global_batch]
        cut += cut_global_batches(bucket[np.argsort(lengths[bucket], kind="stable")], global_batch)
    return [cut[place] for place in np.random.default_rng([seed, epoch, 1]).permutation(len(cut))]


def share_global_batch(
    batch: np.ndarray, lengths: np.ndarray, micro_batch: int, rank: int, world_size: int
) -> list[MicroBatch]:
    """The micro-batches of one rank, never empty.

    The batch is sorted by length (int64 `lengths` of all rows of the split); row i goes to rank i % world_size, so that
    ranks have about as many tokens, and each share is cut into the same number of chunks of at most `micro_batch` rows,
    sizes differing by one row at most. A rank left without rows computes one row with weight 0: it must not be missing
    when gradients meet.
    """
    ordered = batch[np.argsort(lengths[batch], kind="stable")]
    rounds = -(-len(ordered) // (micro_batch * world_size))
    mine = np.array_split(ordered[rank::world_size], rounds)
    filled = [MicroBatch(rows) for rows in mine if len(rows)]
    return filled or [MicroBatch(ordered[:1], weight=0.0)]


def cut_evaluation(
    rows: np.ndarray, lengths: np.ndarray, rank: int, world_size: int, tokens: int, alike: bool = False
) -> Iterator[np.ndarray]:
    """The evaluation batches of one rank: rows sorted by length, cut at `tokens` padded tokens, dealt in turn.

    `alike`: the rows of a batch are of one length, so that none is padded.
    """
    ordered = rows[np.argsort(lengths[rows], kind="stable")]
    start = number = 0
    while start < len(ordered):
        stop = start + 1
        first = int(lengths[ordered[start]])
        while stop < len(ordered) and (longest := int(lengths[ordered[stop]])) * (stop + 1 - start) <= tokens:
            if alike and longest > first:
                break
            stop += 1
        if number % world_size == rank:
            yield ordered[start:stop]
        start, number = stop, number + 1


def move_right(padded: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Rows (rows, width) of these lengths whose padding stands before them instead of behind."""
    width = padded.shape[1]
    return np.take_along_axis(padded, (np.arange(width) - (width - lengths)[:, None]) % width, 1)


def pad_rows(
    split: Split, rows: np.ndarray, pad: int, multiple: int = 1, least: int = 0, most: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(ids int64, lengths int64) of shapes (rows, width) and (rows,): padded with `pad` to the longest row.

    The width is at least `least`, rounded up to `multiple` (8 suits the matrix units of GPUs), but not beyond `most`.
    """
    (values, starts), lengths = split.gather(rows), split.lengths[rows]
    longest = int(lengths.max())
    width = -(-max(least, longest) // multiple) * multiple
    width = width if most is None else max(longest, min(width, most))
    columns = np.arange(width)
    inside = columns < lengths[:, None]
    # Positions beyond a row point at its first token, then are overwritten: reading stays inside the mapped file.
    ids = values[np.where(inside, starts[:, None] + columns, starts[:, None])].astype(np.int64)
    ids[~inside] = pad
    return ids, lengths
