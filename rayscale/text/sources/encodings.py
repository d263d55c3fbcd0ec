"""Which encoding a file's bytes likely are in: a proposal by name, which the user writes down; nothing is read by it.

A candidate's score (0 to 2): the share of the decoded characters beyond ASCII that running text of its languages
consists of, plus the share of the commonest of these. No table of frequencies comes from outside: the standards put
common characters first. On short files this is right more often than charset-normalizer (docs/LOG.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

from rayscale.study.encoding_names import UTF_8, canonical
from rayscale.text.sources.opening import open_bytes

#: Bytes that are looked at; lines beyond ASCII of them.
LOOKED_AT = 1 << 22
MOST_BYTES = 1 << 16
LEAST_SCORE = 0.9
#: So much more than the next candidate's score makes one certain enough to be named alone.
MARGIN = 0.15
#: Share of characters that may be broken: a file may hold damage of its own.
MOST_BROKEN = 0.02

_HANZI = (
    "的一是不了在人有我他这这個个们們中来來上大为為和国國地到以说說时時要就出会會可也你对對生能而子那得于於着著下自之年过過发發后後作里裡用道行所然家种種"
    "事成方多经經么麼去法学學如都同现現当當没沒动動面起看定天分还還进進好小部其些主样樣理心她本前开開但因只从從想实實日者意无無力它与與长長把机機十"
    "第公此已工使情明性知全三又关關点點正业業外将將两兩高间間由问問很最重并物手应應向头頭文体體相见見被利什二等产產或新制身果加月话話合回特代内內信表化"
    "给給位次度门門常先通教原东東提比员員解水名真处處走各入几幾口认認条條平系气氣题題更别別打女四电電数數安少报報才再件期市直保快请請买買卖賣单單货貨"
    "收退款物流客服吗嗎呢吧太品质質量价價"
)
_SYLLABLES = (
    "이다는의에을가고하지은를한로도사어기서리나자시인해그대아일것정들수있스부전습니라보구여제으과주상원마만면게안성오우장조비요내않거미러공신무소까중동선"
    "세화적관생유불물드연되없데할간산모"
)
_KANA = (
    "のにはをたがでてとしれさあいうるなこもかららすっまりきくおよけつえせだじどめわちそやみょんゃねろンスーイルトラ、。"
)
_CYRILLIC = "оеаинтсрвл"
_GREEK = "αοιετσνηυρπκ"
_HEBREW = "יוהלאתברמש"
_ARABIC = "النيموربتد"
_THAI = "านรอกเงมยลวด"
_WESTERN = "éèàêçäöüßñáíóúåøæãõâîôûœ’‘“”–—…€«»°ÄÖÜÉÀ·"
_CENTRAL = "ąćęłńśźżčďěňřšťůžőűăşţ"
_PUNCTUATION = "，。、！？：；（）《》「」『』【】〈〉·—…“”‘’～　％＋－／"


@dataclass(frozen=True)
class _Candidate:
    """An encoding (the first of `names` that decodes all is proposed), what its texts are made of, what is frequent."""

    names: tuple[str, ...]
    plain: Callable[[str], Iterable[bool]]
    frequent: str
    languages: str


@dataclass(frozen=True)
class Guess:
    """A proposed encoding by name, its score, and the languages it serves."""

    name: str
    score: float
    languages: str


def _beyond_ascii(text: str) -> list[str]:
    return [c for c in text if not c.isascii()]


def _within(low: str, high: str, also: str = "") -> Callable[[str], Iterable[bool]]:
    return lambda text: [c in also or low <= c <= high for c in _beyond_ascii(text)]


@cache
def _level(codec: str, low: int, high: int) -> frozenset[str]:
    """The characters of two bytes whose first is one of these."""
    pairs = (bytes((lead, trail)) for lead in range(low, high + 1) for trail in range(0x40, 0xFF))
    return frozenset("".join(pair.decode(codec, "ignore") for pair in pairs))


def _of(codec: str, low: int, high: int) -> Callable[[str], Iterable[bool]]:
    return lambda text: [c in _level(codec, low, high) or c in _PUNCTUATION for c in _beyond_ascii(text)]


def _japanese(text: str) -> Iterable[bool]:
    kana = [c for c in text if "ぁ" <= c <= "ー"]
    beyond = _beyond_ascii(text)
    if len(kana) < 0.05 * len(beyond):  # no sentence is without them
        return [False] * len(beyond)
    return [
        c in _PUNCTUATION or "ぁ" <= c <= "ー" or "０" <= c <= "ｚ" or c in _level("cp932", 0x88, 0x97) for c in beyond
    ]


_WORD = re.compile(r"[^\W\d_]+")


def _words(letters: Callable[[str], bool], *, latin: bool = False) -> Callable[[str], Iterable[bool]]:
    """Letters in words that are written as words are: capitals first or throughout; of Latin words no more than half is
    beyond ASCII, of others all."""

    def plain(text: str) -> list[bool]:
        plain_ones = [c in _WESTERN for c in text if not c.isascii() and not c.isalpha()]
        for word in _WORD.findall(text):
            beyond = _beyond_ascii(word)
            cased = word[1:] == word[1:].lower() or word == word.upper()
            fits = len(beyond) <= max(1, len(word) / 2) if latin else len(beyond) == len(word)
            plain_ones += [cased and fits and letters(c) for c in beyond]
        return plain_ones

    return plain


def _alphabet(low: str, high: str) -> Callable[[str], Iterable[bool]]:
    return _words(lambda character: low <= character <= high)


_CANDIDATES = (
    _Candidate(("gb18030",), _of("gb2312", 0xB0, 0xD7), _HANZI + _PUNCTUATION, "Chinese"),
    _Candidate(("big5", "big5hkscs"), _of("big5", 0xA4, 0xC6), _HANZI + _PUNCTUATION, "Chinese, traditional"),
    _Candidate(("shift_jis", "cp932"), _japanese, _KANA, "Japanese"),
    _Candidate(("euc_jp",), _japanese, _KANA, "Japanese"),
    _Candidate(("euc_kr", "cp949"), _within("\uac00", "\ud7a3", _PUNCTUATION), _SYLLABLES, "Korean"),
    _Candidate(("windows-1252",), _words(lambda c: c.lower() in _WESTERN, latin=True), _WESTERN,
               "western European languages"),
    _Candidate(("windows-1250",), _words(lambda c: c.lower() in _CENTRAL + "áéíóúýäöüâîôëçß", latin=True), _CENTRAL,
               "central European languages"),
    _Candidate(("windows-1251",), _alphabet("Ѐ", "ӿ"), _CYRILLIC, "Cyrillic"),
    _Candidate(("koi8-r",), _alphabet("Ѐ", "ӿ"), _CYRILLIC, "Russian"),
    _Candidate(("windows-1253",), _alphabet("Ͱ", "Ͽ"), _GREEK, "Greek"),
    _Candidate(("windows-1255",), _alphabet("֐", "׿"), _HEBREW, "Hebrew"),
    _Candidate(("windows-1256",), _alphabet("؀", "ۿ"), _ARABIC, "Arabic"),
    _Candidate(("cp874",), _within("\u0e00", "\u0e7f"), _THAI, "Thai"),
)  # fmt: skip


def guess(content: bytes) -> list[Guess]:
    """Encodings that the bytes may be in: the likeliest, and the next where it is close; none for UTF-8 or no fit."""
    if wide := _wide(content):
        return [wide]
    lines = [line for line in content.splitlines(keepends=True) if not line.isascii()]
    sample = b"".join(lines)[:MOST_BYTES]
    if not sample or _broken(sample.decode("utf-8", "replace")) <= MOST_BROKEN:
        return []
    judged = filter(None, (_judged(candidate, sample) for candidate in _CANDIDATES))
    fitting = sorted((likely for likely in judged if likely.score >= LEAST_SCORE), key=lambda likely: -likely.score)
    return [likely for likely in fitting if likely.score > fitting[0].score - MARGIN][:2]


def _wide(content: bytes) -> Guess | None:
    """UTF-16, by its mark or by the zeros that letters of ASCII have in it."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return Guess("utf-16", 2.0, "any language")
    zeros = [content[place:4096:2].count(0) / max(1, len(content[place:4096:2])) for place in (0, 1)]
    if max(zeros) < 0.1 or min(zeros) > 0.1 * max(zeros):
        return None
    return Guess("utf-16-be" if zeros[0] > zeros[1] else "utf-16-le", 2.0, "any language")


