"""Clean rows → token files: blocks of text are encoded wherever there is room, then put together in fixed order.

A block is a record batch of the clean rows. Blocks that are done lie in a folder of parts until all are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayscale.errors import DataError
from rayscale.system.disk import PRIVATE, write_file
from rayscale.text.form import Form, find_form
from rayscale.text.shards import (
    Blocks,
    ShardWriter,
    as_file,
    batch_starts,
    read_batch,
    read_table,
    whole_blocks,
)
from rayscale.text.split import SPLITS
from rayscale.text.tokens import encode
from rayscale.text.tokens.encode import TokenizerSpec
from rayscale.text.tokens.vocabulary import TRAINING_CHARACTERS, Vocabulary, make_vocabulary
from rayscale.text.workers import Meter, Workers

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class EncodingRecipe:
    """What encoding needs; small, and travels to where the text is."""

    tokenizer: str  # JSON
    max_length: int  # a checkpoint's own limit where that is shorter than the study's
    task: str
    labels: tuple[str, ...] = ()  # names of the classes


@dataclass(frozen=True)
class Learned:
    """A vocabulary and what to encode with it."""

    vocabulary: Vocabulary
    recipe: EncodingRecipe


def learn(spec: TokenizerSpec, cleaned: Path, task: str, length: int, labels: Sequence[str]) -> Learned:
    """Train the tokenizer on the clean training split, or load the checkpoint's. Raises as `make_vocabulary` does."""
    vocabulary = make_vocabulary(spec, training_texts(read_table(cleaned / "train.arrow"), task), task, length)
    limit = vocabulary.config.get("model_max_length")
    if isinstance(limit, int):
        length = min(limit, length)
    return Learned(vocabulary, EncodingRecipe(vocabulary.tokenizer.to_str(), length, task, tuple(labels)))


def training_texts(train: pa.Table, task: str) -> Iterator[list[str]]:
    """What a tokenizer is trained on, in batches: the texts of the training rows, and labels that are texts."""
    form = find_form(task)
    columns = [train["text"], *([train["label"]] if form.labels_are_text else [])]
    return ([part for text in batch for part in form.texts(text)] for texts in columns for batch in _batches(texts))


def _batches(texts: pa.ChunkedArray) -> Iterator[list[str]]:
    left = TRAINING_CHARACTERS
    for first in range(0, len(texts), encode.BATCH_TEXTS):
        batch = texts.slice(first, encode.BATCH_TEXTS).to_pylist()
        yield batch
        left -= sum(map(len, batch))
        if left <= 0:
            return


def blocks_of(cleaned: Path) -> tuple[Blocks, np.ndarray]:
    """The clean texts in blocks (`read_texts`), and the first row of each (int64), with the number of all rows last."""
    places, starts = [], [np.zeros(1, dtype=np.int64)]
    for name in SPLITS:
        path = cleaned / f"{name}.arrow"
        firsts = batch_starts(path) + starts[-1][-1]
        places += places_in(path, firsts)
        starts.append(firsts[1:])
    return Blocks(read_texts, tuple(places)), np.concatenate(starts)


def places_in(path: Path, starts: np.ndarray) -> list[tuple[str, int, int]]:
    """What `read_texts` reads of a file whose batches begin at these rows."""
    return [(str(path), number, int(first)) for number, first in enumerate(starts[:-1])]


def read_texts(place: tuple[str, int, int]) -> pa.Table:
    """The rows of one batch of a file (row, text, label); `row` counts from the third of (path, batch, first row)."""
    path, number, first = place
    rows = read_batch(Path(path), number)
    columns = {"row": np.arange(first, first + len(rows)), "text": rows["text"]}
    return pa.table({**columns, **({"label": rows["label"]} if "label" in rows.column_names else {})})


def encode_block(block: pa.Table, recipe: EncodingRecipe) -> pa.Table:
    """Token ids for a block: columns row, input_ids, truncated, and those that the task adds."""
    tokenizer, texts, form = _tokenizer(recipe.tokenizer), block["text"].to_pylist(), find_form(recipe.task)
    if form.encode is None:  # windows are cut later
        columns = encode.encode(tokenizer, texts, None)
    else:
        labels = block["label"].to_pylist() if form.reads_labels else [None] * len(texts)
        columns = form.encode(tokenizer, texts, labels, recipe.max_length, recipe.labels)
    return pa.table({"row": block["row"], **columns})


@lru_cache(maxsize=1)
def _tokenizer(content: str) -> Tokenizer:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(content)  # takes as long as a thousand rows


