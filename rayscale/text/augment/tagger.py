"""Part of speech and form of a word in its sentence: how often each reading was met, times what stands on either side.

The table of contexts holds log P(class of the neighbour | form) less its mean over the forms, counted in the 43,834
examples that WordNet's definitions quote. On held-out examples 90% of ambiguous words are told apart (docs/LOG.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rayscale.text.augment.inflection import Inflector, Lexicon, Reading

#: How much the frequency of a reading counts beside its context.
PRIOR_WEIGHT = 0.8
#: The log odds to the next best part of speech below which a word counts as not understood.
MARGIN = 0.7

_FORMS = ("noun", "plural", "base", "third", "past", "ing", "adj", "adv")
_CLASSES = {
    "det": "the a an this that these those my your his her its our their some any no every each another all both such "
    "what which whose",
    "to": "to",
    "modal": "can could will would shall should may might must do does did don't doesn't didn't can't won't cannot "
    "wouldn't couldn't shouldn't let's let please ll d ca wo n't t",
    "be": "is are was were be been being am isn't wasn't aren't weren't it's that's he's she's i'm they're we're "
    "you're there's s re m",
    "have": "has have had having hasn't haven't hadn't i've we've they've you've ve",
    "pron": "i you he she it we they who there one",
    "obj": "me him us them himself herself itself myself themselves yourself everyone something anything nothing "
    "everything",
    "prep": "of in on at by for with from into about than over under through between after before against without "
    "during among upon toward towards across along around behind below beneath beside beyond despite except inside "
    "near off onto out outside since until up down within like",
    "conj": "and or but nor yet if because while when whether although though unless as where why",
    "deg": "very so too more most less least quite rather really extremely pretty how just only even still also always "
    "never often not",
}
#: Class of a neighbour → eight numbers for it as the word before, eight as the word after, in the order of _FORMS.
_CONTEXT = {
    "adj": (1.0, 1.5, -3.9, -1.7, -2.5, -1.9, -0.9, -2.0, -2.2, -1.7, -0.6, 0.4, -0.2, -0.3, -0.2, 1.2),
    "be": (-3.1, -1.4, -4.1, -4.1, 0.1, 1.6, -0.9, 0.1, 1.1, 1.4, -2.9, -1.8, -3.4, -1.5, -2.9, -1.0),
    "conj": (-0.3, 0.5, -1.1, -0.7, -0.8, -0.3, 0.7, 0.5, 0.2, -0.0, -0.6, -0.0, 0.2, -0.1, -0.0, 0.1),
    "deg": (-1.6, -1.1, -0.0, 0.7, -0.6, 0.2, -0.2, 0.6, -0.5, -0.2, -0.0, 0.9, -0.4, 0.1, -1.7, 0.2),
    "det": (1.1, 0.5, -3.3, -1.4, -3.0, -1.1, 0.8, -1.2, -2.4, -2.4, 1.1, 0.6, 0.7, -0.0, -3.9, -1.9),
    "edge": (-1.4, -0.8, 1.4, -3.9, -2.2, -1.1, 0.8, -0.2, 0.5, 0.6, -1.3, -1.0, -0.5, -0.1, -1.2, 0.6),
    "have": (-1.3, 0.1, -2.5, -1.0, 1.3, -0.7, -1.0, 0.4, 0.4, 1.4, -1.9, 0.0, -2.0, -0.1, -3.4, -1.3),
    "modal": (-4.0, -2.2, 1.9, -1.1, -3.4, -1.9, -4.1, -0.4, 0.8, 1.2, -1.9, -0.7, -2.3, -0.4, -2.1, -0.2),
    "noun": (-0.9, -0.7, -1.9, 1.3, 0.8, -1.8, -2.1, -0.5, -2.0, -2.1, -0.3, -0.4, -0.8, -0.0, 1.6, -2.0),
    "plural": (-0.8, -0.8, 0.4, -0.8, 1.0, -0.3, -0.8, 0.2, -2.2, -2.7, 0.3, -0.6, -0.9, 0.2, 1.5, -3.5),
    "num": (-0.7, 1.6, -1.5, 0.0, -2.3, -0.4, -2.7, -0.8, -1.3, -1.0, -0.7, 1.5, -0.0, 0.1, -2.5, -1.0),
    "obj": (-2.2, -0.9, -0.9, -0.4, -1.0, -0.2, -0.8, 1.6, -4.0, -2.5, 0.3, 1.0, 1.0, -0.1, -4.7, -2.4),
    "prep": (0.9, 0.8, -3.9, -2.3, -3.6, 0.2, 0.2, -0.4, 0.7, 0.5, -0.9, -0.2, 0.1, 0.2, -1.4, -0.5),
    "pron": (-3.3, -4.1, -0.1, 1.0, 1.3, -1.1, -3.7, -1.0, 0.0, 0.0, 0.6, 0.2, -0.9, -0.6, -1.7, 0.6),
    "punct": (-0.2, 0.1, -1.9, -0.1, -1.4, 0.0, 0.4, 0.8, -0.6, -1.1, -0.4, -0.2, -1.0, 0.4, -0.1, 1.0),
    "adv": (-1.8, -1.1, -0.7, 0.1, 0.7, 0.1, 0.6, -0.1, -1.2, -0.4, -0.1, 0.9, 0.1, 0.5, -2.0, -0.3),
    "to": (-0.7, -1.1, 1.9, -1.8, -3.0, -1.1, -2.4, -3.2, 0.2, 0.1, -0.5, 0.2, 0.4, -0.2, -0.4, -0.1),
    "base": (-0.6, 0.1, -2.1, 0.5, -0.0, -0.4, -1.2, 0.9, -1.2, 0.2, -1.0, -0.9, -1.7, -1.0, 1.3, 0.3),
    "past": (-0.9, 0.1, -3.3, -2.6, -2.3, -0.4, -1.1, 1.7, 0.1, 0.2, -2.3, -1.5, -2.8, -1.6, -2.5, 1.6),
    "ing": (-0.1, 0.3, -2.6, 0.6, -0.9, -1.0, -1.1, 1.1, -0.8, -0.8, -0.5, -0.4, -1.1, -0.4, 1.0, 0.7),
    "third": (-1.3, -0.6, -0.7, -1.1, -0.0, 0.1, -0.9, 1.4, 0.4, -1.2, -0.4, -1.2, -1.5, 0.6, 0.9, -0.4),
}
CLOSED = {word: name for name, words in _CLASSES.items() for word in words.split()}


@dataclass(frozen=True)
class _Known:
    """A spelling: its class as a neighbour, and its readings, each with its place in _FORMS and log frequency."""

    neighbour: str
    readings: tuple[tuple[int, float, Reading], ...]


class Tagger:
    """Reads words in their sentences."""

    def __init__(self, inflector: Inflector, counts: Lexicon) -> None:
        self._inflector, self._counts = inflector, counts
        self._known: dict[str, _Known] = {}

    def read(self, words: Sequence[str], place: int) -> Reading | None:
        """How the word at `place` among `words` (lower case, punctuation among them) is meant; None if unclear."""
        known = self._look_up(words[place])
        if not known.readings:
            return None
        before = _CONTEXT[self._class_of(words, place - 1)]
        after = _CONTEXT[self._class_of(words, place + 1)]
        best: Reading | None = None
        score = other = -math.inf  # of the best reading, and of the best one of another part of speech
        for form, frequency, reading in known.readings:
            here = frequency + before[form] + after[8 + form]
            if here > score:
                if best is not None and reading.part != best.part:
                    other = score
                best, score = reading, here
            elif best is not None and reading.part != best.part and here > other:
                other = here
        if best is None or score - other < MARGIN:
            return None
        return self._participle(known, best, words, place)

    def _participle(self, known: _Known, best: Reading, words: Sequence[str], place: int) -> Reading:
        """A past form that follows `be` or `have` is a participle."""
        if best.part != "verb" or best.form not in ("past", "participle"):
            return best
        back = place - 1
        while back >= 0 and self._class_of(words, back) in ("deg", "adv"):
            back -= 1
        form = "participle" if self._class_of(words, back) in ("be", "have") else "past"
        fitting = (r for _, _, r in known.readings if (r.part, r.word, r.form) == ("verb", best.word, form))
        return next(fitting, best)

    def _class_of(self, words: Sequence[str], place: int) -> str:
        if not 0 <= place < len(words):
            return "edge"
        return self._look_up(words[place]).neighbour

    def _look_up(self, word: str) -> _Known:
        known = self._known.get(word)
        if known is None:
            known = self._known[word] = self._know(word)
        return known

    def _know(self, word: str) -> _Known:
        if not word[0].isalpha():
            return _Known("num" if word[0].isdigit() else "punct", ())
        if word in CLOSED:
            return _Known(CLOSED[word], ())
        readings = []
        for reading in self._inflector.readings(word):
            frequency = PRIOR_WEIGHT * math.log(self._counts.count(reading.word, reading.part) + 0.3)
            readings.append((_FORMS.index(_form(reading)), frequency, reading))
        if readings:
            likeliest = max(readings, key=lambda reading: reading[1])
            return _Known(_FORMS[likeliest[0]], tuple(readings))
        endings = (("ly", "adv"), ("s", "plural"), ("ed", "past"), ("ing", "ing"))
        return _Known(next((form for end, form in endings if word.endswith(end)), "noun"), ())


def _form(reading: Reading) -> str:
    if reading.part == "noun":
        return "plural" if reading.form == "plural" else "noun"
    if reading.part == "verb":
        return "past" if reading.form == "participle" else reading.form
    return reading.part
