"""Prepared data: content-addressed folders of Arrow files, opened by memory map, and subsets cut from them.

    <cache>/prepared/<clean>/                   clean rows as text: manifest.json, {train,validation,test}.arrow
    <cache>/prepared/<clean>/tokens-<tokens>/   their token ids:    the same, tokenizer/, index/seed-<s>.npy

Rows lie in the ascending order of their key (windows: in the order of their documents). Folders appear whole or not
at all, and hold neither times nor paths: the same input gives the same bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rayscale.errors import DataError
from rayscale.machine import cache_root
from rayscale.text import clean, tokenise
from rayscale.text.publish import publish_file, publish_folder
from rayscale.text.split import SPLITS, permutation
from rayscale.text.tokenise import TokenizerSpec

if TYPE_CHECKING:
    from rayscale.study import Study

#: Layout of the folders; one of another layout is made again.
LAYOUT = 1

#: Lists of rows that are kept beside clean rows, as <name>.txt.
LISTS = ("bad_rows", "near_duplicates")

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
    """One split: row i is `values[offsets[i]:offsets[i + 1]]`. Arrays are read-only views of the file.

    `values` int32 (flat), `offsets` int64 (rows + 1), `labels` int32 (rows) or None, `keys` uint64 (rows); `numbers`
    and `lists` are the further columns of the task, by name.
    """

    values: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray | None
    keys: np.ndarray
    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)
    lists: Mapping[str, Ragged] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        return np.diff(self.offsets)

    def rows(self, indices: Iterable[int]) -> list[np.ndarray]:
        """The token ids of these rows."""
        return [self.values[self.offsets[i] : self.offsets[i + 1]] for i in indices]


@dataclass(frozen=True)
class Prepared:
    """Tokenised data of a study for one tokenizer."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> Prepared:
        """Open a folder. Raises DataError when it is absent, of another layout or not whole."""
        return cls(Path(path), _read_manifest(Path(path)))

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
            raise DataError(
                f"{requested} training {unit} asked, and there are {most}{least}; change grid.{unit} or give more text",
                code="too_little_data",
                where=f"grid.{unit}",
            )
        index = _index_path(self.path, seed)
        if not index.exists():
            raise DataError(f"no index for seed {seed}; prepare the study with this seed", code="no_index")
        return self._with_children(np.asarray(np.load(index, mmap_mode="r")[:rows]))

    def _with_children(self, rows: np.ndarray) -> np.ndarray:
        if "augmentation" not in self.manifest:
            return rows
        starts = np.load(self.path / CHILDREN_INDEX)
        counts = starts[rows + 1] - starts[rows]
        # The children of each row in turn: its first one's number, then the next ones'.
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.concatenate([rows, real_rows(self.manifest) + np.repeat(starts[rows], counts) + within])


def real_rows(manifest: dict[str, Any]) -> int:
    """Training rows (windows) of tokenised data that are no augmented copies."""
    train = manifest["splits"]["train"]
    return int(train.get("real_rows", train["rows"]))


def clean_folder(study: Study) -> Path:
    """Where the clean rows of a study belong. Reads the source files, for their hash."""
    return cache_root() / "prepared" / clean.fingerprint(study)


def tokens_folder(cleaned: Path, spec: TokenizerSpec, max_length: int) -> Path:
    """Where the tokens of one tokenizer belong."""
    return cleaned / f"tokens-{tokenise.fingerprint(spec, max_length)}"


def find_prepared(study: Study, spec: TokenizerSpec, seeds: Iterable[int]) -> Prepared | None:
    """The prepared data if it is there, whole, with an index for every seed."""
    return find_tokens(clean_folder(study), spec, study.task.length, seeds)


def find_tokens(cleaned: Path, spec: TokenizerSpec, max_length: int, seeds: Iterable[int]) -> Prepared | None:
    """As `find_prepared`, for clean rows whose folder is known: it hashes no source file again."""
    return find_whole(tokens_folder(cleaned, spec, max_length), seeds)


def find_whole(folder: Path, seeds: Iterable[int]) -> Prepared | None:
    """The prepared data of a folder if it is whole and has an index for every seed."""
    if not is_whole(folder) or not all(_index_path(folder, seed).exists() for seed in seeds):
        return None
    return Prepared.open(folder)


def is_whole(folder: Path) -> bool:
    """Whether the folder is of this layout and its files have the sizes that the manifest gives."""
    try:
        _read_manifest(folder)
    except DataError:
        return False
    return True


