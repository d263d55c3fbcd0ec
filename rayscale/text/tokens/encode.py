"""Texts → token ids: which tokenizer, encoding with truncation counted, and packing documents into windows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from rayscale.errors import DataError
from rayscale.study.checkpoints import NAMES, check_files
from rayscale.text.normalise import mix
from rayscale.text.shards import lists_of

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

T = TypeVar("T")

#: Rises when the same clean rows would give other token ids.
TOKENISE_VERSION = 2

#: Texts handed to the tokenizer at once.
BATCH_TEXTS = 1024


@dataclass(frozen=True)
class TokenizerSpec:
    """A tokenizer to train on the training split (`family`, `vocabulary`) or a checkpoint's own (`path`, a folder)."""

    kind: str  # "trained" or "pretrained"
    family: str | None = None  # bert: WordPiece; gpt2, t5: byte-level BPE
    vocabulary: int | None = None
    path: str | None = None
    revision: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """Short, and different for different tokenizers of one study."""
        if self.kind == "trained":
            return f"{self.family}-{self.vocabulary}"
        mark = self.digest or hashlib.sha256(f"{self.path}@{self.revision}".encode()).hexdigest()
        return f"{Path(str(self.path)).name}@{mark[:8]}"


def spec_of(model: Any) -> TokenizerSpec:
    """The tokenizer that a model of the plan (`runs.trial.ModelSpec`) reads with."""
    if model.kind == "family":
        return TokenizerSpec("trained", family=model.family, vocabulary=model.vocabulary)
    return TokenizerSpec("pretrained", path=model.path, revision=model.revision, digest=model.digest)


def fingerprint(spec: TokenizerSpec, max_length: int) -> str:
    """16 hex digits: the tokenizer's content or recipe, the length, the version of `tokenizers`."""
    import tokenizers

    if spec.kind == "trained":
        content: Any = [spec.family, spec.vocabulary]
    else:
        folder = tokenizer_folder(spec)
        content = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in NAMES]
    named = json.dumps([TOKENISE_VERSION, tokenizers.__version__, spec.kind, content, max_length])
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def tokenizer_folder(spec: TokenizerSpec) -> Path:
    """The folder of a pretrained tokenizer. Raises DataError when it is absent or lacks a file of the tokenizer."""
    folder = Path(str(spec.path))
    if not folder.is_dir():
        raise DataError("no such folder; give the folder of a checkpoint", code="no_tokenizer", where=str(folder))
    check_files(folder)
    return folder


def describe(spec: TokenizerSpec) -> dict[str, Any]:
    """The spec for a manifest: without the path, which differs between machines."""
    return {"name": spec.name, **{k: v for k, v in asdict(spec).items() if k != "path"}}


def batches(texts: Sequence[T]) -> Iterator[Sequence[T]]:
    """The texts in their order, as many at once as a tokenizer is handed."""
    return (texts[first : first + BATCH_TEXTS] for first in range(0, len(texts), BATCH_TEXTS))


def encode(tokenizer: Tokenizer, texts: Sequence[str], max_length: int | None) -> dict[str, pa.Array]:
    """Columns `input_ids` (lists of int32) and `truncated` (bool).

    Ids with the tokenizer's special tokens, cut to `max_length` with these kept; None: no special tokens, no cut.
    """
    encode_batch: Callable[[list[str]], list[Encoding]]
    tokenizer.no_padding()
    if max_length is None:
        tokenizer.no_truncation()
        encode_batch = partial(tokenizer.encode_batch_fast, add_special_tokens=False)
    else:
        tokenizer.enable_truncation(max_length)
        encode_batch = encoder(tokenizer)
    ids, truncated = [lists_of([])], list[bool]()
    for batch in batches(texts):
        encoded = encode_batch(list(batch))
        # Numbers of Python are nine times as large: they are packed batch by batch.
        ids.append(lists_of([encoding.ids for encoding in encoded]))
        truncated += [bool(encoding.overflowing) for encoding in encoded]
    return {"input_ids": pa.concat_arrays(ids), "truncated": pa.array(truncated, pa.bool_())}


