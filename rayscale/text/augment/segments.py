"""Words of a text as steps of an augmentation move, drop and look them up, and what stands between them.

Spaced text is cut at spaces; other text by a segmenter (jieba: Chinese; BudouX: Japanese and Thai), else into
characters with their marks, and punctuation belongs to no word.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from rayscale.errors import InputError
from rayscale.study.augment_key import AUTO, CHARACTERS, SEGMENTERS, SPACES
from rayscale.system.machine import cache_root, installed
from rayscale.text.scripts import UNSPACED, has_unspaced, in_ranges, marks, script_of

#: Rises when the same text and segmenter would give other words.
SEGMENTS_VERSION = 1

#: A text is treated as one without spaces, or without capitals, where so many of its letters are of such scripts.
LEAST_SHARE = 0.01
#: Thai and Lao vowels that stand before the consonant they follow in speech, and those that follow it as letters; signs
#: of Khmer and Burmese that join the next consonant to theirs.
_BEFORE, _AFTER, _JOINS = "\u0e40-\u0e44\u0ec0-\u0ec4", "\u0e30\u0e32\u0e33\u0e45\u0eb0\u0eb2\u0eb3", "\u1039\u17d2"
#: Punctuation of full width, and what ends or encloses a sentence, parts words although it is no space; what stands in
#: names, numbers and addresses does not.
_WIDE = (
    r"\u2018\u201c\u201d\u2026\u2014\u00b7\u3000-\u3004\u3008-\u3020\u30fb"
    r"!?;()\[\]{}<>\"\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
)
_KANA = re.compile(f"[{in_ranges('kana')}]")
_FAMILIES = {"chinese": ("han", "kana"), "thai": ("thai",), "others": ("lao", "khmer", "burmese")}


@dataclass(frozen=True)
class Cut:
    """A text as its words and gaps: `gaps` has one more, the first before all words, the last after them."""

    words: tuple[str, ...]
    gaps: tuple[str, ...]

    def moved(self, order: Sequence[int]) -> str:
        """The text with its words in another order; what stands between them stays where it is."""
        parts, before = [self.gaps[0]], ""
        for place, gap, after in zip(order, self.gaps, self.gaps[1:], strict=False):
            word = self.words[place]
            parts += [word, after] if gap else [_parted(before, word), word, after]
            before = word
        return "".join(parts)

    def without(self, lost: Iterable[int]) -> str:
        """The text without the words at these places; of two gaps that say the same one stays."""
        gone, parts, gap, before = set(lost), [], self.gaps[0], ""
        for place, (word, after) in enumerate(zip(self.words, self.gaps[1:], strict=True)):
            if place in gone:
                gap = (
                    after if not gap.strip() and after.strip() else gap if gap.strip() == after.strip() else gap + after
                )
                continue
            gap = gap if before or gap.strip() else ""
            parts += [gap or _parted(before, word), word]
            before, gap = word, after
        return "".join([*parts, gap if gap.strip() else ""])


def _parted(before: str, word: str) -> str:
    """What parts two words that nothing stands between: a space if both are of spaced scripts."""
    return "" if not before or _is_unspaced(before[-1]) or _is_unspaced(word[0]) else " "


def _is_unspaced(letter: str) -> bool:
    return script_of(letter) in UNSPACED


def cut(text: str, segmenter: str | None) -> Cut:
    """The words of a text; without a segmenter, and in text of spaced scripts alone, those between spaces."""
    if segmenter is None or not has_unspaced(text):
        words = text.split()
        return Cut(tuple(words), ("", *[" "] * (len(words) - 1), "")[: len(words) + 1])
    spans = list(spans_of(text, segmenter))
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    gaps = (text[end:start] for end, start in zip([0, *ends], [*starts, len(text)], strict=True))
    return Cut(tuple(text[start:end] for start, end in spans), tuple(gaps))


def spans_of(text: str, segmenter: str) -> Iterator[tuple[int, int]]:
    """Where the words of a text with letters of scripts without spaces begin and end."""
    for word in _words().finditer(text):
        if word.lastgroup == "spaced":
            yield word.span()
        else:
            yield from run_spans(text, *word.span(), segmenter)


def runs_of(text: str) -> list[tuple[int, int]]:
    """Where stretches of letters of scripts without spaces begin and end."""
    return [word.span() for word in _words().finditer(text) if word.lastgroup != "spaced"]


def run_spans(text: str, start: int, end: int, segmenter: str) -> Iterator[tuple[int, int]]:
    """The words of a stretch of a script without spaces, as `runs_of` finds them."""
    split = _splitter(text, text[start], segmenter)
    if split is None:
        yield from (cluster.span() for cluster in _clusters().finditer(text, start, end))
        return
    for word in split(text[start:end]):
        yield start, start + len(word)
        start += len(word)


def _splitter(text: str, letter: str, segmenter: str) -> Callable[[str], Iterable[str]] | None:
    """What cuts a stretch into words: by the script of its first letter, and whether the text is Japanese."""
    names, script = segmenter.split("+"), script_of(letter)
    if script == "thai" and "budoux" in names:
        return _budoux("th")
    if script in ("han", "kana"):
        if _KANA.search(text):
            return _budoux("ja_word") if "budoux" in names else None
        return _jieba() if "jieba" in names else None
    return None


@cache
def _jieba() -> Callable[[str], Iterable[str]]:
    import logging

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it is built with, not of what it does
        import jieba

    jieba.setLogLevel(logging.WARNING)
    words = jieba.Tokenizer()
    # What it keeps of its dictionary is read with marshal: from a folder of the user's, never one that all may write.
    folder = cache_root() / "jieba"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    words.tmp_dir = str(folder)
    return words.lcut


@cache
def _budoux(model: str) -> Callable[[str], Iterable[str]]:
    from budoux import parser

    content = (Path(parser.MODEL_DIR) / f"{model}.json").read_text(encoding="utf-8")
    return parser.Parser(json.loads(content)).parse


def settle(segmenter: str, texts: Sequence[str]) -> str:
    """What `auto` stands for with these texts: `spaces`, the segmenters that there are for them, or `characters`."""
    if segmenter != AUTO:
        return segmenter
    letters = [letter for text in texts for letter in text if letter.isalpha()]
    if sum(letter.lower() == letter.upper() for letter in letters) < LEAST_SHARE * max(1, len(letters)):
        return SPACES
    wanted = needed(texts)
    return "+".join(name for name in SEGMENTERS if name in wanted and find_spec(name)) or CHARACTERS


def needed(texts: Sequence[str]) -> set[str]:
    """The segmenters that know the languages of these texts, as far as they stand in one of a hundred."""
    kinds = [_kinds(text) for text in texts]
    return {name for name in SEGMENTERS if sum(name in kind for kind in kinds) >= LEAST_SHARE * len(kinds) > 0}


def _kinds(text: str) -> set[str]:
    scripts = {script_of(letter) for letter in text if not letter.isascii()}
    kinds = {"budoux"} if scripts & {"kana", "thai"} else set()
    return kinds | ({"jieba"} if "han" in scripts and "kana" not in scripts else set())


def check(segmenter: str) -> None:
    """Raise InputError naming the extra where a segmenter is asked for that is not installed."""
    for name in segmenter.split("+"):
        if name in SEGMENTERS and find_spec(name) is None:
            fix = f"pip install 'rayscale[segment]', or write segmenter: {CHARACTERS}"
            raise InputError(f"the segmenter {name} is not installed", fix=fix, code="missing_package")


def versions(segmenter: str) -> list[str]:
    """Names and versions of what cuts the words, for a fingerprint."""
    there = installed(segmenter.split("+"))
    return [str(SEGMENTS_VERSION), *(f"{name} {version or ''}" for name, version in there.items())]


@cache
def _words() -> re.Pattern[str]:
    """Stretches of a family of scripts without spaces, and words of other scripts with what stands inside them."""
    unspaced, signs = in_ranges(*UNSPACED), marks()
    runs = (f"[{in_ranges(*scripts)}][{in_ranges(*scripts)}{signs}]*" for scripts in _FAMILIES.values())
    letter, inner = rf"(?![{unspaced}])[\w{signs}]", rf"[^\s{unspaced}{_WIDE}]"
    return re.compile("|".join([*(f"({run})" for run in runs), rf"(?P<spaced>{letter}(?:{inner}*{letter})?)"]))


@cache
def _clusters() -> re.Pattern[str]:
    """One character with its marks; of scripts that write vowels before or after their consonant with these."""
    unspaced, signs = in_ranges(*UNSPACED), marks()
    one = f"[{unspaced}][{signs}{_AFTER}]*"
    return re.compile(f"[{_BEFORE}]?{one}(?:(?<=[{_JOINS}]){one})*")
