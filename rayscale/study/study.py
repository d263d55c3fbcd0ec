"""Study: what the user asks for, as frozen pydantic models read from one YAML file.

A key that this version does not act on is refused by name: nothing the user wrote is ignored.
Long because the whole schema is read in one place.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    Discriminator,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    Strict,
    Tag,
    ValidationError,
    model_serializer,
    model_validator,
)

from rayscale.errors import StudyError, nearest
from rayscale.laws.law import Law
from rayscale.study import augment_key, encoding_names, messages
from rayscale.study.checks import Problem, local_files, misfits, validated, without
from rayscale.study.laws_key import MEND, Laws, UserLaw, read
from rayscale.study.lora import Lora
from rayscale.study.messages import dotted
from rayscale.study.tasks import KINDS, Kind
from rayscale.study.training import Training, Transfer
from rayscale.study.values import Amount, Count, Part, Positive, Text
from rayscale.study.yaml_file import Located, locate, parse
from rayscale.system.names import RULE, is_name
from rayscale.system.paths import below, is_folder


def _name(value: str) -> str:
    value = unicodedata.normalize("NFC", value)  # some systems take letters and their marks apart
    if not is_name(value):
        raise ValueError(RULE)
    return value


def _size(value: str) -> str:
    if not re.fullmatch(r"[1-9]\d{0,3}x[1-9]\d{0,4}", value):
        raise ValueError("a size is layers x width, such as 2x128")
    layers_width = value.split("x")
    if int(layers_width[1]) % 8:
        raise ValueError("the width must be a multiple of 8, such as 2x128")
    return value


def _encoding(value: str) -> str:
    try:
        encoding_names.canonical(value)
    except LookupError:
        known = ["utf-8", "gb18030", "big5", "shift_jis", "euc_kr", "windows-1252", "utf-16"]
        raise ValueError(f"no encoding of text{nearest(value, known)}; such are {', '.join(known)}") from None
    return value


class Task(Part):
    """What the model learns; which of the keys a type reads is in `rayscale.tasks`. Most name columns.

    `max_length` is in tokens (the window of causal-lm).
    """

    type: Literal["sequence-classification", "multi-label", "token-classification", "seq2seq", "question-answering",
                  "causal-lm"]  # fmt: skip
    text: Text = "text"
    text_pair: Text | None = None
    label: Text = "label"
    labels: Text = "labels"
    separator: Text = ","
    source: Text = "source"
    target: Text = "target"
    tokens: Text = "tokens"
    tags: Text = "tags"
    question: Text = "question"
    context: Text = "context"
    answers: Text = "answers"
    max_length: Annotated[int, Strict(), Field(ge=8, le=65536)] | None = None

    @property
    def length(self) -> int:
        """Tokens per example at most (default 128), or per window (causal-lm, default 64)."""
        return self.max_length or self.kind.length

    @property
    def kind(self) -> Kind:
        """What is known of this type of task."""
        return KINDS[self.type]

    @property
    def columns(self) -> dict[str, str]:
        """The columns to be read, in order, by the key that names each."""
        return {key: column for key in self.kind.columns if (column := getattr(self, key)) is not None}

    @model_serializer(mode="wrap")
    def _own_keys(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Keys of other tasks are no part of this one, nor of the ids of its trials.
        kind = self.kind
        own = {"type", "max_length", *kind.kept, *(k for k in kind.keys if k not in kind.optional)}
        own |= {key for key in kind.optional if getattr(self, key) is not None}
        return {key: value for key, value in plain(self).items() if key in own}


class Data(Part):
    """Where the text lies and how it is split: paths, patterns, folders, addresses such as hf://datasets/owner/name/*.csv
    or s3://bucket/folder, which are copied into the cache; `train: builtin` is the built-in corpus.

    `reader` says how lanes read prepared text: from a copy on their own node (mmap), or piece by piece from the node of
    the driver (stream), for data that no other disk holds; batches and losses are the same. An inline run reads where
    the text lies. Training texts that share `near_duplicates` or more of their shingles with a validation or test text
    (Jaccard's index) are kept out; null keeps them. `encoding` is that of all files of text, such as gb18030 (default:
    UTF-8). `max_text_gigabytes` is what the text may take, unpacked, on the
    disk of the cache; by default a third of what is free there.
    """

    train: Text
    validation: Text | None = None
    test: Text | None = None
    validation_fraction: Annotated[float, Strict(), Field(gt=0, lt=1)] = 0.1
    test_fraction: Annotated[float, Strict(), Field(gt=0, lt=1)] = 0.1
    format: Text | None = None
    encoding: Annotated[str, Strict(), Field(min_length=1), AfterValidator(_encoding)] | None = None
    reader: Literal["mmap", "stream"] = "mmap"
    on_bad_row: Literal["error", "skip"] = "error"
    near_duplicates: Annotated[float, Strict(), Field(ge=0.5, le=1, allow_inf_nan=False)] | None = 0.8
    max_text_gigabytes: Positive | None = None
    augment: tuple[Any, ...] = Field(default=("none",), min_length=1)  # checked by study_augment


class Pretrained(Part):
    """A checkpoint by folder or hub id; `layers` cuts it to its first layers, one size for each number.

    `name` is what tables call it, else the last part of the id; the ids of trials do not depend on it. `lora` freezes
    its weights and trains adapters beside them.
    """

    pretrained: Text
    name: Annotated[str, Strict(), AfterValidator(_name)] | None = None
    revision: Text | None = None
    layers: tuple[Count, ...] | None = Field(default=None, min_length=1)
    trust_remote_code: Literal[False] = False
    lora: Lora | None = None


class Ladder(Part):
    """Models from scratch, layers x width each (t5: so many in the encoder, and in the decoder).

    `vocabulary` is the size of the tokenizer trained for them.
    """

    family: Literal["bert", "gpt2", "t5"]
    sizes: tuple[Annotated[str, Strict(), AfterValidator(_size)], ...] = Field(min_length=1)
    vocabulary: Annotated[int, Strict(), Field(ge=300, le=1_000_000)] = 2048


def _model_kind(value: Any) -> str:
    if isinstance(value, (Pretrained, Ladder)):
        return "pretrained" if isinstance(value, Pretrained) else "family"
    return "pretrained" if isinstance(value, dict) and "pretrained" in value else "family"


Model = Annotated[
    Annotated[Pretrained, Tag("pretrained")] | Annotated[Ladder, Tag("family")], Discriminator(_model_kind)
]


class Grid(Part):
    """The axes: one of `examples` (training rows) or `tokens` (causal-lm), GPUs per trial, seeds (all or by size)."""

    examples: tuple[Amount, ...] | None = Field(default=None, min_length=1)
    tokens: tuple[Amount, ...] | None = Field(default=None, min_length=1)
    gpus: tuple[Count, ...] = Field(default=(1,), min_length=1)
    seeds: Count | dict[Amount, Count] = 1
    design: Literal["grid"] = "grid"

    @property
    def axis(self) -> str:
        """Name of the data axis."""
        return "tokens" if self.tokens else "examples"

    @property
    def sizes(self) -> tuple[int, ...]:
        """The data sizes, ascending, each once."""
        return tuple(sorted(set(self.tokens or self.examples or ())))

    def seeds_at(self, size: int) -> int:
        """How many seeds run at this data size."""
        return self.seeds if isinstance(self.seeds, int) else self.seeds.get(size, 1)


class Target(Part):
    """The metric that decides, and the value it should reach."""

    metric: Text = "eval_loss"
    reach: Annotated[float, Strict(), Field(allow_inf_nan=False)] | None = None


class RunSettings(Part):
    """How trials are run. A worker may be silent for `hang_seconds`. About every `checkpoint_seconds` a trial is saved,
    so that it goes on from there after a fault; null: never. `trials_per_gpu`: so many at once on each GPU. A run waits
    `wait_seconds` for slots that other jobs of the cluster hold; null: for ever."""

    executor: Literal["lanes", "isolated", "inline"] = "lanes"
    accelerator: Literal["auto", "gpu", "cpu"] = "auto"
    trials_per_gpu: Annotated[int, Strict(), Field(ge=1, le=20)] = 1
    storage: Text = "runs"
    keep: Literal["best", "all", "none"] = "best"
    checkpoint_seconds: Positive | None = 300
    retries: Annotated[int, Strict(), Field(ge=0, le=100)] = 2
    hang_seconds: Annotated[float, Strict(), Field(ge=1, allow_inf_nan=False)] = 60
    wait_seconds: Positive | None = None


class Budget(Part):
    """What the study may cost at most; cells beyond it are cut from the plan, each with the reason."""

    gpu_hours: Positive | None = None
    usd: Positive | None = None
    deadline: None = None


class Prices(Part):
    """What one GPU (or worker slot) costs for an hour."""

    gpu_hour: Positive | None = None
    currency: Annotated[str, Strict(), Field(pattern="^[A-Z]{3}$")] = "USD"


def _with_long_target(value: Any) -> Any:
    if isinstance(value, dict) and isinstance(value.get("target"), str):
        return {**value, "target": {"metric": value["target"]}}
    return value


class Study(Part):
    """A study file, validated. `folder` is where the file lies; paths in `data` and `models` are absolute."""

    name: Annotated[str, Strict(), AfterValidator(_name)]
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
    def chosen_laws(self) -> tuple[Law, ...] | None:
        """The laws to be fitted; None where the fit chooses (auto)."""
        return read(self.laws)

    @property
    def epochs(self) -> int:
        """Passes over the training rows: as given, else 1 for causal-lm and 3 for the other tasks."""
        return self.training.epochs or self.task.kind.epochs


def load_study(path: str | Path) -> Study:
    """Read and check a study file.

    Raises StudyError, whose message has a line `file:line: field: what was found; the mend` for every error found.
    """
    path = Path(path)
    document = parse(path)
    folder, problems = path.resolve().parent, list(document.problems)
    try:
        study = Study.model_validate(document.value)
        parts = {name: getattr(study, name) for name in Study.model_fields}
        parts["models"] = list(enumerate(study.models))
    except ValidationError as error:
        # A list whose only entry is wrong is also "too short" for pydantic: one mistake, one line.
        errors = [each for each in error.errors() if each["type"] != "too_short" or not each["input"]]
        steps = [messages.without_branches(each["loc"], document.lines) for each in errors]
        wrong = [_problem(document, {**each, "loc": loc}) for each, loc in zip(errors, steps, strict=True)]
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
    told = messages.one_a_field([(locate(document, where), dotted(where), text) for where, text in problems])
    lines = [f"{document.path}:{line}: {field + ': ' if field else ''}{text}" for line, field, text in told]
    where = f"{document.path}:{told[0][0]}" + (f": {told[0][1]}" if told[0][1] else "")
    return StudyError("\n".join(lines), code="invalid_study", where=where)


def _valid_parts(value: dict[Any, Any], wrong: list[tuple[Any, ...]]) -> dict[str, Any]:
    """The sections that are valid once the wrong keys are taken out of them, as `misfits` wants them."""
    cleared = _with_long_target(without(value, wrong))
    parts = {
        name: validated(kind, cleared.get(name)) for name, kind in (("task", Task), ("data", Data), ("grid", Grid))
    }
    optional = {"target": Target, "budget": Budget, "prices": Prices, "run": RunSettings, "training": Training}
    parts |= {name: validated(kind, cleared.get(name, {})) for name, kind in optional.items()}
    if any(where[:1] == ("target",) for where in wrong):  # what it may reach depends on the metric
        del parts["target"]
    entries = [(number, validated(Model, each)) for number, each in enumerate(cleared.get("models") or ())]
    return parts | {"models": [(number, model) for number, model in entries if model is not None]}


def _placed(study: Study, folder: Path) -> Study:
    """The study with its paths made absolute; what is not there as a file or folder is left as it is."""
    data: dict[str, Any] = {key: below(folder, getattr(study.data, key)) for key in local_files(study.data)
                            if "://" not in getattr(study.data, key)}  # fmt: skip
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
    "training.learning_rate": "give auto, a positive number, a list of different ones, of which the best is kept, or "
    "{transfer: RUN}, a run folder with such a list on smaller cells",
    "budget.deadline": "this version plans no deadline: leave the key out and give gpu_hours or usd",
    "trust_remote_code": "this version never runs code from a checkpoint: write false or leave the key out",
}


def _problem(document: Located, error: Any) -> Problem:
    # The tag of a union (models, laws) is part of pydantic's location but not of the user's file.
    tagged = {"models": 2, "laws": 1}.get(str(error["loc"][0])) if error["loc"] else None
    where = tuple(p for i, p in enumerate(error["loc"]) if i != tagged)
    while where and locate(document, where, exact=True) is None and error["type"] != "missing":
        where = where[:-1]  # pydantic also names the branch of a union that failed
    field, found = dotted(where), error.get("input")
    later = next((text for key, text in _LATER.items() if f"{field}.".startswith(f"{key}.")), None)
    if where and where[0] == "models":
        later = _LATER.get(str(where[-1]))
    if error["type"] == "extra_forbidden" and where[0] == "models" and where[-1] == "lora":
        text = "adapters stand beside weights that were trained before, and a family has none; leave the key out"
    elif error["type"] == "extra_forbidden":
        known = _keys_beside(where, document.value)
        text = f"unknown key{nearest(str(where[-1]), known)} (keys here: {', '.join(known)})"
    elif error["type"] == "missing":
        text = "missing; add this key"
    elif error["type"] == "too_short":
        text = f"found {messages.found(found)}; give at least one"
    elif later and where[-1] != "train":
        text = f"found {messages.found(found)}; {later}"
    elif where and where[0] == "laws" and error["type"] in ("tuple_type", "model_type", "string_type"):
        text = f"found {messages.found(found)}; {MEND}"
    else:
        text = f"found {messages.found(found)}; {messages.mend(error, where)}"
    return where, text


def _keys_beside(where: tuple[Any, ...], value: Any) -> list[str]:
    part: Any = Study
    for step in where[:-1]:
        if part is Study and step == "models":
            part = "models"
        elif step == "learning_rate":
            part = Transfer
        elif step == "lora":
            part = Lora
        elif part is Study and step == "laws":
            part = "laws"
        elif part == "laws":
            part = UserLaw
        elif part == "models":
            pretrained = isinstance(value, dict) and "pretrained" in value["models"][step]
            part = Pretrained if pretrained else Ladder
        else:
            part = part.model_fields[step].annotation
    return list(part.model_fields) if isinstance(part, type) and issubclass(part, BaseModel) else []
