"""The augmenter `synonyms`: words replaced by others of the same meaning, part of speech and form."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import Field, Strict

from rayscale.study.augmenters import Augmenter, Example, Settings, Step
from rayscale.text.augment.inflection import Inflector, Reading
from rayscale.text.augment.seeded_random import Draws
from rayscale.text.augment.segments import run_spans, runs_of
from rayscale.text.augment.synonym_table import check_file, is_caseless, open_file, table_digest
from rayscale.text.augment.tagger import CLOSED, Tagger
from rayscale.text.augment.wordnet import PARTS, Sense, WordNet, check_files, find_wordnet, wordnet_digest
from rayscale.text.scripts import has_unspaced, marks

#: Rises when the same text and dictionary would give other words.
SYNONYMS_VERSION = 1

WORDNET = "wordnet"

#: A sense serves if it makes up this share of what its word is met as; a synonym, if the sense is this share of it.
SENSE_SHARE, SYNONYM_SHARE = 0.2, 0.3
#: Of a synonym's uses this share must be of the same part of speech.
PART_SHARE = 0.25
#: A synonym that WordNet's authors never met (encephalon for brain) serves only for words that they hardly met.
HARDLY_MET = 3

#: Words (with their hyphens and apostrophes), numbers, and every other sign by itself.
TOKEN = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+|[^\w\s]")
#: The same with the marks of scripts that write them in the midst of words, as Hindi's does.
_MARKED_TOKEN = re.compile(TOKEN.pattern.replace(r"[^\W\d_]+", rf"[^\W\d_](?:[^\W\d_]|[{marks()}])*"))
_SENTENCE_ENDS = frozenset(".!?:")
_LEAST_LETTERS = 3
# Words that carry a sentence rather than a meaning of their own.
_KEPT_WORDS = (
    "have has had do does did done get gets got go goes went gone make makes made take takes took taken one two three "
    "first last many much few little other same own thing things way ways well back now then here there today"
)
_KEPT = frozenset(_KEPT_WORDS.split())
_SILENT_H = ("hour", "honest", "honor", "honour", "heir")
_SOUNDS_YOU = ("uni", "use", "usu", "uti", "eu", "ewe", "one", "once", "ubi")


def tokens_of(text: str, segmenter: str | None) -> list[tuple[int, int]]:
    """Where words and signs begin and end; words of scripts without spaces are those that the segmenter finds."""
    if segmenter is None:
        return [token.span() for token in TOKEN.finditer(text)]
    tokens, end = [], 0
    for start, stop in [*runs_of(text), (len(text), len(text))]:
        tokens += [token.span() for token in _MARKED_TOKEN.finditer(text, end, start)]
        tokens += run_spans(text, start, stop, segmenter) if start < stop else ()
        end = stop
    return tokens


class SynonymSettings(Settings):
    """`source`: wordnet, a folder of WordNet files, a table (CSV or TSV: word, synonym, perhaps part of speech), or a
    file of the Open Multilingual Wordnet. `share` of the words of a text are replaced, at least one if any can be."""

    source: Annotated[str, Strict(), Field(min_length=1)] = WORDNET
    share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.15


class Dictionary(Protocol):
    """Where synonyms come from."""

    inflector: Inflector
    tagger: Tagger
    exact: Mapping[str, Mapping[str, float]]  # words replaced in this very form, and their synonyms with weights

    def synonyms(self, word: str, part: str) -> dict[str, float]:
        """Uninflected synonyms of a word, each with its weight."""


class WordNetDictionary:
    """Synonyms by WordNet: usual senses of the word for which the other word is usual too."""

    def __init__(self, net: WordNet) -> None:
        self._net = net
        self.exact: Mapping[str, Mapping[str, float]] = {}
        self.inflector = Inflector(net)
        self.tagger = Tagger(self.inflector, net)

    def synonyms(self, word: str, part: str) -> dict[str, float]:
        """Single words in lower case; none that WordNet marks as offensive, slang or of another time."""
        weights: dict[str, float] = {}
        rare = self._net.count(word, part) <= HARDLY_MET
        for sense, share in self._shares(word, part):
            if share < SENSE_SHARE or sense.offensive:
                continue
            for other in sense.words:
                met = self._net.count(other, part)
                if other == word or not (met or rare) or not self._serves(other, part):
                    continue
                back = next((of for same, of in self._shares(other, part) if same.number == sense.number), 0.0)
                if back >= SYNONYM_SHARE:
                    weights[other] = weights.get(other, 0.0) + share * back * (1 + met) ** 0.5
        return weights

    def _serves(self, word: str, part: str) -> bool:
        """Whether a word may stand for another: mostly of this part of speech, and offensive in none."""
        if not (len(word) >= _LEAST_LETTERS and word.isalpha() and word.islower()):
            return False
        counts = {other: self._net.count(word, other) for other in PARTS}
        if counts[part] + 0.5 < PART_SHARE * (sum(counts.values()) + 0.5):
            return False
        return not any(sense.offensive for other in PARTS[:3] for sense in self._net.senses(word, other))

    def _shares(self, word: str, part: str) -> list[tuple[Sense, float]]:
        """The senses of a word and what share of its uses each has; rare words were not met, so earlier ones lead."""
        senses = self._net.senses(word, part)
        weights = [n + 0.5 ** (place + 1) for place, n in enumerate(self._net.counts(word, part))]
        return [(sense, weight / sum(weights)) for sense, weight in zip(senses, weights, strict=True)]


#: What may stand for a word, and the running sums of the weights.
_Choices = tuple[tuple[str, ...], tuple[float, ...]]


class Replacer:
    """The step: rows in, rows with synonyms out. What was looked up once is kept."""

    def __init__(self, dictionary: Dictionary, share: float) -> None:
        self._dictionary, self._share = dictionary, share
        self._may: dict[str, bool] = {}
        self._choices: dict[Reading, _Choices] = {}
        lengths: dict[str, set[int]] = {}
        for word in dictionary.exact:
            if has_unspaced(word):
                lengths.setdefault(word[0], set()).add(len(word))
        self._lengths = {first: sorted(known, reverse=True) for first, known in lengths.items()}

    def __call__(self, rows: Sequence[Example]) -> list[Example]:
        return [self._replace(row) for row in rows]

    def _replace(self, row: Example) -> Example:
        tokens = tokens_of(row.text, row.segmenter)
        if self._lengths and row.segmenter is not None:
            tokens = list(self._longest(row.text, tokens))
        spelled = [row.text[start:end] for start, end in tokens]
        words = [word.lower() for word in spelled]
        shouting = row.text.isupper()
        # Scripts that have no capitals do not tell names by them.
        free = row.segmenter is not None and {word for word in words if is_caseless(word) or has_unspaced(word)}
        able = [
            place
            for place, word in enumerate(words)
            if self._may_replace(word) and ((free and word in free) or is_common(spelled, place, shouting))
        ]
        if not able:
            return row
        draws = Draws(row.seed)
        left = max(1, round(self._share * sum(word[0].isalpha() for word in words)))
        edits: dict[int, str] = {}
        for place in draws.order(able):
            choices, totals = self._choose_at(words, place)
            if choices:
                edits[place] = cased(choices[draws.weighted(totals)], spelled[place])
                left -= 1
                if not left:
                    break
        for place in [place for place in edits if place and words[place - 1] in ("a", "an")]:
            article = cased("an" if _begins_with_vowel(edits[place].lower()) else "a", spelled[place - 1])
            if (
                place - 1 not in edits
                and article != spelled[place - 1]
                and _begins_with_vowel(words[place]) == (words[place - 1] == "an")
            ):
                edits[place - 1] = article
        parts, end = [], 0
        for place in sorted(edits):
            parts += [row.text[end : tokens[place][0]], edits[place]]
            end = tokens[place][1]
        return row.saying("".join([*parts, row.text[end:]]))

    def _longest(self, text: str, cut: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Several words or characters as one where the dictionary has them together: the longest such word."""
        ends, after = {end for _, end in cut}, 0
        for begin, end in cut:
            if begin < after:  # within a word that was found
                continue
            lengths = (n for n in self._lengths.get(text[begin].lower(), ()) if begin + n in ends)
            known = (begin + n for n in lengths if text[begin : begin + n].lower() in self._dictionary.exact)
            after = next(known, end)
            yield begin, after

    def _may_replace(self, word: str) -> bool:
        may = self._may.get(word)
        if may is None and word in self._dictionary.exact:
            may = self._may[word] = True
        if may is None:
            plain = len(word) >= _LEAST_LETTERS and word.isalpha() and word not in CLOSED and word not in _KEPT
            readings = self._dictionary.inflector.readings(word) if plain else ()
            may = self._may[word] = any(self._choose(reading)[0] for reading in readings)
        return may

    def _choose_at(self, words: Sequence[str], place: int) -> _Choices:
        """What may stand for a word in its sentence."""
        if weights := self._dictionary.exact.get(words[place]):
            return tuple(weights), tuple(accumulate(weights.values()))
        reading = self._dictionary.tagger.read(words, place)
        return self._choose(reading) if reading else ((), ())

    def _choose(self, reading: Reading) -> _Choices:
        """What may stand for a reading, in its form, and the running sums of the weights."""
        choices = self._choices.get(reading)
        if choices is None:
            weights = self._dictionary.synonyms(reading.word, reading.part)
            forms = {word: _inflected(self._dictionary.inflector, word, reading) for word in sorted(weights)}
            kept = {form: weights[word] for word, form in forms.items() if form}
            choices = self._choices[reading] = (tuple(kept), tuple(accumulate(kept.values())))
        return choices


