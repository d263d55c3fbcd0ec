"""Random swap and deletion: words move or go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayscale.study.augmenters import Example
from rayscale.text.augment.shuffle import DELETE, SWAP, ShuffleSettings

TEXTS = st.lists(st.text("abcdefg", min_size=1, max_size=5), min_size=1, max_size=30)


@given(TEXTS, st.integers(0, 2**64 - 1), st.floats(0.01, 0.99))
def test_swapped_words_change_places_and_none_is_lost(letters, seed, share):
    words = [f"{word}-{place}" for place, word in enumerate(letters)]
    swapped = SWAP.make(ShuffleSettings(share=share))([Example(" ".join(words), seed)])[0].text.split()
    assert sorted(swapped) == sorted(words)
    assert len(words) < 2 or swapped != words


@given(TEXTS, st.integers(0, 2**64 - 1), st.floats(0.01, 0.99))
def test_words_are_deleted_in_their_order_and_one_stays(letters, seed, share):
    words = [f"{word}-{place}" for place, word in enumerate(letters)]
    left = DELETE.make(ShuffleSettings(share=share))([Example(" ".join(words), seed)])[0].text.split()
    assert left == [word for word in words if word in left]
    assert len(words) - len(left) == min(max(1, round(share * len(words))), len(words) - 1)


def test_the_share_is_that_of_the_words():
    text = " ".join(f"w{i}" for i in range(40))
    swapped = SWAP.make(ShuffleSettings(share=0.2))([Example(text, 5)])[0].text.split()
    assert sum(a != b for a, b in zip(swapped, text.split(), strict=True)) == 8
    assert len(DELETE.make(ShuffleSettings(share=0.25))([Example(text, 5)])[0].text.split()) == 30


@pytest.mark.parametrize("augmenter", [SWAP, DELETE])
def test_a_text_of_one_word_stays(augmenter):
    assert augmenter.make(ShuffleSettings())([Example("word", 1)])[0].text == "word"
