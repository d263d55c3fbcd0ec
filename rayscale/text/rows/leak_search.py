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
from rayscale.text.rows.leaks import Leak, drop, resembling, texts_of
from rayscale.text.rows.pieces import read_bucket
from rayscale.text.shards import as_file, read_table
from rayscale.text.split import TEST, TRAIN, VALIDATION, by_key
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

    def sketch(self, item: tuple[int, int, np.ndarray]) -> Iterator[pa.Table]:
        """Keep the sketches of a split's rows in a bucket: (group, bucket, split of each row)."""
        group, bucket, split = item
        places, table = self.rows(bucket, split, group)
        texts = texts_of(table["text"], places)
        sketches = near_duplicates.sketch(texts, np.full(len(places), group, dtype=np.int8), self.threshold)
        near_duplicates.publish(sketches, self.held(group, bucket))
        yield pa.table({"bucket": [bucket]})

    def compare(self, item: tuple[int, np.ndarray]) -> Iterator[pa.Table]:
        """Keep the leaks of a bucket: (bucket, split of each row)."""
        bucket, split = item
        held_out = near_duplicates.load(self.folder / "held-out", self.threshold)
        places, table = self.rows(bucket, split, TRAIN)
        write_file(self.leaks(bucket), as_file(resembling(table, places, held_out)), PRIVATE)
        yield pa.table({"bucket": [bucket]})


def find_leaks(
    search: Search, splits: Sequence[np.ndarray], workers: Workers, say: Callable[[str], None]
) -> tuple[list[np.ndarray], list[Leak]]:
    """The splits with the leaks dropped, and the leaks in the order of the files."""
    held = [(group, bucket) for group in (TEST, VALIDATION) for bucket in range(len(splits))]
    what = "looking for near-duplicates"
    say(what)
    meter = Meter(say, what, len(held) + len(splits), "buckets")
    asked = [(group, bucket, splits[bucket]) for group, bucket in held if not search.held(group, bucket).exists()]
    _work(workers, search.sketch, asked, meter, len(held))
    folder = search.folder / "held-out"
    if not folder.exists():
        sketches = [near_duplicates.load(search.held(group, bucket), search.threshold) for group, bucket in held]
        near_duplicates.publish(near_duplicates.join(sketches, search.threshold), folder)
    left = [(bucket, split) for bucket, split in enumerate(splits) if not search.leaks(bucket).exists()]
    _work(workers, search.compare, left, meter, len(splits))
    orders = np.concatenate([_orders(search, group, bucket, splits[bucket]) for group, bucket in held])
    dropped = [drop(split, read_table(search.leaks(bucket)), orders) for bucket, split in enumerate(splits)]
    leaks = [leak for _, of_bucket in dropped for leak in of_bucket]
    return [without for without, _ in dropped], sorted(leaks, key=lambda leak: leak.order)


def _work(workers: Workers, function: Callable, items: Sequence[tuple], meter: Meter, total: int) -> None:
    meter.skip(total - len(items))
    for table in workers.read(function, items) if items else ():
        meter.add(len(table))


def _orders(search: Search, group: int, bucket: int, split: np.ndarray) -> np.ndarray:
    places, table = search.rows(bucket, split, group)
    return table["order"].to_numpy()[places]
