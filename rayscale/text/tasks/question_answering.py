"""Answers that stand in a text: a question about a context, which is read in overlapping windows where it is long."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rayscale.study.study import Task
from rayscale.text.form import BETWEEN, Form
from rayscale.text.normalise import normalise
from rayscale.text.shards import lists_of
from rayscale.text.sources.opening import short
from rayscale.text.sources.row import Row, UnusableError, checked_text, filled_text, kind_and_value
from rayscale.text.tokens import encode as tokenise

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

#: In place of a token's characters where it is none of the context's.
OUTSIDE = -1


def check(row: Row, task: Task) -> tuple[str, str]:
    """Question, BETWEEN, and the context as it is in the file; the label is a JSON list of [text, first character]."""
    question = filled_text(row.values[0], row, task.question)
    context = checked_text(row.values[1], row, task.context)
    if not context.strip():
        raise UnusableError(row, task.context, "an empty text", "fill it in, or remove the row")
    return f"{question}{BETWEEN}{context}", json.dumps(_answers(row, task.answers, context))


def _answers(row: Row, column: str, context: str) -> list[tuple[str, int]]:
    value: Any = row.values[2]
    texts, starts = (value.get("text"), value.get("answer_start")) if isinstance(value, dict) else (None, None)
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        fix = 'write {"text": ["..."], "answer_start": [0]}: two lists of equal length, both empty for no answer'
        raise UnusableError(row, column, kind_and_value(value), fix)
    for text, start in zip(texts, starts, strict=True):
        if not checked_text(text, row, column).strip():
            fix = "give two empty lists if there is no answer, or remove the row"
            raise UnusableError(row, column, "an empty answer", fix)
        if isinstance(start, bool) or not isinstance(start, int):
            fix = "give a whole number: the place of a character"
            raise UnusableError(row, column, f"answer_start {short(start)}", fix)
        if start < 0 or not context.startswith(text, start):
            place = context.find(text)
            there = f"; there is '{short(context[start : start + len(text)])}'" if 0 <= start < len(context) else ""
            fix = f"it is at {place}" if place >= 0 else "it is not in the context: fix the text"
            found = f"the answer '{short(text)}', which is not at answer_start {start} of the context{there}"
            raise UnusableError(row, column, found, f"{fix} (characters are counted from 0), or remove the row")
    return list(zip(texts, starts, strict=True))


def parts_of(text: str) -> tuple[str, str]:
    """Question and context."""
    question, _, context = text.partition(BETWEEN)
    return question, context


def overlap(length: int) -> int:
    """Tokens of the context that a window has in common with the next one: about a quarter of `max_length`."""
    return length // 4 - 1


def encode(
    tokenizer: Tokenizer, texts: Sequence[str], labels: Sequence[str | None], length: int, classes: Sequence[str]
) -> dict[str, pa.Array]:
    """All windows of a row one after the other, each the question and as much of the context as the length allows.

    `windows` are their lengths, `second` the place in each at which its second text begins, `first` and `last` that of
    the first answer's tokens: the window's first token where the answer is not whole within. `begins` and `ends` are
    the characters of the context that each token covers. Questions are cut to a third of the length (`truncated`);
    answers that no window holds are counted as unread.
    """
    questions, contexts = zip(*map(parts_of, texts), strict=True) if texts else ((), ())
    shortened, truncated = _cut_questions(tokenizer, questions, length)
    framed = list(zip(shortened, contexts, strict=True))
    answers = [json.loads(str(label)) for label in labels]
    rows = [
        _row(context, windows, those)
        for context, windows, those in zip(contexts, _windows(tokenizer, framed, length), answers, strict=True)
    ]
    per_window = ("windows", "second", "first", "last")
    columns = {name: lists_of([row[name] for row in rows]) for name in ("input_ids", *per_window, "begins", "ends")}
    return {
        **columns,
        "context": pa.array(contexts, pa.large_string()),
        "answers": pa.array([json.dumps([text for text, _ in those]) for those in answers], pa.large_string()),
        "truncated": pa.array(truncated, pa.bool_()),
        "unread": pa.array([row["unread"] for row in rows], pa.int64()),
    }


def _cut_questions(tokenizer: Tokenizer, questions: Sequence[str], length: int) -> tuple[list[str], list[bool]]:
    """The questions, of a third of the length at most, and whether each was longer."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    most = length // 3
    shortened = list[str]()
    truncated = list[bool]()
    for batch in tokenise.batches(questions):
        for question, encoding in zip(batch, tokenizer.encode_batch(batch, add_special_tokens=False), strict=True):
            long = len(encoding.ids) > most
            shortened.append(question[: encoding.offsets[most - 1][1]] if long else question)
            truncated.append(long)
    return shortened, truncated


def _windows(tokenizer: Tokenizer, framed: Sequence[tuple[str, str]], length: int) -> Iterator[list[Encoding]]:
    """The windows of each question and context."""
    tokenizer.enable_truncation(length, stride=overlap(length), strategy="only_second")
    for batch in tokenise.batches(framed):
        for encoding in tokenizer.encode_batch(batch):
            yield [encoding, *encoding.overflowing]


def _row(context: str, windows: Sequence[Encoding], answers: Sequence[tuple[str, int]]) -> dict[str, Any]:
    row: dict[str, Any] = {name: [] for name in ("input_ids", "windows", "second", "first", "last", "begins", "ends")}
    held = False
    for number, window in enumerate(windows):
        inside = np.array([place == 1 for place in window.sequence_ids])
        spans = np.where(inside[:, None], np.asarray(window.offsets).reshape(-1, 2), OUTSIDE)
        span = None
        if answers:
            (text, start), *_ = answers
            edges = (number == 0, number == len(windows) - 1)
            span = find_span(spans, (start, start + len(text)), (0, len(context)), edges)
            held = held or span is not None
        first, last = span or (0, 0)
        row["input_ids"] += window.ids
        row["windows"].append(len(window.ids))
        row["second"].append(len(window.type_ids) - sum(window.type_ids))
        row["first"].append(first)
        row["last"].append(last)
        row["begins"] += spans[:, 0].tolist()
        row["ends"] += spans[:, 1].tolist()
    return {**row, "unread": int(bool(answers) and not held)}


def find_span(
    spans: np.ndarray, answer: tuple[int, int], whole: tuple[int, int], edges: tuple[bool, bool]
) -> tuple[int, int] | None:
    """First and last token that cover these characters, None where the window does not hold all of them.

    `spans` (tokens, 2): characters of each token, from and to, OUTSIDE for others. `edges` says whether the context
    begins, and ends, in this window: characters at its ends that no token covers (white space) are then in it.
    """
    places = np.flatnonzero(spans[:, 1] > spans[:, 0])
    if not len(places):
        return None
    begins, ends = spans[places, 0], spans[places, 1]
    start, stop = answer
    if start < (whole[0] if edges[0] else begins[0]) or stop > (whole[1] if edges[1] else ends[-1]):
        return None
    covering = places[(ends > start) & (begins < stop)]
    return (int(covering[0]), int(covering[-1])) if len(covering) else None


FORM = Form(check, encode, texts=lambda text: list(parts_of(text)), group=lambda text: normalise(parts_of(text)[1]))
