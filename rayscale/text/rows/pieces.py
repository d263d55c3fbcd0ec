"""Files → pieces on disk: each piece is read, checked and cut into buckets by key, wherever there is room and once.

    <cache>/prepared/<clean>-pieces/000012.json           the summary of piece 12; written last, so it is done
                                    000012-0003.arrow     its fourth run of rows: batch b holds bucket b
                                    000012.bad.txt        its rows that were skipped

A piece is BLOCK_BYTES of a plain JSONL file, which is cut at line ends; any other file is one piece of many runs of
RUN_BYTES. A stopped preparation continues with the pieces that are left.
"""

from __future__ import annotations

import io
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rayscale.study.encoding_names import is_wide
from rayscale.study.study import Task
from rayscale.system.disk import PRIVATE, write_file
from rayscale.text.rows import clean
from rayscale.text.rows.assembly import labels_of, line_of, lines_of_problems, refuses, sift, spellings_of
from rayscale.text.rows.clean import BUILT_IN, SourceFile
from rayscale.text.shards import read_batch
from rayscale.text.sources import digests
from rayscale.text.sources.opening import is_packed, unpacked_size

#: Bytes of rows that are held in memory at once, and about those of a bucket.
RUN_BYTES = 1 << 25
MAX_BITS = 10

#: Numbers of a row as `split.divide` wants them, and its text.
_COLUMNS = ("order", "role", "key", "label", "text")


@dataclass(frozen=True)
class Piece:
    """A file, or the lines of it that `span` says (see `clean.read_clean`)."""

    number: int
    source: SourceFile
    span: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class PieceReader:
    """How pieces are read: the same for all of them. `bits` of the key name a row's bucket."""

    folder: str
    task: Task
    on_bad_row: str
    most: int
    bits: int

    def __call__(self, piece: Piece) -> Iterator[pa.Table]:
        """Read one piece; a table of one row holds its summary."""
        yield pa.table({"piece": [piece.number], "summary": [json.dumps(spill(piece, self))]})

    def summary(self, piece: Piece) -> dict[str, Any] | None:
        """What was in a piece, if it was read."""
        path = Path(self.folder, f"{piece.number:06d}.json")
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def cut(sources: Sequence[SourceFile]) -> list[Piece]:
    """The pieces of all files, in the order of their rows."""
    places = [(source, span) for source in sources for span in _spans(source)]
    return [Piece(number, source, span) for number, (source, span) in enumerate(places)]


def _spans(source: SourceFile) -> list[tuple[int, int, int] | None]:
    size = digests.BLOCK_BYTES
    lines = source.format == "jsonl" and not is_wide(source.encoding)
    if not lines or Path(source.path).stat().st_size <= size or is_packed(source.path):
        return [None]
    spans, line = list[tuple[int, int, int] | None](), 1
    for number, ends in enumerate(digests.look(source.path).line_ends):
        spans.append((number * size, (number + 1) * size, line))
        line += ends
    return spans


def bits_for(sources: Sequence[SourceFile]) -> int:
    """So many bits of the key that a bucket holds about RUN_BYTES."""
    size = sum(unpacked_size(source.path) for source in sources if source.path != BUILT_IN)
    return min(MAX_BITS, max(0, (size // RUN_BYTES).bit_length()))


def spill(piece: Piece, reader: PieceReader) -> dict[str, Any]:
    """Read a piece and leave its rows on disk, by bucket; returns its summary, which lies beside them."""
    folder, name = Path(reader.folder), f"{piece.number:06d}"
    rows = empty = bad_row_lines = size = runs = 0
    first_refused: dict[str, Any] | None = None
    labels, spellings = set[str](), Counter[tuple[str, str]]()
    bad, waiting = list[str](), list[pa.Table]()
    for table in clean.read_clean(piece.source, reader.task, reader.on_bad_row, reader.most, piece.span):
        filled, problems, without_text = sift(table)
        rows += len(table)
        size += table.nbytes
        empty += without_text
        bad += map(line_of, problems)
        bad_row_lines += lines_of_problems(problems)
        refused = (problem for problem in problems if refuses(problem, reader.on_bad_row))
        first_refused = first_refused or next(refused, None)
        labels.update(labels_of(filled))
        spellings.update(spellings_of(filled))
        waiting.append(filled.select(_COLUMNS))
        if sum(run.nbytes for run in waiting) >= RUN_BYTES:
            _write_run(folder / f"{name}-{runs:04d}.arrow", waiting, reader.bits)
            runs += 1
            waiting = []
    if waiting:
        _write_run(folder / f"{name}-{runs:04d}.arrow", waiting, reader.bits)
        runs += 1
    if bad:
        write_file(folder / f"{name}.bad.txt", "".join(f"{line}\n" for line in bad).encode(), PRIVATE)
    summary = {
        "rows": rows,
        "empty": empty,
        "bad_rows": len(bad),
        "bad_row_lines": bad_row_lines,
        "bytes": size,
        "runs": runs,
        "problem": first_refused,
        "labels": sorted(labels),
        "spellings": [[*pair, number] for pair, number in sorted(spellings.items())],
    }
    write_file(folder / f"{name}.json", json.dumps(summary).encode(), PRIVATE)
    return summary


def _write_run(path: Path, tables: Sequence[pa.Table], bits: int) -> None:
    rows, sink = pa.concat_tables(tables), io.BytesIO()
    keys = rows["key"].to_numpy()
    buckets = keys >> np.uint64(64 - bits) if bits else np.zeros(len(keys), dtype=np.uint64)
    rows = rows.take(pa.array(np.argsort(buckets, kind="stable"))).combine_chunks()
    nothing = pa.RecordBatch.from_pylist([], schema=rows.schema)
    ends = np.searchsorted(np.sort(buckets), np.arange(2**bits + 1))
    with pa.ipc.new_file(sink, rows.schema) as writer:
        for first, stop in itertools.pairwise(ends):
            (batch,) = rows.slice(first, stop - first).to_batches() or [nothing]
            writer.write_batch(batch)
    write_file(path, sink.getbuffer(), PRIVATE)


def runs_of(reader: PieceReader, summaries: Sequence[dict[str, Any]]) -> list[Path]:
    """The files of all runs, in the order of their rows."""
    runs = [(piece, run) for piece, summary in enumerate(summaries) for run in range(summary["runs"])]
    return [Path(reader.folder, f"{piece:06d}-{run:04d}.arrow") for piece, run in runs]


def read_bucket(runs: Sequence[Path], bucket: int) -> pa.Table:
    """The rows of a bucket, of all runs, by memory map: texts are read only where they are looked at."""
    return pa.concat_tables([read_batch(path, bucket) for path in runs])


def bad_lines(reader: PieceReader) -> Iterator[bytes]:
    """The lists of skipped rows, of every piece that has one."""
    return (path.read_bytes() for path in sorted(Path(reader.folder).glob("*.bad.txt")))
