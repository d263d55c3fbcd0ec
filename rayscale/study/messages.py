"""What is said of a value that a study file cannot have, in the words of the file rather than of its checker."""

from __future__ import annotations

import datetime
from collections.abc import Collection
from typing import Any

from rayscale.errors import nearest
from rayscale.study.metrics import PERCENTS

_MODEL = "{family: bert, sizes: [1x64, 2x128]}"
_LISTS = {
    "models": f"[{_MODEL}]",
    "sizes": "[1x64, 2x128]",
    "layers": "[1, 2, 6]",
    "examples": "[500, 1000, 2000, 4000]",
    "tokens": "[100000, 200000, 400000, 800000]",
    "augment": "[none, {name: syn, synonyms: {share: 0.15, copies: 1}}]",
}
_MAPPINGS = {
    "models": _MODEL,
    "task": "{type: sequence-classification, text: text, label: label}",
    "data": "{train: rows.csv}",
    "grid": "{examples: [500, 1000, 2000, 4000], gpus: [1]}",
    "training": "{epochs: 3, global_batch: 32}",
    "target": "{metric: f1_macro, reach: 0.92}, or the metric's name alone",
    "run": "{executor: lanes, storage: runs}",
    "budget": "{gpu_hours: 2}",
    "prices": "{gpu_hour: 2.5, currency: USD}",
    "lora": "{rank: 8}",
}
_SEEDS = "give a whole number, such as 3, or one for each data size, such as {500: 3, 8000: 1}"
_PLAIN = {
    "int": "give a whole number, such as 3",
    "float": "give a number, such as 0.5",
    "bool": "give true or false",
    "string": "give text; a number or a truth value becomes text in quotes, as '5'",
    "finite": "give a finite number",
}
# Metrics without an upper bound, and what they are always above; the others are shares.
_FLOORS = {"eval_loss": 0.0, "perplexity": 1.0, "bits_per_token": 0.0, "bits_per_character": 0.0}


def shown(value: Any) -> str:
    """The value as YAML would show it, at most 60 characters, all of them printable."""
    match value:
        case None:
            text = "nothing"
        case bool() | datetime.date():
            text = str(value).lower()
        case bytes():
            text = f"binary data of {len(value)} bytes"
        case _:
            text = repr(value[:80] if isinstance(value, str) else value)
    return _shortened(text)


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def printable(text: str) -> str:
    """The text with escapes for characters that a terminal would obey, or show as nothing."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def dotted(where: tuple[Any, ...]) -> str:
    """A field as messages name it: its keys and positions with dots between, at most 60 printable characters each."""
    return ".".join(printable(_shortened(str(part))) for part in where)


def fix(error: Any, field: tuple[Any, ...]) -> str:
    """What to write instead, for one error of pydantic at a field of the study."""
    kind = str(error["type"])
    name = next((part for part in reversed(field) if isinstance(part, str)), "")  # positions in lists are none
    limits = error.get("ctx") or {}
    if name == "seeds":
        return _SEEDS
    if kind in ("tuple_type", "list_type"):
        return f"give a list, such as {_LISTS.get(name, '[1, 2]')}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"give a mapping, such as {_MAPPINGS.get(name, '{key: value}')}"
    if kind == "literal_error":
        return _choice(error.get("input"), str(limits.get("expected", "")))
    bounds = {"greater_than_equal": "{ge} or more", "greater_than": "a number above {gt}",
              "less_than_equal": "{le} or less", "less_than": "a number below {lt}"}  # fmt: skip
    if kind in bounds:
        figures = {key: f"{value:,.15g}" if isinstance(value, (int, float)) else value for key, value in limits.items()}
        return "give " + bounds[kind].format(**figures)
    if kind == "string_too_short":
        return "write something, or leave the key out"
    if kind == "string_pattern_mismatch" and name == "currency":
        return "give three capital letters, such as USD"
    return _PLAIN.get(kind.partition("_")[0], error["msg"].removeprefix("Value error, "))


def _choice(value: Any, expected: str) -> str:
    known = [word.strip(" '") for word in expected.replace(" or ", ",").split(",")]
    close = nearest(value, known).removeprefix("; ") if isinstance(value, str) else ""
    return f"write {expected.replace(chr(39), '')}" + (f" ({close})" if close else "")


def without_branches(where: tuple[Any, ...], fields: Collection[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The steps to a field that the file has; pydantic's also name the branch of a union that failed."""
    if where and where[0] in ("models", "laws"):  # unions with tags, whose place is known
        return where
    steps: tuple[Any, ...] = ()
    for number, part in enumerate(where):
        if (*steps, part) in fields or number == len(where) - 1:
            steps = (*steps, part)
    return steps


def one_a_field(problems: Collection[tuple[int, str, str]]) -> list[tuple[int, str, str]]:
    """(line, field, text) in the order of the file: one for a field, and none for what holds a wrong part."""
    first: dict[str, tuple[int, str, str]] = {}
    for problem in problems:
        first.setdefault(problem[1], problem)
    inner = [first[name] for name in first if not any(other.startswith(f"{name}.") for other in first)]
    return sorted(inner, key=lambda problem: problem[:2])


def out_of_range(metric: str, reach: float | None) -> str | None:
    """Why a metric cannot reach this value, and what was meant; None if it can, or need not."""
    if reach is None:
        return None
    if metric in _FLOORS:
        low = _FLOORS[metric]
        return None if reach > low else f"found {reach:g}; {metric} is always above {low:g}; give a larger value"
    if metric in PERCENTS:
        return None if 0 <= reach <= 100 else f"found {reach:g}; {metric} lies between 0 and 100"
    if 0 <= reach <= 1:
        return None
    meant = f"write {reach / 100:g}" if 1 < reach <= 100 else "give a share"
    return f"found {reach:g}; {metric} lies between 0 and 1; {meant}"
