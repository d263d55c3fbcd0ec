"""The tasks: what a study may say of each, its data axis, defaults, metrics, ladders and the unit of its loss.

A task is an entry here, a module of its name in `rayscale.text.tasks` (how its rows are read and tokenised) and one in
`rayscale.nn.tasks` (what a model learns from them, and how it is scored). Nothing else knows tasks by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from rayscale.errors import InputError

ENTITIES = "entities|"  # begins the `metric_signature` of F1 of entities
AVERAGES = ("precision_macro", "recall_macro", "f1_micro", "f1_macro", "f1_weighted")


@dataclass(frozen=True)
class Kind:
    """What a task is, apart from how it is done.

    `columns` are the keys of the study's task that name columns, in the order in which they are read, `others` its
    further keys; a key among `optional` counts only where it is given, and those of `kept` are part of a trial's
    identity although the task does not read them. `labels` is the key of the column that holds names of classes.
    `length` is the default of `max_length` in tokens, `families` the ladders that can do it, `models` what to give
    instead of a checkpoint that cannot. `aim` is the metric that people look at. `writes`: the head has an output for
    each entry of the vocabulary, `labels_texts` that it has one set of classes for a text. `windowed`: texts longer
    than `max_length` are read in windows instead of cut. `needs` is a package of an extra, and the extra.
    `why_no_augment` says why rows have no augmented copies; None where they may.
    """

    name: str
    columns: tuple[str, ...]
    metrics: tuple[str, ...]
    families: tuple[str, ...]
    models: str
    unit: str = "nats per example"
    others: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    labels: str | None = None
    axis: str = "examples"
    length: int = 128
    epochs: int = 3
    aim: str = "f1_macro"
    writes: bool = False
    labels_texts: bool = False
    needs: tuple[str, str] | None = None
    windowed: bool = False
    why_no_augment: str | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the study's task that mean something, besides `type` and `max_length`."""
        return (*self.columns, *self.others)

    @property
    def module(self) -> str:
        """Name of the task's modules."""
        return self.name.replace("-", "_")


_CLASSIFIERS = "bert, roberta or distilbert"

KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "sequence-classification",
            columns=("text", "text_pair", "label"),
            optional=("text_pair",),
            labels="label",
            labels_texts=True,
            metrics=("eval_loss", "accuracy", *AVERAGES),
            families=("bert",),
            models=_CLASSIFIERS,
        ),
        Kind(
            "multi-label",
            columns=("text", "labels"),
            others=("separator",),
            labels="labels",
            labels_texts=True,
            metrics=("eval_loss", "exact_match", *AVERAGES),
            families=("bert",),
            models=_CLASSIFIERS,
            why_no_augment="has no augmented copies yet",
        ),
        Kind(
            "token-classification",
            columns=("tokens", "tags"),
            labels="tags",
            metrics=("eval_loss", "accuracy", *AVERAGES),
            families=("bert",),
            models=_CLASSIFIERS,
            unit="nats per tagged token",
            aim="f1_micro",
            why_no_augment="has a tag for every token, which no step keeps in place",
        ),
        Kind(
            "seq2seq",
            columns=("source", "target"),
            metrics=("eval_loss", "exact_match", "bleu", "chrf"),
            families=("t5",),
            models="t5, bart or marian",
            unit="nats per target token",
            aim="chrf",
            writes=True,
            needs=("sacrebleu", "metrics"),
            why_no_augment="has a target for each source, which no step changes with it",
        ),
        Kind(
            "question-answering",
            columns=("question", "context", "answers"),
            metrics=("eval_loss", "exact_match", "f1_words"),
            families=("bert",),
            models=_CLASSIFIERS,
            unit="nats per window",
            aim="f1_words",
            length=384,
            windowed=True,
            why_no_augment="has answers at places in its text, which no step keeps",
        ),
        Kind(
            "causal-lm",
            columns=("text",),
            kept=("label",),
            metrics=("eval_loss", "perplexity", "bits_per_token", "bits_per_character"),
            aim="perplexity",
            families=("gpt2",),
            models="gpt2, llama or qwen2",
            unit="nats per token",
            writes=True,
            axis="tokens",
            length=64,
            epochs=1,
            why_no_augment="trains on windows that cross texts, so that no child belongs to one row",
        ),
    )
}


def find_kind(name: str) -> Kind:
    """Raises InputError for an unknown task."""
    if name not in KINDS:
        raise InputError(f"unknown task '{name}'; known: {', '.join(KINDS)}", code="unknown_task")
    return KINDS[name]


def part_of(floor: str, name: str, attribute: str) -> Any:
    """What the task's module on a floor (`text`, `nn`) defines. Raises InputError for an unknown task."""
    return getattr(import_module(f"rayscale.{floor}.tasks.{find_kind(name).module}"), attribute)
