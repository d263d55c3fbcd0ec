"""No training text is nearly a held-out one: which are, whom they resemble, and how that is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rayscale.text.rows import near_duplicates
from rayscale.text.split import DROPPED, TEST, TRAIN, VALIDATION, by_key

_BLOCK_ROWS = 8192


@dataclass(frozen=True)
class Leak:
    """A training row (its `order`) that resembles a held-out one of the split `group`, and how much."""

    order: int
    other: int
    group: int
    similarity: float


def keep_apart(rows: pa.Table, split: np.ndarray, threshold: float | None) -> tuple[np.ndarray, tuple[Leak, ...]]:
    """The splits with the leaks dropped, and the leaks in the order of the files; none without `threshold`."""
    if threshold is None:
        return split, ()
    keys, orders = rows["key"].to_numpy(), rows["order"].to_numpy()
    held = np.concatenate([by_key(keys, split == group) for group in (TEST, VALIDATION)])
    held_out = near_duplicates.sketch(texts_of(rows["text"], held), split[held], threshold)
    without, leaks = drop(split, resembling(rows, np.flatnonzero(split == TRAIN), held_out), orders[held])
    return without, tuple(sorted(leaks, key=lambda leak: leak.order))


def resembling(rows: pa.Table, places: np.ndarray, held_out: near_duplicates.HeldOut) -> pa.Table:
    """Those of the rows at these places that resemble held-out text number `other`, and where each is (`row`)."""
    nearest = near_duplicates.nearest(texts_of(rows["text"], places), held_out)
    close = np.flatnonzero(nearest.others >= 0)
    others = nearest.others[close]
    columns = {
        "row": places[close],
        "order": rows["order"].to_numpy()[places[close]],
        "other": others,
        "group": held_out.groups[others],
        "similarity": nearest.similarities[close],
    }
    return pa.table(columns)


def drop(split: np.ndarray, leaks: pa.Table, orders: np.ndarray) -> tuple[np.ndarray, list[Leak]]:
    """The split without these rows (see `resembling`); `orders` are those of the held-out texts."""
    without = split.copy()
    without[leaks["row"].to_numpy()] = DROPPED
    return without, [
        Leak(row["order"], int(orders[row["other"]]), row["group"], row["similarity"]) for row in leaks.to_pylist()
    ]


def count(leaks: Iterable[Leak]) -> dict[str, int]:
    """Rows that were dropped, by reason."""
    groups = [leak.group for leak in leaks]
    return {"near_validation": groups.count(VALIDATION), "near_test": groups.count(TEST)}


def as_lines(leaks: Sequence[Leak], place: Callable[[int], str]) -> tuple[str, ...]:
    """A line for each leak: `file:line: 0.86 like file:line (test)`. `place` names an `order`."""
    names = {TEST: "test", VALIDATION: "validation"}
    return tuple(
        f"{place(leak.order)}: {leak.similarity:.2f} like {place(leak.other)} ({names[leak.group]})" for leak in leaks
    )


def texts_of(column: pa.ChunkedArray, places: np.ndarray | None = None) -> Iterator[str]:
    """Texts of these rows (all, without `places`), not all in memory at once."""
    for first in range(0, len(column) if places is None else len(places), _BLOCK_ROWS):
        if places is None:
            yield from column.slice(first, _BLOCK_ROWS).to_pylist()
        else:
            yield from column.take(pa.array(places[first : first + _BLOCK_ROWS])).to_pylist()
