"""How the report writes numbers for people: few digits, a named unit, never a bare NaN.

Every function takes anything that may stand in a record (None, NaN, numpy scalars, text) and returns text;
what is missing becomes `MISSING`. Unrounded values are written by `exact`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from rich.cells import cell_len

MISSING = "–"
_GAP = "\u00a0"  # a number and its unit stay on one line; `plain` makes it an ordinary space for terminals
_MULTIPLES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_WORDS = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))
_BYTES = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_COLOUR_CODES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def number(value: Any) -> float | None:
    """The value as a finite float, or None where it is missing, not finite or not a number."""
    if value is None or isinstance(value, bool):
        return None
    try:
        real = float(value)
    except (TypeError, ValueError):
        return None
    return real if math.isfinite(real) else None


def significant(value: Any, digits: int = 3, *, sign: bool = False) -> str:
    """Rounded to `digits` significant digits; a power of ten only where plain digits would be unreadable."""
    value = number(value)
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    plus = "+" if sign and value > 0 else ""
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4 or exponent >= 7:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        return f"{plus}{mantissa}e{int(power)}".replace("-", "−")
    rounded = round(value, digits - 1 - exponent)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{plus}{rounded:,.{decimals}f}".replace("-", "−")


def trimmed(value: Any, digits: int = 3) -> str:
    """As `significant`, without zeros at the end: settings were typed, not measured."""
    text = significant(value, digits)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def spoken(value: Any, digits: int = 3) -> str:
    """As a sentence says it: 280,000 and 1.25 million; zeros at the end are left out."""
    value = number(value)
    for scale, word in _WORDS:
        if value is not None and scale <= abs(value) < 1e15:
            return f"{trimmed(value / scale, digits)} {word}"
    return trimmed(value, digits)


def outwards(value: float, digits: int, *, up: bool) -> float:
    """An end of an interval rounded to `digits` significant digits, away from what the interval holds."""
    if value == 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(abs(value))) - digits + 1)
    return (math.ceil if up else math.floor)(round(value / step, 6)) * step


def spoken_range(low: Any, high: Any, digits: int = 3, unit: str = "") -> str:
    """`239,000 to 330,000`, rounded outwards; `239,000 or more` where there is no upper end."""
    down, up = (None if number(end) is None else f"{spoken(outwards(end, digits, up=is_high), digits)}{unit}"
                for end, is_high in ((low, False), (high, True)))  # fmt: skip
    return f"{down} or more" if up is None else f"{up} or less" if down is None else f"{down} to {up}"


def fixed(value: Any, decimals: int = 3) -> str:
    """With a fixed count of decimals, so that a column of a table lines up."""
    value = number(value)
    return MISSING if value is None else f"{value:.{decimals}f}".replace("-", "−")


def count(value: Any, digits: int = 3) -> str:
    """A size such as parameters, tokens or FLOP: 85 400 becomes 85.4 k."""
    value = number(value)
    if value is None:
        return MISSING
    for scale, suffix in _MULTIPLES:
        if abs(value) >= scale:
            scaled = value / scale
            if abs(scaled) >= 1e4:
                return significant(value, digits)
            text = f"{scaled:.{digits}g}" if abs(scaled) < 1000 else f"{scaled:.0f}"
            return f"{text}{_GAP}{suffix}"
    return f"{value:.{digits}g}"


def percent(share: Any, digits: int = 2) -> str:
    """A share of one as per cent."""
    share = number(share)
    return MISSING if share is None else f"{significant(100 * share, digits)}%"


def whole(value: Any) -> str:
    """A whole number in full, thousands set apart: 1,234,567."""
    value = number(value)
    return MISSING if value is None else f"{value:,.0f}"


def duration(seconds: Any) -> str:
    """Seconds in the two largest fitting units: 75 becomes 1 min 15 s."""
    seconds = number(seconds)
    if seconds is None:
        return MISSING
    if seconds < 10:
        return f"{seconds:.2g}{_GAP}s" if seconds >= 0.1 or seconds == 0 else f"{seconds * 1000:.2g}{_GAP}ms"
    if seconds < 59.5:
        return f"{seconds:.0f}{_GAP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{_GAP}min{_GAP}{rest}{_GAP}s" if rest and minutes < 10 else f"{minutes}{_GAP}min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}{_GAP}h{_GAP}{minutes}{_GAP}min" if minutes else f"{hours}{_GAP}h"
    return f"{hours // 24}{_GAP}d{_GAP}{hours % 24}{_GAP}h"


def data_volume(value: Any) -> str:
    """Bytes in binary units."""
    value = number(value)
    if value is None:
        return MISSING
    for scale, suffix in _BYTES:
        if value >= scale:
            volume = value / scale
            return f"{f'{volume:.3g}' if volume < 999.5 else f'{volume:.0f}'}{_GAP}{suffix}"
    return f"{value:.0f}{_GAP}B"


def exact(value: Any) -> str:
    """Unrounded: the shortest text that reads back as the same number."""
    value = number(value)
    return MISSING if value is None else repr(value)


def plain(text: Any) -> str:
    """One line of text without control characters and colour codes, which SVG and terminals must not receive."""
    bare = _COLOUR_CODES.sub("", str(text))
    return "".join(character if character.isprintable() else " " for character in bare)


def plural(amount: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{amount} {noun}{'' if amount == 1 else 's'}"


def capitalised(text: str) -> str:
    """The text with its first letter large and all others as they are: `GPUs` stay GPUs."""
    return text[:1].upper() + text[1:]


def padded(text: str, columns: int, *, right: bool = False) -> str:
    """The text in so many columns of a terminal."""
    room = " " * (columns - cell_len(text))
    return room + text if right else text + room


def shorten(text: Any, limit: int) -> str:
    """At most `limit` columns wide, the middle left out, since names of models differ at both ends."""
    clean = plain(text)
    if cell_len(clean) <= limit:
        return clean
    head = _beginning(clean, (limit - 1) // 2)
    tail = _beginning(clean[::-1], limit - 1 - (limit - 1) // 2)[::-1]
    return f"{head}…{tail}"


def wrap(text: str, columns: int, initial_indent: str = "", subsequent_indent: str = "") -> list[str]:
    """Lines at most so many columns wide; one ends at a space or beside a wide letter, within a longer word else."""
    lines, line, begun = list[str](), initial_indent, False
    for word in text.split():
        blank, rest = " " * begun, word
        while cell_len(line + blank + rest) > columns:
            most = _beginning(rest, max(0, columns - cell_len(line + blank)))
            ends = (place for place in range(len(most), 0, -1) if _may_end(rest[place - 1 : place + 1]))
            place = next(ends, 0 if begun else max(1, len(most)))
            if place == len(rest):
                break  # one sign that is wider than the room
            lines.append(line + blank + rest[:place] if place else line)
            line, blank, rest, begun = subsequent_indent, "", rest[place:], False
        line, begun = line + blank + rest, True
    return [*lines, line] if begun else lines


def wrap_all(texts: Iterable[str], columns: int) -> list[str]:
    """Each text on lines of its own."""
    return [line for text in texts for line in wrap(text, columns)]


def _may_end(sides: str) -> bool:
    """Whether a line may end between these two signs: letters both, one of them wide."""
    return len(sides) == 2 and sides.isalpha() and cell_len(sides) > 2


def _beginning(text: str, columns: int) -> str:
    kept = text[:columns]
    while cell_len(kept) > columns:
        kept = kept[:-1]
    return kept
