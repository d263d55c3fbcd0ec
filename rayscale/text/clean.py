"""Files → clean rows: list the files, read and check each, then divide all rows into train, validation and test.

`read_clean` works on one file and knows nothing of the others, so it can run anywhere; `assemble` sees every row once.
The result does not depend on how the rows were cut into tables or in which order the tables come.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayscale import registry
from rayscale.errors import DataError
from rayscale.files import files_of
from rayscale.machine import memory_bytes
from rayscale.text import apart, corpus, near
from rayscale.text.normalise import NORMALISE_VERSION, keys_of
from rayscale.text.opening import ending
from rayscale.text.sources import BadRow, Source
from rayscale.text.split import DROPPED, SPLITS, TEST, TRAIN, VALIDATION, divide
from rayscale.text.tasks.form import Form, find_form

if TYPE_CHECKING:
    from rayscale.study import Data, Study, Task

#: Rises when the same files would give other clean rows, or other subsets of them.
CLEAN_VERSION = 2

BUILT_IN = "builtin"
BATCH_ROWS = 8192
BATCH_CHARACTERS = 1 << 25

_FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "txt",
    ".conll": "conll",
    ".iob": "conll",
}
_ROLES = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
#: A row as it leaves its file. `order` is its place among all rows: the file's number above PLACE_BITS, then the line;
#: `problem` (JSON) stands for a row without text.
PLACE_BITS = 40
ROWS = pa.schema(
    {
        "order": pa.int64(),
        "role": pa.int8(),
        "key": pa.uint64(),
        "text": pa.large_string(),
        "label": pa.large_string(),
        "problem": pa.large_string(),
    }
)


@dataclass(frozen=True)
class SourceFile:
    """One file to read: its role (train, validation, test), its number among all files, where it lies, its format."""

    role: str
    number: int
    path: str
    format: str


@dataclass(frozen=True)
class Cleaned:
    """The rows of each split in ascending order of their key (columns key, text and, with labels, label: int32).

    `manifest` counts what was read, kept and dropped, and why; `bad_rows` lists what `on_bad_row: skip` passed over,
    `near_duplicates` the training rows that a held-out text resembles too much.
    """

    splits: dict[str, pa.Table]
    manifest: dict[str, Any]
    bad_rows: tuple[str, ...]
    near_duplicates: tuple[str, ...] = ()


def list_sources(data: Data) -> tuple[SourceFile, ...]:
    """Every file of the study, test first, in a fixed order.

    Raises DataError: nothing matches, a folder, an empty file, an unknown format.
    """
    found = []
    for role in ("test", "validation", "train"):
        pattern = getattr(data, role)
        if pattern == BUILT_IN and role == "train":
            found.append((role, BUILT_IN, BUILT_IN))
        elif pattern:
            paths = files_of(pattern)
            if not paths:
                raise DataError("no such file; check the path", code="missing_file", where=f"data.{role}: {pattern}")
            found += [(role, path, _format_of(path, data.format)) for path in paths]
    return tuple(SourceFile(role, number, path, kind) for number, (role, path, kind) in enumerate(found))


def _format_of(path: str, given: str | None) -> str:
    if Path(path).is_dir():
        raise DataError(f"a folder; name its files, as in {path}/*.jsonl", code="wrong_format", where=path)
    if Path(path).stat().st_size == 0:
        raise DataError("the file is empty; write it again from its source", code="empty_file", where=path)
    kind = given or _FORMATS.get(ending(path))
    if kind is None:
        known = ", ".join(sorted(set(_FORMATS.values())))
        raise DataError(
            f"the ending '{Path(path).suffix}' names no format; say which with data.format ({known}, or a plugin's)",
            code="wrong_format",
            where=path,
        )
    registry.resolve("rayscale.sources", kind)  # an unknown name is said here, before any work is handed out
    return kind


def fingerprint(study: Study) -> str:
    """16 hex digits that name the clean rows: content of the files and every setting that changes the outcome."""
    data, task = study.data, study.task
    sources = list_sources(data)
    named = {
        "versions": [CLEAN_VERSION, NORMALISE_VERSION],
        "task": [task.type, *task.columns.values(), *(getattr(task, key) for key in task.kind.others)],
        "sources": [[source.role, source.format, _digest(source)] for source in sources],
        "fractions": _fractions(data),
        "on_bad_row": data.on_bad_row,
        "near_duplicates": [data.near_duplicates, *near.VERSIONS] if data.near_duplicates else None,
    }
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]


def _digest(source: SourceFile) -> str:
    if source.path == BUILT_IN:
        return corpus.fingerprint()
    try:
        with open(source.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror}); check its rights", code="unreadable_file",
                        where=source.path) from error  # fmt: skip


def _fractions(data: Data) -> tuple[float, float]:
    """Shares of the training rows that become validation and test; 0 where the user gave a file."""
    return (0.0 if data.validation else data.validation_fraction, 0.0 if data.test else data.test_fraction)


def most_bytes(data: Data) -> int:
    """Bytes that the study's rows may take in memory: as the study says, else an eighth of this machine's memory.

    Cleaning holds them about five times.
    """
    return int(data.max_text_gigabytes * 1e9) if data.max_text_gigabytes else memory_bytes() // 8


def gather(tables: Iterable[pa.Table], most: int, before: Sequence[pa.Table] = ()) -> list[pa.Table]:
    """All of the tables. Raises DataError as soon as they, with those `before`, take more than `most` bytes."""
    gathered, size = [], sum(table.nbytes for table in before)
    for table in tables:
        size += table.nbytes
        if size > most:
            raise _too_much("data.train", most)
        gathered.append(table)
    return gathered


def check_size(where: str, size: float, most: int) -> None:
    """Raise DataError if rows of so many bytes in memory are more than `most`."""
    if size > most:
        raise _too_much(where, most, size)


def _too_much(where: str, most: int, found: float | None = None) -> DataError:
    shown = f"takes {found / 1e9:.3g} GB" if found else "takes more"
    return DataError(
        f"unpacked in memory the text {shown}, and {most / 1e9:.3g} GB are allowed; give less text, or raise "
        "data.max_text_gigabytes (by default an eighth of this machine's memory)",
        code="too_much_text",
        where=where,
    )


def read_clean(source: SourceFile, task: Task, on_bad_row: str, most: int | None = None) -> Iterator[pa.Table]:
    """The rows of one file as tables of schema ROWS, checked and normalised, of `most` bytes together.

    A row that cannot be used becomes a row with a `problem`, and so does what makes the whole file unusable: problems
    travel as data, so that the first one in file order is reported whoever reads what first. Unless `on_bad_row` is
    "skip", reading ends at the first.
    """
    columns, form = tuple(task.columns.values()), find_form(task.type)
    read: Source = registry.resolve("rayscale.sources", source.format)
    batch: list[tuple[str, str | None] | str] = []
    lines: list[int] = []
    total = size = characters = last = 0
    try:
        for row in read(source.path, columns):
            checked = row if isinstance(row, BadRow) else form.check(row, task)
            total += 1
            batch.append(_problem(source.path, checked) if isinstance(checked, BadRow) else checked)
            last = max(last + 1, row.line)
            lines.append(last)
            if isinstance(checked, BadRow) and on_bad_row != "skip":
                break
            characters += len(batch[-1][0])
            if len(batch) == BATCH_ROWS or characters > BATCH_CHARACTERS:
                table = _table(source, batch, lines)
                batch, lines, characters = [], [], 0
                size += table.nbytes
                if most and size > most:
                    raise _too_much(source.path, most)
                yield table
        if not total:
            raise DataError("the file holds no rows; write it again from its source", code="no_rows", where=source.path)
    except DataError as error:
        batch.append(json.dumps({"message": error.message, "code": error.code, "where": error.where, "fatal": True}))
        lines.append(last + 1)
    if batch:
        yield _table(source, batch, lines)


def _problem(path: str, bad: BadRow) -> str:
    where = f"{path}:{bad.line}" + (f": {bad.column}" if bad.column else "")
    return json.dumps({"message": f"found {bad.found}; {bad.mend}", "code": "bad_row", "where": where, "fatal": False})


def _table(source: SourceFile, batch: Sequence[tuple[str, str | None] | str], lines: Sequence[int]) -> pa.Table:
    texts = ["" if isinstance(row, str) else row[0] for row in batch]
    columns = {
        "order": np.array(lines, dtype=np.int64) + (source.number << PLACE_BITS),
        "role": np.full(len(batch), _ROLES[source.role], dtype=np.int8),
        "key": keys_of(texts),
        "text": texts,
        "label": [None if isinstance(row, str) else row[1] for row in batch],
        "problem": [row if isinstance(row, str) else None for row in batch],
    }
    return pa.table(columns, schema=ROWS)


def assemble(tables: Sequence[pa.Table], study: Study) -> Cleaned:
    """All rows of the study, divided; `tables` may come in any order.

    Raises DataError: the first bad row in file order (unless they are skipped), an unusable file, an empty split,
    fewer than two labels.
    """
    rows = pa.concat_tables(tables).combine_chunks()
    bad_rows = _check_problems(rows, study.data.on_bad_row)
    usable = rows.filter(pc.is_null(rows["problem"])).combine_chunks()
    filled = usable.filter(pc.greater(pc.utf8_length(usable["text"]), 0)).combine_chunks()

    form = find_form(study.task.type)
    borne = filled["label"].combine_chunks().dictionary_encode()  # labels as they come, each once
    codes = borne.indices.to_numpy() if not borne.null_count else np.zeros(len(filled), dtype=np.int32)
    keys, roles = filled["key"].to_numpy(), filled["role"].to_numpy()
    validation, test = _fractions(study.data)
    division = divide(
        keys,
        roles,
        filled["order"].to_numpy(),
        codes,
        validation_fraction=validation,
        test_fraction=test,
    )
    split, near_ones = apart.keep_apart(filled, division.split, study.data.near_duplicates)
    # A label that only dropped duplicates carry is no class of the task.
    names: list[str] = []
    if form.classes is not None:
        kept = borne.dictionary.take(pa.array(np.unique(codes[split != DROPPED]))).to_pylist()
        names = _sorted_labels(list({name for label in kept for name in form.classes(label)}))
    if form.one_class:
        numbers = pc.index_in(borne.dictionary, pa.array(names, pa.large_string())).fill_null(-1)
        labels: Any = numbers.to_numpy()[codes].astype(np.int32)
    else:
        labels = filled["label"].combine_chunks()

    splits = {}
    for name, number in SPLITS.items():
        chosen = np.flatnonzero(split == number)
        chosen = chosen[np.argsort(keys[chosen])]
        columns: dict[str, Any] = {"key": keys[chosen], "text": filled["text"].combine_chunks().take(pa.array(chosen))}
        if not form.packed:
            columns["label"] = labels[chosen] if form.one_class else labels.take(pa.array(chosen))
        splits[name] = pa.table(columns)
    dropped = {"bad_row": len(bad_rows), "empty": len(usable) - len(filled), **division.dropped}
    dropped |= apart.count(near_ones)
    counts = {name: len(table) for name, table in splits.items()}
    _check_splits(counts, dropped, names if form.classes else None, study.task)
    manifest = {
        "task": study.task.type,
        "labels": names,
        "rows": {"read": len(rows), **counts, "dropped": dropped, "conflicting_labels": division.conflicting_labels},
        "characters": {name: pc.sum(pc.utf8_length(table["text"])).as_py() for name, table in splits.items()},
        "bytes": {name: pc.sum(pc.binary_length(table["text"])).as_py() for name, table in splits.items()},
        "labels_not_in_training": _absent_labels(splits["train"], names, form),
        "near_duplicates": study.data.near_duplicates,
    }
    return Cleaned(splits, manifest, bad_rows, apart.as_lines(near_ones, place_names(study.data)))


def place_names(data: Data) -> Callable[[int], str]:
    """`file:line` of a row's `order`."""
    paths = [source.path for source in list_sources(data)]
    return lambda order: f"{paths[order >> PLACE_BITS]}:{order & ((1 << PLACE_BITS) - 1)}"