def _judged(candidate: _Candidate, sample: bytes) -> Guess | None:
    for name in candidate.names:
        text = sample.decode(name, "replace")
        if name == candidate.names[-1] or "\ufffd" not in text:
            break
    beyond = _beyond_ascii(text)
    if not beyond or _broken(text) > MOST_BROKEN:
        return None
    plain = list(candidate.plain(text))
    usual = set(candidate.frequent)
    score = sum(plain) / max(1, len(plain)) + sum(c in usual for c in beyond) / len(beyond)
    return Guess(name, score, candidate.languages)


def _broken(text: str) -> float:
    """Share of the characters beyond ASCII that could not be decoded (C1 controls stand for such, too)."""
    beyond = _beyond_ascii(text)
    return sum(c == "\ufffd" or c <= "\x9f" for c in beyond) / max(1, len(beyond))


def proposal(path: str, used: str = UTF_8, write: str = "write data: {{encoding: {}}}") -> str:
    """How to fix bytes that are not in the encoding a file was read in; `write` says what to do with the likely one."""
    with open_bytes(path) as file:
        content = file.read(LOOKED_AT)
    likely = [candidate for candidate in guess(content) if canonical(candidate.name) != used]
    if likely:
        names = " or ".join(f"{candidate.name} ({candidate.languages})" for candidate in likely)
        return f"the file looks like {names}: {write.format(likely[0].name)}, or save it as UTF-8"
    if _broken(content.decode(UTF_8, "replace")) > MOST_BROKEN:
        return f"{write.format('NAME')}, where NAME is the encoding that the file was saved in, or save it as UTF-8"
    if used != UTF_8:
        return "the file looks like UTF-8: leave data.encoding out"
    return "the rest of the file is UTF-8, so this was damaged: write it again from its source"
