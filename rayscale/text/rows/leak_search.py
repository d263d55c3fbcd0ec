"""Near-duplicates of held-out rows among all rows on disk, found bucket by bucket, wherever there is room.

    <clean>-pieces-.../held-2-0007/          sketches of the held-out texts of one split and bucket (`near`)
                       held-out/            all sketches, which every worker maps
                       leaks-0007.arrow     the training rows of a bucket that resemble one of them

What is done is kept, as the pieces are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from rayscale.system.disk import PRIVATE, write_file
from rayscale.text.rows import near_duplicates
from rayscale.text.rows.leaks import Leak, texts_of
from rayscale.text.rows.pieces import read_bucket
from rayscale.text.shards import as_file, read_table
from rayscale.text.split import DROPPED, TEST, TRAIN, VALIDATION, by_key
from rayscale.text.workers import Meter, Workers


@dataclass(frozen=True)
class Search:
    """The rows on disk, and where what is found is kept."""

    folder: Path
    runs: Sequence[Path]
    threshold: float

    def held(self, group: int, bucket: int) -> Path:
        """The sketches of the rows of a split in a bucket."""
        return self.folder / f"held-{group}-{bucket:04d}"

    def leaks(self, bucket: int) -> Path:
        """The leaks of a bucket."""
        return self.folder / f"leaks-{bucket:04d}.arrow"

    def rows(self, bucket: int, split: np.ndarray, group: int) -> tuple[np.ndarray, pa.Table]:
        """The places of a split's rows in a bucket, by their key, and the bucket."""
        table = read_bucket(self.runs, bucket)
        return by_key(table["key"].to_numpy(), split == group), table


def find_leaks(
    search: Search, splits: Sequence[np.ndarray], workers: Workers, say: Callable[[str], None]
) -> tuple[list[np.ndarray], list[Leak]]:
    """The splits with the leaks dropped, and the leaks in the order of the files."""
    held = [(group, bucket) for group in (TEST, VALIDATION) for bucket in range(len(splits))]
    what = "looking for near-duplicates"
    say(what)
    meter = Meter(say, what, len(held) + len(splits), "buckets")
    asked = [(group, bucket, splits[bucket]) for group, bucket in held if not search.held(group, bucket).exists()]
    _work(workers, _Sketch(search), asked, meter, len(held))
    folder = search.folder / "held-out"
    if not folder.exists():
        near_duplicates.publish(
            near_duplicates.join(
                [near_duplicates.load(search.held(*each), search.threshold) for each in held], search.threshold
            ),
            folder,
        )
    left = [(bucket, split) for bucket, split in enumerate(splits) if not search.leaks(bucket).exists()]
    _work(workers, _Compare(search), left, meter, len(splits))
    without, leaks = [], []
    orders = np.concatenate([_orders(search, group, bucket, splits[bucket]) for group, bucket in held])
    for bucket, split in enumerate(splits):
        found = read_table(search.leaks(bucket))
        without.append(split.copy())
        without[-1][found["row"].to_numpy()] = DROPPED
        for row in found.to_pylist():
            leaks.append(Leak(row["order"], int(orders[row["other"]]), row["group"], row["similarity"]))
    return without, sorted(leaks, key=lambda leak: leak.order)


def _work(workers: Workers, function: Callable, items: Sequence[tuple], meter: Meter, total: int) -> None:
    meter.skip(total - len(items))
    for table in workers.read(function, items) if items else ():
        meter.add(len(table))


def _orders(search: Search, group: int, bucket: int, split: np.ndarray) -> np.ndarray:
    places, table = search.rows(bucket, split, group)
    return table["order"].to_numpy()[places]


@dataclass(frozen=True)
class _Sketch:
    search: Search

    def __call__(self, item: tuple[int, int, np.ndarray]) -> Iterator[pa.Table]:
        group, bucket, split = item
        places, table = self.search.rows(bucket, split, group)
        texts = texts_of(table["text"], places)
        found = near_duplicates.sketch(texts, np.full(len(places), group, dtype=np.int8), self.search.threshold)
        near_duplicates.publish(found, self.search.held(group, bucket))
        yield pa.table({"bucket": [bucket]})


@dataclass(frozen=True)
class _Compare:
    search: Search

    def __call__(self, item: tuple[int, np.ndarray]) -> Iterator[pa.Table]:
        bucket, split = item
        held_out = near_duplicates.load(self.search.folder / "held-out", self.search.threshold)
        places, table = self.search.rows(bucket, split, TRAIN)
        found = near_duplicates.nearest(texts_of(table["text"], places), held_out)
        close = np.flatnonzero(found.others >= 0)
        others = found.others[close]
        leaks = {
            "row": places[close],
            "order": table["order"].to_numpy()[places[close]],
            "other": others,
            "group": held_out.groups[others],
            "similarity": found.similarities[close],
        }
        write_file(self.search.leaks(bucket), as_file(pa.table(leaks)), PRIVATE)
        yield pa.table({"bucket": [bucket]})
