"""Wordnets of other languages, as the Open Multilingual Wordnet publishes them: which words share a sense.

Two forms: its tables (wn-data-cmn.tab: synset, lemma, word) and WN-LMF, the XML of the Global WordNet Association.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice, permutations
from pathlib import Path
from xml.parsers import expat

from rayscale.errors import DataError
from rayscale.text.normalise import normalise
from rayscale.text.scripts import has_unspaced, is_word, marks

#: Where to get them, as messages say it.
SOURCE = "the Open Multilingual Wordnet (omwn.org: wn-data-cmn.tab for Chinese, wn-data-jpn.tab for Japanese, ...)"

_ROW = re.compile(r"\d{8}-[a-z]\t[^\t]*\t")
_LOOKED_AT = 20  # lines
_BLANK = b"\xef\xbb\xbf \r\n"
#: Senses that two words share must make up this share of the senses of the one, and of the other that stands for it.
OWN_SHARE, BACK_SHARE = 0.2, 0.3


def is_wordnet(path: Path) -> bool:
    """Whether a file is such a table or such XML, by its beginning."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            lines = list(islice(file, _LOOKED_AT))
    except OSError:
        return False
    return any(_ROW.match(line) or "<LexicalResource" in line for line in lines)


def read_senses(path: Path) -> list[tuple[str, ...]]:
    """The words of each sense, without phrases. Raises DataError: a damaged file, or no two words of one sense."""
    senses: dict[str, dict[str, None]] = {}
    for sense, word in _read_xml(path) if path.read_bytes()[:512].lstrip(_BLANK).startswith(b"<") else _read_tab(path):
        # Chinese adjectives are told with their ending set off by a sign: 美丽+的.
        plain = normalise(word.replace("+", ""))
        # One character of Chinese means too much by itself.
        if is_word(plain) and not _signs().search(plain) and (len(plain) > 1 or not has_unspaced(plain)):
            senses.setdefault(sense, {})[plain] = None
    kept = [tuple(words) for words in senses.values()]
    if all(len(words) < 2 for words in kept):
        raise bad_table("holds no two words of one sense; give a wordnet of the text's language", path)
    return kept


def synonyms(senses: Sequence[tuple[str, ...]]) -> dict[str, dict[str, float]]:
    """By word in lower case its synonyms, those that share much of what both mean, with weights."""
    meant = Counter(word for words in senses for word in words)
    shared = Counter(pair for words in senses for pair in permutations(words, 2))
    weights: dict[str, dict[str, float]] = {}
    for (word, other), number in shared.items():
        there, back = number / meant[word], number / meant[other]
        if there >= OWN_SHARE and back >= BACK_SHARE:
            weights.setdefault(word.lower(), {})[other] = there * back
    return weights


@cache
def _signs() -> re.Pattern[str]:
    return re.compile(rf"[^\w{marks()}]")


def bad_table(text: str, path: Path, line: int | None = None) -> DataError:
    """What is wrong with a file of synonyms, and how to fix it."""
    return DataError(text, code="bad_table", where=f"{path}:{line}" if line else str(path))


def read_utf8(path: Path) -> str:
    """The text of a file. Raises DataError where it is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise bad_table("is not UTF-8; save it as UTF-8, or fetch it again", path, line) from None


def _read_tab(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(read_utf8(path).splitlines(), 1):
        fields = line.split("\t")
        if line.startswith("#") or not line.strip():
            continue
        if len(fields) < 3 or not _ROW.match(line):
            raise bad_table(f"found '{line[:40]}'; a row is synset, lemma and word with tabs between", path, number)
        if fields[1].rpartition(":")[2] == "lemma":  # others are roots, plurals, definitions and examples
            yield fields[0], fields[2]


def _read_xml(path: Path) -> Iterator[tuple[str, str]]:
    words: list[tuple[str, str]] = []
    word = ""

    def begin(name: str, given: dict[str, str]) -> None:
        nonlocal word
        if name == "Lemma":
            word = given.get("writtenForm", "")
        elif name == "Sense":
            words.append((given.get("synset", ""), word))

    def refuse(name: str, *rest: object) -> None:
        raise bad_table(f"declares the entity '{name}', which no wordnet does; fetch the file again", path)

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EntityDeclHandler = begin, refuse
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise bad_table(f"is damaged ({error}); fetch the file again", path) from None
    return iter(words)
