"""Long texts are tokenised no further than they are kept: of a text of ten pages, cut to 128 tokens, one is read.

Where no token reaches across a space, the tokens of a text's beginning, up to a space, are the first tokens of the
text. If that beginning was cut to the length asked, the text would have been, too, and to the same tokens. If it was
not, it was too short, and its text is encoded whole: how much is tried costs time, never a token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

#: Steps of tokenizers that work on what is between spaces. Others may look further (Metaspace, Replace, Precompiled).
_NORMALIZERS = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents"}
_PRE_TOKENIZERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit", "ByteLevel"}
_MODELS = {"WordPiece", "WordLevel", "BPE"}

#: So many texts are encoded whole, and tell how many characters suffice for this share of them.
_SAMPLE = 64
_SHARE = 0.98


def encoder(tokenizer: Tokenizer) -> Callable[[list[str]], list[Encoding]]:
    """What does as `tokenizer.encode_batch_fast`, in less time for texts that the tokenizer's truncation cuts short."""
    cut = tokenizer.truncation
    return (
        _Beginnings(tokenizer, cut["max_length"]) if cut and stops_at_spaces(tokenizer) else tokenizer.encode_batch_fast
    )


def stops_at_spaces(tokenizer: Tokenizer) -> bool:
    """Whether no token reaches across a space between words, and none depends on what comes after such a space."""
    normalizers, splits = _steps(tokenizer.normalizer), _steps(tokenizer.pre_tokenizer)
    model = tokenizer.model
    return (
        all(step["type"] in _NORMALIZERS for step in normalizers)
        and bool(splits)
        and all(step["type"] in _PRE_TOKENIZERS and step.get("use_regex", True) for step in splits)
        and type(model).__name__ in _MODELS
        and not getattr(model, "dropout", None)
        and all(len(token.content.split()) == 1 for token in tokenizer.get_added_tokens_decoder().values())
    )


def _steps(part: Any) -> list[dict[str, Any]]:
    """A normalizer or pre-tokenizer, or each of a sequence of them, as JSON."""
    if part is None:
        return []
    state = json.loads(part.__getstate__())
    if state["type"] != "Sequence":
        return [state]
    return next(value for value in state.values() if isinstance(value, list))


class _Beginnings:
    """Encodes texts up to `_reach` characters first; None before the first texts told how many suffice."""

    def __init__(self, tokenizer: Tokenizer, length: int) -> None:
        self._encode, self._length = tokenizer.encode_batch_fast, length
        self._reach: int | None = None

    def __call__(self, texts: list[str]) -> list[Encoding]:
        if self._reach is None:
            first = self._encode(texts[:_SAMPLE])
            self._reach = self._suffices(texts, first)
            return [*first, *self(texts[_SAMPLE:])] if len(texts) > _SAMPLE else first
        shown = [_beginning(text, self._reach) for text in texts]
        found = self._encode(shown)
        short = [n for n, part in enumerate(shown) if len(part) < len(texts[n]) and not found[n].overflowing]
        for n, whole in zip(short, self._encode([texts[n] for n in short]) if short else (), strict=True):
            found[n] = whole
        return found

    def _suffices(self, texts: Sequence[str], encoded: Sequence[Encoding]) -> int:
        """Characters of which all but a few texts give more tokens than are asked."""
        tokens = [len(each.ids) + sum(len(part.ids) for part in each.overflowing) for each in encoded]
        lengths = [len(text) / max(1, number) for text, number in zip(texts, tokens, strict=False)]
        # A text's beginning may have longer words than the whole.
        return round(1.1 * (self._length + 1) * float(np.quantile(lengths, _SHARE))) if lengths else 0


def _beginning(text: str, reach: int) -> str:
    """The text up to a space between words near its character `reach`; whole where there is none."""
    if len(text) <= reach:
        return text
    place = text.find(" ", reach)
    return text[:place] if place > 0 and not text[place - 1].isspace() else text
