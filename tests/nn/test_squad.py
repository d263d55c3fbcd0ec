"""Answers in a text: SQuAD's scores, the best span of a window, batches of windows."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import numpy as np
import pytest

from rayscale.nn.tasks.answers import exact_match, f1, normalise_answer, units_of
from rayscale.nn.tasks.question_answering import LONGEST_ANSWER, best_spans, extra
from rayscale.text.prepared import Ragged, Split


@pytest.mark.parametrize(
    ("said", "answers", "exact", "words"),
    [
        ("The Cat, sat.", ["cat sat"], 1, 1.0),
        ("a cat", ["the black cat", "dog"], 0, 2 / 3),
        ("cat cat", ["cat"], 0, 2 / 3),
        ("", [], 1, 1.0),
        ("cat", [], 0, 0.0),
        ("", ["cat"], 0, 0.0),
        ("北京大学。", ["北京大学"], 1, 1.0),  # CMRC 2018 and DRCD: characters, punctuation of all scripts
        ("在北京", ["北京大学"], 0, 4 / 7),
        ("《红楼梦》", ["红楼梦", "西游记"], 1, 1.0),
        ("iPhone 手机", ["iphone手机!"], 1, 1.0),
        ("東京タワー", ["東京"], 0, 4 / 7),
        ("서울 대학교", ["서울"], 0, 2 / 3),  # Korean has spaces
        ("the", ["The!"], 1, 1.0),  # nothing is left of either
    ],
)
def test_scores_are_those_of_squad(said: str, answers: list[str], exact: float, words: float) -> None:
    assert exact_match(said, answers) == exact
    assert f1(said, answers) == pytest.approx(words)


CMRC_SIGNS = set("-:_*^/\\~`+=，。：？！“”；’《》……·、「」（）－～『』'\"!#$%&()*,.;<>?@[]{|}")


def _cmrc_segments(text: str) -> list[str]:
    """Mixed segmentation as CMRC 2018 does it: Han characters singly, the rest in runs; punctuation dropped."""
    found: list[str] = []
    run = ""
    for sign in text.lower().strip():
        if sign in CMRC_SIGNS or sign == " " or "\u4e00" <= sign <= "\u9fa5":
            found += [run] if run else []
            found += [sign] if "\u4e00" <= sign <= "\u9fa5" else []
            run = ""
        else:
            run += sign
    return found + ([run] if run else [])


def _common_run(one: list[str], other: list[str]) -> int:
    """Length of the longest stretch that both have, which CMRC's script counts in place of the bag."""
    places = itertools.product(range(len(one)), range(len(other)))
    return max((next(k for k in itertools.count() if one[i : i + k + 1] != other[j : j + k + 1]
                     or i + k >= len(one) or j + k >= len(other)) for i, j in places), default=0)  # fmt: skip


def test_units_are_those_of_cmrc_and_their_bag_is_never_less_than_its_longest_stretch() -> None:
    draw = np.random.default_rng(5)
    signs = list("北京大学上海年月。，《》2019GPU ")
    for _ in range(300):
        said, answer = ("".join(draw.choice(signs, size=draw.integers(1, 9))) for _ in range(2))
        one, other = _cmrc_segments(said), _cmrc_segments(answer)
        if not one or not other:
            continue
        if not any(re.search(r"\w[。，《》]+\w", re.sub("[北京大学上海年月]", " ", text)) for text in (said, answer)):
            assert (units_of(normalise_answer(said)), units_of(normalise_answer(answer))) == (one, other)
            bag = sum((Counter(one) & Counter(other)).values())
            assert f1(said, [answer]) == pytest.approx(2 * bag / (len(one) + len(other)))
            assert f1(said, [answer]) >= 2 * _common_run(one, other) / (len(one) + len(other)) - 1e-9
    assert f1("海上", ["上海"]) == 1.0  # by the longest stretch: 0.5


def test_words_are_compared_without_case_signs_and_articles() -> None:
    assert normalise_answer(" An  'Anthem' of the U.S.\tthen ") == "anthem of us then"


def test_the_best_span_is_that_of_a_search_through_all() -> None:
    draw = np.random.default_rng(3)
    logits, allowed = draw.normal(size=(6, 50, 2)), draw.random((6, 50)) < 0.6
    allowed[5] = False
    scores, first, last = best_spans(logits, allowed)
    for number in range(5):
        every = {
            (i, j): logits[number, i, 0] + logits[number, j, 1]
            for i in range(50) for j in range(i, min(50, i + LONGEST_ANSWER)) if allowed[number, [i, j]].all()
        }  # fmt: skip
        assert (first[number], last[number]) == max(every, key=lambda pair: every[pair])
        assert scores[number] == pytest.approx(max(every.values()))
    assert scores[5] == -np.inf


def test_a_batch_of_rows_becomes_a_batch_of_windows() -> None:
    def ragged(*lists: list[int]) -> Ragged:
        return Ragged(np.concatenate(lists), np.cumsum([0, *map(len, lists)]))

    lists = {"windows": ragged([3, 2], [4]), "second": ragged([2, 1], [3]), "first": ragged([1, 0], [3]),
             "last": ragged([2, 0], [3])}  # fmt: skip
    split = Split(np.arange(9, dtype=np.int32), np.array([0, 5]), np.array([5, 4]), None, np.zeros(2), lists=lists)
    made = extra(split, np.array([1, 0]), 5)
    assert made["places"].tolist() == [[0, 1, 2, 3], [5, 6, 7, -1], [8, 9, -1, -1]]
    assert made["token_type_ids"].tolist() == [[0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]]
    assert (made["first"].tolist(), made["last"].tolist()) == ([3, 1, 0], [3, 2, 0])
