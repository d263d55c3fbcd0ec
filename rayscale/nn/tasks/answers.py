"""How an answer is held against those that count, as SQuAD's official script does (evaluate-v2.0.py; Rajpurkar et al.
2018, arXiv 1806.03822): without case, punctuation, articles and white space; of several answers the closest counts.

Where text has no spaces characters are compared, as CMRC 2018 and DRCD do, and punctuation is that of all scripts. F1
is of bags, as that of SQuAD and DRCD; the script of CMRC 2018 counts the longest stretch in common instead, which is
never more, and would make two measures of one name.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache

from rayscale.text.scripts import UNSPACED, in_ranges

SIGNATURE = "F1|bag of words, of characters where a script has no spaces"  # as the record has it
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ASCII_SIGNS = "$+<=>^`|~"  # that SQuAD drops and Unicode counts as symbols


def normalise_answer(text: str) -> str:
    """Lower case without punctuation and articles, one space between words."""
    bare = "".join(sign for sign in text.lower() if not _is_punctuation(sign))
    return " ".join(_ARTICLES.sub(" ", bare).split())


@cache
def _is_punctuation(sign: str) -> bool:
    plain = unicodedata.normalize("NFKC", sign)  # full-width signs as their plain ones
    return unicodedata.category(sign).startswith("P") or plain in _ASCII_SIGNS


@cache
def _units() -> re.Pattern[str]:
    unspaced = in_ranges(*UNSPACED)
    return re.compile(rf"[{unspaced}]|[^\s{unspaced}]+")


def units_of(text: str) -> list[str]:
    """What F1 counts of a normalised text: words, and single characters of scripts without spaces."""
    return _units().findall(text)


def exact_match(given: str, answers: Sequence[str]) -> float:
    """1 where an answer is the same, else 0; without answers where nothing was said."""
    return max(float(_normal(given) == _normal(answer)) for answer in _counting(answers))


def f1(given: str, answers: Sequence[str]) -> float:
    """The harmonic mean of the shares of units in common, of the answer for which it is highest."""
    return max(_f1(_normal(given), _normal(answer)) for answer in _counting(answers))


def _normal(text: str) -> list[str]:
    return units_of(normalise_answer(text))


def _counting(answers: Sequence[str]) -> Sequence[str]:
    return [answer for answer in answers if normalise_answer(answer)] or [""]


def _f1(given: list[str], answer: list[str]) -> float:
    if not given or not answer:
        return float(given == answer)
    common = sum((Counter(given) & Counter(answer)).values())
    return 2 * common / (len(given) + len(answer))
