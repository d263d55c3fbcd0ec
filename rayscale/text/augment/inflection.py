"""English inflection both ways: regular forms by rule, irregular ones from WordNet's exceptions read backwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from rayscale.system.groups import grouped
from rayscale.text.augment.wordnet import PARTS

#: Forms by part of speech, the uninflected first.
FORMS = {
    "noun": ("base", "plural"),
    "verb": ("base", "third", "past", "participle", "ing"),
    "adj": ("base", "comparative", "superlative"),
    "adv": ("base", "comparative", "superlative"),
}
#: Verbs whose participle is their base form; the lists of exceptions do not say so.
_BASE_PARTICIPLES = ("come", "become", "overcome", "run", "outrun", "rerun", "overrun")
#: Verbs that do not change in the past either, beside those made from them (reset, offset).
_UNCHANGED = ("beset", "bet", "bid", "broadcast", "burst", "bust", "cast", "cost", "cut", "forecast", "hit", "hurt",
              "let", "offset", "put", "quit", "read", "reset", "rid", "set", "shed", "shut", "slit", "spit", "split",
              "spread", "thrust", "upset", "wed", "wet")  # fmt: skip
_DETACH = {
    "noun": (("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"),
             ("ies", "y")),
    "verb": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ied", "y"), ("ing", "e"),
             ("ing", "")),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e"), ("ier", "y"), ("iest", "y")),
    "adv": (("er", ""), ("est", ""), ("er", "e"), ("est", "e"), ("ier", "y"), ("iest", "y")),
}  # fmt: skip
_VOWELS = frozenset("aeiou")
#: Regular and irregular past both stand: learned, learnt.
_BOTH_PASTS = ("burn", "dream", "kneel", "lean", "leap", "learn", "smell", "spell", "spill", "spoil")
_FARTHER = {("far", "comparative"): ("farther", "further"), ("far", "superlative"): ("farthest", "furthest")}
_SAME_PLURAL = ("aircraft", "bison", "deer", "fish", "moose", "offspring", "salmon", "series", "sheep", "shrimp",
                "spacecraft", "species", "swine", "trout")  # fmt: skip
#: Words that are not counted have no plural.
_NO_PLURAL = ("advice", "baggage", "equipment", "evidence", "fun", "furniture", "garbage", "hardware", "homework",
              "information", "info", "knowledge", "luck", "luggage", "money", "music", "news", "research", "software",
              "stuff", "traffic", "weather")  # fmt: skip
_NO_PLURAL_ENDINGS = ("ics", "ness")
_TAKES_ES = ("buffalo", "cargo", "domino", "echo", "embargo", "hero", "mango", "mosquito", "potato", "tomato",
             "tornado", "torpedo", "veto", "volcano", "go", "do", "undergo", "forgo", "undo", "redo", "outdo",
             "overdo", "lasso")  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """One way to read a spelling: as a form of a word of a part of speech."""

    part: str
    form: str
    word: str


class Lexicon(Protocol):
    """Which words there are, uninflected, how often each was met, and their irregular forms."""

    @property
    def irregular(self) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        """Part of speech → inflected form → the words it may be a form of."""

    def has(self, word: str, part: str) -> bool:
        """Whether the word is listed as this part of speech."""

    def count(self, word: str, part: str) -> int:
        """How often the word was met as this part of speech."""


class Inflector:
    """Forms of the words that a dictionary lists."""

    def __init__(self, net: Lexicon) -> None:
        self._net = net
        self._forms = {part: _backwards(net.irregular[part], part) for part in PARTS}
        self._readings: dict[str, tuple[Reading, ...]] = {}
        self._inflected: dict[tuple[str, str, str], tuple[str, ...]] = {}

    def inflect(self, word: str, part: str, form: str) -> str | None:
        """The form of a word; None where it has none in one word (most adjectives have no comparative)."""
        forms = self.forms(word, part, form)
        return forms[0] if forms else None

    def forms(self, word: str, part: str, form: str) -> tuple[str, ...]:
        """All spellings of a form, the usual one first."""
        key = (word, part, form)
        if key not in self._inflected:
            self._inflected[key] = self._make(word, part, form)
        return self._inflected[key]

    def readings(self, spelling: str) -> tuple[Reading, ...]:
        """What a spelling in lower case may be; empty for a word that WordNet does not list."""
        if spelling not in self._readings:
            self._readings[spelling] = tuple(
                Reading(part, form, word)
                for part in PARTS
                for word in self._words(spelling, part)
                for form in FORMS[part]
                if spelling in self.forms(word, part, form)
            )
        return self._readings[spelling]

    def _words(self, spelling: str, part: str) -> list[str]:
        words = [spelling, *self._net.irregular[part].get(spelling, ())]
        words += [spelling[: len(spelling) - len(end)] + new for end, new in _DETACH[part] if spelling.endswith(end)]
        return [word for word in dict.fromkeys(words) if self._net.has(word, part)]

    def _make(self, word: str, part: str, form: str) -> tuple[str, ...]:
        if form == "base":
            return (word,)
        irregular = self._forms[part].get((word, form), ())
        if irregular:
            both = form in ("past", "participle") and word in _BOTH_PASTS
            return (_regular_verb(word, "past"), *irregular) if both else irregular
        if part == "verb":
            if form in ("past", "participle") and word in _UNCHANGED:
                return (word,)
            if form == "participle":
                return (word,) if word in _BASE_PARTICIPLES else self.forms(word, part, "past")
            return (_regular_verb(word, form),)
        if part == "noun":
            if word in _NO_PLURAL or word.endswith(_NO_PLURAL_ENDINGS):
                return ()
            return (word,) if word in _SAME_PLURAL else (_with_s(word),)
        return _FARTHER.get((word, form)) or _compared(word, form)


def _regular_verb(word: str, form: str) -> str:
    if form == "third":
        return _with_s(word)
    if form == "past":
        if word.endswith("e"):
            return word + "d"
        return word[:-1] + "ied" if word.endswith("y") and word[-2:-1] not in _VOWELS else word + "ed"
    if word.endswith("ie"):
        return word[:-2] + "ying"
    silent = word.endswith("e") and not word.endswith(("ee", "oe", "ye")) and len(word) > 2
    return (word[:-1] if silent else word) + "ing"


def _with_s(word: str) -> str:
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in _VOWELS:
        return word[:-1] + "ies"
    return word + "es" if word in _TAKES_ES else word + "s"


def _compared(word: str, form: str) -> tuple[str, ...]:
    """-er and -est, for words of one syllable and those of two in -y; longer ones take more and most."""
    end = "er" if form == "comparative" else "est"
    groups = sum(1 for place, c in enumerate(word) if c in "aeiouy" and (not place or word[place - 1] not in "aeiouy"))
    if word.endswith("y") and word[-2:-1] not in _VOWELS and groups == 2 and not word.endswith("ly"):
        return (word[:-1] + "i" + end,)
    if groups - word.endswith("e") * (groups > 1) != 1 or len(word) < 3:
        return ()
    return (word + end[1:] if word.endswith("e") else word + end,)


def _backwards(exceptions: Mapping[str, tuple[str, ...]], part: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """(word, form) → irregular spellings."""
    pairs = ((word, spelling) for spelling, words in exceptions.items() for word in words if spelling != word)
    forms: dict[tuple[str, str], tuple[str, ...]] = {}
    for word, spellings in grouped(pairs).items():
        if part == "noun":
            forms[word, "plural"] = tuple(spellings)
        elif part == "verb":
            _sort_verb(word, spellings, forms)
        else:
            for form, end in (("comparative", ("r", "worse")), ("superlative", "st")):
                if fitting := tuple(spelling for spelling in spellings if spelling.endswith(end)):
                    forms[word, form] = fitting
    return forms


def _sort_verb(word: str, spellings: list[str], forms: dict[tuple[str, str], tuple[str, ...]]) -> None:
    ing = tuple(form for form in spellings if form.endswith("ing"))
    third = tuple(form for form in spellings if form.endswith("s") and form not in ing)
    rest = [form for form in spellings if form not in ing and form not in third]
    # Participles: sung where there is sang, else what ends in n (drawn, written, done). The past is the other form, the
    # same one (won), or the regular one where the participle only adds an n (shown, showed).
    sung = [form for form in rest if "u" in form and form.replace("u", "a") in rest]
    participles = sung or [form for form in rest if form.endswith(("n", "ne"))]
    pasts = [form for form in rest if form not in participles]
    if not pasts:
        adds_n = all(form in (word + "n", word + "en") for form in participles)
        pasts = [_regular_verb(word, "past")] if participles and adds_n else rest
    if ing:
        forms[word, "ing"] = ing
    if third:
        forms[word, "third"] = third
    if pasts:
        forms[word, "past"] = tuple(pasts)
    if word in _BASE_PARTICIPLES:
        forms[word, "participle"] = (word,)
    elif participles:
        forms[word, "participle"] = tuple(participles)
