"""Scripts: in which a text is written, and where its words end.

Chinese, Japanese, Thai, Lao, Khmer and Burmese have no spaces between words (Unicode 16, UAX 29): what counts,
compares or changes "words" found at spaces would see a whole sentence as one.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache

#: Ranges of code points by script, letters and signs that stand in words. Han serves Chinese and Japanese.
RANGES: dict[str, tuple[tuple[int, int], ...]] = {
    "han": ((0x3005, 0x3007), (0x3021, 0x3029), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF),
            (0x20000, 0x323AF)),
    "kana": ((0x3041, 0x309F), (0x30A1, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)),
    "thai": ((0x0E01, 0x0E3A), (0x0E40, 0x0E4E)),
    "lao": ((0x0E81, 0x0ECE), (0x0EDC, 0x0EDF)),
    "burmese": ((0x1000, 0x103F), (0x1050, 0x109D)),
    "khmer": ((0x1780, 0x17D3), (0x17D7, 0x17D7), (0x17DC, 0x17DD)),
    "hangul": ((0x1100, 0x11FF), (0x3130, 0x318F), (0xA960, 0xA97F), (0xAC00, 0xD7FB)),
    "arabic": ((0x0620, 0x065F), (0x066E, 0x06D3), (0x06D5, 0x06FF), (0x0750, 0x077F), (0x08A0, 0x08FF)),
    "hebrew": ((0x0591, 0x05F4),),
    "cyrillic": ((0x0400, 0x052F), (0x1C80, 0x1C8F), (0x2DE0, 0x2DFF), (0xA640, 0xA69F)),
    "greek": ((0x0370, 0x03FF), (0x1F00, 0x1FFF)),
    "devanagari": ((0x0900, 0x0963), (0x0966, 0x097F)),
    "latin": ((0x0041, 0x005A), (0x0061, 0x007A), (0x00AA, 0x00AA), (0x00BA, 0x00BA), (0x00C0, 0x00D6),
              (0x00D8, 0x00F6), (0x00F8, 0x024F), (0x1E00, 0x1EFF)),
}  # fmt: skip
UNSPACED = ("han", "kana", "thai", "lao", "burmese", "khmer")

#: How many letters of an alphabet a sign is worth where texts are measured or compared: a Chinese word has two signs
#: where an English one has five letters, a Korean sign is a syllable. Thai, Arabic and the rest are alphabets.
LETTERS = {"han": 3, "hangul": 3, "kana": 2}


def in_ranges(*scripts: str) -> str:
    """The inside of a class of a regular expression that matches the characters of these scripts."""
    return "".join(f"{chr(low)}-{chr(high)}" for script in scripts for low, high in RANGES[script])


@cache
def marks() -> str:
    """All combining marks of the basic plane, as the inside of a class."""
    ranges, first = [], None
    for code in range(0x300, 0x10000):
        if unicodedata.category(chr(code)) in ("Mn", "Mc"):
            first = code if first is None else first
        elif first is not None:
            ranges.append(f"{chr(first)}-{chr(code - 1)}")
            first = None
    return "".join(ranges)


_UNSPACED = re.compile(f"[{in_ranges(*UNSPACED)}]")


def has_unspaced(text: str) -> bool:
    """Whether a letter of a script without spaces is in the text."""
    return not text.isascii() and _UNSPACED.search(text) is not None


def is_word(text: str) -> bool:
    """Whether a text is one word of letters; where a script without spaces is in it, signs and digits may be, too."""
    if has_unspaced(text):
        return not any(letter.isspace() for letter in text)
    letters = "".join(letter for letter in text if unicodedata.category(letter) not in ("Mn", "Mc"))
    return letters.isalpha() and text[:1].isalpha()


def script_shares(texts: Iterable[str]) -> dict[str, float]:
    """Share of the letters of these texts by script, commonest first; "other" for scripts not in RANGES."""
    return shares_of(Counter(letter for text in texts for letter in text))


def shares_of(letters: Mapping[str, int]) -> dict[str, float]:
    """The same for characters that were counted already."""
    counts: Counter[str] = Counter()
    for letter, number in letters.items():
        if letter.isalpha() or unicodedata.category(letter) in ("Mn", "Mc"):
            counts[script_of(letter)] += number
    whole = counts.total()
    return {script: number / whole for script, number in counts.most_common()}


def script_of(letter: str) -> str:
    """The script of one character, "other" if it is none of RANGES."""
    code = ord(letter)
    return next((script for script, ranges in RANGES.items() if any(a <= code <= b for a, b in ranges)), "other")


def share_unspaced(texts: Iterable[str]) -> float:
    """Share of the letters that belong to scripts written without spaces; 0 for texts without letters."""
    return min(1.0, sum(share for script, share in script_shares(texts).items() if script in UNSPACED))


def worth_in_letters(texts: Iterable[str]) -> float:
    """Mean worth of a character of these texts in letters of an alphabet: 1 for English, almost 3 for Chinese."""
    counts = Counter(letter for text in texts for letter in text)
    worth = sum(number * LETTERS.get(script_of(letter), 1) for letter, number in counts.items())
    return worth / counts.total() if counts else 1.0
