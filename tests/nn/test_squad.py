"""Answers in a text: SQuAD's scores, the best span of a window, batches of windows."""

from __future__ import annotations

import numpy as np
import pytest

from rayscale.nn.tasks.answers import exact_match, f1, normalise_answer
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
