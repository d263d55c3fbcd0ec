"""Clean rows → token tables: blocks of text are encoded wherever there is room, then put together in fixed order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayscale.errors import DataError
from rayscale.text import prepared, tokenise
from rayscale.text.split import SPLITS
from rayscale.text.tasks.form import Asked, find_form
from rayscale.text.tokenise import TokenizerSpec
from rayscale.text.vocabulary import TRAINING_CHARACTERS, Vocabulary, make_vocabulary

#: Rows of one block of work: enough to outweigh a task's overhead, few enough to spread over the cores.
BLOCK_ROWS = 8192

#: Columns of an encoded block that are dealt with here; the others are the task's.
_OWN = ("split", "row", "input_ids", "truncated", "unread")


@dataclass(frozen=True)
class Recipe:
    """What encoding needs; small, and travels to where the text is. `max_length` None: no special tokens, no cut."""

    tokenizer: str  # JSON
    max_length: int | None
    task: str
    labels: tuple[str, ...] = ()  # names of the classes


@dataclass(frozen=True)
class Learned:
    """A vocabulary with its recipe, and the length in force: a checkpoint's own limit where that is shorter."""

    vocabulary: Vocabulary
    recipe: Recipe
    length: int


def learn(spec: TokenizerSpec, cleaned: Path, task: str, length: int) -> Learned:
    """Train the tokenizer on the clean training split, or load the checkpoint's. Raises as `make_vocabulary` does."""
    texts, form = prepared.read_table(cleaned / "train.arrow")["text"], find_form(task)
    batches = ([part for text in batch for part in form.texts(text)] for batch in _batches(texts))
    vocabulary = make_vocabulary(spec, batches, task, length)
    limit = vocabulary.config.get("model_max_length")
    if isinstance(limit, int) and limit < length:
        length = limit
    labels = tuple(prepared.read_clean_manifest(cleaned)["labels"])
    return Learned(
        vocabulary, Recipe(vocabulary.tokenizer.to_str(), None if form.packed else length, task, labels), length
    )


def _batches(texts: pa.ChunkedArray) -> Iterator[list[str]]:
    left = TRAINING_CHARACTERS
    for first in range(0, len(texts), tokenise.BATCH_TEXTS):
        batch = texts.slice(first, tokenise.BATCH_TEXTS).to_pylist()
        yield batch
        left -= sum(map(len, batch))
        if left <= 0:
            return


def blocks_of(cleaned: Path, rows: int = BLOCK_ROWS) -> Iterator[pa.Table]:
    """The clean rows in blocks of at most `rows`: columns split, row (its number in the split), text, label."""
    for name in SPLITS:
        table = prepared.read_table(cleaned / f"{name}.arrow")
        for first in range(0, len(table), rows):
            part = table.slice(first, rows)
            numbers = np.arange(first, first + len(part))
            columns = {"split": pa.array([name] * len(part)), "row": numbers, "text": part["text"]}
            yield pa.table({**columns, **({"label": part["label"]} if "label" in part.column_names else {})})


def encode_block(block: pa.Table, recipe: Recipe) -> pa.Table:
    """Token ids for a block: columns split, row, input_ids, truncated, and those that the task adds."""
    from tokenizers import Tokenizer

    tokenizer, texts, form = Tokenizer.from_str(recipe.tokenizer), block["text"].to_pylist(), find_form(recipe.task)
    if form.encode is None or recipe.max_length is None:
        whole = tokenise.encode(tokenizer, texts, None)
        columns = {
            "input_ids": prepared.list_array(whole.values, whole.offsets),
            "truncated": pa.array(whole.truncated),
        }
    else:
        labels = block["label"].to_pylist() if form.reads_labels else [None] * len(texts)
        columns = form.encode(tokenizer, texts, labels, Asked(recipe.max_length, recipe.labels))
    return pa.table({"split": block["split"], "row": block["row"], **columns})


def assemble(blocks: Sequence[pa.Table], cleaned: Path, learned: Learned) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """The splits' token tables and their counts; `blocks` may come in any order and cut.

    Raises DataError when a split of a language-modelling task does not fill one window.
    """
    encoded, form = pa.concat_tables(blocks), find_form(learned.recipe.task)
    tables, counts = {}, {}
    for name in SPLITS:
        part = encoded.filter(pc.equal(encoded["split"], name)).sort_by("row")
        ids = part["input_ids"].combine_chunks()
        values = ids.values.to_numpy().astype(np.int32, copy=False)
        offsets = ids.offsets.to_numpy().astype(np.int64)
        source = prepared.read_table(cleaned / f"{name}.arrow")
        if form.packed:
            tables[name], counts[name] = _packed(name, values, offsets, source["key"].to_numpy(), learned)
        else:
            added = [column for column in part.column_names if column not in _OWN]
            tables[name] = pa.table(
                {
                    "input_ids": prepared.list_array(values, offsets),
                    **({"label": source["label"]} if form.one_class else {}),
                    **{column: part[column].combine_chunks() for column in added},
                    "key": source["key"],
                }
            )
            truncated = pc.sum(part["truncated"]).as_py()
            counts[name] = {
                "rows": len(part),
                "tokens": len(values),
                "longest": int(np.diff(offsets).max()),
                "truncated_rows": truncated,
                "truncated_share": round(truncated / len(part), 6),
                **({"unread": pc.sum(part["unread"]).as_py()} if "unread" in part.column_names else {}),
            }
    return tables, counts


def _packed(
    name: str, values: np.ndarray, offsets: np.ndarray, keys: np.ndarray, learned: Learned
) -> tuple[pa.Table, dict[str, Any]]:
    ids = learned.vocabulary.token_ids()
    end = ids.get("eos", ids.get("sep"))
    if end is None:
        raise DataError("the tokenizer has no end-of-text token (eos_token); choose another checkpoint",
                        code="no_end_token")  # fmt: skip
    window = learned.length
    packed = tokenise.pack(values, offsets, keys, window=window, end=end)
    rows = len(packed.keys)
    if not rows:
        raise DataError(
            f"the {name} split has {packed.dropped_tokens} tokens, less than one window of {window}; "
            "give more text, a larger fraction or a smaller task.max_length",
            code="empty_split",
            where=f"data.{name}",
        )
    starts = np.arange(rows + 1, dtype=np.int64) * window
    table = pa.table({"input_ids": prepared.list_array(packed.values, starts), "key": packed.keys})
    counts = {
        "rows": rows,
        "tokens": rows * window,
        "longest": window,
        "documents": len(keys),
        "dropped_tokens": packed.dropped_tokens,
    }
    return table, counts
