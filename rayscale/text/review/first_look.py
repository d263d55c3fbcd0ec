"""A free first look: the learning curve of a model so simple that it trains in a second, before anything is spent.

Classification: logistic regression on words (tf-idf), by L-BFGS; on characters and pairs where words have no spaces
between. Language modelling: counts of letter sequences, smoothed (Witten and Bell 1991). They tell whether more of
this text still teaches something, not how good a fine-tune will be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse, special
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from rayscale.text.scripts import UNSPACED, in_ranges, marks, share_unspaced
from rayscale.text.split import permutation

#: Rises when the same rows would give another curve.
FIRST_LOOK_VERSION = 3

MOST_ROWS = 2048
MOST_HELD_OUT = 1024
MOST_CHARACTERS = 200_000
MOST_DOCUMENTS = 20_000
MOST_WORDS = 128  # of a text, its first ones
SIZES = 5  # each twice the one before
SEEDS = 3
ORDERS = 5  # letters that the next one is foretold from, at most
STRENGTH = 0.3  # of the penalty on weights
DESCENT = {"maxiter": 60, "maxcor": 8, "ftol": 1e-5}
FEW_UNSPACED = 0.2  # of the letters: a text of spaced words with some Chinese names in it
_WORDS = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class FirstLook:
    """Mean held-out losses (nats per row or per character) by data size, over SEEDS subsets of each.

    `fall` is the share by which the loss falls with each doubling of the data, `low` and `high` its extremes over the
    subsets; below 0 it rises.
    """

    model: str
    unit: str
    sizes: tuple[int, ...]
    losses: tuple[float, ...]
    fall: float
    low: float
    high: float


def look(splits: Mapping[str, pa.Table], classes: int) -> FirstLook | None:
    """The curve, trained on train, judged on validation; None where there is too little to double twice.

    `classes` is the number of labels, 0 for language modelling.
    """
    train, held = splits["train"], splits["validation"].slice(0, MOST_HELD_OUT)
    keys = train["key"].to_numpy()
    labels = train["label"].to_numpy() if classes else None
    orders = [permutation(keys, seed, labels) for seed in range(SEEDS)]
    curve = _of_classes if classes else _of_letters
    sizes, losses = curve(train, held, orders, classes)
    if len(sizes) < 3:
        return None
    doublings = np.log2(np.array(sizes, dtype=float))
    falls = [1 - 2 ** np.polyfit(doublings, np.log2(of_seed), 1)[0] for of_seed in losses]
    mean = losses.mean(axis=0)
    names = ("counts of letter sequences", "characters")
    if classes:
        spaced = share_unspaced(train["text"].slice(0, MOST_HELD_OUT).to_pylist()) < FEW_UNSPACED
        names = (f"logistic regression on {'words' if spaced else 'characters and pairs of them'}", "examples")
    fall = float(1 - 2 ** np.polyfit(doublings, np.log2(mean), 1)[0])
    return FirstLook(*names, tuple(sizes), tuple(map(float, mean)), fall, float(min(falls)), float(max(falls)))


def _doubling(most: int, least: int) -> list[int]:
    """Up to SIZES sizes, each half the next, the largest `most`, none below `least`."""
    return [size for size in (most >> halved for halved in range(SIZES - 1, -1, -1)) if size >= least]


# ---- classification


def _of_classes(
    train: pa.Table, held: pa.Table, orders: Sequence[np.ndarray], classes: int
) -> tuple[list[int], np.ndarray]:
    sizes = _doubling(min(MOST_ROWS, len(train)), max(20, classes))
    vocabulary: dict[str, int] = {}
    test = _count(held["text"].to_pylist(), vocabulary)
    losses = np.zeros((len(orders), len(sizes)))
    for seed, order in enumerate(orders):
        rows = train.take(pa.array(order[:MOST_ROWS]))
        counts, labels = _count(rows["text"].to_pylist(), vocabulary), rows["label"].to_numpy()
        for place, size in enumerate(sizes):
            losses[seed, place] = _loss(counts[:size], labels[:size], test, held["label"].to_numpy(), classes)
    return sizes, losses


def _count(texts: Sequence[str], vocabulary: dict[str, int]) -> sparse.csr_matrix:
    """How often each word stands in each text; unknown ones join the vocabulary."""
    places: list[int] = []
    ends = [0]
    for text in texts:
        words = words_and_pairs(text)
        places += [vocabulary.setdefault(word, len(vocabulary)) for word in words]
        ends.append(len(places))
    counts = sparse.csr_matrix((np.ones(len(places)), places, ends), shape=(len(texts), len(vocabulary)))
    counts.sum_duplicates()
    return counts


def words_and_pairs(text: str) -> list[str]:
    """The first words and signs of a text; of scripts without spaces its characters and each with its neighbour."""
    text = text.casefold()
    if text.isascii():
        return _WORDS.findall(text)[:MOST_WORDS]
    words, pairs = list[str](), list[str]()
    before = -1  # where the last character of a script without spaces ended
    for word in islice(_words_of_any_script().finditer(text), MOST_WORDS):
        if word["alone"] and word.start() == before:
            pairs.append(words[-1] + word[0])
        before = word.end() if word["alone"] else -1
        words.append(word[0])
    return words + pairs


@cache
def _words_of_any_script() -> re.Pattern[str]:
    r"""As _WORDS, with marks as parts of words; `\w` alone breaks words of Hindi in pieces."""
    unspaced, signs = in_ranges(*UNSPACED), marks()
    return re.compile(rf"(?P<alone>[{unspaced}][{signs}]*)|(?:(?![{unspaced}])[\w{signs}])+|[^\w\s]")


def _loss(
    counts: sparse.csr_matrix, labels: np.ndarray, test: sparse.csr_matrix, test_labels: np.ndarray, classes: int
) -> float:
    """Mean cross-entropy (nats) on the test rows of a model trained on the others."""
    rows = len(labels)
    frequency = np.bincount(counts.indices, minlength=counts.shape[1])
    terms = np.flatnonzero(frequency >= (2 if rows > 200 else 1))
    weights = np.log((1 + rows) / (1 + frequency[terms])) + 1
    test = sparse.csr_matrix((test.data, test.indices, test.indptr), shape=(test.shape[0], counts.shape[1]))
    training, other = (_scaled(part[:, terms], weights) for part in (counts, test))
    wanted = np.zeros((rows, classes))
    wanted[np.arange(rows), labels] = 1.0
    shape = (training.shape[1], classes)
    turned = training.T.tocsr()

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        table = flat[classes:].reshape(shape)
        scores = training @ table + flat[:classes]
        norms = special.logsumexp(scores, axis=1, keepdims=True)
        pull = np.exp(scores - norms) - wanted
        value = norms.sum() - (scores * wanted).sum() + STRENGTH / 2 * (table * table).sum()
        slope = turned @ pull + STRENGTH * table
        return value / rows, np.concatenate([pull.sum(axis=0), slope.ravel()]) / rows

    start = np.zeros(classes + shape[0] * classes)
    with threadpool_limits(1, "blas"):  # its threads wait for one another on a busy machine: 25 times as long
        fitted = minimize(objective, start, jac=True, method="L-BFGS-B", options=DESCENT).x
    scores = other @ fitted[classes:].reshape(shape) + fitted[:classes]
    learnt = float((special.logsumexp(scores, axis=1) - scores[np.arange(len(test_labels)), test_labels]).mean())
    # A small training set makes the model too sure of itself: where it is worse than the frequencies of the classes,
    # these are what it knows. Otherwise labels drawn at random would seem to be learnt as that passes.
    frequencies = np.log((np.bincount(labels, minlength=classes) + 1) / (rows + classes))
    return min(learnt, float(-frequencies[test_labels].mean()))


def _scaled(counts: sparse.csr_matrix, weights: np.ndarray) -> sparse.csr_matrix:
    scaled = counts.tocsr(copy=True)
    scaled.data = (1 + np.log(scaled.data)) * weights[scaled.indices]
    norms = np.sqrt(np.asarray(scaled.multiply(scaled).sum(axis=1)).ravel())
    return sparse.diags(1 / np.maximum(norms, 1e-12)) @ scaled


# ---- language modelling


def _of_letters(
    train: pa.Table, held: pa.Table, orders: Sequence[np.ndarray], classes: int
) -> tuple[list[int], np.ndarray]:
    test = _letters(held["text"].to_pylist(), MOST_CHARACTERS // 4)
    texts = [_letters(_texts(train, order), MOST_CHARACTERS) for order in orders]
    sizes = _doubling(min(map(len, texts)), 1000)
    losses = [[_loss_of_letters(text[:size], test) for size in sizes] for text in texts]
    return sizes, np.array(losses)


def _texts(train: pa.Table, order: np.ndarray) -> list[str]:
    texts = train["text"].take(pa.array(order[:MOST_DOCUMENTS]))
    enough = int(np.searchsorted(np.cumsum(pc.utf8_length(texts).to_numpy()), MOST_CHARACTERS)) + 1
    return texts.slice(0, enough).to_pylist()


def _letters(texts: Sequence[str], most: int) -> np.ndarray:
    joined = "\n\n".join(texts)[:most]
    return np.frombuffer(joined.encode("utf-32-le"), dtype="<u4").astype(np.uint64)


def _loss_of_letters(train: np.ndarray, test: np.ndarray) -> float:
    """Mean loss (nats per character): each order hands what it has not seen to the one below, the last to any."""
    chance = np.full(len(test), 1 / (len(np.unique(train)) + 1.0))
    for order in range(ORDERS + 1):
        before, then = _sequences(train, order), _sequences(train, order + 1)
        whole = len(train) - order
        pasts = before[:whole]
        # A past's continuations: those of its kinds that begin with it, found by the first place where each stands.
        kinds, first, count = np.unique(then, return_index=True, return_counts=True)
        known, times = np.unique(pasts, return_counts=True)
        of_kind = np.searchsorted(known, pasts[first])
        various = np.bincount(of_kind, minlength=len(known))
        asked, wanted = _sequences(test, order)[: len(test) - order], _sequences(test, order + 1)
        place = np.clip(np.searchsorted(known, asked), 0, len(known) - 1)
        there = known[place] == asked
        kind = np.clip(np.searchsorted(kinds, wanted), 0, len(kinds) - 1)
        hits = np.where(kinds[kind] == wanted, count[kind], 0)
        mixed = (hits + various[place] * chance[order:]) / (times[place] + various[place])
        chance[order:] = np.where(there, mixed, chance[order:])
    return float(-np.log(chance).mean())


def _sequences(letters: np.ndarray, length: int) -> np.ndarray:
    """A hash (uint64) of the `length` letters from every place on; of none it is 0."""
    hashes = np.zeros(len(letters) - length + 1, dtype=np.uint64)
    for place in range(length):
        hashes = (hashes ^ letters[place : place + len(hashes)]) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    return hashes
