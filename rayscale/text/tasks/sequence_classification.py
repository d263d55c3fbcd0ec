"""Classification of whole texts, or of pairs of texts: each has one class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from rayscale.study.study import Task
from rayscale.text.form import BETWEEN, Form
from rayscale.text.shards import lists_of
from rayscale.text.sources.row import Row, checked_label, filled_text
from rayscale.text.tokens import encode as tokenise

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def check(row: Row, task: Task) -> tuple[str, str]:
    """The text, or both with BETWEEN between, and the class."""
    columns = (task.text, task.text_pair) if task.text_pair else (task.text,)
    texts = [filled_text(value, row, column) for value, column in zip(row.values, columns, strict=False)]
    return BETWEEN.join(texts), checked_label(row.values[-1], row, task.label)


def encode(
    tokenizer: Tokenizer, texts: Sequence[str], labels: Sequence[str | None], length: int, classes: Sequence[str]
) -> dict[str, pa.Array]:
    """The tokens of each text, framed and cut as the tokenizer does it; of a pair the longer text is cut.

    `second` is the place of the first token of the second text, by the tokenizer's own account.
    """
    if not any(BETWEEN in text for text in texts):
        return tokenise.encode(tokenizer, texts, length)
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    pairs = [tuple(text.split(BETWEEN)) for text in texts]
    encodings = [encoding for batch in tokenise.batches(pairs) for encoding in tokenizer.encode_batch_fast(batch)]
    return {
        "input_ids": lists_of([encoding.ids for encoding in encodings]),
        "second": pa.array([len(encoding.type_ids) - sum(encoding.type_ids) for encoding in encodings], pa.int32()),
        "truncated": pa.array([bool(encoding.overflowing) for encoding in encodings], pa.bool_()),
    }


FORM = Form(check, encode, classes=lambda label: [label], one_class=True, texts=lambda text: text.split(BETWEEN))
