"""Scripts of texts."""

from __future__ import annotations

from itertools import pairwise

import pytest

from rayscale.text.scripts import RANGES, UNSPACED, script_of, script_shares, share_unspaced


@pytest.mark.parametrize(
    ("letter", "script"),
    [("订", "han"), ("々", "han"), ("ー", "kana"), ("の", "kana"), ("ก", "thai"), ("한", "hangul"), ("ع", "arabic"),
     ("ש", "hebrew"), ("ж", "cyrillic"), ("é", "latin"), ("ஃ", "other"), ("𠮷", "han")],
)  # fmt: skip
def test_script_of_a_letter(letter, script):
    assert script_of(letter) == script


def test_shares_count_letters_alone():
    assert script_shares(["订单 ab, 12"]) == {"han": 0.5, "latin": 0.5}
    assert share_unspaced(["订单 ab"]) == 0.5
    assert share_unspaced(["12 !"]) == 0
    assert share_unspaced([]) == 0


def test_ranges_do_not_overlap():
    ranges = sorted(bounds for of_script in RANGES.values() for bounds in of_script)
    assert all(low[1] < high[0] for low, high in pairwise(ranges))
    assert set(UNSPACED) <= set(RANGES)
