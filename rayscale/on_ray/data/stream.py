"""`data.reader: stream`: token ids reach a trial's workers through the object store, from the one node that has them.

What else a row has (length, labels, tags), subsets and the tokenizer are sent whole. A worker knows which rows it will
read in which order, so short tasks on the driver's node read ahead for it, a few megabytes at a time: no worker needs
the shards on its own disk, or their tokens in memory, and the batches are those of `mmap`. The tasks ask for no CPU.
They wait for none that trials hold, and take little: there are never more than AHEAD + 1 for a worker.

Not an iterator of Ray Data for each trial: its first batch takes seconds, and it cannot resume within an epoch
(ray#37633), as a trial does from a savepoint.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray

from rayscale.on_ray.cluster import run_on
from rayscale.on_ray.data.parcels import Parcel, unwrap, wrap
from rayscale.text.prepared import Prepared, Split
from rayscale.text.split import SPLITS

#: Tokens that are sent at once, and such pieces under way before the one in use.
PIECE_TOKENS = 1 << 19
AHEAD = 2

T = TypeVar("T")


@dataclass(frozen=True)
class Stream:
    """Prepared data on its way to the workers; `splits` refers to all but token ids and texts, and the tokens used."""

    light: Parcel
    splits: Any


def offer(prepared: Prepared, several_nodes: bool) -> Stream:
    """Offer prepared data of this node to workers, token ids left out."""
    nothing = np.empty(0, dtype=np.int64)
    left_out: dict[str, Any] = {
        "values": nothing.astype(np.int32), "starts": nothing, "keys": nothing.astype(np.uint64), "texts": {},
    }  # fmt: skip
    splits = {name: prepared.split(name) for name in SPLITS}
    sent = {name: (replace(split, **left_out), split.used) for name, split in splits.items()}
    return Stream(wrap(prepared.path, several_nodes, without=".arrow"), ray.put(sent))


def open_prepared(offered: Stream | Parcel) -> Prepared:
    """The prepared data of a trial, as its workers see it."""
    if isinstance(offered, Parcel):
        return Prepared.open(unwrap(offered))
    folder = unwrap(offered.light)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return _Streamed(folder, manifest, offered)


@dataclass(frozen=True)
class _Streamed(Prepared):
    stream: Stream

    @cached_property
    def _splits(self) -> dict[str, Split]:
        node_id, folder = self.stream.light.node_id, self.stream.light.folder
        splits: dict[str, tuple[Split, np.ndarray]] = ray.get(self.stream.splits)
        return {
            name: StreamedSplit(
                **vars(split), tokens_used=used, request=partial(run_on, node_id, read_rows, folder, name)
            )
            for name, (split, used) in splits.items()
        }


@dataclass
class _Window:
    """The rows at hand: ascending, and the token ids of one after the other."""

    rows: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    values: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int32))


@dataclass(frozen=True)
class StreamedSplit(Split):
    """A split whose token ids come on request; `request` begins to fetch those of ascending rows (an ObjectRef)."""

    tokens_used: np.ndarray = field(kw_only=True)
    request: Callable[[np.ndarray], Any] = field(kw_only=True)
    window: _Window = field(default_factory=_Window)

    @property
    def used(self) -> np.ndarray:
        """The numbers of all tokens that occur, ascending."""
        return self.tokens_used

    def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and where each row begins in them; rows that nobody announced are fetched now."""
        if not np.isin(rows, self.window.rows).all():
            self._take(np.unique(rows), self.request(np.unique(rows)))
        lengths = self.lengths[self.window.rows]
        starts = np.cumsum(lengths) - lengths
        return self.window.values, starts[np.searchsorted(self.window.rows, rows)]

    def rows(self, indices: Iterable[int]) -> list[np.ndarray]:
        """The token ids of these rows."""
        chosen = np.asarray(list(indices), dtype=np.int64)
        values, starts = self.gather(chosen)
        return [values[start : start + self.lengths[row]] for start, row in zip(starts, chosen, strict=True)]

    def ahead(self, plans: Iterable[T], rows_of: Callable[[T], np.ndarray]) -> Iterator[T]:
        """The plans, one after the other; the rows of the next ones are fetched meanwhile."""
        left, coming = iter(plans), deque[tuple[list[T], np.ndarray, Any]]()

        def begin() -> None:
            group, rows, tokens = list[T](), list[np.ndarray](), 0
            for plan in left:
                group.append(plan)
                rows.append(rows_of(plan))
                tokens += int(self.lengths[rows[-1]].sum())
                if tokens >= PIECE_TOKENS:
                    break
            if group:
                chosen = np.unique(np.concatenate(rows))
                coming.append((group, chosen, self.request(chosen)))

        for _ in range(AHEAD):
            begin()
        while coming:
            group, rows, reference = coming.popleft()
            begin()
            self._take(rows, reference)
            yield from group

    def _take(self, rows: np.ndarray, reference: Any) -> None:
        self.window.rows, self.window.values = rows, ray.get(reference)


def read_rows(folder: str, name: str, rows: np.ndarray) -> np.ndarray:
    """The token ids of rows of a split in a folder of this node, one after the other (int32)."""
    return np.concatenate([np.empty(0, dtype=np.int32), *_opened(folder).split(name).rows(rows)])


@lru_cache(maxsize=4)
def _opened(folder: str) -> Prepared:
    return Prepared.open(Path(folder))
