"""The user's own table of synonyms: CSV or TSV with the columns word, synonym and, if wanted, part of speech."""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path

from rayscale.errors import DataError
from rayscale.text.inflect import Inflector
from rayscale.text.tagger import Tagger
from rayscale.text.wordnet import PARTS

_NAMES = {"noun": "noun", "n": "noun", "verb": "verb", "v": "verb", "adj": "adj", "adjective": "adj", "a": "adj",
          "adv": "adv", "adverb": "adv", "r": "adv"}  # fmt: skip
_HEADER = "word"


class Thesaurus:
    """An opened table. A word without a part of speech is replaced wherever it stands, in this very form.

    A word with one is also found and replaced in its inflected forms; what else the word may be is not known, so its
    neighbours alone tell whether it is used as the part of speech that the table gives.
    """

    def __init__(self, path: Path) -> None:
        self._synonyms: dict[tuple[str, str | None], dict[str, float]] = {}
        for word, synonym, part in _read(path):
            self._synonyms.setdefault((word, part), {})[synonym] = 1.0
        self._words = {word for word, _ in self._synonyms}
        self._in_any_part = {word for word, part in self._synonyms if part is None}
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


def check_table(path: Path) -> None:
    """Raises DataError: no such file, no text, a row without word or synonym, an unknown part of speech."""
    _read(path)


def table_digest(path: Path) -> str:
    """SHA-256 of the table."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(path: Path) -> list[tuple[str, str, str | None]]:
    where = str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror}); synonyms.source is wordnet, a folder of WordNet files, or "
                        "a table (CSV or TSV: word, synonym, part of speech)", code="missing_file",
                        where=where) from None  # fmt: skip
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError("is not UTF-8; save it as UTF-8", code="bad_table", where=f"{where}:{line}") from None
    first = text.partition("\n")[0]
    found: list[tuple[str, str, str | None]] = []
    reader = csv.reader(io.StringIO(text), delimiter="\t" if "\t" in first else ",")
    for row in reader:
        fields = [" ".join(field.split()) for field in row]
        if not any(fields) or (reader.line_num == 1 and fields[0].lower() == _HEADER):
            continue
        place = f"{where}:{reader.line_num}"
        if len(fields) not in (2, 3) or not fields[0] or not fields[1]:
            raise DataError(f"found {len(fields)} columns or an empty one; a row is word, synonym and perhaps part of "
                            "speech", code="bad_table", where=place)  # fmt: skip
        if not fields[0].isalpha():
            raise DataError(f"found '{fields[0]}'; the first column is one word of letters, without spaces",
                            code="bad_table", where=place)  # fmt: skip
        part = _NAMES.get(fields[2].lower()) if len(fields) == 3 and fields[2] else None
        if len(fields) == 3 and fields[2] and part is None:
            raise DataError(f"found part of speech '{fields[2]}'; write noun, verb, adj or adv, or leave it empty",
                            code="bad_table", where=place)  # fmt: skip
        found.append((fields[0].lower(), fields[1], part))
    if not found:
        raise DataError("the table holds no synonyms; a row is word, synonym and perhaps part of speech",
                        code="bad_table", where=where)  # fmt: skip
    return found
