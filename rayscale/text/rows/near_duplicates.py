"""Near-duplicates: which texts are nearly one of the held-out ones. Hashes are kept, never texts.

Two texts are as alike as the share of their shingles (five letters in a row, without case and punctuation; a Chinese
sign counts as three letters) that both have: Jaccard's index. MinHash signatures (Broder 1997; by `rensa`) find
candidates in bands (Indyk and Motwani 1998); each is then checked on the smallest hashes of its shingles, all of them
for texts of up to about 130 letters. Rows can be asked in any blocks, anywhere: each is judged by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rensa import RMinHash

from rayscale.system.disk import PRIVATE, write_folder
from rayscale.text.normalise import mix
from rayscale.text.scripts import LETTERS, in_ranges, marks

#: Rises when the same texts would be judged otherwise.
NEAR_VERSION = 2
VERSIONS = (NEAR_VERSION, RMinHash.ALGORITHM_VERSION)

SHINGLE = 5
PERMUTATIONS = 128
#: Hashes that are kept of each text. More shingles than these are judged by their smallest: within 0.035 (one
#: standard deviation) at a similarity of 0.8.
KEPT = 128
#: Letters of a text that are looked at: its first ones.
MOST_LETTERS = 65_536
#: Held-out texts looked at in one bucket of one band: those in one bucket resemble each other.
MOST_ALIKE = 16
#: Share of the pairs at the threshold that the bands must bring up.
RECALL = 0.99

_SEED = 2026
_BATCH_LETTERS = 1 << 19
_BATCH_PAIRS = 4096
#: With so much around a text, each of its letters stands in as many shingles as any other.
_EDGE = "\0" * (SHINGLE - 1)
_WORDS = re.compile(rf"[\w{marks()}]+")
#: Signs that stand for several letters of an alphabet, and what takes the place of one.
_SIGNS = [(re.compile(f"([{in_ranges(script)}])"), r"\1" * worth) for script, worth in LETTERS.items()]
_ASCII_WORDS = bytes(ord(chr(n).lower()) if n < 128 and _WORDS.match(chr(n)) else ord(" ") for n in range(256))


@dataclass(frozen=True)
class HeldOut:
    """Sketches of the held-out texts, arrays throughout: text i has `kept[offsets[i]:offsets[i + 1]]`, ascending.

    `bands` (ascending) holds the buckets of all texts, `owners` whose each is. `groups` says what each text belongs to,
    `whole` whether its `kept` are all of its hashes.
    """

    threshold: float
    groups: np.ndarray
    bands: np.ndarray
    owners: np.ndarray
    kept: np.ndarray
    offsets: np.ndarray
    whole: np.ndarray

    def __len__(self) -> int:
        return len(self.groups)


#: The arrays of a `HeldOut`, in its order.
_ARRAYS = {
    "groups": np.int8,
    "bands": np.uint64,
    "owners": np.int32,
    "kept": np.uint32,
    "offsets": np.int64,
    "whole": np.bool_,
}


@dataclass(frozen=True)
class Nearest:
    """For each text asked: the number of the most similar held-out text, -1 where none is near, and how similar."""

    others: np.ndarray  # int64
    similarities: np.ndarray  # float64


def sketch(texts: Iterable[str], groups: np.ndarray, threshold: float) -> HeldOut:
    """Sketches of texts that nothing may resemble by `threshold` or more; the first of several equals is named."""
    parts = [HeldOut(threshold, *(np.zeros(1 if name == "offsets" else 0, kind) for name, kind in _ARRAYS.items()))]
    groups = np.asarray(groups, dtype=np.int8)
    for hashes, starts in _hashed(texts):
        buckets = _buckets(hashes, starts, threshold)
        owners = np.repeat(np.arange(len(buckets), dtype=np.int32), buckets.shape[1])
        order = np.argsort(buckets, axis=None, kind="stable")
        group, groups = np.split(groups, [len(buckets)])
        parts.append(HeldOut(threshold, group, buckets.ravel()[order], owners[order], *_keep(hashes, starts)))
    return join(parts, threshold)


def join(parts: Sequence[HeldOut], threshold: float) -> HeldOut:
    """The sketches of several parts as those of all their texts, one part after the other."""
    sizes = np.cumsum([0, *map(len, parts)])
    bands = np.concatenate([part.bands for part in parts])
    order = np.argsort(bands, kind="stable")
    kept = np.cumsum([0, *(len(part.kept) for part in parts)])
    return HeldOut(
        threshold,
        np.concatenate([part.groups for part in parts]),
        bands[order],
        np.concatenate([part.owners + np.int32(first) for part, first in zip(parts, sizes, strict=False)])[order],
        np.concatenate([part.kept for part in parts]),
        np.concatenate([*(part.offsets[:-1] + first for part, first in zip(parts, kept, strict=False)), kept[-1:]]),
        np.concatenate([part.whole for part in parts]),
    )


def publish(held_out: HeldOut, folder: Path) -> None:
    """Write sketches as a folder that appears whole, so that many processes map them."""

    def write(temporary: Path) -> None:
        for name in _ARRAYS:
            np.save(temporary / f"{name}.npy", getattr(held_out, name))

    write_folder(folder, write, Path.exists, PRIVATE)


def load(folder: Path, threshold: float) -> HeldOut:
    """The sketches of a folder, by memory map."""
    paths = [folder / f"{name}.npy" for name in _ARRAYS]
    # An array without entries is a header of 128 bytes, and nothing that can be mapped.
    arrays = [np.load(path, mmap_mode="r" if path.stat().st_size > 128 else None) for path in paths]
    return HeldOut(threshold, *arrays)


def nearest(texts: Iterable[str], held_out: HeldOut) -> Nearest:
    """Which of the held-out texts each of these resembles most, by its threshold or more."""
    batches = [_nearest(hashes, starts, held_out) for hashes, starts in _hashed(texts)]
    others, similarities = zip((np.empty(0, np.int64), np.empty(0)), *batches, strict=True)
    return Nearest(np.concatenate(others), np.concatenate(similarities))


def rows_a_band(threshold: float) -> int:
    """Signature values of one band: as many as let pairs at the threshold share a band with probability RECALL."""
    known = (r for r in range(PERMUTATIONS, 1, -1) if 1 - (1 - threshold**r) ** (PERMUTATIONS // r) >= RECALL)
    return next(known, 1)


# ---- texts as hashes of shingles


def _letters(text: str) -> str:
    begun = text[:MOST_LETTERS]
    if begun.isascii():  # as below, several times as fast
        letters = b" ".join(begun.encode().translate(_ASCII_WORDS).split()).decode() or begun
    else:
        letters = " ".join(_WORDS.findall(begun.casefold())) or begun
        for sign, repeated in _SIGNS:
            letters = sign.sub(repeated, letters)
    return f"{_EDGE}{letters}{_EDGE}" if letters else _EDGE + "\0"


def _hashed(texts: Iterable[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches: the hash (uint64) of every shingle of some texts, and where each text begins (int64, one more)."""
    batch: list[str] = []
    letters = 0
    for text in texts:
        batch.append(_letters(text))
        letters += len(batch[-1])
        if letters > _BATCH_LETTERS:
            yield _shingles(batch)
            batch, letters = [], 0
    if batch:
        yield _shingles(batch)


