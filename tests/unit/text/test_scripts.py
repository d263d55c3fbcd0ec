"""Scripts of texts, and where words end."""

from __future__ import annotations

from itertools import pairwise

import pytest

from rayscale.text.scripts import RANGES, UNSPACED, script_of, script_shares, share_unspaced, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("我的GPU坏了，退款2次!", ["我", "的", "GPU", "坏", "了", "退", "款", "2", "次"]),
        ("注文をキャンセル", ["注", "文", "を", "キ", "ャ", "ン", "セ", "ル"]),
        ("ก็ได้", ["ก็", "ไ", "ด้"]),
        ("हिन्दी में लिखो", ["हिन्दी", "में", "लिखो"]),
        ("أريد استرداد المال؟", ["أريد", "استرداد", "المال"]),
        ("환불 해주세요.", ["환불", "해주세요"]),
        ("l'été, naïve_1", ["l", "été", "naïve_1"]),
        ("e\u0301te\u0301", ["e\u0301te\u0301"]),
        ("", []),
    ],
)
def test_words(text, words):
    assert split_words(text) == words


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
