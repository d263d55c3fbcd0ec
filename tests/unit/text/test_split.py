import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayscale.errors import DataError
from rayscale.text.split import DROPPED, TEST, TRAIN, VALIDATION, divide, permutation

ROWS = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from([TEST, VALIDATION, TRAIN]), st.integers(0, 2)), max_size=120
)
FRACTIONS = st.tuples(st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([0.0, 0.1, 0.3]))


def arrays(rows):
    # Spread the small numbers over all 64 bits, as hashes are.
    keys = np.array([row[0] for row in rows], dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    roles = np.array([row[1] for row in rows], dtype=np.int8)
    return keys, roles, np.arange(len(rows)), np.array([row[2] for row in rows], dtype=np.int32)


@given(ROWS, FRACTIONS)
def test_every_text_is_in_one_split_and_every_row_is_counted(rows, fractions):
    keys, roles, orders, labels = arrays(rows)
    division = divide(keys, roles, orders, labels, validation_fraction=fractions[0], test_fraction=fractions[1])
    kept = division.split != DROPPED
    assert len(np.unique(keys[kept])) == kept.sum() == len(np.unique(keys))
    assert kept.sum() + sum(division.dropped.values()) == len(rows)


@given(ROWS)
def test_test_wins_over_validation_and_both_over_train(rows):
    keys, roles, orders, labels = arrays(rows)
    division = divide(keys, roles, orders, labels)
    for key in np.unique(keys):
        here = keys == key
        assert division.split[here].max() == roles[here].min()  # one row is kept; the others are -1
        kept = np.flatnonzero(here & (division.split != DROPPED))[0]
        assert kept == np.flatnonzero(here & (roles == roles[here].min()))[0]  # the first in file order


@given(ROWS, FRACTIONS, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(rows, fractions, random):
    keys, roles, orders, labels = arrays(rows)
    shuffled = list(range(len(rows)))
    random.shuffle(shuffled)
    options = {"validation_fraction": fractions[0], "test_fraction": fractions[1]}
    one = divide(keys, roles, orders, labels, **options)
    other = divide(keys[shuffled], roles[shuffled], orders[shuffled], labels[shuffled], **options)
    assert (one.split[shuffled] == other.split).all()
    assert (one.dropped, one.conflicting_labels) == (other.dropped, other.conflicting_labels)


def test_a_larger_fraction_keeps_what_a_smaller_one_had_and_shares_are_as_asked():
    keys = np.random.default_rng(0).integers(0, 2**64, 20000, dtype=np.uint64)
    roles, orders, labels = np.full(20000, TRAIN, np.int8), np.arange(20000), np.zeros(20000, np.int32)
    small = divide(keys, roles, orders, labels, validation_fraction=0.1, test_fraction=0.1).split
    large = divide(keys, roles, orders, labels, validation_fraction=0.1, test_fraction=0.2).split
    assert (large[small == TEST] == TEST).all()
    assert (large[small == VALIDATION] == VALIDATION).all()
    assert [np.mean(large == s) for s in (TEST, VALIDATION)] == pytest.approx([0.2, 0.1], abs=0.01)


def test_conflicting_labels_of_duplicates_are_counted():
    keys = np.array([5, 5, 5, 9], dtype=np.uint64)
    division = divide(keys, np.full(4, TRAIN, np.int8), np.arange(4), np.array([0, 1, 0, 1]))
    assert division.conflicting_labels == 1
    assert division.dropped == {"duplicate": 2, "in_validation": 0, "in_test": 0}


def test_fractions_that_leave_nothing_are_refused():
    with pytest.raises(DataError, match="below 1"):
        divide(*arrays([(1, TRAIN, 0)]), validation_fraction=0.5, test_fraction=0.5)


@given(st.sets(st.integers(0, 2**64 - 1), max_size=60), st.integers(0, 1000))
def test_a_permutation_holds_every_row_once_and_depends_on_keys_only(values, seed):
    keys = np.array(sorted(values), dtype=np.uint64)
    order = permutation(keys, seed)
    assert sorted(order) == list(range(len(keys)))
    assert (keys[order] == keys[::-1][permutation(keys[::-1], seed)]).all()


def test_seeds_give_different_permutations_and_these_never_change():
    keys = np.arange(1, 7, dtype=np.uint64)
    assert [permutation(keys, seed).tolist() for seed in (0, 1)] == [[1, 5, 4, 0, 3, 2], [0, 1, 4, 3, 2, 5]]


@given(st.integers(0, 2**31), st.lists(st.integers(0, 6), min_size=1, max_size=400))
def test_subsets_are_nested_and_stratified(seed, labels):
    labels = np.unique(labels, return_inverse=True)[1]
    keys = np.random.default_rng(seed).integers(0, 2**64, len(labels), dtype=np.uint64)
    order = permutation(keys, seed, labels)
    assert sorted(order) == list(range(len(labels)))
    for label in range(labels.max() + 1):
        held = np.cumsum(labels[order] == label)
        even = np.arange(1, len(labels) + 1) * (held[-1] / len(labels))
        assert np.abs(held - even).max() < 1 + labels.max()
    again = np.random.default_rng(1).permutation(len(labels))
    assert (keys[again][permutation(keys[again], seed, labels[again])] == keys[order]).all()
