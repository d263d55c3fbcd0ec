"""Names that may become files, folders and labels: 1 to 64 of A-Z a-z 0-9 . _ -, without a leading dot."""

from __future__ import annotations

import re

RULE = "must be 1 to 64 of the characters A-Z a-z 0-9 . _ - and not begin with a dot"


def is_name(text: object) -> bool:
    """Whether the text keeps the rule."""
    return isinstance(text, str) and bool(re.fullmatch(r"(?!\.)[A-Za-z0-9._-]{1,64}", text))


def as_name(text: str) -> str:
    """The nearest name: what it may not hold becomes _, what is too long is cut."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip(".")[:64] or "_"
