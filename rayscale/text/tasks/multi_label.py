"""Multi-label classification: a text has any number of classes, none included."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rayscale.study.study import Task
from rayscale.text.form import Form
from rayscale.text.shards import lists_of
from rayscale.text.sources.opening import short
from rayscale.text.sources.row import Row, UnusableError, checked_label, filled_text, kind_and_value
from rayscale.text.tasks import sequence_classification

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def check(row: Row, task: Task) -> tuple[str, str]:
    """The text and its classes, sorted, a line each: a list, a JSON list as text, or names with `separator` between."""
    text = filled_text(row.values[0], row, task.text)
    value: Any = row.values[1]
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            found = f"an invalid JSON list ({short(error)})"
            raise UnusableError(row, task.labels, found, "fix it, or remove the row") from None
    if isinstance(value, str):
        value = value.split(task.separator) if value.strip() else []
    if not isinstance(value, list):
        fix = "give a list of labels; an empty one, [], means no label"
        raise UnusableError(row, task.labels, kind_and_value(value), fix)
    return text, "\n".join(sorted({checked_label(label, row, task.labels) for label in value}))


def _classes(label: str) -> list[str]:
    return label.split("\n") if label else []


def encode(
    tokenizer: Tokenizer, texts: Sequence[str], labels: Sequence[str | None], length: int, classes: Sequence[str]
) -> dict[str, pa.Array]:
    """The tokens as for single classes; `classes`: the numbers of each text's classes."""
    numbers = {label: number for number, label in enumerate(classes)}
    borne = [[numbers[name] for name in _classes(str(label))] for label in labels]
    return {**sequence_classification.encode(tokenizer, texts, labels, length, classes), "classes": lists_of(borne)}


FORM = Form(check, encode, classes=_classes)
