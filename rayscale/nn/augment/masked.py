"""Contextual substitution: words are masked, and a masked language model says what else may stand there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from rayscale.errors import InputError
from rayscale.nn.augment.batches import BATCH_TOKENS, buckets, draw, pick_device
from rayscale.nn.loading import load
from rayscale.plan.heads import positions_of
from rayscale.study.augment_key import CHARACTERS
from rayscale.study.augmenters import Example
from rayscale.system.groups import grouped
from rayscale.text.augment.model_steps import ContextualSettings
from rayscale.text.augment.seeded_random import Draws
from rayscale.text.augment.synonym_table import is_caseless
from rayscale.text.augment.synonyms import cased, is_common, tokens_of
from rayscale.text.augment.tagger import CLOSED
from rayscale.text.scripts import UNSPACED, script_of

_LEAST_LETTERS = 3
#: Kinds of words that may stand for each other, beside those of each script without capitals: all that there are, where
#: the text is of spaced scripts with capitals, and those with capitals where it is not.
ANY, CASED = "any", "cased"


class Masked:
    """The step on a loaded model. Raises InputError for one whose tokenizer has no mask or no whole words."""

    def __init__(self, settings: ContextualSettings) -> None:
        self._settings, self._device = settings, pick_device()
        self._tokenizer = load(AutoTokenizer.from_pretrained, settings.model)
        self._model = load(AutoModelForMaskedLM.from_pretrained, settings.model, use_safetensors=True).eval()
        self._model.to(device=self._device)
        positions = positions_of(lambda key: getattr(self._model.config, key, None))
        self._longest = min(positions or self._tokenizer.model_max_length, self._tokenizer.model_max_length)
        pieces = self._tokenizer.convert_ids_to_tokens(list(range(self._model.config.vocab_size)))
        whole = _whole_words(pieces)
        cased_ones = {number: word for number, word in whole.items() if not is_caseless(word)}
        kinds = {ANY: whole, CASED: cased_ones, **_caseless(pieces)}
        self._words = {number: word for words in kinds.values() for number, word in words.items()}
        if self._tokenizer.mask_token is None or not self._words:
            text = f"{settings.model}: the tokenizer has no mask token or no whole words"
            raise InputError(text, fix="give a masked language model such as a BERT", code="bad_checkpoint")
        self._outside = {kind: self._only(words) for kind, words in kinds.items() if words}
        self._numbers = grouped((word.lower(), number) for number, word in self._words.items())

    def _only(self, words: Mapping[int, str]) -> torch.Tensor:
        """What is added to the scores of the vocabulary, so that none but these words can be drawn."""
        outside = torch.full((self._model.config.vocab_size,), -torch.inf)
        outside[list(words)] = 0.0
        return outside.to(self._device)

    def __call__(self, rows: Sequence[Example]) -> list[Example]:
        chosen = [self._choose(row) for row in rows]
        mask = [self._tokenizer.mask_token]
        masked = [_replaced(row.text, spans, mask * len(spans)) for row, spans in zip(rows, chosen, strict=True)]
        ids = self._tokenizer(masked)["input_ids"] if masked else []
        mask = self._tokenizer.mask_token_id
        # A text that itself speaks of the mask, or that the model cannot read to its end, stays.
        able = [place for place, spans in enumerate(chosen)
                if spans and len(ids[place]) <= self._longest and ids[place].count(mask) == len(spans)]  # fmt: skip
        children = list(rows)
        for batch in buckets([len(ids[place]) for place in able], BATCH_TOKENS[self._device.type]):
            places = [able[number] for number in batch]
            batch_texts = self._batch([ids[place] for place in places], [rows[place] for place in places],
                               [chosen[place] for place in places])  # fmt: skip
            for place, text in zip(places, batch_texts, strict=True):
                children[place] = rows[place].saying(text)
        return children

    def _choose(self, row: Example) -> list[tuple[int, int]]:
        """The spans to be masked, in the order of the text."""
        free = row.segmenter is not None
        tokens = tokens_of(row.text, CHARACTERS if free else None)
        spelled = [row.text[start:end] for start, end in tokens]
        able = [place for place, word in enumerate(spelled) if self._kind(word, free) in self._outside
                and (self._kind(word, free) not in (ANY, CASED)
                     or (len(word) >= _LEAST_LETTERS and word.isalpha() and word.lower() not in CLOSED
                         and is_common(spelled, place, row.text.isupper())))]  # fmt: skip
        wanted = max(1, round(self._settings.share * sum(word[0].isalpha() for word in spelled)))
        return [tokens[place] for place in sorted(Draws(row.seed).order(able)[:wanted])]

    def _kind(self, word: str, free: bool) -> str:
        """The kind of words that may stand for a word; `free`: the text may lack spaces or capitals."""
        if not free:
            return ANY
        return script_of(word[0]) if word[0].isalpha() and is_caseless(word) else CASED

    @torch.inference_mode()
    def _batch(self, ids: list[list[int]], rows: Sequence[Example],
               spans: Sequence[Sequence[tuple[int, int]]]) -> list[str]:  # fmt: skip
        inputs = self._tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self._device)
        at = inputs["input_ids"] == self._tokenizer.mask_token_id
        masks = [(row, start, end) for row, places in zip(rows, spans, strict=True) for start, end in places]
        seeds = np.array([row.seed for row, *_ in masks], dtype=np.uint64)
        words = [row.text[start:end] for row, start, end in masks]
        kinds = [self._kind(row.text[start:end], row.segmenter is not None) for row, start, end in masks]
        scores = self._model(**inputs).logits[at] + torch.stack([self._outside[kind] for kind in kinds])
        within = [number for places in spans for number in range(len(places))]
        for place, word in enumerate(words):  # another word than the one that stood there
            scores[place, self._numbers.get(word.lower(), [])] = -torch.inf
        # The number of the mask within its row is the step: the masks of a row draw apart.
        drawn = torch.empty(len(words), dtype=torch.long)
        for step in sorted(set(within)):
            mine = [place for place, number in enumerate(within) if number == step]
            drawn[mine] = draw(scores[mine], seeds[mine], step, self._settings.top_k).cpu()
        new = [cased(self._words[number], word) for number, word in zip(drawn.tolist(), words, strict=True)]
        left = iter(new)
        return [
            _replaced(row.text, places, list(islice(left, len(places))))
            for row, places in zip(rows, spans, strict=True)
        ]


def _whole_words(pieces: Sequence[str | None]) -> dict[int, str]:
    """Number → word, of the pieces that are words by themselves: those that begin with the mark of a space where the
    tokenizer marks spaces (Ġ, ▁), else those that do not continue a word (##)."""
    marks = _marks(pieces)
    whole = {}
    for number, piece in enumerate(pieces):
        word = piece or ""
        if marks:
            word = word[1:] if word[:1] in marks else ""
        if len(word) >= _LEAST_LETTERS and word.isalpha():
            whole[number] = word
    return whole


def _caseless(pieces: Sequence[str | None]) -> dict[str, dict[int, str]]:
    """Script → number → word, of scripts without capitals: whole words, or single characters where there are no spaces.

    No mark of a space stands before such a character within a text.
    """
    marks, by_script = _marks(pieces), defaultdict[str, dict[int, str]](dict)
    for number, piece in enumerate(pieces):
        word, begins = (piece or ""), not marks
        if word[:1] in marks:
            word, begins = word[1:], True
        if not word.isalpha() or not is_caseless(word) or len(scripts := {script_of(letter) for letter in word}) > 1:
            continue
        (script,) = scripts
        if (len(word) == 1) if script in UNSPACED else (begins and len(word) > 1):
            by_script[script][number] = word
    return by_script


def _marks(pieces: Sequence[str | None]) -> list[str]:
    return [mark for mark in ("Ġ", "▁") if any(piece and piece.startswith(mark) for piece in pieces)]


def _replaced(text: str, spans: Sequence[tuple[int, int]], words: Sequence[str]) -> str:
    parts, end = [], 0
    for (start, stop), word in zip(spans, words, strict=True):
        parts += [text[end:start], word]
        end = stop
    return "".join([*parts, text[end:]])
