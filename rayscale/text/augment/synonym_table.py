"""The user's own table of synonyms: CSV or TSV with the columns word, synonym and, if wanted, part of speech."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from rayscale.errors import DataError
from rayscale.text.augment import multilingual
from rayscale.text.augment.inflection import Inflector
from rayscale.text.augment.multilingual import bad_table
from rayscale.text.augment.tagger import Tagger
from rayscale.text.augment.wordnet import PARTS
from rayscale.text.normalise import normalise
from rayscale.text.scripts import has_unspaced, is_word

_NAMES = {"noun": "noun", "n": "noun", "verb": "verb", "v": "verb", "adj": "adj", "adjective": "adj", "a": "adj",
          "adv": "adv", "adverb": "adv", "r": "adv"}  # fmt: skip
_HEADER = "word"
_FORM = "a row is word, synonym and perhaps part of speech"

Row = tuple[str, str, str | None]  # word in lower case, synonym, part of speech


class Thesaurus:
    """An opened table. A word without a part of speech is replaced wherever it stands, in this very form.

    One with a part of speech is also replaced in its inflected forms (English), where its neighbours speak for that
    part. `exact` words (lower case → synonyms with weights), of other languages, are replaced in the form given.
    """

    def __init__(self, rows: Iterable[Row] = (), exact: Mapping[str, Mapping[str, float]] | None = None) -> None:
        self._synonyms: dict[tuple[str, str | None], dict[str, float]] = {}
        for word, synonym, part in rows:
            self._synonyms.setdefault((word, part), {})[synonym] = 1.0
        self._words = {word for word, _ in self._synonyms}
        self._in_any_part = {word for word, part in self._synonyms if part is None}
        self.exact = exact or {}
        self.irregular: dict[str, dict[str, tuple[str, ...]]] = {part: {} for part in PARTS}
        self.inflector = Inflector(self)
        self.tagger = Tagger(self.inflector, self)

    def has(self, word: str, part: str) -> bool:
        """Whether the table has the word; without a part of speech it counts as a noun, which it need not be."""
        return word in self._words and (word not in self._in_any_part or part == "noun")

    def count(self, word: str, part: str) -> int:
        """What speaks for a part of speech: that the table gives it."""
        return int((word, part) in self._synonyms)

    def synonyms(self, word: str, part: str) -> dict[str, float]:
        """The synonyms of the table, all of the same weight."""
        return self._synonyms.get((word, None)) or self._synonyms.get((word, part), {})


def open_file(path: Path) -> Thesaurus:
    """The synonyms of a table, or of a wordnet of another language. Raises DataError as `check_file` does."""
    if multilingual.is_wordnet(path):
        return Thesaurus(exact=multilingual.synonyms(multilingual.read_senses(path)))
    exact: dict[str, dict[str, float]] = {}
    rows = _read(path)
    for word, synonym, _ in rows:
        if is_caseless(word) or has_unspaced(word):
            exact.setdefault(word, {})[synonym] = 1.0
    return Thesaurus([row for row in rows if row[0] not in exact], exact)


def check_file(path: Path) -> None:
    """Raises DataError: no such file, no text, a row without word or synonym, an unknown part of speech."""
    multilingual.read_senses(path) if multilingual.is_wordnet(path) else _read(path)


def is_caseless(word: str) -> bool:
    """Whether a word is of a script without capitals."""
    return word.lower() == word.upper()


def table_digest(path: Path) -> str:
    """SHA-256 of the table."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(path: Path) -> list[Row]:
    try:
        text = multilingual.read_utf8(path)
    except OSError as error:
        table = "a table (CSV or TSV: word, synonym, part of speech)"
        fix = f"synonyms.source is wordnet, a folder of WordNet files, {table}, or a file of {multilingual.SOURCE}"
        raise DataError(f"cannot be read ({error.strerror})", fix=fix, code="missing_file", where=str(path)) from None
    rows: list[Row] = []
    reader = csv.reader(io.StringIO(text), delimiter="\t" if "\t" in text.partition("\n")[0] else ",")
    for row in reader:
        fields = [normalise(field) for field in row]
        if not any(fields) or (reader.line_num == 1 and fields[0].lower() == _HEADER):
            continue
        if len(fields) not in (2, 3) or not fields[0] or not fields[1]:
            raise bad_table(f"found {len(fields)} columns or an empty one; {_FORM}", path, reader.line_num)
        word, synonym, part = (*fields, "")[:3]
        if not is_word(word):
            text = f"found '{word}'; the first column is one word of letters, without spaces"
            raise bad_table(text, path, reader.line_num)
        if part and part.lower() not in _NAMES:
            text = f"found part of speech '{part}'; write noun, verb, adj or adv, or leave it empty"
            raise bad_table(text, path, reader.line_num)
        rows.append((word.lower(), synonym, _NAMES.get(part.lower())))
    if not rows:
        raise bad_table(f"the table holds no synonyms; {_FORM}", path)
    return rows
