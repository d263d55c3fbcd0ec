"""What the preparation of text asks of a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rayscale.study.study import Task
from rayscale.study.tasks import part_of
from rayscale.text.sources.row import Row

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: Of a tokenizer, texts, their labels, the length in tokens and the names of the classes in their order.
Encode = Callable[["Tokenizer", Sequence[str], Sequence[str | None], int, Sequence[str]], dict[str, pa.Array]]
#: Parts of a row's text (the two of a pair) have a blank line between them, which no part holds: each is normalised.
BETWEEN = "\n\n"


@dataclass(frozen=True)
class Form:
    """A task as the preparation of text sees it.

    `check(row, task)`: the text of a row and its label, a string each (None without labels); raises UnusableError.
    Equal texts are duplicates, the hash of the text decides about the split, an empty text drops the row.
    `classes(label)`: names of the classes that a label bears; None where labels are no classes. `one_class`: each label
    is one class, so that rows keep its number. `encode`: columns of equal length, of which `input_ids` is a list,
    `truncated` says what was cut and `unread` counts the targets that went with it; the others reach the model's side
    (`rayscale.nn.tasks`). `texts(text)`: the plain texts within, to train a tokenizer on; it learns from the labels,
    too, where `labels_are_text`. `packed`: texts are joined and cut into windows instead, and `encode` is not called.
    `group(text)`: the part of a text whose rows all go into one split, by its hash instead of that of the whole text.
    """

    check: Callable[[Row, Task], tuple[str, str | None]]
    encode: Encode | None = None
    classes: Callable[[str], list[str]] | None = None
    one_class: bool = False
    packed: bool = False
    labels_are_text: bool = False
    texts: Callable[[str], list[str]] = lambda text: [text]
    group: Callable[[str], str] | None = None

    @property
    def reads_labels(self) -> bool:
        """Whether encoding takes the labels as they are."""
        return not self.packed and not self.one_class


def find_form(task: str) -> Form:
    """Raises InputError for an unknown task."""
    form: Any = part_of("text", task, "FORM")
    return form
