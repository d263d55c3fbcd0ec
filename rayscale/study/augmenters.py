"""Augmenters as values: what a step of an augmentation takes, and the function of rows that it opens.

A plugin of the group `rayscale.augmenters` is an Augmenter, or plainly a function of rows whose keyword arguments, with
their annotations and defaults, are its settings:

    def shout(rows: Sequence[Example], share: float = 0.5) -> list[Example]: ...
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model

from rayscale.errors import InputError
from rayscale.system import registry

GROUP = "rayscale.augmenters"


@dataclass(frozen=True)
class Example:
    """One row on its way: its text and `seed`, a number below 2 ** 64 and the only source of chance a step may use.

    `segmenter` says how words are found where the text is written without spaces, None where there is no such text:
    `rayscale.text.augment.segments.cut(row.text, row.segmenter)` gives them.
    """

    text: str
    seed: int
    segmenter: str | None = None

    def saying(self, text: str) -> Example:
        """The row with another text."""
        return replace(self, text=text)


#: Rows to rows: as many, in the same order.
Step = Callable[[Sequence[Example]], list[Example]]


class Settings(BaseModel):
    """Base of the settings of a step: names, types, ranges and defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Augmenter:
    """One kind of step.

    `settings` is a pydantic model. `open` (a function of the settings, or its name as module:attribute where it needs
    heavy imports) does what is costly, once for each worker, and returns the function of rows. `paths` are settings
    that may name a file or folder; `locate` gives the settings with these as absolute paths on this machine, and raises
    InputError where something is missing or cannot serve: what they name travels to the workers of other machines.
    `contents` gives plain values that name what the result depends on beyond the other settings (hashes of the files,
    versions), of settings that were located. `on_models`: runs on a GPU where there is one, in a pool of workers that
    stay up.
    """

    settings: type[BaseModel]
    open: Callable[[Any], Step] | str
    contents: Callable[[Any], Any] = lambda settings: None
    paths: tuple[str, ...] = ()
    locate: Callable[[Any], Any] = lambda settings: settings
    on_models: bool = False

    def make(self, settings: Any) -> Step:
        """The function of rows."""
        opened = registry.resolve(GROUP, self.open) if isinstance(self.open, str) else self.open
        return opened(settings)


def find_augmenter(name: str) -> Augmenter:
    """The augmenter of a registered name or `package.module:attribute`. Raises InputError for what is none."""
    plugin = registry.resolve(GROUP, name)
    if isinstance(plugin, Augmenter):
        return plugin
    if not callable(plugin):
        raise InputError(f"'{name}' of {GROUP} is neither an Augmenter nor a function of rows", code="broken_plugin")
    return _of_function(name, plugin)


def _of_function(name: str, function: Callable[..., Any]) -> Augmenter:
    try:
        _, *others = inspect.signature(function, eval_str=True).parameters.values()
    except (TypeError, ValueError, NameError) as error:
        raise InputError(f"'{name}' of {GROUP} is not a function of rows: {error}", code="broken_plugin") from error
    fields: dict[str, Any] = {}
    for setting in others:
        kind = Any if setting.annotation is setting.empty else setting.annotation
        fields[setting.name] = (kind, ... if setting.default is setting.empty else setting.default)
    model = create_model(f"Settings of {name}", __base__=Settings, **fields)
    return Augmenter(
        model, lambda settings: partial(function, **settings.model_dump()), lambda settings: _code_of(function)
    )


def _code_of(function: Callable[..., Any]) -> str:
    """A hash of the file that the function stands in: another code may give other text."""
    try:
        return hashlib.sha256(Path(inspect.getfile(inspect.unwrap(function))).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return f"{function.__module__}:{getattr(function, '__qualname__', '')}"


def check_rows(name: str, before: Sequence[Example], after: Any) -> list[Example]:
    """What a step returned, if it is as many rows as it was given. Raises InputError."""
    wrong = None
    if not isinstance(after, Sequence) or not all(isinstance(row, Example) for row in after):
        wrong = "returned something else than rows (Example)"
    elif len(after) != len(before):
        wrong = f"returned {len(after)} rows for {len(before)}; one for each, in their order"
    if wrong:
        raise InputError(f"the augmenter '{name}' {wrong}", code="broken_plugin")
    return list(after)
