"""Prepared data: content-addressed folders of Arrow files, opened by memory map, and subsets cut from them.

    <cache>/prepared/<clean>/                   clean rows as text: manifest.json, {train,validation,test}.arrow
    <cache>/prepared/<clean>/tokens-<tokens>/   their token ids:    the same, tokenizer/, index/seed-<s>.npy

Rows lie in the ascending order of their key (windows: in the order of their documents). Folders appear whole or not
at all, and hold neither times nor paths: the same input gives the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from rayscale.errors import DataError
from rayscale.system.disk import PRIVATE, write_file
from rayscale.text.folders import is_whole, read_manifest, real_rows, tokens_folder
from rayscale.text.shards import read_table
from rayscale.text.split import SPLITS, permutation
from rayscale.text.tokens.encode import TokenizerSpec

T = TypeVar("T")


#: In folders with augmented rows: where the children of each real training row begin among all children.
CHILDREN_INDEX = "children.npy"


@dataclass(frozen=True)
class Ragged:
    """A list for each row: row i is `values[offsets[i]:offsets[i + 1]]`; `values` flat, `offsets` int64 (rows + 1)."""

    values: np.ndarray
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Length of each row's list."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Split:
    """One split: row i is `values[starts[i]:starts[i] + lengths[i]]`. `values` is a read-only view of a whole file.

    `values` int32, `starts` and `lengths` int64 (rows), `labels` int32 (rows) or None, `keys` uint64 (rows); `numbers`,
    `lists` and `texts` are the further columns of the task, by name.
    """

    values: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray | None
    keys: np.ndarray
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)
    lists: Mapping[str, Ragged] = field(default_factory=dict)
    texts: Mapping[str, pa.ChunkedArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def used(self) -> np.ndarray:
        """The numbers of all tokens that occur, ascending."""
        ends = self.starts + self.lengths
        # Rows that follow on each other are looked at as one stretch of the file.
        breaks = np.flatnonzero(self.starts[1:] != ends[:-1]) + 1
        firsts, lasts = (
            np.concatenate([[0], breaks])[: len(self)],
            np.concatenate([breaks, [len(self)]])[: len(self)] - 1,
        )
        values = [
            np.unique(self.values[self.starts[first] : ends[last]]) for first, last in zip(firsts, lasts, strict=True)
        ]
        return np.unique(np.concatenate([np.empty(0, dtype=np.int32), *values]))

    def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Token ids (int32), and where each of these rows begins in them (int64)."""
        return self.values, self.starts[rows]

    def ahead(self, plans: Iterable[T], rows_of: Callable[[T], np.ndarray]) -> Iterator[T]:
        """The plans as they are; `rows_of` tells which rows each will ask for, where these have to be fetched."""
        return iter(plans)

    def rows(self, indices: Iterable[int]) -> list[np.ndarray]:
        """The token ids of these rows."""
        return [self.values[self.starts[i] : self.starts[i] + self.lengths[i]] for i in indices]


