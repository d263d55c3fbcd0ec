"""WordNet's own files (wndb(5WN)), read where they lie: senses of a word, how often each was met, irregular forms.

Nothing is loaded that no text asks for: the indices are read whole (0.2 s), the 22 MB of senses by offset.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rayscale.errors import DataError

#: Parts of speech as WordNet's files are named.
PARTS = ("noun", "verb", "adj", "adv")
FILES = (*(f"{kind}.{part}" for kind in ("index", "data") for part in PARTS), *(f"{part}.exc" for part in PARTS),
         "cntlist.rev")  # fmt: skip

_BY_SENSE_TYPE = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}
#: A label of usage is a warning, but for this one: words that are used in the plural.
_PLURAL = "06295235"
_OFFENSIVE = re.compile(r"\b(offensive|slur|obscene|vulgar|disparag\w+|derogat\w+|taboo|contemptuous|archaic)\b")
_BROKEN = "is no index of WordNet 3 (line {}); install the files again"


@dataclass(frozen=True)
class Sense:
    """One sense: the words that share it, as written (`_` for a space), without those that carry a label of usage."""

    number: str  # the synset's offset in its file
    words: tuple[str, ...]
    offensive: bool


class WordNet:
    """An opened folder of WordNet files. Raises DataError for a file that cannot be read as one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._index = {part: _read_index(folder / f"index.{part}") for part in PARTS}
        self._counts = _read_counts(folder / "cntlist.rev")
        self._data = {part: _mapped(folder / f"data.{part}") for part in PARTS}
        self._senses: dict[tuple[str, str], tuple[Sense, ...]] = {}

    def has(self, word: str, part: str) -> bool:
        """Whether the word, in lower case and without inflection, is listed as this part of speech."""
        return word in self._index[part]

    def senses(self, word: str, part: str) -> tuple[Sense, ...]:
        """The senses of a word as this part of speech, the most frequent first; empty if it has none."""
        key = (word, part)
        if key not in self._senses:
            offsets = self._index[part].get(word, "").split()
            self._senses[key] = tuple(self._sense(part, offset) for offset in offsets)
        return self._senses[key]

    def counts(self, word: str, part: str) -> tuple[int, ...]:
        """How often each sense was met in the texts that WordNet's authors tagged, in the order of `senses`."""
        met = self._counts.get((word, part), {})
        return tuple(met.get(place + 1, 0) for place in range(len(self._index[part].get(word, "").split())))

    def count(self, word: str, part: str) -> int:
        """How often the word was met as this part of speech."""
        return sum(self._counts.get((word, part), {}).values())

    @cached_property
    def irregular(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Part of speech → inflected form → the words it may be a form of."""
        lines = {part: (self.folder / f"{part}.exc").read_text(encoding="latin-1").splitlines() for part in PARTS}
        return {part: {form: tuple(words) for form, *words in map(str.split, lines[part])} for part in PARTS}

    def _sense(self, part: str, offset: str) -> Sense:
        data, start = self._data[part], int(offset)
        line = data[start : data.find(b"\n", start)].decode("latin-1")
        try:
            fields, gloss = line.split(" | ", 1)
            head = fields.split()
            if head[0] != offset:
                raise ValueError
            count = int(head[3], 16)
            words = [head[4 + 2 * place] for place in range(count)]
            pointers = head[5 + 2 * count :]
        except (ValueError, IndexError):
            place = f"{self.folder / f'data.{part}'}: byte {start}"
            text = "the index points here, but there is no WordNet entry; install the files again"
            raise DataError(text, code="broken_wordnet", where=place) from None
        marked: set[int] = set()
        for symbol, target, _, ends in zip(*[iter(pointers[: len(pointers) // 4 * 4])] * 4, strict=True):
            if symbol == ";u" and target != _PLURAL:
                marked |= {int(ends[:2], 16) - 1} if ends[:2] != "00" else set(range(count))
        # An adjective may say in brackets where it stands: "galore(ip)".
        kept = tuple(word.partition("(")[0] for place, word in enumerate(words) if place not in marked)
        definition = gloss.split('; "')[0]
        return Sense(offset, kept, bool(_OFFENSIVE.search(definition)))


def find_wordnet() -> Path:
    """The folder of WordNet's files, Debian's or NLTK's. Raises DataError that says what to install."""
    places = [Path(place) for place in _places()]
    for place in places:
        if place.is_dir():
            check_files(place)
            return place
    looked = ", ".join(str(place) for place in places)
    raise DataError(
        "synonyms need WordNet, which is not installed; install it with `apt-get install wordnet-base`, or with "
        "`pip install nltk` and `python -m nltk.downloader wordnet` (and unzip corpora/wordnet.zip), or give its "
        f"folder or a table of your own as synonyms.source. Looked in: {looked}",
        code="no_wordnet",
    )


def _places() -> list[str]:
    nltk = [folder for folder in os.environ.get("NLTK_DATA", "").split(os.pathsep) if folder]
    roots = [*nltk, str(Path.home() / "nltk_data"), "/usr/share/nltk_data", "/usr/local/share/nltk_data",
             "/usr/lib/nltk_data"]  # fmt: skip
    named = [folder for folder in (os.environ.get("WNSEARCHDIR"), os.environ.get("WNHOME")) if folder]
    return [*named, "/usr/share/wordnet", *(f"{root}/corpora/wordnet" for root in roots)]


def check_files(folder: Path) -> None:
    """Raises DataError where the folder lacks a file of WordNet."""
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        zipped = folder.with_suffix(".zip")
        unzip = f" (or unzip {zipped})" if zipped.exists() else ""
        text = f"a folder without WordNet's {', '.join(missing[:4])}{' and others' * (len(missing) > 4)}"
        install = f"install them with `apt-get install --reinstall wordnet-base`{unzip}"
        fix = f"{install}, or name another folder as synonyms.source"
        raise DataError(text, fix=fix, code="broken_wordnet", where=str(folder))


def wordnet_digest(folder: Path) -> str:
    """SHA-256 of all files that are read."""
    digest = hashlib.sha256()
    for name in FILES:
        digest.update(f"{name}\0".encode())
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def _read_index(path: Path) -> dict[str, str]:
    """Word → the offsets of its senses; phrases are left out."""
    senses = {}
    with path.open(encoding="latin-1") as file:
        for number, line in enumerate(file, start=1):
            if line.startswith("  "):  # the licence
                continue
            word, _, rest = line.partition(" ")
            if "_" in word:
                continue
            fields = rest.split()
            try:
                # pos, senses, pointers, their symbols, senses again, tagged senses, offsets
                senses[word] = " ".join(fields[5 + int(fields[2]) :])
                if len(senses[word].split()) != int(fields[1]):
                    raise ValueError
            except (ValueError, IndexError):
                raise DataError(_BROKEN.format(number), code="broken_wordnet", where=str(path)) from None
    return senses


def _read_counts(path: Path) -> dict[tuple[str, str], dict[int, int]]:
    counts: dict[tuple[str, str], dict[int, int]] = {}
    with path.open(encoding="latin-1") as file:
        for number, line in enumerate(file, start=1):
            try:
                key, place, count = line.split()
                word, _, rest = key.partition("%")
                counts.setdefault((word, _BY_SENSE_TYPE[rest[0]]), {})[int(place)] = int(count)
            except (ValueError, KeyError, IndexError):
                raise DataError(_BROKEN.format(number), code="broken_wordnet", where=str(path)) from None
    return counts


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
