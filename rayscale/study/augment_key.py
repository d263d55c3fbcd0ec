"""The key `data.augment` of a study file: `none`, or a name with one or several steps in order, each with settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from rayscale.errors import InputError, StudyError, nearest
from rayscale.study import messages
from rayscale.study.augmenters import GROUP, Augmenter, find_augmenter
from rayscale.system import registry
from rayscale.system.names import is_name
from rayscale.system.paths import below

NONE = "none"
#: How words are found in text that is written without spaces: by what suits the text and is installed; not at all, so
#: that a word is what stands between spaces; by character; or by these, joined with + where several are meant.
AUTO, SPACES, CHARACTERS = "auto", "spaces", "characters"
SEGMENTERS = ("jieba", "budoux")
FIX = "write none, or a name and a step, such as {name: syn, synonyms: {source: wordnet, share: 0.15, copies: 1}}"
MOST_COPIES = 100

Problem = tuple[tuple[Any, ...], str]


@dataclass(frozen=True)
class Step:
    """A step of an augmentation: its name, what it is, and its settings with their defaults."""

    name: str
    augmenter: Augmenter
    settings: BaseModel


@dataclass(frozen=True)
class Augmentation:
    """A named chain of steps; every training row gets `copies` children, made by chance from `seed`.

    `segmenter` says how words are found where a text is written without spaces; `auto` is settled by the text.
    """

    name: str
    steps: tuple[Step, ...] = ()
    copies: int = 0
    seed: int = 0
    segmenter: str = AUTO

    @property
    def by(self) -> str | None:
        """The segmenter in force; None where words are what stands between spaces."""
        return None if self.segmenter in (AUTO, SPACES) else self.segmenter

    def describe(self) -> dict[str, Any]:
        """What was asked for, as JSON values; neither the name nor the places of files are part of it."""
        plain = {"steps": [[step.name, step.settings.model_dump(mode="json", exclude=set(step.augmenter.paths))]
                           for step in self.steps], "copies": self.copies, "seed": self.seed}  # fmt: skip
        return plain if self.by is None else {**plain, "segmenter": self.by}

    def entry(self) -> dict[str, Any]:
        """The entry of a study that `read` makes the same augmentation of: plain values, which travel."""
        steps = {step.name: step.settings.model_dump(mode="json") for step in self.steps}
        return {"name": self.name, "copies": self.copies, "seed": self.seed, "segmenter": self.segmenter, **steps}

    def located(self) -> Augmentation:
        """The same with every file that a step needs as an absolute path. Raises InputError where one is missing."""
        steps = (replace(step, settings=step.augmenter.locate(step.settings)) for step in self.steps)
        return replace(self, steps=tuple(steps))

    @property
    def on_models(self) -> bool:
        """Whether a step runs a model."""
        return any(step.augmenter.on_models for step in self.steps)


def read(entry: Any) -> Augmentation:
    """The augmentation of one entry. Raises StudyError, a line for every error found."""
    augmentation, problems = _read(entry)
    if augmentation is None:
        lines = (": ".join(filter(None, (messages.dotted(where), text))) for where, text in problems)
        raise StudyError("\n".join(lines), code="invalid_study")
    return augmentation


def problems(entries: Any, why_not: str | None) -> list[Problem]:
    """All that is wrong with the key, each with the steps to its place below `augment`.

    `why_not` is why rows of this task have no children, None where they may.
    """
    listed: list[Problem] = []
    names: set[str] = set()
    for place, entry in enumerate(entries if isinstance(entries, Sequence) and not isinstance(entries, str) else ()):
        augmentation, wrong = _read(entry)
        listed += [((place, *where), text) for where, text in wrong]
        if augmentation is None:
            continue
        name = augmentation.name
        if name in names:
            listed.append(((place,), f"'{name}' is given twice in data.augment; give each a name of its own"))
        names.add(name)
        if augmentation.steps and why_not:
            listed.append(((place,), f"{why_not}; write [none]"))
    return listed


def located(entries: Sequence[Any], folder: Path) -> tuple[Any, ...]:
    """The entries with those settings that name files below the study's folder as absolute paths."""
    return tuple(_located(entry, folder) if isinstance(entry, Mapping) else entry for entry in entries)


