"""Classification of whole texts: each has one class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from rayscale.text import tokenise
from rayscale.text.normalise import normalise
from rayscale.text.prepared import list_array
from rayscale.text.sources import BadRow, Row, checked_label, checked_text
from rayscale.text.tasks.form import Asked, Form

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from rayscale.study import Task


def check(row: Row, task: Task) -> tuple[str, str | None] | BadRow:
    """The text and its class."""
    text = filled(row.values[0], row, task.text)
    if isinstance(text, BadRow):
        return text
    label = checked_label(row.values[-1], row, task.label)
    return label if isinstance(label, BadRow) else (text, label)


def filled(value: object, row: Row, column: str) -> str | BadRow:
    """The value as normalised text, or why it is none: an empty one is none either."""
    text = checked_text(value, row, column)
    if isinstance(text, BadRow):
        return text
    return normalise(text) or BadRow(row.line, column, "an empty text", "fill it in, or remove the row")


def encode(
    tokenizer: Tokenizer, texts: Sequence[str], labels: Sequence[str | None], asked: Asked
) -> dict[str, pa.Array]:
    """The tokens of each text, framed and cut as the tokenizer does it."""
    encoded = tokenise.encode(tokenizer, texts, asked.length)
    return {"input_ids": list_array(encoded.values, encoded.offsets), "truncated": pa.array(encoded.truncated)}


FORM = Form(check, encode, classes=lambda label: [label], one_class=True)
