"""How far a long step is, said now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from rayscale.study.augment_key import Augmentation

Progress = Callable[[str], None]


class Workers(Protocol):
    """Where functions of items are worked out. Results may come in any order, tables cut or joined.

    Tables that are given may be `shards.Blocks`, which are read one by one, on this machine.
    """

    def read(self, function: Callable[[Any], Iterator[pa.Table]], items: Sequence[Any]) -> Iterable[pa.Table]:
        """All tables that `function` yields for the items, which stand for files of this machine."""

    def transform(self, function: Callable[[pa.Table], pa.Table], tables: Sequence[pa.Table]) -> Iterable[pa.Table]:
        """`function` of every table."""

    def augment(self, augmentation: Augmentation, tables: Sequence[pa.Table]) -> Iterable[pa.Table]:
        """The children of every table of training rows (see `Chain`)."""


EVERY_SECONDS = 10.0


@dataclass
class Meter:
    """Counts `total` things of one `kind`; `say` gets a line every ten seconds, none for what is done sooner."""

    say: Callable[[str], None]
    what: str
    total: int
    kind: str = "rows"
    done: int = 0
    begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._said, self._before = self.begun, self.done

    def skip(self, number: int) -> None:
        """So many were done before."""
        self.done += number
        self._before += number

    def add(self, number: int) -> None:
        """So many more are done."""
        self.done += number
        now = time.monotonic()
        if now - self._said >= EVERY_SECONDS and self.done < self.total:
            self._said = now
            pace = (self.done - self._before) / (now - self.begun)
            left = round((self.total - self.done) / pace) if pace else 0
            speed = f"{pace:,.0f}" if pace >= 10 else f"{pace:.1f}"
            self.say(f"{self.what}: {self.done:,} of {self.total:,} {self.kind} ({speed} a second, {left} s left)")