def encode_parts(
    blocks: Blocks, starts: np.ndarray, recipe: EncodingRecipe, workers: Workers, folder: Path, meter: Meter
) -> list[Path]:
    """The tokens of every block in a file of its own, in the order of the blocks; what is there already is kept."""
    parts = [folder / f"{number:06d}.arrow" for number in range(len(blocks))]
    missing = [number for number, part in enumerate(parts) if not part.exists()]
    left = Blocks(blocks.read, tuple(blocks.places[number] for number in missing))
    meter.skip(int(starts[-1]) - sum(int(starts[number + 1] - starts[number]) for number in missing))
    if left:
        for number, table in whole_blocks(workers.transform(partial(encode_block, recipe=recipe), left), starts):
            write_file(parts[number], as_file(table.sort_by("row")), PRIVATE)
            meter.add(len(table))
    return parts


def write_splits(parts: Sequence[Path], cleaned: Path, learned: Learned, folder: Path) -> dict[str, Any]:
    """Write the token file of every split; returns the counts. Raises DataError for a split that fills no window."""
    counts, left = {}, iter(parts)
    write = _write_windows if find_form(learned.recipe.task).packed else _write_rows
    for name in SPLITS:
        path = cleaned / f"{name}.arrow"
        batches = (read_batch(path, number) for number in range(len(batch_starts(path)) - 1))
        pairs = ((read_table(next(left)), rows) for rows in batches)
        counts[name] = write(pairs, folder / f"{name}.arrow", learned)
    return counts


#: Columns of an encoded block that are dealt with here; the others are the task's.
_OWN = ("row", "input_ids", "truncated", "unread")
_WINDOWS = pa.schema({"input_ids": pa.list_(pa.int32()), "key": pa.uint64()})


@dataclass
class TokenCounts:
    """Of the rows of a split; `truncated` were longer than task.max_length, `unread` targets went with what was cut."""

    rows: int = 0
    tokens: int = 0
    longest: int = 0
    truncated: int = 0
    unread: int | None = None

    def add(self, part: pa.Table) -> None:
        """Count the rows of a part."""
        lengths = pc.list_value_length(part["input_ids"])
        self.rows += len(part)
        self.tokens += pc.sum(lengths).as_py() or 0
        self.longest = max(self.longest, pc.max(lengths).as_py() or 0)
        self.truncated += pc.sum(part["truncated"]).as_py() or 0
        if "unread" in part.column_names:
            self.unread = (self.unread or 0) + (pc.sum(part["unread"]).as_py() or 0)

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "rows": self.rows,
            "tokens": self.tokens,
            "longest": self.longest,
            "truncated_rows": self.truncated,
            "truncated_share": round(self.truncated / self.rows, 6),
            **({} if self.unread is None else {"unread": self.unread}),
        }


def token_rows(part: pa.Table, rows: pa.Table, form: Form) -> pa.Table:
    """The rows of a token file: what encoding made of them, and what they were."""
    added = {name: part[name] for name in part.column_names if name not in _OWN}
    label = {"label": rows["label"]} if form.one_class else {}
    return pa.table({"input_ids": part["input_ids"], **label, **added, "key": rows["key"]})


def _write_rows(pairs: Iterator[tuple[pa.Table, pa.Table]], path: Path, learned: Learned) -> dict[str, Any]:
    counts, form = TokenCounts(), find_form(learned.recipe.task)
    with ShardWriter(path) as writer:
        for part, rows in pairs:
            counts.add(part)
            writer.put(token_rows(part, rows, form))
    return counts.to_json()


def _write_windows(pairs: Iterator[tuple[pa.Table, pa.Table]], path: Path, learned: Learned) -> dict[str, Any]:
    ids = learned.vocabulary.token_ids()
    end = ids.get("eos", ids.get("sep"))
    if end is None:
        text = "the tokenizer has no end-of-text token (eos_token); choose another checkpoint"
        raise DataError(text, code="no_end_token")
    length, windows, documents = learned.recipe.max_length, 0, 0
    packer = encode.Packer(length, end)
    with ShardWriter(path, _WINDOWS) as writer:
        for part, rows in pairs:
            column = part["input_ids"].combine_chunks()
            values, keys = packer.add(column.values.to_numpy(), column.offsets.to_numpy(), rows["key"].to_numpy())
            if len(keys):
                offsets = np.arange(len(keys) + 1, dtype=np.int32) * np.int32(length)
                writer.put(pa.table({"input_ids": pa.ListArray.from_arrays(offsets, values), "key": keys}))
            windows, documents = windows + len(keys), documents + len(rows)
    if not windows:
        text = f"the {path.stem} split has {packer.left} tokens, less than one window of {length}"
        fix = "give more text, a larger fraction or a smaller task.max_length"
        raise DataError(text, fix=fix, code="empty_split", where=f"data.{path.stem}")
    return {
        "rows": windows,
        "tokens": windows * length,
        "longest": length,
        "documents": documents,
        "dropped_tokens": packer.left,
    }
