"""Study: what the user asks for, as frozen pydantic models read from one YAML file.

A key that this version does not act on is refused by name: nothing the user wrote is ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PrivateAttr, Strict, ValidationError, model_validator

from rayscale.errors import StudyError, nearest
from rayscale.study import augment_key, messages
from rayscale.study.cross_checks import Problem, Sections, misfits, named_files, validated, without
from rayscale.study.laws_key import FIX, Laws, UserLaw
from rayscale.study.lora import Lora
from rayscale.study.messages import dotted
from rayscale.study.sections import (
    Budget,
    Data,
    Grid,
    Ladder,
    Model,
    Pretrained,
    Prices,
    RunSettings,
    Target,
    Task,
    checked_name,
)  # fmt: skip
from rayscale.study.training import Training, Transfer
from rayscale.study.values import Part
from rayscale.study.yaml_file import Located, locate, parse
from rayscale.system.paths import below, is_folder


def _with_long_target(value: Any) -> Any:
    if isinstance(value, dict) and isinstance(value.get("target"), str):
        return {**value, "target": {"metric": value["target"]}}
    return value


class Study(Part):
    """A study file, validated. `folder` is where the file lies; paths in `data` and `models` are absolute."""

    name: Annotated[str, Strict(), AfterValidator(checked_name)]
    task: Task
    data: Data
    models: tuple[Model, ...] = Field(min_length=1)
    grid: Grid
    training: Training = Training()
    target: Target = Target()
    laws: Laws = "auto"
    run: RunSettings = RunSettings()
    budget: Budget = Budget()
    prices: Prices = Prices()
    _document: Located | None = PrivateAttr(default=None)

    def where(self, *field: Any) -> str:
        """`file:line: field` of a field, for messages; the field alone if the study came from no file."""
        document = self._document
        return f"{document.path}:{locate(document, field)}: {dotted(field)}" if document else dotted(field)

    @model_validator(mode="before")
    @classmethod
    def _short_target(cls, value: Any) -> Any:
        return _with_long_target(value)

    @property
    def epochs(self) -> int:
        """Passes over the training rows: as given, else 1 for causal-lm and 3 for the other tasks."""
        return self.training.epochs or self.task.kind.epochs


def load_study(path: str | Path) -> Study:
    """Read and check a study file.

    Raises StudyError, whose message has a line `file:line: field: what was found; the fix` for every error found.
    """
    path = Path(path)
    document = parse(path)
    folder = path.resolve().parent
    problems = list(document.problems)
    try:
        study = Study.model_validate(document.value)
        sections = {name: getattr(study, name) for name in _SECTIONS}
        parts = Sections(**sections, models=list(enumerate(study.models)))
    except ValidationError as error:
        # A list whose only entry is wrong is also "too short" for pydantic: one mistake, one line.
        errors = [entry for entry in error.errors() if entry["type"] != "too_short" or not entry["input"]]
        wrong = [_problem(document, entry, messages.without_branches(entry["loc"], document.lines)) for entry in errors]
        parts = _valid_parts(document.value, [where for where, _ in wrong])
        problems += wrong
    for where, text in misfits(parts, folder):  # `target: f1` stands for target.metric
        problems.append((where if where in document.lines else where[:-1], text))
    if problems:
        raise _refusal(document, problems)
    study = _placed(study, folder)
    study._document = document
    return study


def _refusal(document: Located, problems: list[Problem]) -> StudyError:
    placed = messages.one_a_field([(locate(document, where), dotted(where), text) for where, text in problems])
    lines = [f"{document.path}:{line}: {field + ': ' if field else ''}{text}" for line, field, text in placed]
    where = f"{document.path}:{placed[0][0]}" + (f": {placed[0][1]}" if placed[0][1] else "")
    return StudyError("\n".join(lines), code="invalid_study", where=where)


#: The sections that are one mapping each.
_SECTIONS: dict[str, type[Part]] = {
    "task": Task, "data": Data, "grid": Grid, "training": Training, "target": Target, "run": RunSettings,
    "budget": Budget, "prices": Prices,
}  # fmt: skip


def _valid_parts(value: dict[Any, Any], wrong: list[tuple[Any, ...]]) -> Sections:
    """The sections that are valid once the wrong keys are taken out of them, as `misfits` wants them."""
    cleared = _with_long_target(without(value, wrong))
    needed = ("task", "data", "grid")
    sections: dict[str, Any] = {
        name: validated(kind, cleared.get(name, None if name in needed else {})) for name, kind in _SECTIONS.items()
    }
    if any(where[:1] == ("target",) for where in wrong):  # what it may reach depends on the metric
        sections["target"] = None
    entries = [(number, validated(Model, entry)) for number, entry in enumerate(cleared.get("models") or ())]
    return Sections(**sections, models=[(number, model) for number, model in entries if model is not None])


def _placed(study: Study, folder: Path) -> Study:
    """The study with its paths made absolute; what is not there as a file or folder is left as it is."""
    named = named_files(study.data)
    data: dict[str, Any] = {key: below(folder, path) for key, path in named.items() if "://" not in path}
    data["augment"] = augment_key.located(study.data.augment, folder)
    models = tuple(
        model.model_copy(update={"pretrained": str(folder / model.pretrained)})
        if isinstance(model, Pretrained) and is_folder(folder / model.pretrained)
        else model
        for model in study.models
    )
    training, rate = study.training, study.training.learning_rate
    if isinstance(rate, Transfer) and "://" not in rate.transfer:
        placed = rate.model_copy(update={"transfer": str(folder / rate.transfer)})
        training = training.model_copy(update={"learning_rate": placed})
    update = {"data": study.data.model_copy(update=data), "models": models, "training": training}
    return study.model_copy(update=update)


#: Values of the interface that a later version will act on, with what this one does instead.
_LATER = {
    "grid.design": "this version runs full grids only: write grid or leave the key out",
    "training.learning_rate": "give auto, a positive number, a list of different rates to choose the best from, or "
    "{transfer: RUN}, a run with such a list on smaller cells",
    "budget.deadline": "this version plans no deadline: leave the key out and give gpu_hours or usd",
    "trust_remote_code": "this version never runs code from a checkpoint: write false or leave the key out",
}


def _problem(document: Located, error: Any, steps: tuple[Any, ...]) -> Problem:
    # The tag of a union (models, laws) is part of pydantic's location but not of the user's file.
    tagged = {"models": 2, "laws": 1}.get(str(steps[0])) if steps else None
    where = tuple(step for place, step in enumerate(steps) if place != tagged)
    while where and locate(document, where, exact=True) is None and error["type"] != "missing":
        where = where[:-1]  # pydantic also names the branch of a union that failed
    field, given = dotted(where), f"found {messages.shown(error.get('input'))}"
    later = next((text for key, text in _LATER.items() if f"{field}.".startswith(f"{key}.")), None)
    if where and where[0] == "models":
        later = _LATER.get(str(where[-1]))
    if error["type"] == "extra_forbidden" and where[0] == "models" and where[-1] == "lora":
        text = "adapters need pretrained weights, and a family has none; leave the key out"
    elif error["type"] == "extra_forbidden":
        known = _keys_beside(where, document.value)
        text = f"unknown key{nearest(str(where[-1]), known)} (keys here: {', '.join(known)})"
    elif error["type"] == "missing":
        text = "missing; add this key"
    elif error["type"] == "too_short":
        text = f"{given}; give at least one"
    elif later and where[-1] != "train":
        text = f"{given}; {later}"
    elif where and where[0] == "laws" and error["type"] in ("tuple_type", "model_type", "string_type"):
        text = f"{given}; {FIX}"
    else:
        text = f"{given}; {messages.fix(error, where)}"
    return where, text


def _keys_beside(where: tuple[Any, ...], value: Any) -> list[str]:
    """The keys of the section in which a field lies."""
    section = dotted(tuple(step for step in where[:-1] if isinstance(step, str)))
    parts: dict[str, type[Part]] = {"": Study, "training.learning_rate": Transfer, "models.lora": Lora, **_SECTIONS}
    if where[0] == "laws":
        return list(UserLaw.model_fields)
    if section == "models":
        return list((Pretrained if "pretrained" in value["models"][where[1]] else Ladder).model_fields)
    return list(parts[section].model_fields)