def _check_problems(rows: pa.Table, on_bad_row: str) -> tuple[str, ...]:
    found = rows.filter(pc.is_valid(rows["problem"])).sort_by("order")["problem"].to_pylist()
    problems = [json.loads(problem) for problem in found]
    for problem in problems:
        if problem["fatal"] or on_bad_row != "skip":
            mend = "" if problem["fatal"] else " (or data.on_bad_row: skip, which counts and lists such rows)"
            raise DataError(problem["message"] + mend, code=problem["code"], where=problem["where"])
    return tuple(f"{problem['where']}: {problem['message']}" for problem in problems)


def _sorted_labels(labels: list[str]) -> list[str]:
    """By number where all are whole numbers, so that class 10 comes after class 9; else by code point."""
    if all(label.removeprefix("-").isdecimal() for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def _check_splits(counts: dict[str, int], dropped: dict[str, int], labels: list[str] | None, task: Task) -> None:
    for name, rows in counts.items():
        if not rows:
            lost = ", ".join(f"{reason} {number}" for reason, number in dropped.items() if number) or "none"
            also = [split for split in ("test", "validation") if dropped.get(f"in_{split}")]
            mend = f"give more text{'' if name == 'train' else f', a larger {name}_fraction or another file'}"
            if name == "train" and also:  # held-out text wins
                mend = (
                    f"the training rows are also in data.{also[0]}: give that another file, or leave it out for a split"
                )
            raise DataError(
                f"the {name} split is empty (rows kept: {counts}; dropped: {lost}); {mend}",
                code="empty_split",
                where=f"data.{name}",
            )
    if labels is not None and len(labels) < 2:
        found = f"only one label, '{labels[0]}'" if labels else "no label"
        raise DataError(f"{found}; a classifier needs two or more - is this the right column?", code="one_label",
                        where=f"task.{task.kind.labels}")  # fmt: skip


def _absent_labels(train: pa.Table, names: list[str], form: Form) -> list[str]:
    classes = form.classes
    if not names or classes is None:
        return []
    found = pc.unique(train["label"]).to_pylist()
    present = {names[code] for code in found} if form.one_class else {n for each in found for n in classes(each)}
    return [name for name in names if name not in present]
