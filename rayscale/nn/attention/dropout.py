"""Dropout by row: what is dropped of a row follows from the trial's seed, the step and the row alone.

Which worker computes a row, beside which others, and how far it is padded changes nothing, so GPU counts and
micro-batches change results by rounding only. Numbers are not drawn one after the other but hashed from where they
belong: a line of a tensor (all but its last dimension) gets two 32-bit numbers a and c by a strong hash of row and
place, column j a fixed random b_j, and the element is dropped where a * b_j + c, modulo 2^32, is low: uniform for each,
independent for each two (multiply-add hashing; Dietzfelbinger 1996). On a CPU that takes a third of the time of
PyTorch's generator and more.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from rayscale.system.overrides import overridden
from rayscale.text.normalise import mix

#: Architectures whose masks do not go by row: rows are not the first dimension of their tensors, tokens of padding have
#: masks that move others, or their routers draw numbers of their own.
NOT_BY_ROW = ("fsmt", "funnel", "phimoe", "xlnet")
#: Those in which the tokens of all rows lie in one dimension, one row after the other.
FLAT = ("opt",)

#: What a step to the next place adds to a line's number: by dimension, from the last but one to the left.
_PLACES = (0x2545F4914F6CDD1D, 0x1D8E4E27C47D124F, 0x369DEA0F31A53F85, 0x3C79AC492BA7B653)
_SITE = 0x5851F42D4C957F2D
_FIRST, _SECOND = 0xFF51AFD7ED558CCD - (1 << 64), 0xC4CEB9FE1A85EC53 - (1 << 64)  # MurmurHash3's finaliser


def may_drop(model: nn.Module) -> bool:
    """Whether dropout may be on in a model of transformers: its config has a share that is not 0, or a module does."""
    config: Any = model.config
    shares = [value for name, value in config.to_dict().items() if "drop" in name]
    shares += [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    return any(isinstance(share, (int, float)) and share > 0 for share in shares)


def step_key(seed: int, step: int) -> int:
    """The number of one step of a trial."""
    return int(mix(mix(np.array([step]), seed), 0)[0])


def row_keys(key: int, rows: np.ndarray) -> np.ndarray:
    """int64 numbers of these rows (numbers in the split) at the step with this key."""
    return mix(rows, key).view(np.int64)


def window_keys(keys: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Those of windows: of rows, the windows of each one after the other."""
    numbers = np.arange(len(owners)) - np.searchsorted(owners, owners)
    return mix(keys.view(np.uint64)[owners] + numbers.astype(np.uint64), 0).view(np.int64)


@dataclass(frozen=True)
class Lines:
    """int32 `seeds` (..., 2) of lines of a tensor, of which a `share` is dropped."""

    seeds: torch.Tensor
    share: float

    def factors(self, columns: int) -> torch.Tensor:
        """float32 (..., columns): 0 where dropped, else such that the mean is 1."""
        return self.factors_of([self.seeds], [columns])[0]

    def factors_of(self, parts: Sequence[torch.Tensor], columns: Sequence[int]) -> list[torch.Tensor]:
        """The same of parts of the seeds, each with its number of columns."""
        shapes = [(*part.shape[:-1], count) for part, count in zip(parts, columns, strict=True)]
        cells = [math.prod(shape) for shape in shapes]
        whole = torch.empty(sum(cells), dtype=torch.int32, device=self.seeds.device)
        numbers = _columns(max(columns), self.seeds.device)
        for part, count, piece, shape in zip(parts, columns, whole.split(cells), shapes, strict=True):
            torch.mul(part[..., :1], numbers[:count], out=piece.view(shape)).add_(part[..., 1:])
        # As integers throughout, which vector units are quick at: the bits of a float times 0 or 1.
        (kept,) = struct.unpack("<i", struct.pack("<f", 1 / (1 - self.share)))
        whole.ge_(round(self.share * (1 << 32)) - (1 << 31)).mul_(kept)
        pieces = whole.view(torch.float32).split(cells)
        return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]


