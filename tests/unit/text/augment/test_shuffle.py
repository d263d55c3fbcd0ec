"""Random swap and deletion: words move or go, their tags with them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayscale.study.augmenters import Example
from rayscale.text.augment.shuffle import DELETE, SWAP, ShuffleSettings

TEXTS = st.lists(st.text("abcdefg", min_size=1, max_size=5), min_size=1, max_size=30)


@given(TEXTS, st.integers(0, 2**64 - 1), st.floats(0.01, 0.99))
def test_swapped_words_keep_their_tags(words, seed, share):
    tags = tuple(f"{word}-{place}" for place, word in enumerate(words))
    found = SWAP.make(ShuffleSettings(share=share))([Example(" ".join(words), seed, tags)])[0]
    assert sorted(found.tags) == sorted(tags)
    assert [tag.split("-")[0] for tag in found.tags] == found.text.split()
    assert len(words) < 2 or found.tags != tags


@given(TEXTS, st.integers(0, 2**64 - 1), st.floats(0.01, 0.99))
def test_deleted_words_take_their_tags_along_and_one_stays(words, seed, share):
    tags = tuple(f"{word}-{place}" for place, word in enumerate(words))
    found = DELETE.make(ShuffleSettings(share=share))([Example(" ".join(words), seed, tags)])[0]
    kept = [int(tag.split("-")[1]) for tag in found.tags]
    assert kept == sorted(kept)
    assert [words[place] for place in kept] == found.text.split()
    assert len(words) - len(kept) == min(max(1, round(share * len(words))), len(words) - 1)


def test_the_share_is_that_of_the_words():
    text = " ".join(f"w{i}" for i in range(40))
    swapped = SWAP.make(ShuffleSettings(share=0.2))([Example(text, 5)])[0].text.split()
    assert sum(a != b for a, b in zip(swapped, text.split(), strict=True)) == 8
    assert len(DELETE.make(ShuffleSettings(share=0.25))([Example(text, 5)])[0].text.split()) == 30


@pytest.mark.parametrize("augmenter", [SWAP, DELETE])
def test_a_text_of_one_word_stays(augmenter):
    assert augmenter.make(ShuffleSettings())([Example("word", 1)])[0].text == "word"
