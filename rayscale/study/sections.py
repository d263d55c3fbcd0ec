"""The sections of a study file, except how trials train: task, data, models, grid, target, run, budget, prices."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, SerializerFunctionWrapHandler, Strict, Tag, model_serializer

from rayscale.errors import nearest
from rayscale.study import encoding_names
from rayscale.study.lora import Lora
from rayscale.study.tasks import KINDS, Kind
from rayscale.study.values import Amount, Count, Part, Positive, Text
from rayscale.system.names import RULE, is_name


def checked_name(value: str) -> str:
    """The name in one form of its letters. Raises ValueError for one that no file can have."""
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
    """What the model learns; which of the keys a type reads is in `rayscale.study.tasks`. Most name columns.

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
        absent = {key for key in kind.optional if getattr(self, key) is None}
        keys = {"type", "max_length", *kind.kept, *kind.keys} - absent
        return {key: value for key, value in plain(self).items() if key in keys}


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
    augment: tuple[Any, ...] = Field(default=("none",), min_length=1)  # checked by augment_key


class Pretrained(Part):
    """A checkpoint by folder or hub id; `layers` cuts it to its first layers, one size for each number.

    `name` is what tables call it, else the last part of the id; the ids of trials do not depend on it. `lora` freezes
    its weights and trains adapters beside them.
    """

    pretrained: Text
    name: Annotated[str, Strict(), AfterValidator(checked_name)] | None = None
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
