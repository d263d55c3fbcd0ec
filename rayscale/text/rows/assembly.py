"""Clean rows → train, validation and test: who goes where is decided by numbers, then the texts follow.

Rows come in buckets by the first bits of their key, so that all rows of one text are decided on together. The result
depends neither on the number of buckets nor on how the rows were cut into tables, nor on the order of these.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayscale.errors import DataError
from rayscale.study.study import Study, Task
from rayscale.text.form import find_form
from rayscale.text.rows import leaks as apart
from rayscale.text.rows.clean import fractions, place_names
from rayscale.text.rows.leaks import Leak
from rayscale.text.split import SPLITS, TEST, VALIDATION, by_key, divide

#: Ways of writing labels that are remembered.
MOST_SPELLINGS = 50


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


@dataclass
class Assembly:
    """Decides on buckets, one after the other, then names the classes and picks the rows of each split.

    `labels` are those of all usable rows. Order of calls: `decide` for every bucket; `count` for every bucket, when it
    is known which rows are near-duplicates; `settle`; `pick` for every bucket; `manifest`.
    """

    study: Study
    labels: Sequence[str]
    dropped: dict[str, int] = field(default_factory=dict)
    conflicting_labels: int = 0
    bad_row_lines: int = 0
    spellings: Counter[tuple[str, str]] = field(default_factory=Counter)  # of labels, as (read as, written)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    characters: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))

    def __post_init__(self) -> None:
        self._form = find_form(self.study.task.type)
        self._values = pa.array(sorted(self.labels), pa.large_string())  # as the rows bear them, each once
        self._kept = {name: np.zeros(len(self._values), dtype=bool) for name in SPLITS}
        self._first = np.full(len(self._values), np.iinfo(np.int64).max)  # held-out row of each, by its `order`
        self.names: list[str] = []

    def decide(self, rows: pa.Table) -> np.ndarray:
        """The split of each row of a bucket (int8, see `split.Division`); texts are not looked at."""
        validation, test = fractions(self.study.data)
        codes = self._codes(rows)
        division = divide(
            rows["key"].to_numpy(), rows["role"].to_numpy(), rows["order"].to_numpy(),
            np.zeros(len(rows), dtype=np.int32) if codes is None else codes,
            validation_fraction=validation, test_fraction=test, grouped=self._form.group is not None,
        )  # fmt: skip
        for reason, number in division.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + number
        self.conflicting_labels += division.conflicting_labels
        return division.split

    def count(self, rows: pa.Table, split: np.ndarray) -> None:
        """The rows of a bucket and their labels are these."""
        codes = self._codes(rows)
        for name, number in SPLITS.items():
            chosen = split == number
            self.counts[name] += int(chosen.sum())
            if codes is not None:
                self._kept[name][np.unique(codes[chosen])] = True
        if codes is not None:
            held_out = np.isin(split, (VALIDATION, TEST))
            np.minimum.at(self._first, codes[held_out], rows["order"].to_numpy()[held_out])

    def settle(self, bad_rows: int, empty: int, leaks: Sequence[Leak]) -> None:
        """All is counted: name the classes. Raises DataError for an empty split and for fewer than two labels."""
        self.dropped = {"bad_row": bad_rows, "empty": empty, **self.dropped, **apart.count(leaks)}
        # A label that only dropped duplicates carry is no class of the task.
        names = self._classes(*self._kept.values())
        # By number where all are whole numbers, so that class 10 comes after class 9; else by code point.
        whole = all(name.removeprefix("-").isdecimal() for name in names)
        self.names = sorted(names, key=lambda name: (int(name) if whole else 0, name))
        _check_splits(self.counts, self.dropped, self.names if self._form.classes else None, self.study.task)

    def _classes(self, *kept: np.ndarray) -> set[str]:
        if self._form.classes is None:
            return set()
        borne = self._values.filter(pa.array(np.any(kept, axis=0))).to_pylist()
        return {name for label in borne for name in self._form.classes(label)}

    def pick(self, rows: pa.Table, split: np.ndarray) -> dict[str, pa.Table]:
        """The rows of each split of a bucket, in the order of their key."""
        keys, tables = rows["key"].to_numpy(), {}
        texts, labels = rows["text"].combine_chunks(), rows["label"].combine_chunks()
        names = pa.array(self.names, pa.large_string())
        for name, number in SPLITS.items():
            chosen = by_key(keys, split == number)
            columns: dict[str, Any] = {"key": keys[chosen], "text": texts.take(pa.array(chosen))}
            self.characters[name] += pc.sum(pc.utf8_length(columns["text"])).as_py() or 0
            self.bytes[name] += pc.sum(pc.binary_length(columns["text"])).as_py() or 0
            if not self._form.packed:
                borne = labels.take(pa.array(chosen))
                columns["label"] = pc.index_in(borne, names) if self._form.one_class else borne
            tables[name] = pa.table(columns, schema=self.schema)
        return tables

    @property
    def schema(self) -> pa.Schema:
        """Of the rows of a split."""
        kind = pa.int32() if self._form.one_class else pa.large_string()
        label = {} if self._form.packed else {"label": kind}
        return pa.schema({"key": pa.uint64(), "text": pa.large_string(), **label})

    def manifest(self, read: int) -> dict[str, Any]:
        """What became of the rows that were read."""
        of_training = self._classes(self._kept["train"])
        unseen = [name for name in self.names if name not in of_training]
        return {
            "task": self.study.task.type,
            "labels": self.names,
            "rows": {"read": read, **self.counts, "dropped": self.dropped, "bad_row_lines": self.bad_row_lines,
                     "conflicting_labels": self.conflicting_labels},
            "characters": self.characters,
            "bytes": self.bytes,
            "near_duplicates": self.study.data.near_duplicates,
            "label_spellings": [[*pair, number] for pair, number in self.spellings.most_common(MOST_SPELLINGS)],
            "labels_not_in_training": unseen,
            "first_rows_of_these": self._first_rows(unseen),
        }  # fmt: skip

    def _first_rows(self, names: Sequence[str]) -> list[int]:
        """The `order` of the first validation or test row that bears each class."""
        first: dict[str, int] = {}
        if names:
            borne = np.flatnonzero(np.any([self._kept["validation"], self._kept["test"]], axis=0))
            for label, order in zip(self._values.take(pa.array(borne)).to_pylist(), self._first[borne], strict=True):
                for name in self._form.classes(label) if self._form.classes else ():
                    first[name] = min(int(order), first.get(name, int(order)))
        return [first[name] for name in names]

    def _codes(self, rows: pa.Table) -> np.ndarray | None:
        if self._form.packed:
            return None
        return pc.index_in(rows["label"], self._values).to_numpy().astype(np.int32)


def assemble(tables: Sequence[pa.Table], study: Study) -> Cleaned:
    """All rows of a study (schema `clean.ROWS`) in memory, divided. Raises DataError as `prepare_rows` does."""
    rows = pa.concat_tables(tables).combine_chunks()
    filled, problems, empty = sift(rows)
    for problem in problems:
        if refuses(problem, study.data.on_bad_row):
            raise error_of(problem)
    assembly = Assembly(study, labels_of(filled))
    split, leaks = apart.keep_apart(filled, assembly.decide(filled), study.data.near_duplicates)
    assembly.count(filled, split)
    assembly.settle(len(problems), empty, leaks)
    assembly.bad_row_lines = lines_of_problems(problems)
    assembly.spellings = spellings_of(filled)
    splits, listed = assembly.pick(filled, split), apart.as_lines(leaks, place_names(study.data))
    return Cleaned(splits, assembly.manifest(len(rows)), tuple(map(line_of, problems)), listed)


def sift(rows: pa.Table) -> tuple[pa.Table, list[dict[str, Any]], int]:
    """Of rows as they were read: those with a text, the problems of those that are no use, how many have no text."""
    problems = rows.filter(pc.is_valid(rows["problem"])).sort_by("order")["problem"].to_pylist()
    usable = rows.filter(pc.is_null(rows["problem"]))
    filled = usable.filter(pc.greater(pc.utf8_length(usable["text"]), 0)).combine_chunks()
    return filled, [json.loads(problem) for problem in problems], len(usable) - len(filled)


def refuses(problem: dict[str, Any], on_bad_row: str) -> bool:
    """Whether a problem ends the preparation: that of a whole file does, that of a row unless such are skipped."""
    return bool(problem["fatal"]) or on_bad_row != "skip"


def labels_of(rows: pa.Table) -> list[str]:
    """The labels of rows, each once; none for a task without."""
    return [label for label in pc.unique(rows["label"]).to_pylist() if label is not None]


def spellings_of(rows: pa.Table) -> Counter[tuple[str, str]]:
    """How often which label, as it is read, was written otherwise, and how."""
    written = rows.filter(pc.is_valid(rows["spelling"])).select(("label", "spelling"))
    return Counter(tuple(row.values()) for row in written.to_pylist())


def lines_of_problems(problems: Sequence[dict[str, Any]]) -> int:
    """The lines of all rows that are no use."""
    return sum(problem.get("lines", 1) for problem in problems)


def error_of(problem: dict[str, Any]) -> DataError:
    """The refusal of a row, or of a whole file."""
    fix = "" if problem["fatal"] else " (or set data.on_bad_row: skip, which counts and lists such rows)"
    return DataError(problem["message"] + fix, code=problem["code"], where=problem["where"])


def line_of(problem: dict[str, Any]) -> str:
    """A row that was passed over, as it is listed."""
    return f"{problem['where']}: {problem['message']}"


def _check_splits(counts: dict[str, int], dropped: dict[str, int], labels: list[str] | None, task: Task) -> None:
    for name, rows in counts.items():
        if not rows:
            lost = ", ".join(f"{reason} {number}" for reason, number in dropped.items() if number) or "none"
            also = [split for split in ("test", "validation") if dropped.get(f"in_{split}")]
            fix = f"give more text{'' if name == 'train' else f', a larger {name}_fraction or another file'}"
            if dropped.get("bad_row", 0) > sum(counts.values()):
                fix = "remove data.on_bad_row: skip to see what is wrong with the first unusable row"
            elif name == "train" and also:  # held-out text wins
                fix = f"all training rows are also in data.{also[0]}: give that another file, or leave it out"
            text = f"the {name} split is empty (rows kept: {counts}; dropped: {lost})"
            raise DataError(text, fix=fix, code="empty_split", where=f"data.{name}")
    if labels is not None and len(labels) < 2:
        found = f"only one label, '{labels[0]}'" if labels else "no label"
        raise DataError(f"{found}; a classifier needs two or more - is this the right column?", code="one_label",
                        where=f"task.{task.kind.labels}")  # fmt: skip