class Packer:
    """Joins documents, each followed by the token `end`, and cuts windows of `window` tokens, a block at a time.

    A window's key mixes the key of the document it begins in with the window's number within that document.
    """

    def __init__(self, window: int, end: int) -> None:
        self._window, self._end = window, end
        self._begun = 0  # the place, among all tokens, of the first that is in no window yet
        self._tokens = np.empty(0, dtype=np.int32)
        self._starts, self._keys = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint64)

    @property
    def left(self) -> int:
        """Tokens that fill no window yet."""
        return len(self._tokens)

    def add(self, values: np.ndarray, offsets: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The next windows, flat (int32), and their keys (uint64), of documents (no special tokens) and their keys."""
        window = self._window
        starts = np.cumsum([0, *(np.diff(offsets) + 1)], dtype=np.int64)
        joined = np.full(int(starts[-1]), self._end, dtype=np.int32)
        # Document i moves right by i places, one for each `end` before it.
        joined[np.arange(len(values)) + np.repeat(np.arange(len(keys)), np.diff(offsets))] = values
        starts = np.concatenate([self._starts, starts[:-1] + self._begun + len(self._tokens)])
        tokens, keys = np.concatenate([self._tokens, joined]), np.concatenate([self._keys, keys])
        windows = len(tokens) // window
        first = self._begun + np.arange(windows, dtype=np.int64) * window
        document = np.searchsorted(starts, first, side="right") - 1
        number = first // window - -(-starts[document] // window)
        window_keys = mix(keys[document] + mix(number.astype(np.uint64), 1), 0)
        self._begun += windows * window
        self._tokens = tokens[windows * window :].copy()
        # The next window may begin in the last document that began before it.
        open_from = max(0, int(np.searchsorted(starts, self._begun, side="right")) - 1)
        self._starts, self._keys = starts[open_from:], keys[open_from:]
        return tokens[: windows * window], window_keys


def letters_per_token(vocabulary: int) -> float:
    """About how many letters of text a trained tokenizer of this size takes for a token; a Chinese sign is worth 3.

    Measured with byte-level BPE on held-out English, package documentation and Shakespeare: 1.4 and 1.4 at 300 entries,
    2.1 and 1.9 at 512, 2.8 and 2.4 at 1,024, 3.4 and 2.8 at 2,048, 4.3 and 3.3 at 8,192. Between them linear.
    """
    sizes, letters = (300, 512, 1024, 2048, 8192, 32768), (1.4, 2.0, 2.6, 3.1, 3.8, 4.2)
    return float(np.interp(vocabulary, sizes, letters))


#: Steps of tokenizers that work on what is between spaces. Others may look further (Metaspace, Replace, Precompiled).
_NORMALIZERS = {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents"}
_PRE_TOKENIZERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit", "ByteLevel"}
_MODELS = {"WordPiece", "WordLevel", "BPE"}

#: So many texts are encoded whole, and tell how many characters suffice for this share of them.
_SAMPLE, _SHARE = 64, 0.98


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
        encodings = self._encode(shown)
        short = [n for n, part in enumerate(shown) if len(part) < len(texts[n]) and not encodings[n].overflowing]
        for n, whole in zip(short, self._encode([texts[n] for n in short]) if short else (), strict=True):
            encodings[n] = whole
        return encodings

    def _suffices(self, texts: Sequence[str], encoded: Sequence[Encoding]) -> int:
        """Characters of which all but a few texts give more tokens than are asked."""
        tokens = [len(encoding.ids) + sum(len(part.ids) for part in encoding.overflowing) for encoding in encoded]
        lengths = [len(text) / max(1, number) for text, number in zip(texts, tokens, strict=False)]
        # A text's beginning may have longer words than the whole.
        return round(1.1 * (self._length + 1) * float(np.quantile(lengths, _SHARE))) if lengths else 0


def _beginning(text: str, reach: int) -> str:
    """The text up to a space between words near its character `reach`; whole where there is none."""
    if len(text) <= reach:
        return text
    place = text.find(" ", reach)
    return text[:place] if place > 0 and not text[place - 1].isspace() else text
