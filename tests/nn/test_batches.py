"""The order of rows, the shares of ranks, and padding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import make_split

from rayscale.nn.training.batches import (
    cut_evaluation,
    cut_global_batches,
    move_right,
    order_rows,
    pad_rows,
    share_global_batch,
)


def test_order_depends_on_seed_and_epoch_only() -> None:
    rows = np.arange(100, 150)
    first = order_rows(rows, 1, 0)
    assert sorted(first) == list(rows)
    assert np.array_equal(first, order_rows(rows, 1, 0))
    assert not np.array_equal(first, order_rows(rows, 1, 1))
    assert not np.array_equal(first, order_rows(rows, 2, 0))


def test_global_batches_keep_the_ragged_last() -> None:
    assert [list(b) for b in cut_global_batches(np.arange(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40),
    micro_batch=st.integers(1, 9),
    world_size=st.integers(1, 5),
)
def test_shares_are_the_global_batch(lengths: list[int], micro_batch: int, world_size: int) -> None:
    batch = np.arange(len(lengths)) + 3
    known = np.concatenate([[99, 99, 99], lengths])
    shares = [share_global_batch(batch, known, micro_batch, rank, world_size) for rank in range(world_size)]
    computed = np.concatenate([part.rows for share in shares for part in share if part.weight])
    assert sorted(computed) == list(batch)
    assert all(share for share in shares), "a rank without a batch would be missing when gradients meet"
    assert all(1 <= len(part.rows) <= micro_batch for share in shares for part in share)
    rows = [sum(len(part.rows) * part.weight for part in share) for share in shares]
    assert max(rows) - min(rows) <= max(len(share) for share in shares)
    assert {part.weight for share in shares for part in share} <= {0.0, 1.0}


def test_micro_batches_hold_rows_of_similar_length() -> None:
    shares = share_global_batch(np.arange(4), np.array([9, 2, 8, 3]), 2, 0, 1)
    assert [sorted(part.rows) for part in shares] == [[1, 3], [0, 2]]


@given(lengths=st.lists(st.integers(1, 30), min_size=0, max_size=40), world_size=st.integers(1, 4))
def test_evaluation_visits_each_row_once(lengths: list[int], world_size: int) -> None:
    known = np.asarray(lengths, dtype=np.int64)
    shares = [list(cut_evaluation(np.arange(len(known)), known, rank, world_size, 64)) for rank in range(world_size)]
    batches = [batch for share in shares for batch in share]
    assert sorted(row for batch in batches for row in batch) == list(range(len(known)))
    assert all(len(batch) * known[batch].max() <= 64 for batch in batches)


@pytest.mark.parametrize(("multiple", "most", "width"), [(1, None, 3), (8, None, 8), (8, 5, 5), (8, 2, 3)])
def test_padding(multiple: int, most: int | None, width: int) -> None:
    split = make_split([np.array([5, 6, 7]), np.array([8]), np.array([9, 10])])
    ids, lengths = pad_rows(split, np.array([2, 0]), pad=4, multiple=multiple, most=most)
    assert ids.shape == (2, width)
    assert ids[:, :3].tolist() == [[9, 10, 4], [5, 6, 7]]
    assert (ids[:, 3:] == 4).all()
    assert lengths.tolist() == [2, 3]


def test_rows_of_one_length_are_not_padded_in_evaluation() -> None:
    lengths = np.array([3, 5, 3, 4, 5, 5])
    parts = list(cut_evaluation(np.arange(6), lengths, 0, 1, 100, alike=True))
    assert [sorted(part.tolist()) for part in parts] == [[0, 2], [3], [1, 4, 5]]
    assert len(list(cut_evaluation(np.arange(6), lengths, 0, 1, 100))) == 1


def test_padding_moves_before_the_text() -> None:
    rows = np.array([[7, 8, 0, 0], [1, 2, 3, 4]])
    assert move_right(rows, np.array([2, 4])).tolist() == [[0, 0, 7, 8], [1, 2, 3, 4]]