def _located(entry: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    moved = dict(entry)
    for name, settings in entry.items():
        if not isinstance(settings, Mapping):
            continue
        try:
            paths = find_augmenter(str(name)).paths
        except InputError:  # said by `problems`
            continue
        there = {key: below(folder, str(settings[key])) for key in paths if isinstance(settings.get(key), str)}
        moved[name] = {**settings, **{key: path for key, path in there.items() if Path(path).exists()}}
    return moved


def _read(entry: Any) -> tuple[Augmentation | None, list[Problem]]:
    if entry == NONE:
        return Augmentation(NONE), []
    if not isinstance(entry, Mapping):
        return None, [_wrong((), entry, FIX)]
    problems: list[Problem] = []
    name = entry.get("name")
    if not is_name(name) or name == NONE:
        where = ("name",) if "name" in entry else ()
        problems.append(_wrong(where, name, "give the augmentation a name of its own (letters, digits, . _ -)"))
    seed = _whole(entry.get("seed", 0), 0, 2**32 - 1)
    if seed is None:
        problems.append(_wrong(("seed",), entry["seed"], "give a whole number, 0 or more"))
    segmenter = _segmenter(entry.get("segmenter", AUTO))
    if segmenter is None:
        problems.append(_wrong(("segmenter",), entry["segmenter"], f"use one of: {', '.join(_KNOWN)}"))
    copies: dict[tuple[Any, ...], Any] = {("copies",): entry["copies"]} if "copies" in entry else {}
    steps = []
    for key, given in entry.items():
        if key in ("name", "seed", "copies", "segmenter"):
            continue
        if isinstance(given, Mapping) and "copies" in given:
            copies[(key, "copies")] = given["copies"]
        step, wrong = _step(str(key), given)
        problems += wrong
        steps += [step] if step else []
    if not steps and not problems:
        problems.append(((), f"names no step; {FIX}"))
    for where, value in copies.items():
        if _whole(value, 1, MOST_COPIES) is None:
            problems.append(_wrong(where, value, f"give a whole number from 1 to {MOST_COPIES}"))
    if len({str(value) for value in copies.values()}) > 1:
        problems.append(((), "copies is given more than once with different numbers; give one number"))
    if problems:
        return None, problems
    return Augmentation(str(name), tuple(steps), next(iter(copies.values()), 1), seed or 0, segmenter or AUTO), []


_KNOWN = (AUTO, CHARACTERS, *SEGMENTERS, "+".join(SEGMENTERS), SPACES)


def _wrong(where: tuple[Any, ...], value: Any, advice: str) -> Problem:
    return where, f"found {messages.shown(value)}; {advice}"


def _segmenter(given: Any) -> str | None:
    names = set(given.split("+")) if isinstance(given, str) else set()
    joined = "+".join(name for name in SEGMENTERS if name in names)
    return given if given in _KNOWN else joined if len(names) > 1 and set(joined.split("+")) == names else None


def _step(name: str, given: Any) -> tuple[Step | None, list[Problem]]:
    try:
        augmenter = find_augmenter(name)
    except InputError as error:
        known = [entry.name for entry in registry.entries(GROUP)]
        if ":" in name:
            return None, [((name,), error.message)]
        text = f"unknown step{nearest(name, known)} (known: {', '.join(known)}; or a plugin's package.module:attribute)"
        return None, [((name,), text)]
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        return None, [_wrong((name,), given, "give the settings as a mapping, such as {}")]
    try:
        settings = augmenter.settings.model_validate({k: v for k, v in given.items() if k != "copies"})
    except ValidationError as error:
        known = [*augmenter.settings.model_fields, "copies"]
        return None, [((name, *wrong["loc"]), _text(wrong, name, known)) for wrong in error.errors()]
    return Step(name, augmenter, settings), []


def _text(error: Any, step: str, known: list[str]) -> str:
    if error["type"] == "extra_forbidden":
        return f"unknown setting{nearest(str(error['loc'][-1]), known)} (settings of {step}: {', '.join(known)})"
    if error["type"] == "missing":
        return f"missing; {step} needs this setting"
    return f"found {messages.shown(error.get('input'))}; {messages.fix(error, error['loc'])}"


def _whole(value: Any, low: int, high: int) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high else None