def _shingles(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    rolled = np.zeros(len(codes) - SHINGLE + 1, dtype=np.uint64)
    for place in range(SHINGLE):  # five letters of 21 bits: they overlap in 64 bits, and are mixed in between
        rolled = rolled * np.uint64(0x9E3779B97F4A7C15) + codes[place : len(codes) - SHINGLE + 1 + place]
    lengths = np.array([len(text) for text in texts])
    sizes = lengths - SHINGLE + 1
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    # Shingle s of a text lies where the text begins in the codes; those across two texts are passed over.
    places = np.arange(starts[-1]) + np.repeat(np.cumsum(lengths) - lengths - starts[:-1], sizes)
    return mix(rolled[places], NEAR_VERSION), starts


# ---- candidates


def _buckets(hashes: np.ndarray, starts: np.ndarray, threshold: float) -> np.ndarray:
    """(texts, bands) uint64: two texts meet in a band where all of its signature values are equal."""
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, starts.astype(np.uint64), PERMUTATIONS, _SEED)
    rows = rows_a_band(threshold)
    bands = PERMUTATIONS // rows
    values = np.array(matrix.to_rows(), dtype=np.uint64).reshape(-1, PERMUTATIONS)
    signatures = values[:, : bands * rows].reshape(-1, bands, rows)
    buckets = np.broadcast_to(mix(np.arange(bands, dtype=np.uint64), rows), signatures.shape[:2])
    for row in range(rows):
        buckets = mix(buckets ^ signatures[:, :, row], 1)
    return buckets


