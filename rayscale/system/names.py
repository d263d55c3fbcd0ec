"""Names that may become files, folders and labels: letters and digits of any script, and the signs . _ -.

A name is the same file on every system: Unicode NFC, without letters that nobody sees, and short enough in bytes for
any file system with what is put around it.
"""

from __future__ import annotations

import re
import unicodedata

RULE = "must be 1 to 64 letters (of any script), digits, . _ or - (at most 200 bytes) and not begin with a dot"
MOST_LETTERS, MOST_BYTES = 64, 200

#: Letters and marks that are drawn as nothing (Unicode's Default_Ignorable_Code_Point).
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
_KINDS = ("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Nd", "Nl")


def is_name(text: object) -> bool:
    """Whether the text keeps the rule."""
    return isinstance(text, str) and text != "" and as_name(text) == text


def as_name(text: str, instead: str = "_") -> str:
    """The nearest name: what it may not hold is replaced, what is too long is cut."""
    text = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())
    kept = "".join(letter if _may_stand(letter) else instead for letter in text).lstrip(".")
    while kept and unicodedata.category(kept[0]).startswith("M"):  # a mark needs a letter to stand on
        kept = instead + kept[1:]
    kept = kept[:MOST_LETTERS]
    while len(kept.encode()) > MOST_BYTES:
        kept = kept[:-1]
    return kept or "_"


def _may_stand(letter: str) -> bool:
    if letter.isascii():
        return letter.isalnum() or letter in "._-"
    return unicodedata.category(letter) in _KINDS and not _UNSEEN.match(letter)
