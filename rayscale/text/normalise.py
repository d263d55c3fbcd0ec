"""Normalised text and its 64-bit key: what counts as the same text, and the number everything is ordered by."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable

import numpy as np

#: Rises when the same input would give other text or other keys.
NORMALISE_VERSION = 1

_HALF, _LOWER = np.uint64(32), np.uint64(0xFFFFFFFF)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def normalise(text: str, *, keep_lines: bool = False) -> str:
    """Text in Unicode NFC with every run of white space as one space, none at the ends.

    `keep_lines` (language modelling) keeps the line breaks of the text and drops its empty lines.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if not keep_lines:
        return " ".join(text.split())
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def keys_of(texts: Iterable[str]) -> np.ndarray:
    """One uint64 per normalised text: the first 8 bytes of its BLAKE2b hash; line breaks count as spaces.

    Two of n different texts share a key with probability n^2 / 2^65: below 3 in a million for ten million texts.
    """
    digests = (hashlib.blake2b(t.replace("\n", " ").encode(), digest_size=8).digest() for t in texts)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def keys_within(keys: np.ndarray, groups: Iterable[str]) -> np.ndarray:
    """Keys whose upper half is that of the key of a row's group, see `group_of`; rows of a group lie side by side."""
    return group_of(keys_of(groups)) | (keys & _LOWER)


def group_of(keys: np.ndarray) -> np.ndarray:
    """What keys made by `keys_within` have in common within a group."""
    return keys >> _HALF << _HALF


def mix(values: np.ndarray, salt: int) -> np.ndarray:
    """A salted bijection of uint64 that looks random (the finaliser of SplitMix64; Steele et al. 2014).

    Not numpy's generator: its streams may change between versions, and permutations must not.
    """
    state = (int(salt) * int(_GOLDEN) + 0x632BE59BD9B4E019) & 0xFFFFFFFFFFFFFFFF
    x = np.bitwise_xor(np.asarray(values, dtype=np.uint64), finish(np.array([state], dtype=np.uint64)))
    return finish(x + _GOLDEN)


def finish(x: np.ndarray) -> np.ndarray:
    """The last step of SplitMix64, uint64 throughout."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
