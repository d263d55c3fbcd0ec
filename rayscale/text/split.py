"""Who goes where: duplicates out, then train, validation and test by the hash of the text.

Rows are numbers here (keys, roles, positions, label codes), never texts, so that a driver decides about millions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rayscale.errors import DataError
from rayscale.text.normalise import group_of, mix

#: Roles of rows as the user's files give them and splits as they come out, in the order of who wins a text.
TEST, VALIDATION, TRAIN = 0, 1, 2
SPLITS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
DROPPED = -1

_SALT = 0x5B117


@dataclass(frozen=True)
class Division:
    """`split` holds TRAIN, VALIDATION, TEST or DROPPED for each row (int8); `dropped` counts the reasons."""

    split: np.ndarray
    dropped: dict[str, int]
    conflicting_labels: int


def divide(
    keys: np.ndarray,
    roles: np.ndarray,
    orders: np.ndarray,
    labels: np.ndarray,
    *,
    validation_fraction: float = 0.0,
    test_fraction: float = 0.0,
    grouped: bool = False,
) -> Division:
    """Keep each text once and give it to one split. Raises DataError for fractions that leave nothing to train on.

    All arrays have one entry per row: `keys` uint64, `roles` (the file's role), `orders` (position in the files,
    ascending), `labels` (int codes). Test files win a text over validation files, these over training files; within a
    role the first occurrence stays. A fraction above 0 cuts that split from the training rows by hash: the decision
    depends on nothing but the text, and a larger fraction keeps all that a smaller one had. `grouped`: no group of
    texts (`normalise.group_of`) is in two splits.
    """
    if validation_fraction + test_fraction >= 1:
        text = f"validation_fraction {validation_fraction} and test_fraction {test_fraction} leave no training rows"
        raise DataError(f"{text}; give fractions whose sum is below 1", code="empty_split")
    winner = _winners(keys, roles, orders)
    lost = winner != np.arange(len(keys))

    split = roles.astype(np.int8)
    # The two cuts grow from opposite ends of the hash, so that changing one fraction never moves rows of the other.
    place = mix(group_of(keys) if grouped else keys, _SALT)
    of_train = roles == TRAIN
    if test_fraction:
        split[of_train & (place < np.uint64(int(test_fraction * 2**64)))] = TEST
    if validation_fraction:
        split[of_train & (place >= np.uint64(min(int((1 - validation_fraction) * 2**64), 2**64 - 1)))] = VALIDATION
    winning_role = roles[_winners(group_of(keys), roles, orders) if grouped else winner]
    lost |= roles > winning_role
    split[lost] = DROPPED

    same_role = winning_role == roles
    dropped = {
        "duplicate": int(np.sum(lost & same_role)),
        "in_validation": int(np.sum(lost & ~same_role & (winning_role == VALIDATION))),
        "in_test": int(np.sum(lost & ~same_role & (winning_role == TEST))),
    }
    return Division(split, dropped, int(np.sum(lost & (labels != labels[winner]))))


def _winners(keys: np.ndarray, roles: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """For each row the place of the one that wins its key: of the first role, and of several the first in the files."""
    ranked = np.lexsort((orders, roles, keys))
    first = np.ones(len(keys), dtype=bool)
    first[1:] = keys[ranked][1:] != keys[ranked][:-1]
    winner = np.empty(len(keys), dtype=np.int64)
    winner[ranked] = ranked[np.maximum.accumulate(np.where(first, np.arange(len(keys)), 0))]
    return winner


def by_key(keys: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The places (int64) of the chosen rows, a bool for each, in the ascending order of their key."""
    places = np.flatnonzero(chosen)
    return places[np.argsort(keys[places])]


def permutation(keys: np.ndarray, seed: int, labels: np.ndarray | None = None) -> np.ndarray:
    """Row numbers (int64) in the order of this seed: subsets are its prefixes, hence nested within a seed.

    With `labels` (class numbers from 0) every prefix is stratified, too: of a class that is a share p of all rows, the
    first n hold n p, give or take one. Row r of the n_c rows of a class stands at (r + u) / n_c, where u in [0, 1) is
    drawn for the class, so that small classes do not all come at once.
    """
    order = np.argsort(mix(keys, seed + 1), kind="stable").astype(np.int64)
    if labels is None:
        return order
    classes = np.asarray(labels)[order]
    sizes = np.bincount(classes)
    ranks = np.empty(len(order))
    ranks[np.argsort(classes, kind="stable")] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    begin = mix(np.arange(len(sizes), dtype=np.uint64), ~(seed + 1)) / 2**64
    return order[np.argsort((ranks + begin[classes]) / sizes[classes], kind="stable")]
