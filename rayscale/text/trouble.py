"""Signs of wrong encoding in texts, counted: what was garbled before it came here is learnt as it stands."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]{2,}")
_MARKUP = re.compile(r"&(?:amp|lt|gt|quot|nbsp|#\d{1,5});|<br ?/?>", re.IGNORECASE)
_AROUND = 20


@dataclass(frozen=True)
class Trouble:
    """How many texts show a sign, and the words around its first one."""

    kind: str
    texts: int
    example: str


def is_mojibake(run: str) -> bool:
    """Whether characters beyond ASCII are UTF-8 that was read as Windows-1252, such as `Ã©` for `é`."""
    try:
        return run.encode("cp1252").decode() != run
    except UnicodeError:
        return False


def find_trouble(texts: Iterable[str]) -> list[Trouble]:
    """The signs that there are: mojibake, replacement characters, control characters, markup."""
    counts: dict[str, int] = {}
    examples: dict[str, str] = {}
    for text in texts:
        for kind, place in _signs(text):
            counts[kind] = counts.get(kind, 0) + 1
            examples.setdefault(kind, text[max(0, place - _AROUND) : place + _AROUND])
    return [Trouble(kind, number, examples[kind]) for kind, number in counts.items()]


def _signs(text: str) -> Iterable[tuple[str, int]]:
    if found := _CONTROL.search(text):
        yield "control characters", found.start()
    if found := _MARKUP.search(text):
        yield "markup", found.start()
    if text.isascii():
        return
    if (place := text.find("\ufffd")) >= 0:
        yield "replacement characters", place
    if found := next((run for run in _BEYOND_ASCII.finditer(text) if is_mojibake(run[0])), None):
        yield "mojibake", found.start()
