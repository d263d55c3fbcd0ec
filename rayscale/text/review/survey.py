"""A cheap look at a study's text for `plan`: how many rows, how long, which labels. No tokenizer, no Ray."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rayscale.study.study import Study
from rayscale.text import folders, prepared
from rayscale.text.review import row_counts
from rayscale.text.rows import assembly, clean
from rayscale.text.scripts import worth_in_letters
from rayscale.text.shards import read_table
from rayscale.text.sources.opening import open_bytes, unpacked_size

#: Files up to this size are cleaned whole, which gives exact counts; of a larger one the first rows are.
EXACT_BYTES = 50_000_000
SAMPLE_ROWS = 32_768
#: Rows are held in memory while they are counted: no more of a file than this.
SAMPLE_BYTES = 150_000_000
#: Rows, and of each the first letters, that say what scripts the text is written in.
WEIGHED_ROWS, WEIGHED_LETTERS = 1024, 2000


@dataclass(frozen=True)
class Survey:
    """What the text offers. Rows (documents, for causal-lm) and characters are those after cleaning and splitting.

    `exact` is False where they are estimated from a file's first rows and its number of lines; later duplicates are
    then not seen. `letters`: characters by what they are worth (`scripts.worth_in_letters`). `bytes` are of UTF-8.
    `fingerprint` names the files' content and the settings that decide about rows. `folder`: the prepared rows, None if
    there are none yet. `counts`: see `row_counts`. `splits`: the clean rows as far as they were read.
    """

    fingerprint: str
    rows_train: int
    rows_validation: int
    rows_test: int
    characters_train: int
    bytes: dict[str, int]
    letters: dict[str, int]
    labels: tuple[str, ...]
    counts: dict[str, Any]
    bad_rows: tuple[str, ...]
    exact: bool
    folder: Path | None
    splits: Mapping[str, pa.Table]
    near_duplicates: tuple[str, ...]

    @property
    def mean_letters(self) -> float:
        """Mean length of a training row by what its characters are worth."""
        return self.letters["train"] / max(1, self.rows_train)


def survey(study: Study) -> Survey:
    """Survey a study's text: its prepared folder, else its files. Raises DataError as preparing would."""
    folder = folders.clean_folder(study)
    if folders.is_whole(folder):
        return survey_folder(folder)
    tables: list[pa.Table] = []
    read, there = dict.fromkeys(prepared.SPLITS, 0), dict.fromkeys(prepared.SPLITS, 0)
    size, most = 0.0, clean.most_bytes(study.data)
    for source in clean.list_sources(study.data):
        part, whole = _first_rows(source, study, most)
        tables += part
        rows = sum(map(len, part))
        read[source.role] += rows
        expected = rows if whole else _rows_of(source, part)
        there[source.role] += expected
        size += sum(table.nbytes for table in part) * expected / max(1, rows)
        if size > most:
            raise clean.too_much(source.path, most, size)
    cleaned = assembly.assemble(tables, study)
    given = {role: getattr(study.data, role) for role in read}
    scales = {name: there[role] / read[role] for name in read for role in [name if given[name] else "train"]}
    return _survey(folder.name, cleaned, scales, exact=read == there, folder=None)


def survey_folder(folder: Path) -> Survey:
    """Survey the clean rows of a prepared folder."""
    manifest, near = folders.read_manifest(folder), folder / "near_duplicates.txt"
    splits = {name: read_table(folder / f"{name}.arrow") for name in prepared.SPLITS}
    lines = tuple(near.read_text(encoding="utf-8").splitlines())
    return _survey(folder.name, assembly.Cleaned(splits, manifest, (), lines), {}, exact=True, folder=folder)


def _survey(
    fingerprint: str, cleaned: assembly.Cleaned, scales: dict[str, float], *, exact: bool, folder: Path | None
) -> Survey:
    manifest = cleaned.manifest
    rows = {name: round(manifest["rows"][name] * scales.get(name, 1.0)) for name in prepared.SPLITS}
    texts = cleaned.splits["train"]["text"].slice(0, WEIGHED_ROWS).to_pylist()
    worth = worth_in_letters(text[:WEIGHED_LETTERS] for text in texts)
    return Survey(
        fingerprint=fingerprint,
        rows_train=rows["train"],
        rows_validation=rows["validation"],
        rows_test=rows["test"],
        characters_train=round(manifest["characters"]["train"] * scales.get("train", 1.0)),
        bytes={name: round(size * scales.get(name, 1.0)) for name, size in manifest["bytes"].items()},
        letters={name: round(n * worth * scales.get(name, 1.0)) for name, n in manifest["characters"].items()},
        labels=tuple(manifest["labels"]),
        counts={"exact": exact, **row_counts.row_counts(manifest), **({} if exact else {"expected": rows})},
        bad_rows=cleaned.bad_rows,
        exact=exact,
        folder=folder,
        splits=cleaned.splits,
        near_duplicates=cleaned.near_duplicates,
    )


def _first_rows(source: clean.SourceFile, study: Study, most: int) -> tuple[list[pa.Table], bool]:
    """The rows of a file, or of a large one the first, and whether these are all."""
    tables: list[pa.Table] = []
    for table in clean.read_clean(source, study.task, study.data.on_bad_row, most):
        tables.append(table)
        if source.path == clean.BUILT_IN:
            continue
        many = sum(map(len, tables)) >= SAMPLE_ROWS and unpacked_size(source.path) > EXACT_BYTES
        if many or sum(table.nbytes for table in tables) >= SAMPLE_BYTES:
            return tables, False
    return tables, True


def _rows_of(source: clean.SourceFile, sample: list[pa.Table]) -> int:
    """About how many rows a large file has, of which `sample` are the first."""
    rows = sum(map(len, sample))
    if source.format == "parquet":
        import pyarrow.parquet as pq

        return int(pq.read_metadata(source.path).num_rows)
    if source.format == "txt":  # a document has any number of lines, but the file holds nothing else
        read = sum(pc.sum(pc.binary_length(table["text"])).as_py() for table in sample)
        return round(rows * unpacked_size(source.path) / max(1, read))
    with open_bytes(source.path) as file:
        if unpacked_size(source.path) > os.path.getsize(source.path):  # packed: to unpack it all would take too long
            first = file.read(1 << 25)
            return max(rows, round(first.count(b"\n") * unpacked_size(source.path) / len(first)))
        return max(rows, sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 22), b"")))
