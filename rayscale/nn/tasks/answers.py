"""How an answer is held against those that count, as SQuAD's official script does (evaluate-v2.0.py; Rajpurkar et al.
2018, arXiv 1806.03822): without case, punctuation, articles and white space; of several answers the closest counts."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise_answer(text: str) -> str:
    """Lower case without punctuation (ASCII's) and articles, one space between words."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(said: str, answers: Sequence[str]) -> float:
    """1 where an answer is the same, else 0; without answers where nothing was said."""
    return max(float(normalise_answer(said) == normalise_answer(answer)) for answer in _counting(answers))


def f1(said: str, answers: Sequence[str]) -> float:
    """The harmonic mean of the shares of words in common, of the answer for which it is highest."""
    return max(_f1(normalise_answer(said).split(), normalise_answer(answer).split()) for answer in _counting(answers))


def _counting(answers: Sequence[str]) -> Sequence[str]:
    return [answer for answer in answers if normalise_answer(answer)] or [""]


def _f1(said: list[str], answer: list[str]) -> float:
    if not said or not answer:
        return float(said == answer)
    common = sum((Counter(said) & Counter(answer)).values())
    return 2 * common / (len(said) + len(answer))
