"""What no field of a study shows alone: whether its parts fit one another, and whether the files it names are there.

Each check asks only for the parts that are right by themselves, so that one wrong key hides no other mistake.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rayscale.errors import nearest
from rayscale.study import augment_key
from rayscale.study.messages import out_of_range, shown
from rayscale.study.sections import Budget, Data, Grid, Ladder, Pretrained, Prices, RunSettings, Target, Task
from rayscale.study.training import Training
from rayscale.system.paths import BY_FSSPEC, BY_PYARROW, below, files_of, is_folder
from rayscale.system.redaction import has_secret, redact

#: More cells than this are a slip of the pen: a plan of so many takes minutes and gigabytes to write down.
MAX_CELLS = 1_000_000
HUB_ID = re.compile(r"(?!\.)[\w.-]{1,96}(/[\w.-]{1,96})?")

Problem = tuple[tuple[Any, ...], str]
Models = Sequence[tuple[int, Pretrained | Ladder]]


@dataclass(frozen=True)
class Sections:
    """The sections of a study that are valid by themselves, None for the others; a model with its place in the list."""

    task: Task | None
    data: Data | None
    grid: Grid | None
    training: Training | None
    target: Target | None
    run: RunSettings | None
    budget: Budget | None
    prices: Prices | None
    models: Models = ()


def misfits(sections: Sections, folder: Path) -> list[Problem]:
    """(field, what is wrong and the fix) of all that does not fit; paths are relative to `folder`."""
    return [
        *_files(sections.data, folder),
        *_augmentations(sections.data, sections.task),
        *_keys(sections.task),
        *_axis(sections.task, sections.grid),
        *_target(sections.task, sections.target),
        *_run(sections.run, sections.grid),
        *_money(sections.budget, sections.prices),
        *_models(sections.task, sections.models, folder),
        *_cells(sections.grid, sections.models, sections.training),
        *_training(sections.training),
    ]


def named_files(data: Data) -> dict[str, str]:
    """The paths and addresses of text that `data` names, by its keys."""
    named = {key: getattr(data, key) for key in ("train", "validation", "test")}
    return {key: value for key, value in named.items() if value and (key, value) != ("train", "builtin")}


#: Of addresses that `data` may name, in addition to paths.
SCHEMES = sorted((*BY_PYARROW, *BY_FSSPEC))


def _files(data: Data | None, folder: Path) -> Iterator[Problem]:
    for key, pattern in named_files(data).items() if data else ():
        where = ("data", key)
        scheme, sign, _ = pattern.partition("://")
        if sign and has_secret(pattern):
            yield where, _secret(pattern)
        elif sign and scheme not in SCHEMES:
            yield where, f"found {shown(pattern)}; text is read from files, or from {'://, '.join(SCHEMES)}://"
        elif not sign and not files_of(below(folder, pattern)):
            yield where, f"no such file: {_short(folder / pattern)}; give a path relative to the study file"


def _secret(uri: str) -> str:
    return f"found {shown(redact(uri))}; put credentials in the environment or a file, not in the study"


def _augmentations(data: Data | None, task: Task | None) -> Iterator[Problem]:
    why_not = None
    if task and task.text_pair:
        why_not = f"{task.type} of pairs: a step would change one text of two"
    elif task and task.kind.why_no_augment:
        why_not = f"{task.type} {task.kind.why_no_augment}"
    for where, text in augment_key.problems(data.augment if data else (), why_not):
        yield ("data", "augment", *where), text


def _keys(task: Task | None) -> Iterator[Problem]:
    if not task:
        return
    for key in sorted(task.model_fields_set - {"type", "max_length", *task.kind.keys}):
        keys = ", ".join(("type", *task.kind.keys, "max_length"))
        yield ("task", key), f"is not a key of {task.type}; leave it out (keys of this task: {keys})"


def _short(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 400 else f"{text[:200]}...{text[-100:]} ({len(text)} characters)"


def _axis(task: Task | None, grid: Grid | None) -> Iterator[Problem]:
    if not grid:
        return
    if (grid.examples is None) == (grid.tokens is None):
        yield ("grid",), "give exactly one data axis: examples or tokens"
    elif task and grid.axis != (axis := task.kind.axis):
        yield ("grid", grid.axis), f"the data axis of {task.type} is {axis}; write {axis}: [...]"
    if isinstance(grid.seeds, dict) and (strange := sorted(set(grid.seeds) - set(grid.sizes))):
        yield ("grid", "seeds"), f"{shown(strange)} are not among grid.{grid.axis}; use {shown(list(grid.sizes))}"


def _target(task: Task | None, target: Target | None) -> Iterator[Problem]:
    if not task or not target:
        return
    known = list(task.kind.metrics)
    if target.metric not in known:
        close = nearest(target.metric, known)
        yield ("target", "metric"), f"found {shown(target.metric)}{close} (known for {task.type}: {', '.join(known)})"
    elif text := out_of_range(target.metric, target.reach):
        yield ("target", "reach"), text


def _money(budget: Budget | None, prices: Prices | None) -> Iterator[Problem]:
    if not budget or not budget.usd or not prices:
        return
    if not prices.gpu_hour:
        yield ("budget", "usd"), "a budget in money needs prices.gpu_hour; add it"
    if prices.currency != "USD":
        yield ("budget", "usd"), f"prices are in {prices.currency}; give budget.gpu_hours instead"


def _models(task: Task | None, models: Models, folder: Path) -> Iterator[Problem]:
    for number, model in models:
        if isinstance(model, Ladder):
            if task and model.family not in task.kind.families:
                fitting = " or ".join(task.kind.families)
                yield ("models", number, "family"), f"found '{model.family}'; {task.type} needs family: {fitting}"
        elif not is_folder(folder / model.pretrained) and not HUB_ID.fullmatch(model.pretrained):
            text = f"no such folder: {_short(folder / model.pretrained)}; give a checkpoint's folder or a hub id"
            yield ("models", number, "pretrained"), text


def _training(training: Training | None) -> Iterator[Problem]:
    if not training:
        return
    if training.optimizer != "adamw" and training.learning_rate == "auto":
        text = f"auto was measured for adamw; with {training.optimizer} give a number, or a list of rates to try"
        yield ("training", "learning_rate"), text
    for key, owner, fits in (
        ("momentum", "optimizer: sgd", training.optimizer == "sgd"),
        ("cooldown", "schedule: constant_with_cooldown", training.schedule == "constant_with_cooldown"),
        ("plateau_patience", "schedule: plateau", training.schedule == "plateau"),
        ("plateau_factor", "schedule: plateau", training.schedule == "plateau"),
    ):
        if getattr(training, key) is not None and not fits:
            yield ("training", key), f"has an effect with {owner} only; write that, or leave the key out"
    if (training.cooldown or 0) + training.warmup > 1:
        yield ("training", "cooldown"), f"{training.cooldown} and a warmup of {training.warmup} exceed all steps"


def _cells(grid: Grid | None, models: Models, training: Training | None) -> Iterator[Problem]:
    if not grid:
        return
    sizes = sum(len(set(model.sizes if isinstance(model, Ladder) else model.layers or (1,))) for _, model in models)
    cells = max(1, sizes) * len(set(grid.gpus)) * sum(grid.seeds_at(size) for size in grid.sizes)
    cells *= len(training.rates) if training else 1
    if cells > MAX_CELLS:
        yield ("grid",), f"asks for {cells:,} trials; a study has at most {MAX_CELLS:,}; give fewer sizes or seeds"


def _run(run: RunSettings | None, grid: Grid | None) -> Iterator[Problem]:
    if run and has_secret(run.storage):
        yield ("run", "storage"), _secret(run.storage)
    if not run or run.trials_per_gpu == 1:
        return
    where = ("run", "trials_per_gpu")
    text = f"is {run.trials_per_gpu}, but"
    if grid and (most := max(grid.gpus)) > 1:
        yield where, f"{text} grid.gpus asks for trials of {most} whole GPUs; write 1, or grid.gpus: [1]"
    if run.executor == "inline":
        yield where, f"{text} the executor inline runs one trial after the other; write 1, or executor: lanes"


def repeated(grid: Grid, models: Sequence[Pretrained | Ladder]) -> list[str]:
    """What the study names more than once, a sentence each: such cells are merged into one, not run twice."""
    lists: dict[str, Sequence[int | str]] = {f"grid.{grid.axis}": grid.tokens or grid.examples or ()}
    lists["grid.gpus"] = grid.gpus
    for number, model in enumerate(models):
        if isinstance(model, Ladder):
            lists[f"models.{number}.sizes"] = model.sizes
        else:
            lists[f"models.{number}.layers"] = model.layers or ()
    return [
        f"{value} is given {times} times in {field}: its cells run once"
        for field, values in lists.items()
        for value, times in Counter(values).items()
        if times > 1
    ]


def without(value: Any, gone: list[tuple[Any, ...]]) -> Any:
    """A copy without these fields; what stands in a list becomes None, so that the others keep their places."""
    if isinstance(value, dict):
        inner = {key: [where[1:] for where in gone if where[0] == key] for key in value}
        return {key: without(part, inner[key]) for key, part in value.items() if () not in inner[key]}
    if isinstance(value, list):
        places = [[where[1:] for where in gone if where[0] == place] for place in range(len(value))]
        return [None if () in there else without(part, there) for part, there in zip(value, places, strict=True)]
    return value


def validated(kind: Any, given: Any) -> Any:
    """The value as this kind of model; None if it is none."""
    try:
        return TypeAdapter(kind).validate_python(given)
    except ValidationError:
        return None
