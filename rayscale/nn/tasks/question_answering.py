"""Answers that stand in a text: cross entropy of where one begins and ends; exact matches and F1 of words, as SQuAD."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import torch
import transformers
from torch import nn
from torch.nn.functional import cross_entropy

from rayscale.nn.models.build import padding_token
from rayscale.nn.models.objectives import (
    OWNERS,
    TYPES,
    WINDOWS,
    Inputs,
    Objective,
    Score,
    bare,
    flops_of_lengths,
    kinds_of,
)
from rayscale.nn.tasks.answers import SIGNATURE, exact_match, f1

if TYPE_CHECKING:
    from rayscale.nn.models.size import Size
    from rayscale.nn.ranks import Group
    from rayscale.text.prepared import Prepared, Split

#: Tokens of an answer at most, as in the scripts of BERT (Devlin et al. 2019, run_squad.py).
LONGEST_ANSWER = 30
NOWHERE = -1


def targets(split: Split) -> np.ndarray:
    """Every window is one: the mean of the losses of its first and its last token."""
    return split.lists["windows"].lengths


def longest(split: Split) -> int:
    """Tokens of the longest window."""
    return int(split.lists["windows"].values.max(initial=0))


def _of_rows(split: Split, name: str, rows: np.ndarray) -> np.ndarray:
    """The lists of these rows one after the other."""
    lists = split.lists[name]
    return np.concatenate([lists.values[lists.offsets[row] : lists.offsets[row + 1]] for row in rows]).astype(np.int64)


def extra(split: Split, rows: np.ndarray, width: int) -> dict[str, np.ndarray]:
    """`places` (windows, longest window): where its tokens lie in the flat ids of the rows, NOWHERE behind its end.

    `first`, `last` (windows,): the tokens wanted. TYPES like `places`: which tokens are the context's.
    """
    lengths, numbers = _of_rows(split, "windows", rows), split.lists["windows"].lengths[rows]
    before = np.cumsum(lengths) - lengths
    row = np.repeat(np.arange(len(rows)), numbers)
    begun = before - before[np.cumsum(numbers) - numbers][row] + row * width
    columns = np.arange(int(lengths.max()))
    inside = columns < lengths[:, None]
    types = inside & (columns >= _of_rows(split, "second", rows)[:, None])
    return {
        "places": np.where(inside, begun[:, None] + columns, NOWHERE),
        TYPES: types.astype(np.int64),
        "first": _of_rows(split, "first", rows),
        "last": _of_rows(split, "last", rows),
        WINDOWS: lengths,
        OWNERS: row,
    }


def losses(model: nn.Module, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """(summed loss, logits (windows, longest window, 2) of beginning and end, -inf behind a window's end)."""
    places = inputs.extra["places"]
    pad = padding_token(bare(model))
    ids = inputs.ids.flatten()[places.clamp(min=0)].masked_fill(places == NOWHERE, pad)
    kinds = {} if kinds_of(model) < 2 else {TYPES: inputs.extra[TYPES]}
    outputs = model(input_ids=ids, attention_mask=inputs.extra[WINDOWS], **kinds)
    logits = torch.stack([outputs.start_logits, outputs.end_logits], -1).float()
    logits = logits.masked_fill((places == NOWHERE)[..., None], -torch.inf)
    wanted = torch.stack([inputs.extra["first"], inputs.extra["last"]], -1)
    return cross_entropy(logits, wanted, reduction="sum") / 2, logits


def flops(size: Size, split: Split, rows: np.ndarray) -> float:
    """One pass over these rows: attention stays within windows."""
    return flops_of_lengths(size, _of_rows(split, "windows", rows), len(rows))


def best_spans(logits: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(score, first, last token) of the likeliest span of each window, -inf where it allows none.

    `logits` (windows, tokens, 2), `allowed` (windows, tokens): tokens that an answer may begin or end with.
    """
    starts, ends = (np.where(allowed, logits[..., side], -np.inf) for side in (0, 1))
    windows, tokens = allowed.shape
    score = np.full(windows, -np.inf)
    first, last = np.zeros(windows, dtype=np.int64), np.zeros(windows, dtype=np.int64)
    for further in range(min(LONGEST_ANSWER, tokens)):
        sums = starts[:, : tokens - further] + ends[:, further:]
        place = sums.argmax(1)
        sum_here = sums[np.arange(windows), place]
        better = sum_here > score
        score, first = np.where(better, sum_here, score), np.where(better, place, first)
        last = np.where(better, place + further, last)
    return score, first, last


class _Answers:
    """The best span over all windows of a question beside its answers.

    A model says that there is no answer where the first token is likelier than every span, in the window where it is
    least likely. It does not where no training row is without one.
    """

    def __init__(self, prepared: Prepared, split: Split) -> None:
        self._split = split
        train = prepared.split("train").texts["answers"]
        self._may_be_none = any(answers == "[]" for chunk in train.chunks for answers in chunk.to_pylist())
        self._sums = np.zeros(3)

    def add(self, model: nn.Module, inputs: Inputs, outputs: torch.Tensor, rows: np.ndarray) -> None:
        inside = (inputs.extra["places"] != NOWHERE).cpu().numpy()
        begins, ends = np.full(inside.shape, NOWHERE), np.full(inside.shape, NOWHERE)
        begins[inside], ends[inside] = (_of_rows(self._split, name, rows) for name in ("begins", "ends"))
        logits = outputs.cpu().numpy()
        scores, first, last = best_spans(logits, ends > begins)
        nothing = logits[:, 0].sum(-1)
        stop = 0
        for row in rows.tolist():
            windows = slice(stop, stop + int(self._split.lists["windows"].lengths[row]))
            stop = windows.stop
            best = windows.start + int(scores[windows].argmax())
            answer = ""
            if np.isfinite(scores[best]) and not (self._may_be_none and nothing[windows].min() > scores[best]):
                context = self._split.texts["context"][row].as_py()
                answer = context[begins[best, first[best]] : ends[best, last[best]]]
            answers = json.loads(self._split.texts["answers"][row].as_py())
            self._sums += (exact_match(answer, answers), f1(answer, answers), 1)

    def finish(self, group: Group, loss: float) -> Score:
        exact, words, number = group.add(self._sums)
        scores = {"exact_match": float(exact / number), "f1_words": float(words / number)}
        return Score(scores, signature=SIGNATURE)


OBJECTIVE = Objective(
    transformers.AutoModelForQuestionAnswering, targets, losses, _Answers, extra=extra, head_per_token=True,
    config={"num_labels": 2}, flops=flops, longest=longest,
)  # fmt: skip