def read_clean_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of clean rows. Raises DataError as `Prepared.open` does."""
    return _read_manifest(folder)


def read_table(path: Path) -> pa.Table:
    """A table of a prepared folder, by memory map."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def publish_clean(folder: Path, cleaned: clean.Cleaned) -> None:
    """Write the clean rows, the manifest and the LISTS of rows that were passed over, a line for each."""

    def write(temporary: Path) -> None:
        for name in LISTS:
            rows = getattr(cleaned, name)
            (temporary / f"{name}.txt").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        write_folder(cleaned.splits, cleaned.manifest, temporary)

    publish_folder(folder, write, is_whole)


def publish_tokens(
    folder: Path,
    tables: dict[str, pa.Table],
    manifest: dict[str, Any],
    write_tokenizer: Callable[[Path], None],
    others: Mapping[str, bytes] | None = None,
) -> None:
    """Write tokenised splits, their manifest, the tokenizer's folder and other files."""

    def write(temporary: Path) -> None:
        write_tokenizer(temporary / "tokenizer")
        for name, content in (others or {}).items():
            (temporary / name).write_bytes(content)
        write_folder(tables, manifest, temporary)

    publish_folder(folder, write, is_whole)


def write_folder(tables: Mapping[str, pa.Table], manifest: dict[str, Any], folder: Path) -> None:
    """Fill a folder with tables and, last, the manifest, which lists every file that is there."""
    for name, table in tables.items():
        _write_table(folder / f"{name}.arrow", table)
    _write_manifest(folder, manifest)


def add_indices(folder: Path, seeds: Iterable[int]) -> None:
    """Write the permutation of each seed that has none yet."""
    real = None
    for seed in seeds:
        if not _index_path(folder, seed).exists():
            if real is None:  # children have no place of their own in a permutation
                real = read_table(folder / "train.arrow").slice(0, real_rows(_read_manifest(folder)))
            content = io.BytesIO()
            np.save(content, permutation(_required(real, "key"), seed, _column(real, "label")))
            publish_file(_index_path(folder, seed), content.getvalue())


def list_array(values: np.ndarray, offsets: np.ndarray) -> pa.Array:
    """A list<int32> column without a copy; a large list where 32-bit offsets do not reach."""
    if offsets[-1] > np.iinfo(np.int32).max:
        return pa.LargeListArray.from_arrays(offsets, values)
    return pa.ListArray.from_arrays(offsets.astype(np.int32), values)


def _index_path(folder: Path, seed: int) -> Path:
    return folder / "index" / f"seed-{seed}.npy"


def _write_table(path: Path, table: pa.Table) -> None:
    # One record batch, uncompressed: a reader maps it and sees each column as one array.
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        for batch in table.combine_chunks().to_batches():
            writer.write_batch(batch)


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    content = {"layout": LAYOUT, **manifest, "files": sizes}
    (folder / "manifest.json").write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        wrong = [name for name, size in manifest["files"].items() if (folder / name).stat().st_size != size]
        layout = manifest["layout"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"no whole prepared data here ({error}); run the study again, which prepares it",
            code="not_prepared",
            where=str(folder),
        ) from error
    if wrong or layout != LAYOUT:
        reason = f"{', '.join(wrong)} cut short" if wrong else f"layout {layout} where this version reads {LAYOUT}"
        raise DataError(f"{reason}; run the study again, which prepares it", code="not_prepared", where=str(folder))
    return manifest


def _read_split(path: Path) -> Split:
    table = read_table(path)
    lists = {column.name: _ragged(table[column.name]) for column in table.schema if pa.types.is_nested(column.type)}
    plain = {column.name for column in table.schema} - {*lists, "label", "key"}
    ids = lists.pop("input_ids")
    return Split(
        values=ids.values,
        offsets=ids.offsets,
        labels=_column(table, "label"),
        keys=_required(table, "key"),
        numbers={name: _required(table, name) for name in sorted(plain)},
        lists=lists,
    )


def _ragged(column: pa.ChunkedArray) -> Ragged:
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    return Ragged(array.values.to_numpy(), array.offsets.to_numpy().astype(np.int64))


def _required(table: pa.Table, name: str) -> np.ndarray:
    column = _column(table, name)
    if column is None:
        raise DataError(f"prepared rows without column '{name}'; run the study again", code="not_prepared")
    return column


def _column(table: pa.Table, name: str) -> np.ndarray | None:
    if name not in table.column_names:
        return None
    return table[name].combine_chunks().to_numpy() if len(table) else np.empty(0, dtype=np.int64)