def _inflected(inflector: Inflector, phrase: str, reading: Reading) -> str | None:
    """The phrase in the form of the reading: of a verb its first word changes (turned off), else the last."""
    words = phrase.split(" ")
    place = 0 if reading.part == "verb" else -1
    changed = inflector.inflect(words[place], reading.part, reading.form)
    if changed is None:
        return None
    words[place] = changed
    return " ".join(words)


def is_common(spelled: Sequence[str], place: int, shouting: bool) -> bool:
    """Whether the spelling is no name: lower case, or a capital that begins a sentence, or all capitals among such."""
    word = spelled[place]
    if word.islower():
        return True
    if word.isupper():
        return shouting
    begins = place == 0 or spelled[place - 1] in _SENTENCE_ENDS or (place == 1 and not spelled[0][0].isalnum())
    return begins and word[1:].islower()


def cased(word: str, like: str) -> str:
    """The word with the capitals of another."""
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word[0].upper() + word[1:] if like[0].isupper() else word


def _begins_with_vowel(word: str) -> bool:
    if word.startswith(_SILENT_H):
        return True
    return word[0] in "aeiou" and not word.startswith(_SOUNDS_YOU)


@lru_cache(maxsize=4)
def _open_dictionary(folder_or_table: str) -> Any:
    if Path(folder_or_table).is_dir():
        return WordNetDictionary(WordNet(Path(folder_or_table)))
    return open_file(Path(folder_or_table))


def _locate(settings: SynonymSettings) -> SynonymSettings:
    """The settings with the folder or table that is meant. Raises DataError where it is not there or not whole."""
    if settings.source == WORDNET:
        place = find_wordnet()
    else:
        place = Path(settings.source)
        inside = place / "corpora" / WORDNET  # below NLTK's data folder
        place = inside if inside.is_dir() else place
        check_files(place) if place.is_dir() else check_file(place)
    return settings.model_copy(update={"source": str(place.resolve())})


def _contents(settings: SynonymSettings) -> Any:
    place = Path(settings.source)
    return [SYNONYMS_VERSION, wordnet_digest(place) if place.is_dir() else table_digest(place)]


def _open(settings: SynonymSettings) -> Step:
    return Replacer(_open_dictionary(settings.source), settings.share)


SYNONYMS = Augmenter(SynonymSettings, _open, _contents, paths=("source",), locate=_locate)
