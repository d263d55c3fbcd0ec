"""Sources → the folder of clean rows, in memory that does not grow with the text.

Pieces are read wherever there is room; this process decides by numbers who goes where, then writes bucket by bucket.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rayscale.errors import DataError
from rayscale.study.study import Study
from rayscale.system.disk import PRIVATE, write_folder
from rayscale.text import folders
from rayscale.text.rows import clean
from rayscale.text.rows.assembly import Assembly, error_of
from rayscale.text.rows.leak_search import Search, find_leaks
from rayscale.text.rows.leaks import Leak, as_lines
from rayscale.text.rows.pieces import Piece, PieceReader, bad_lines, bits_for, cut, read_bucket, runs_of
from rayscale.text.shards import ShardWriter
from rayscale.text.split import SPLITS
from rayscale.text.workers import Meter, Workers


def prepare_rows(study: Study, folder: Path, workers: Workers, say: Callable[[str], None]) -> None:
    """Fill `folder` (`folders.clean_folder`). What an earlier call finished of it is kept.

    Raises DataError: the first bad row in file order (unless they are skipped), an unusable file, one that changed
    while it was read, more text than is allowed, an empty split, fewer than two labels.
    """
    sources = clean.list_sources(study.data)
    pieces, bits, most = cut(sources), bits_for(sources), clean.most_bytes(study.data)
    # Pieces of another cut have another name: what they hold fits no bucket of this one.
    place = folder.with_name(f"{folder.name}-pieces2-{len(pieces)}x{2**bits}")
    reader = PieceReader(str(place), study.task, study.data.on_bad_row, most, bits)
    try:
        summaries = _read(pieces, reader, workers, say, f"reading {len(sources)} source{'s' * (len(sources) > 1)}")
        rows, empty, bad_rows, bad_row_lines = (
            sum(summary[name] for summary in summaries) for name in ("rows", "empty", "bad_rows", "bad_row_lines")
        )
        assembly = Assembly(study, sorted({label for summary in summaries for label in summary["labels"]}))
        runs = runs_of(reader, summaries)
        splits = [assembly.decide(read_bucket(runs, bucket)) for bucket in range(2**bits)]
        leaks: list[Leak] = []
        if study.data.near_duplicates is not None:
            splits, leaks = find_leaks(Search(place, runs, study.data.near_duplicates), splits, workers, say)
        for bucket, split in enumerate(splits):
            assembly.count(read_bucket(runs, bucket), split)
        assembly.settle(bad_rows, empty, leaks)
        assembly.bad_row_lines = bad_row_lines
        for summary in summaries:
            assembly.spellings.update({(label, raw): number for label, raw, number in summary["spellings"]})
        if folders.clean_folder(study) != folder:
            raise DataError("a source file changed while it was read; run again when it is written", code="changed")

        def write(temporary: Path) -> None:
            with open(temporary / "bad_rows.txt", "wb") as listed:
                listed.writelines(bad_lines(reader))
            lines = "".join(f"{line}\n" for line in as_lines(leaks, clean.place_names(study.data)))
            (temporary / "near_duplicates.txt").write_text(lines, encoding="utf-8")
            meter = Meter(say, "sorting", sum(assembly.counts.values()))
            with ExitStack() as stack:
                writers = {name: stack.enter_context(ShardWriter(temporary / f"{name}.arrow", assembly.schema))
                           for name in SPLITS}  # fmt: skip
                for bucket, split in enumerate(splits):
                    for name, table in assembly.pick(read_bucket(runs, bucket), split).items():
                        writers[name].add(table)
                        meter.add(len(table))
            folders.write_manifest(temporary, assembly.manifest(rows))

        write_folder(folder, write, folders.is_whole, PRIVATE)
    except DataError:  # what was read is of no use to whoever fixes this
        shutil.rmtree(place, ignore_errors=True)
        raise
    shutil.rmtree(place)


def _read(
    pieces: Sequence[Piece], reader: PieceReader, workers: Workers, say: Callable[[str], None], what: str
) -> list[dict[str, Any]]:
    """The summary of every piece, in their order."""
    summaries = {piece.number: known for piece in pieces if (known := reader.summary(piece)) is not None}
    say(f"{what} ({len(summaries)} of {len(pieces)} pieces were read)" if summaries else what)
    meter = Meter(say, what, len(pieces), "pieces", len(summaries))
    Path(reader.folder).mkdir(parents=True, exist_ok=True)
    missing = [piece for piece in pieces if piece.number not in summaries]
    for table in workers.read(reader, missing) if missing else ():
        for row in table.to_pylist():
            summaries[row["piece"]] = json.loads(row["summary"])
            meter.add(1)
        _check(pieces, summaries, reader)
    _check(pieces, summaries, reader)
    for source in dict.fromkeys(piece.source for piece in pieces):
        if not sum(summaries[piece.number]["rows"] for piece in pieces if piece.source == source):
            raise clean.no_rows(source.path)
    return [summaries[piece.number] for piece in pieces]


def _check(pieces: Sequence[Piece], summaries: dict[int, dict[str, Any]], reader: PieceReader) -> None:
    """Raise the first problem in file order, as soon as nothing before it can have another."""
    for piece in itertools.takewhile(lambda piece: piece.number in summaries, pieces):
        if problem := summaries[piece.number]["problem"]:
            raise error_of(problem)
    if sum(summary["bytes"] for summary in summaries.values()) > reader.most:
        raise clean.too_much("data.train", reader.most)