@dataclass
class Masks:
    """Those of a micro-batch: the keys of its `rows`; where it runs unpadded, the numbers of its `packed` tokens, and
    those of the first ones of rows; the `width` of its rows where they lie in one dimension (see FLAT). `site` counts
    the dropouts so far."""

    rows: torch.Tensor
    packed: tuple[torch.Tensor, ...] = ()
    width: int | None = None
    site: int = 0
    _padded: dict[torch.Size, torch.Tensor] = field(default_factory=dict)

    def lines(self, places: torch.Tensor, share: float) -> Lines:
        """The lines with these numbers at the next dropout."""
        self.site += 1
        state = places + _signed(self.site * _SITE)
        state = (state ^ (state >> 32)) * _FIRST
        state = (state ^ (state >> 29)) * _SECOND
        return Lines(state.view(torch.int32).unflatten(-1, (-1, 2)), share)

    def places(self, shape: torch.Size) -> torch.Tensor | None:
        """Numbers of the lines of a tensor of this shape; None where it belongs to all rows alike."""
        for packed in self.packed:
            if shape[:-1] == (1, len(packed)):
                return packed[None]
        if shape not in self._padded:
            rows, rest = len(self.rows), shape[1:-1]
            flat = self.width is not None and shape[:-1] == (rows * self.width,)
            folded = flat or (len(shape) > 2 and shape[0] % rows == 0)
            if len(shape) < 2 or not (shape[0] == rows or folded):
                return None
            if shape[0] != rows:  # its tokens, or heads, lie side by side
                rest = torch.Size((shape[0] // rows, *rest))
            places = self.rows.view(-1, *(1 for _ in rest))
            for number, size in enumerate(reversed(rest)):
                places = places + places_along(size, number, places.device).view(-1, *(1 for _ in range(number)))
            self._padded[shape] = places
        return self._padded[shape]


_now: Masks | None = None
_plain: tuple[Any, Any] = functional.dropout, functional.scaled_dot_product_attention


def places_along(size: int, dimension: int, device: torch.device) -> torch.Tensor:
    """What the places 0 to `size` along a dimension of lines, counted from the right, add to their numbers."""
    return torch.arange(size, device=device) * _PLACES[dimension]


@contextmanager
def by_row(now: Masks | None) -> Iterator[None]:
    """Within it every dropout of PyTorch goes by row, tensors that belong to all rows aside; None changes nothing."""
    global _now, _plain
    if now is None:
        yield
        return
    _now, _plain = now, (functional.dropout, functional.scaled_dot_product_attention)
    try:
        with overridden(functional, dropout=_drop, scaled_dot_product_attention=_attend):
            yield
    finally:
        _now = None


def again() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """For gradient checkpointing: what is computed once more drops the same."""
    return nullcontext(), nullcontext() if _now is None else overridden(_now, site=_now.site)


def attention_lines(share: float, heads: int, *, firsts: bool) -> Lines | None:
    """Of the attention of packed tokens, or of the first ones of rows: (tokens, heads), what `Rows` cut."""
    if not share:
        return None
    assert _now is not None
    tokens = _now.packed[firsts]
    return _now.lines(tokens[:, None] + places_along(heads, 1, tokens.device), share)


def _drop(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    now = _now
    places = now.places(input.shape) if now is not None and training and 0 < p < 1 else None
    if now is None or places is None:
        dropped: torch.Tensor = _plain[0](input, p, training, inplace)
        return dropped
    factors = now.lines(places, p).factors(input.shape[-1]).view(input.shape)
    return (input * factors).to(input.dtype)


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """As PyTorch does on a CPU where something is dropped."""
    if not dropout_p:
        rest = {"is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
        context: torch.Tensor = _plain[1](query, key, value, attn_mask, dropout_p, **rest)
        return context
    if enable_gqa:
        key, value = (tensor.repeat_interleave(query.shape[-3] // tensor.shape[-3], -3) for tensor in (key, value))
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    # PyTorch's own, too: with a sliding window padding may see no token at all, whose softmax would be NaN.
    return _drop(torch._safe_softmax(scores, -1), dropout_p) @ value


@cache
def _columns(count: int, device: torch.device) -> torch.Tensor:
    """The random numbers of columns, the same for ever."""
    drawn = mix(np.arange(count), 0).astype(np.uint32).view(np.int32)
    return torch.from_numpy(drawn).to(device)


def _signed(number: int) -> int:
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
