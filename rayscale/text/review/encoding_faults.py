"""Signs of wrong encoding in texts, counted: what was garbled before it came here is learnt as it stands."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rayscale.text.sources.encodings import guess

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]{2,}")
_MARKUP = re.compile(r"&(?:amp|lt|gt|quot|nbsp|#\d{1,5});|<br ?/?>", re.IGNORECASE)
#: Characters of UTF-8 that running text is made of: of Europe, Arabia and Israel (two bytes), of the rest (three).
_UTF8 = re.compile(rb"(?:[\xc2-\xc5\xce-\xd1\xd7-\xd9][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2})+")
_AS_1252 = {bytes([byte]).decode("cp1252", "replace"): bytes([byte]) for byte in range(0x80, 0xA0)}
_AS_1252.pop("\ufffd")
#: What replacement characters become where they are read as GBK, and memory that was never written.
_LOST = re.compile("锟斤拷|烫烫烫|屯屯屯")
LEAST_BYTES, LEAST_MEANT, CERTAIN = 6, 4, 1.15
_AROUND = 20


@dataclass(frozen=True)
class Trouble:
    """How many texts show a sign, and the words around its first one."""

    kind: str
    texts: int
    example: str


def written_as(text: str) -> str | None:
    """How a text was read wrongly, such as `utf-8 read as windows-1252` for `Ã©`; None where it shows no sign."""
    content = _western(text)
    return (_from_western(content) if content else None) or _from_asian(text)


def _western(text: str) -> bytes | None:
    """The bytes that gave this text where they were read as Windows-1252 or Latin-1; None if none did."""
    try:
        return b"".join(_AS_1252.get(c) or c.encode("latin1") for c in text)
    except UnicodeEncodeError:
        runs = [run for run in _BEYOND_ASCII.findall(text) if all(c < "\u0100" or c in _AS_1252 for c in run)]
        return _western(" ".join(runs)) if runs else None


def _from_western(content: bytes) -> str | None:
    beyond = sum(byte > 0x7F for byte in content)
    if sum(map(len, _UTF8.findall(content))) > 0.7 * beyond:
        return "utf-8 read as windows-1252"
    # Words of Latin letters have fewer accents than that.
    likely = next(iter(guess(content)), None) if beyond > 0.3 * len(content) and beyond >= LEAST_BYTES else None
    if likely is None or likely.name in ("windows-1252", "windows-1250"):
        return None
    return f"{likely.name} read as windows-1252" if likely.score > CERTAIN else None


def _from_asian(text: str) -> str | None:
    for name in ("gb18030", "cp932", "big5", "cp949"):
        content = text.encode(name, "ignore")
        if len(content.decode(name)) < 0.9 * len(text):  # then the text was never read in this encoding
            continue
        meant = content.decode("utf-8", "ignore")
        beyond = [c for c in meant if not c.isascii()]
        taken = sum(len(c.encode()) for c in beyond)
        # Of a text that is right hardly any two bytes follow the rules of UTF-8.
        if len(beyond) >= LEAST_MEANT and taken > 0.8 * sum(byte > 0x7F for byte in content):
            return f"utf-8 read as {name}"
    return None


def find_trouble(texts: Iterable[str]) -> list[Trouble]:
    """The signs that there are: mojibake of every kind, replacement characters, control characters, markup."""
    counts: dict[str, int] = {}
    examples: dict[str, str] = {}
    for text in texts:
        for kind, place in _signs(text):
            counts[kind] = counts.get(kind, 0) + 1
            examples.setdefault(kind, text[max(0, place - _AROUND) : place + _AROUND])
    return [Trouble(kind, number, examples[kind]) for kind, number in counts.items()]


def _signs(text: str) -> Iterable[tuple[str, int]]:
    if text.count("\0") > max(1, 0.2 * len(text)):
        yield "zeros of UTF-16", text.find("\0")
    elif sign := _CONTROL.search(text):
        yield "control characters", sign.start()
    if sign := _MARKUP.search(text):
        yield "markup", sign.start()
    if text.isascii():
        return
    if (place := text.find("\ufffd")) >= 0:
        yield "replacement characters", place
    if sign := _LOST.search(text):
        yield "replacement characters read as GBK", sign.start()
    elif reading := written_as(text):
        first = _BEYOND_ASCII.search(text)
        yield f"mojibake ({reading})", first.start() if first else 0
