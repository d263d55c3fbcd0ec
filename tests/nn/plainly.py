"""A kept model as others use it: loaded by transformers alone, on the texts of a file, by the usual calls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn.functional import cross_entropy

from rayscale.nn.models.size import measure_size

HEADS = {
    "sequence-classification": "SequenceClassification",
    "multi-label": "SequenceClassification",
    "token-classification": "TokenClassification",
    "question-answering": "QuestionAnswering",
    "seq2seq": "Seq2SeqLM",
    "causal-lm": "CausalLM",
}
#: One row at a time for questions: transformers lets padding take part in where an answer may begin.
BATCH = {"question-answering": 1}


def count_params(model: Any) -> tuple[int, int]:
    """(all parameters, parameters outside embedding tables); a tied weight counts once."""
    size = measure_size(model)
    return size.params, size.params_non_embedding


def load(folder: Path, task: str) -> tuple[Any, Any]:
    """(model, tokenizer)."""
    model = getattr(transformers, f"AutoModelFor{HEADS[task]}").from_pretrained(folder).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


@torch.inference_mode()
def measure(folder: Path, task: str, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The mean loss over these rows of the file, and what share of them is answered right (of tags for tags)."""
    model, tokenizer = load(folder, task)
    loss = targets = right = answers = 0.0
    size = BATCH.get(task, 8)
    for first in range(0, len(rows), size):
        found = globals()[f"_{task.replace('-', '_')}"](model, tokenizer, rows[first : first + size])
        loss, targets, right, answers = (a + b for a, b in zip((loss, targets, right, answers), found, strict=True))
    return {"eval_loss": loss / targets, "right": right / answers}


def _sequence_classification(model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]]) -> tuple[float, ...]:
    labels = torch.tensor([model.config.label2id[str(row["label"])] for row in rows])
    texts = [[row[name] for row in rows] for name in ("premise", "hypothesis", "text") if name in rows[0]]
    found = model(**tokenizer(*texts, padding=True, truncation=True, return_tensors="pt"), labels=labels)
    return float(found.loss) * len(rows), len(rows), float((found.logits.argmax(-1) == labels).sum()), len(rows)


def _multi_label(model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]]) -> tuple[float, ...]:
    labels = torch.zeros(len(rows), model.config.num_labels)
    for number, row in enumerate(rows):
        labels[number, [model.config.label2id[name] for name in row["topics"]]] = 1
    texts = [row["text"] for row in rows]
    found = model(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt"), labels=labels)
    exact = ((found.logits > 0) == labels.bool()).all(-1).sum()
    # The record's loss is the sum over the classes, that of transformers their mean.
    return float(found.loss) * labels.numel(), len(rows), float(exact), len(rows)


def _token_classification(model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]]) -> tuple[float, ...]:
    given = tokenizer([" ".join(row["tokens"]) for row in rows], padding=True, truncation=True, return_tensors="pt")
    labels = torch.full(given["input_ids"].shape, -100)
    for number, row in enumerate(rows):
        begin = 0
        for token, tag in zip(row["tokens"], row["tags"], strict=True):
            place = given.char_to_token(number, begin)
            begin += len(token) + 1
            if place is not None:
                labels[number, place] = model.config.label2id[tag]
    found, tagged = model(**given, labels=labels), labels != -100
    number = float(tagged.sum())
    return float(found.loss) * number, number, float((found.logits.argmax(-1) == labels)[tagged].sum()), number


def _question_answering(model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]]) -> tuple[float, ...]:
    questions, contexts = ([row[name] for row in rows] for name in ("question", "context"))
    given = tokenizer(questions, contexts, padding=True, truncation="only_second", return_tensors="pt")
    spans = []
    for number, row in enumerate(rows):
        begins, texts = row["answers"]["answer_start"], row["answers"]["text"]
        ends = [begin + len(text) - 1 for begin, text in zip(begins, texts, strict=True)]
        places = [given.char_to_token(number, place, 1) for place in (*begins[:1], *ends[:1])]
        spans.append(places or [0, 0])
    first, last = torch.tensor(spans).T
    found = model(**given, start_positions=first, end_positions=last)
    right = (found.start_logits.argmax(-1) == first) & (found.end_logits.argmax(-1) == last)
    return float(found.loss) * len(rows), len(rows), float(right.sum()), len(rows)


def _seq2seq(model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]]) -> tuple[float, ...]:
    given = tokenizer([row["en"] for row in rows], padding=True, truncation=True, return_tensors="pt")
    wanted = tokenizer(text_target=[row["de"] for row in rows], padding=True, truncation=True, return_tensors="pt")
    labels = wanted["input_ids"].masked_fill(wanted["attention_mask"] == 0, -100)
    number = float((labels != -100).sum())
    written = tokenizer.batch_decode(model.generate(**given), skip_special_tokens=True)
    right = sum(" ".join(text.split()) == row["de"] for text, row in zip(written, rows, strict=True))
    return float(model(**given, labels=labels).loss) * number, number, right, len(rows)


def _causal_lm(model: Any, tokenizer: Any, windows: Sequence[dict[str, Any]]) -> tuple[float, ...]:
    ids = torch.tensor([window["input_ids"] for window in windows])
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, :-1]
    loss = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
    return float(loss), ids[:, 1:].numel(), math.nan, 1


def windows_of(folder: Path, texts: Sequence[str], length: int) -> list[dict[str, Any]]:
    """Full windows of these documents, each with the token that ends a text behind it."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = [token for text in texts
           for token in (*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)]  # fmt: skip
    whole = range(0, len(ids) - length + 1, length)
    return [{"input_ids": ids[first : first + length]} for first in whole]
