"""Arrow files of many record batches: written row by row in bounded memory, read by memory map.

Where a batch ends depends on the rows alone, not on the tables in which they came: the same rows give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

#: Rows, and bytes of text, of one record batch at most: enough to outweigh a task's overhead, few enough to spread.
BATCH_ROWS = 8192
BATCH_BYTES = 1 << 24


class ShardWriter:
    """Writes the rows of tables of one schema to a file; `rows` counts them. Batches are cut by rows and by `text`."""

    def __init__(self, path: Path, schema: pa.Schema | None = None) -> None:
        self._sink = pa.OSFile(str(path), "wb")
        self.rows = 0
        if schema is not None:
            self._begin(schema)

    def _begin(self, schema: pa.Schema) -> None:
        self._writer = pa.ipc.new_file(self._sink, schema)
        self._schema, self._waiting = schema, schema.empty_table()

    def add(self, table: pa.Table) -> None:
        """Append the rows of a table."""
        self.rows += len(table)
        self._waiting = pa.concat_tables([self._waiting, table.select(self._schema.names).cast(self._schema)])
        while (size := self._full()) is not None:
            self._write(self._waiting.slice(0, size))
            self._waiting = self._waiting.slice(size)

    def put(self, table: pa.Table) -> None:
        """Write a table as a batch of its own. The first one says which columns the file has, if nothing else did."""
        if not hasattr(self, "_writer"):
            self._begin(table.schema)
        self.rows += len(table)
        self._write(table.cast(self._schema))

    def close(self) -> None:
        """Write what is left, and the end of the file."""
        self._write(self._waiting)
        self._writer.close()
        self._sink.close()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            self._sink.close()

    def _full(self) -> int | None:
        """Rows of the next batch, None while there are too few for one."""
        if "text" in self._schema.names:
            sizes = pc.binary_length(self._waiting["text"].slice(0, BATCH_ROWS)).fill_null(0)
            place = int(np.searchsorted(np.cumsum(sizes.to_numpy()), BATCH_BYTES))
            if place < len(sizes):
                return place + 1
        return BATCH_ROWS if len(self._waiting) >= BATCH_ROWS else None

    def _write(self, table: pa.Table) -> None:
        for batch in table.combine_chunks().to_batches():
            self._writer.write_batch(batch)


def as_file(table: pa.Table) -> memoryview:
    """The bytes of an Arrow file that holds the table as one batch."""
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getbuffer()


def lists_of(rows: Sequence[Sequence[int] | np.ndarray]) -> pa.Array:
    """A list<int32> column of these rows."""
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    if rows and all(isinstance(row, np.ndarray) for row in rows):  # ten times as fast as number by number
        values = np.concatenate(rows).astype(np.int32)
    else:
        values = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(offsets[-1]))
    return pa.ListArray.from_arrays(offsets, values)


def read_table(path: Path) -> pa.Table:
    """All batches of a file, by memory map: no row is read before it is looked at."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def batch_starts(path: Path) -> np.ndarray:
    """The first row of each batch (int64) and, last, the number of rows."""
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        rows = [reader.get_batch(number).num_rows for number in range(reader.num_record_batches)]
    return np.concatenate([[0], np.cumsum(rows, dtype=np.int64)]).astype(np.int64)


def read_batch(path: Path, number: int) -> pa.Table:
    """One batch of a file."""
    with pa.memory_map(str(path)) as source:
        return pa.Table.from_batches([pa.ipc.open_file(source).get_batch(number)])


@dataclass(frozen=True)
class Blocks(Sequence[pa.Table]):
    """Tables that are read when they are asked for: small enough to travel, whatever they hold."""

    read: Callable[[Any], pa.Table]
    places: tuple[Any, ...]

    @overload
    def __getitem__(self, at: int) -> pa.Table: ...
    @overload
    def __getitem__(self, at: slice) -> Blocks: ...
    def __getitem__(self, at: int | slice) -> pa.Table | Blocks:
        return Blocks(self.read, self.places[at]) if isinstance(at, slice) else self.read(self.places[at])

    def __len__(self) -> int:
        return len(self.places)


def whole_blocks(made: Iterable[pa.Table], starts: np.ndarray, copies: int = 1) -> Iterator[tuple[int, pa.Table]]:
    """The number and the rows of every block, as soon as all are there: tables come in any order, cut or joined.

    Block i holds `copies` rows for each `row` from starts[i] to below starts[i + 1].
    """
    waiting: dict[int, list[pa.Table]] = {}
    for table in made:
        numbers = np.searchsorted(starts, table["row"].to_numpy(), side="right") - 1
        for number in np.unique(numbers).tolist():
            got = waiting.setdefault(number, [])
            inside = numbers == number
            got.append(table if inside.all() else table.filter(pa.array(inside)))
            if sum(map(len, got)) == copies * (starts[number + 1] - starts[number]):
                yield number, pa.concat_tables(waiting.pop(number))
