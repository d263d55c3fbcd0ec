"""Tagging: every token of a sentence has a tag, which its first word piece carries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rayscale.study.study import Task
from rayscale.text.form import Form
from rayscale.text.normalise import normalise
from rayscale.text.shards import lists_of
from rayscale.text.sources.row import Row, UnusableError, checked_text, kind_and_value
from rayscale.text.tokens import encode as tokenise

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: The target of a piece that carries no tag, which losses leave out.
UNTAGGED = -100


def check(row: Row, task: Task) -> tuple[str, str]:
    """Tokens and tags, a line each: lists, JSON lists as text, or text with white space between."""
    tokens, tags = _listed(row, 0, task.tokens), _listed(row, 1, task.tags)
    if len(tokens) != len(tags):
        found = f"{len(tags)} tags for {len(tokens)} tokens"
        raise UnusableError(row, task.tags, found, "give each token one tag, or remove the row")
    return "\n".join(tokens), "\n".join(tags)


def _listed(row: Row, place: int, column: str) -> list[str]:
    value: Any = row.values[place]
    if isinstance(value, str) and value.lstrip().startswith("[") and place < 2:
        with suppress(ValueError):  # no JSON: tokens of a text, of which the first is a bracket
            value = json.loads(value)
    if isinstance(value, str):
        value = value.split()
    if not isinstance(value, list):
        raise UnusableError(row, column, kind_and_value(value), "give a list of strings, or remove the row")
    items = []
    for item in value:
        if isinstance(item, int):
            fix = "write names such as B-PER instead of numbers (in `datasets`: features[...].feature.names)"
            raise UnusableError(row, column, f"the number {item} in the list", fix)
        items.append(normalise(checked_text(item, row, column)))
        if not items[-1]:
            raise UnusableError(row, column, "an empty string in the list", "take it out, or remove the row")
    return items


def encode(
    tokenizer: Tokenizer, texts: Sequence[str], labels: Sequence[str | None], length: int, classes: Sequence[str]
) -> dict[str, pa.Array]:
    """Sentences with a space between tokens; `targets`: the tag of each piece that begins a token, else UNTAGGED.

    Tags whose token was cut, or has no piece (signs that the tokenizer drops), are counted as unread.
    """
    numbers = {label: number for number, label in enumerate(classes)}
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    ids = [lists_of([])]
    targets = list[np.ndarray]()
    truncated = list[bool]()
    unread = list[int]()
    for sentences, tagged in zip(tokenise.batches(texts), tokenise.batches(labels), strict=True):
        words = [text.split("\n") for text in sentences]
        # Plain text, not lists of words: so byte-level tokenizers see the spaces that they were trained on.
        encodings = tokenizer.encode_batch([" ".join(tokens) for tokens in words])
        ids.append(lists_of([encoding.ids for encoding in encodings]))
        for tokens, tags, encoding in zip(words, tagged, encodings, strict=True):
            beginnings = _beginnings(tokens, np.asarray(encoding.offsets).reshape(-1, 2))
            read = beginnings >= 0
            targets.append(np.full(len(encoding.ids), UNTAGGED, dtype=np.int32))
            targets[-1][beginnings[read]] = np.array([numbers[tag] for tag in str(tags).split("\n")])[read]
            truncated.append(bool(encoding.overflowing))
            unread.append(int((~read).sum()))
    return {
        "input_ids": pa.concat_arrays(ids),
        "targets": lists_of(targets),
        "truncated": pa.array(truncated, pa.bool_()),
        "unread": pa.array(unread, pa.int64()),
    }


def _beginnings(words: Sequence[str], spans: np.ndarray) -> np.ndarray:
    """The place of each word's first piece, -1 where it has none; `spans` are characters of the words joined by spaces.

    A piece belongs to the word that holds its last character: some tokenizers count the space before a word as its own.
    """
    lengths = np.array([len(word) for word in words])
    starts = np.concatenate([[0], np.cumsum(lengths + 1)[:-1]])
    last = spans[:, 1] - 1
    word = np.searchsorted(starts, last, side="right") - 1
    inside = (spans[:, 1] > spans[:, 0]) & (last < (starts + lengths)[word])
    beginnings = np.full(len(words), -1, dtype=np.int64)
    places = np.flatnonzero(inside)[::-1]  # backwards, so that the first piece of a word is written last
    beginnings[word[places]] = places
    return beginnings


FORM = Form(check, encode, classes=lambda label: label.split("\n"), texts=lambda text: [text.replace("\n", " ")])