@dataclass(frozen=True)
class Prepared:
    """Tokenised data of a study for one tokenizer."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> Prepared:
        """Open a folder. Raises DataError when it is absent, of another layout or not whole."""
        return cls(Path(path), read_manifest(Path(path)))

    @property
    def task_type(self) -> str:
        """The task that the rows were prepared for."""
        return str(self.manifest["task"])

    @property
    def labels(self) -> list[str]:
        """Names of the classes by number; empty without classes."""
        return list(self.manifest["labels"])

    @property
    def vocab_size(self) -> int:
        """Embedding rows a model needs: the requested vocabulary, whether or not the text filled it."""
        return int(self.manifest["tokenizer"]["size"])

    @property
    def token_ids(self) -> dict[str, int]:
        """Ids of the special tokens by role (pad, unk, cls, sep, mask, bos, eos), as far as there are."""
        return dict(self.manifest["tokenizer"]["token_ids"])

    @property
    def tokenizer_folder(self) -> Path:
        """The folder that `transformers.AutoTokenizer` loads."""
        return self.path / "tokenizer"

    @cached_property
    def _splits(self) -> dict[str, Split]:
        return {name: _read_split(self.path / f"{name}.arrow") for name in SPLITS}

    def split(self, name: str) -> Split:
        """train, validation or test."""
        return self._splits[name]

    def subset(self, axis: str, requested: int, seed: int) -> np.ndarray:
        """Row numbers (int64) of a training subset: a prefix of the seed's permutation, then the children of its rows.

        `requested` counts real rows on the axis "examples" and tokens on "tokens" (whole windows, rounded down). Raises
        DataError when there is less text than asked, or the seed has no index.
        """
        length = int(self.manifest["max_length"])
        rows = requested // length if axis == "tokens" else requested
        there = real_rows(self.manifest)
        if not 0 < rows <= there:
            unit, most = ("tokens", there * length) if axis == "tokens" else ("examples", there)
            least = f", {length} at least" if axis == "tokens" else ""
            text = f"{requested} training {unit} asked, and there are {most}{least}"
            raise DataError(text, fix="change it or give more text", code="too_little_data", where=f"grid.{unit}")
        index = _index_path(self.path, seed)
        if not index.exists():
            raise DataError(f"no index for seed {seed}; prepare the study with this seed", code="no_index")
        return self._with_children(np.asarray(np.load(index, mmap_mode="r")[:rows]))

    def count(self, axis: str, requested: int, seed: int) -> tuple[int, int]:
        """How many real rows a training subset has, and how many children. Raises DataError as `subset` does."""
        rows = len(self.subset(axis, requested, seed))
        real = requested // int(self.manifest["max_length"]) if axis == "tokens" else requested
        return real, rows - real

    def _with_children(self, rows: np.ndarray) -> np.ndarray:
        if "augmentation" not in self.manifest:
            return rows
        starts = np.load(self.path / CHILDREN_INDEX)
        counts = starts[rows + 1] - starts[rows]
        # The children of each row in turn: its first one's number, then the next ones'.
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.concatenate([rows, real_rows(self.manifest) + np.repeat(starts[rows], counts) + within])


def find_tokens(cleaned: Path, spec: TokenizerSpec, max_length: int, seeds: Iterable[int]) -> Prepared | None:
    """The tokens of a folder of clean rows if they are there, whole, with an index for every seed."""
    return find_whole(tokens_folder(cleaned, spec, max_length), seeds)


def find_whole(folder: Path, seeds: Iterable[int]) -> Prepared | None:
    """The prepared data of a folder if it is whole and has an index for every seed."""
    if not is_whole(folder) or not all(_index_path(folder, seed).exists() for seed in seeds):
        return None
    return Prepared.open(folder)


def add_indices(folder: Path, seeds: Iterable[int]) -> None:
    """Write the permutation of each seed that has none yet."""
    real = None
    for seed in seeds:
        if not _index_path(folder, seed).exists():
            if real is None:  # children have no place of their own in a permutation
                real = read_table(folder / "train.arrow").slice(0, real_rows(read_manifest(folder)))
                labels = real["label"].to_numpy() if "label" in real.column_names else None
            content = io.BytesIO()
            np.save(content, permutation(real["key"].to_numpy(), seed, labels))
            write_file(_index_path(folder, seed), content.getvalue(), PRIVATE)


def _index_path(folder: Path, seed: int) -> Path:
    return folder / "index" / f"seed-{seed}.npy"


def _read_split(path: Path) -> Split:
    with pa.memory_map(str(path)) as source:
        whole, reader = source.read_buffer(), pa.ipc.open_file(source)
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
    starts, lengths = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for batch in batches:
        ids = batch["input_ids"]
        offsets = ids.offsets.to_numpy().astype(np.int64)
        # All batches are seen through one array of the file: a row's place in it is that of its bytes.
        starts.append(offsets[:-1] + (ids.values.buffers()[1].address - whole.address) // 4)
        lengths.append(np.diff(offsets))
    schema = batches[0].schema
    lists = {column.name for column in schema if pa.types.is_nested(column.type)} - {"input_ids"}
    texts = {column.name for column in schema if pa.types.is_large_string(column.type)}
    plain = set(schema.names) - {*lists, *texts, "input_ids", "label", "key"}
    return Split(
        values=np.frombuffer(whole, dtype=np.int32, count=whole.size // 4),
        starts=np.concatenate(starts),
        lengths=np.concatenate(lengths),
        labels=_column(batches, "label") if "label" in schema.names else None,
        keys=_column(batches, "key"),
        numbers={name: _column(batches, name) for name in sorted(plain)},
        lists={name: _ragged(batches, name) for name in sorted(lists)},
        texts={name: pa.chunked_array([batch[name] for batch in batches]) for name in sorted(texts)},
    )


def _ragged(batches: Sequence[pa.RecordBatch], name: str) -> Ragged:
    parts = [batch[name] for batch in batches]
    lengths = np.concatenate([np.diff(part.offsets.to_numpy()) for part in parts])
    values = np.concatenate([part.flatten().to_numpy() for part in parts])
    return Ragged(values, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))


def _column(batches: Sequence[pa.RecordBatch], name: str) -> np.ndarray:
    return np.concatenate([batch[name].to_numpy(zero_copy_only=False) for batch in batches])