def _nearest(hashes: np.ndarray, starts: np.ndarray, held_out: HeldOut) -> tuple[np.ndarray, np.ndarray]:
    others, similarities = np.full(len(starts) - 1, -1, dtype=np.int64), np.zeros(len(starts) - 1)
    if not len(held_out):
        return others, similarities
    buckets = _buckets(hashes, starts, held_out.threshold)
    first = np.searchsorted(held_out.bands, buckets.ravel(), side="left")
    after = np.searchsorted(held_out.bands, buckets.ravel(), side="right")
    counts = np.minimum(after - first, MOST_ALIKE)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    owners = held_out.owners[np.repeat(first, counts) + within].astype(np.int64)
    askers = np.repeat(np.arange(counts.size) // buckets.shape[1], counts)
    pairs = _distinct(askers * len(held_out) + owners)
    if not len(pairs):
        return others, similarities
    asking = _distinct(pairs // len(held_out))
    chosen = np.concatenate([hashes[starts[text] : starts[text + 1]] for text in asking])
    asked = _keep(chosen, np.cumsum([0, *(starts[asking + 1] - starts[asking])]))
    for some in np.array_split(pairs, -(-len(pairs) // _BATCH_PAIRS)):
        askers, owners = np.divmod(some, len(held_out))
        places = np.searchsorted(asking, askers)
        shares = _alike(asked, places, (held_out.kept, held_out.offsets, held_out.whole), owners)
        for asker, owner, alike in zip(askers, owners, shares, strict=True):
            if alike >= held_out.threshold and alike > similarities[asker]:
                others[asker], similarities[asker] = owner, alike
    return others, similarities


# ---- how alike

Sketch = tuple[np.ndarray, np.ndarray, np.ndarray]


def _keep(hashes: np.ndarray, starts: np.ndarray) -> Sketch:
    """The KEPT smallest hashes (32 bits) of each text: flat, where each begins, and whether they are all."""
    texts = np.repeat(np.arange(len(starts) - 1, dtype=np.uint64), np.diff(starts))
    distinct = _distinct((texts << np.uint64(32)) | (hashes >> np.uint64(32)))
    sizes = np.bincount((distinct >> np.uint64(32)).astype(np.int64), minlength=len(starts) - 1)
    rank = np.arange(len(distinct)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = (distinct[rank < KEPT] & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return kept, np.concatenate([[0], np.cumsum(np.minimum(sizes, KEPT))]), sizes <= KEPT


def _distinct(values: np.ndarray) -> np.ndarray:
    # `np.unique` of numpy 2.4 takes nine times as long: it puts numbers in a hash table, and these meet there.
    ordered = np.sort(values)
    return ordered[np.concatenate([ordered[:1] == ordered[:1], ordered[1:] != ordered[:-1]])]


def _alike(one: Sketch, ones: np.ndarray, other: Sketch, others: np.ndarray) -> np.ndarray:
    """Jaccard's index of pairs of sketches, over the range of hashes that both sketches cover."""
    limits = np.minimum(_reach(one, ones), _reach(other, others))
    sides = [_taken(sketch, chosen, limits) for sketch, chosen in ((one, ones), (other, others))]
    both = np.sort(np.concatenate(sides))
    shared = both[1:][both[1:] == both[:-1]]
    in_both = np.bincount((shared >> np.uint64(32)).astype(np.int64), minlength=len(ones))
    in_each = np.bincount((both >> np.uint64(32)).astype(np.int64), minlength=len(ones))
    return in_both / (in_each - in_both)


def _reach(sketch: Sketch, chosen: np.ndarray) -> np.ndarray:
    kept, offsets, whole = sketch
    return np.where(whole[chosen], np.uint32(0xFFFFFFFF), kept[offsets[chosen + 1] - 1])


def _taken(sketch: Sketch, chosen: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """The hashes of the chosen texts up to their limits, each with its pair's number above."""
    kept, offsets, _ = sketch
    sizes = offsets[chosen + 1] - offsets[chosen]
    pairs = np.repeat(np.arange(len(chosen), dtype=np.uint64), sizes)
    places = np.arange(sizes.sum()) + np.repeat(offsets[chosen] - (np.cumsum(sizes) - sizes), sizes)
    values = kept[places]
    return ((pairs << np.uint64(32)) | values)[values <= np.repeat(limits, sizes)]
