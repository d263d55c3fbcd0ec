"""Files → clean rows: list the files, then read, check and normalise each, or a piece of it.

`read_clean` works on one file and knows nothing of the others, so it can run anywhere; `assembly` sees every row.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from rayscale.errors import DataError
from rayscale.study.encoding_names import UTF_8, canonical
from rayscale.study.study import Data, Study, Task
from rayscale.system import registry
from rayscale.system.machine import GIGA, cache_root, free_bytes
from rayscale.system.paths import files_of
from rayscale.text.form import Form, find_form
from rayscale.text.normalise import NORMALISE_VERSION, keys_of, keys_within
from rayscale.text.rows import near_duplicates
from rayscale.text.sources import corpus, digests, remote
from rayscale.text.sources.encodings import proposal
from rayscale.text.sources.opening import ending
from rayscale.text.sources.readers import Source, read_jsonl
from rayscale.text.sources.row import BadRow, LabelKinds, Row, UnusableError
from rayscale.text.split import TEST, TRAIN, VALIDATION

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
_ENDINGS = tuple(_FORMATS)
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
        "spelling": pa.large_string(),  # of a label that is read as another one, such as without its blanks
    }
)


@dataclass(frozen=True)
class SourceFile:
    """One file to read; its number is that among all files, `encoding` that of its text, for formats of text."""

    role: str
    number: int
    path: str
    format: str
    encoding: str = UTF_8

    def rows(self, columns: Sequence[str], span: tuple[int, int, int] | None = None) -> Iterator[Row | BadRow]:
        """Its rows, or those of a part of it."""
        read: Source = registry.resolve("rayscale.sources", self.format)
        if span is not None:
            return read_jsonl(self.path, columns, *span, encoding=self.encoding)
        return read(self.path, columns, **({} if self.encoding == UTF_8 else {"encoding": self.encoding}))


def list_sources(data: Data) -> tuple[SourceFile, ...]:
    """Every file of the study, test first, in a fixed order; files that lie elsewhere are copied here first.

    Raises DataError: no file, an empty one, an unknown format, storage out of reach, an encoding without text.
    """
    files = []
    for role in ("test", "validation", "train"):
        pattern = getattr(data, role)
        if pattern == BUILT_IN and role == "train":
            files.append((role, BUILT_IN, BUILT_IN))
        elif pattern:
            paths = find_files(pattern)
            if not paths:
                raise DataError("no such file; check the path", code="missing_file", where=f"data.{role}: {pattern}")
            files += [(role, path, _format_of(path, data.format)) for path in paths]
    encoding = canonical(data.encoding) if data.encoding else UTF_8
    sources = tuple(
        SourceFile(role, number, path, kind, encoding if _takes_encoding(kind) else UTF_8)
        for number, (role, path, kind) in enumerate(files)
    )
    if encoding != UTF_8 and not any(source.encoding == encoding for source in sources):
        kinds = ", ".join(sorted({source.format for source in sources}))
        raise DataError(f"has no effect on {kinds}; leave it out", code="no_text", where="data.encoding")
    return sources


def _takes_encoding(kind: str) -> bool:
    return "encoding" in inspect.signature(registry.resolve("rayscale.sources", kind)).parameters


def find_files(pattern: str) -> list[str]:
    """The files that a path, a pattern, a folder (see `remote.counts`) or an address names, on this machine."""
    if remote.is_remote(pattern):
        return remote.fetch(pattern, _ENDINGS)
    files: list[str] = []
    for path in files_of(pattern):
        if not Path(path).is_dir():
            files.append(path)
            continue
        inside = sorted(file for file in Path(path).rglob("*") if remote.counts(str(file.relative_to(path)), _ENDINGS))
        if not inside:
            text = f"a folder without files that end in {', '.join(_ENDINGS)}; name its files, as in {path}/*.dat"
            raise DataError(text, code="wrong_format", where=path)
        files += map(str, filter(Path.is_file, inside))
    return files


def _format_of(path: str, given: str | None) -> str:
    if Path(path).stat().st_size == 0:
        raise DataError("the file is empty; write it again from its source", code="empty_file", where=path)
    kind = given or _FORMATS.get(ending(path))
    if kind is None:
        known = ", ".join(sorted(set(_FORMATS.values())))
        text = f"the ending '{Path(path).suffix}' names no format; write data.format ({known}, or a plugin's)"
        raise DataError(text, code="wrong_format", where=path)
    registry.resolve("rayscale.sources", kind)  # an unknown name is said here, before any work is handed out
    return kind


def fingerprint(study: Study) -> str:
    """16 hex digits that name the clean rows: content of the files and every setting that changes the outcome."""
    data, task = study.data, study.task
    sources = list_sources(data)
    # Of another encoding the text counts, not its bytes: the same file saved as UTF-8 gives the same rows.
    contents = [
        corpus.fingerprint() if source.path == BUILT_IN else digests.look(source.path, source.encoding).digest
        for source in sources
    ]
    named = {
        "versions": [CLEAN_VERSION, NORMALISE_VERSION],
        "task": [task.type, *task.columns.values(), *(getattr(task, key) for key in task.kind.others)],
        "sources": [[source.role, source.format, content] for source, content in zip(sources, contents, strict=True)],
        "fractions": fractions(data),
        # What is skipped counts as much as what is kept: the number rises when other rows are.
        "on_bad_row": ["skip", 2] if data.on_bad_row == "skip" else data.on_bad_row,
        "near_duplicates": [data.near_duplicates, *near_duplicates.VERSIONS] if data.near_duplicates else None,
    }
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]


def fractions(data: Data) -> tuple[float, float]:
    """Shares of the training rows that become validation and test; 0 where the user gave a file."""
    return (0.0 if data.validation else data.validation_fraction, 0.0 if data.test else data.test_fraction)


def most_bytes(data: Data) -> int:
    """Bytes that the text may take: a third of the free disk by default, as preparing keeps it up to three times."""
    return int(data.max_text_gigabytes * GIGA) if data.max_text_gigabytes else free_bytes(cache_root()) // 3


def too_much(where: str, most: int, size: float | None = None) -> DataError:
    """What is said of more text than is allowed."""
    shown = f"takes {size / GIGA:.3g} GB" if size else "takes more"
    text = f"the unpacked text {shown}, and {most / GIGA:.3g} GB are allowed"
    default = "a third of the free space on the cache's disk"
    fix = f"give less text, or raise data.max_text_gigabytes (default: {default})"
    return DataError(text, fix=fix, code="too_much_text", where=where)


def read_clean(
    source: SourceFile, task: Task, on_bad_row: str, most: int | None = None, span: tuple[int, int, int] | None = None
) -> Iterator[pa.Table]:
    """The rows of one file as tables of schema ROWS, checked and normalised, of `most` bytes together.

    `span` (first byte, the byte to stop before, the line of the first byte) is a part of a file of lines. What cannot
    be used, a row or the whole file, becomes a row with a `problem`: as data, problems can be reported in the order of
    the files, whoever reads what first. Unless `on_bad_row` is "skip", reading ends at the first.
    """
    form, kinds = find_form(task.type), LabelKinds(task.label)
    batch: list[_Entry] = []
    size = characters = 0
    last = before = span[2] - 1 if span else 0
    try:
        for row in source.rows(tuple(task.columns.values()), span):
            last = max(last + 1, row.line)
            batch.append(_entry(source, last, row, task, form, kinds))
            if batch[-1].problem and on_bad_row != "skip":
                break
            characters += len(batch[-1].text)
            if len(batch) == BATCH_ROWS or characters > BATCH_CHARACTERS:
                table = _table(source, batch, form.group)
                batch, characters = [], 0
                size += table.nbytes
                if most and size > most:
                    raise too_much(source.path, most)
                yield table
        if last == before and span is None:
            raise no_rows(source.path)
    except DataError as error:
        problem = {"message": error.message, "code": error.code, "where": error.where, "fatal": True}
        batch.append(_Entry(last + 1, problem=json.dumps(problem)))
    if batch:
        yield _table(source, batch, form.group)


class _Entry(NamedTuple):
    """A row of ROWS, as far as it is known without the others."""

    line: int
    text: str = ""
    label: str | None = None
    problem: str | None = None
    spelling: str | None = None


def _entry(source: SourceFile, line: int, row: Row | BadRow, task: Task, form: Form, kinds: LabelKinds) -> _Entry:
    if isinstance(row, BadRow):
        return _Entry(line, problem=_problem(source, row))
    try:
        text, label = form.check(row, task)
        if form.one_class:
            kinds.check(row)
    except UnusableError as error:
        return _Entry(line, problem=_problem(source, error.bad))
    raw = row.values[-1]
    respelt = form.one_class and isinstance(raw, str) and raw != label
    return _Entry(line, text, label, spelling=raw if respelt else None)


def place_names(data: Data) -> Callable[[int], str]:
    """`file:line` of a row's `order`."""
    paths = [source.path for source in list_sources(data)]
    return lambda order: f"{paths[order >> PLACE_BITS]}:{order & ((1 << PLACE_BITS) - 1)}"


def no_rows(path: str) -> DataError:
    """What is said of a file without rows."""
    return DataError("the file holds no rows; write it again from its source", code="no_rows", where=path)


def _problem(source: SourceFile, bad: BadRow) -> str:
    where = f"{source.path}:{bad.line}" + (f": {bad.column}" if bad.column else "")
    message = f"found {bad.found}; {bad.fix}"
    if bad.undecoded:
        message = f"found {bad.found}, which is not {source.encoding.upper()}; {_proposal(source)}"
    problem = {"message": message, "code": "bad_row", "where": where, "fatal": False, "lines": bad.lines}
    return json.dumps(problem)


@lru_cache(maxsize=16)
def _proposal(source: SourceFile) -> str:
    return proposal(source.path, source.encoding)


def _table(source: SourceFile, batch: Sequence[_Entry], group: Callable[[str], str] | None) -> pa.Table:
    lines, texts, labels, problems, spellings = zip(*batch, strict=True)
    keys = keys_of(texts)
    columns = {
        "order": np.array(lines, dtype=np.int64) + (source.number << PLACE_BITS),
        "role": np.full(len(batch), _ROLES[source.role], dtype=np.int8),
        "key": keys if group is None else keys_within(keys, map(group, texts)),
        "text": texts,
        "label": labels,
        "problem": problems,
        "spelling": spellings,
    }
    return pa.table(columns, schema=ROWS)
