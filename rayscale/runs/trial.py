"""A trial: one cell of the grid, and the id that names what would come out of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from rayscale.study.lora import Lora
from rayscale.study.sections import Task
from rayscale.study.training import TrialSettings

# Rises only when a golden loss or the rule of `auto` changes: records of another version are other trials.
TRAINING_VERSION = 4

# The columns of a trial table that tell one cell of the grid from another; trials of one cell differ in their rate.
CELL = ["model", "data_requested", "gpus", "seed", "augment"]


def cell_without(column: str) -> list[str]:
    """The columns of a cell but one: what runs share that differ in it alone."""
    return [name for name in CELL if name != column]


@dataclass(frozen=True)
class ModelSpec:
    """One model of the grid. `digest` is the content of a checkpoint, `vocabulary` the rows of its embedding.

    With `lora` adapters are trained, and all weights without.
    """

    name: str
    kind: str  # "family" or "pretrained"
    family: str  # model_type: bert, gpt2, ...
    layers: int
    width: int | None = None
    vocabulary: int | None = None
    path: str | None = None
    revision: str | None = None
    digest: str | None = None
    lora: Lora | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What decides about results: names and places do not, since other models of a study may change them."""
        if self.digest:
            content = {"digest": self.digest, "layers": self.layers}
            return content if self.lora is None else {**content, "lora": self.lora.model_dump(mode="json")}
        return {"family": self.family, "layers": self.layers, "width": self.width, "vocabulary": self.vocabulary}


@dataclass(frozen=True)
class Trial:
    """One cell of the grid; `trial_id` is a hash of everything that changes its result and of nothing else."""

    trial_id: str
    study: str
    task: Task
    model: ModelSpec
    data_axis: str  # "examples" or "tokens"
    data_requested: int
    gpus: int
    seed: int
    augment: str
    training: Mapping[str, Any]  # as the id holds it: `settings` is what to read
    device: str
    threads: int
    data_fingerprint: str
    copies: int = 0  # augmented copies of each training row
    augment_digest: str | None = None  # of the augmentation's steps, settings and sources

    @cached_property
    def settings(self) -> TrialSettings:
        """`training` with every default filled in."""
        return TrialSettings.model_validate(self.training)

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `from_json` makes the same trial."""
        model = {name: value for name, value in vars(self.model).items() if name != "lora"}
        if self.model.lora is not None:  # else as it was before there were adapters
            model["lora"] = self.model.lora.model_dump(mode="json")
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**plain, "model": model, "task": self.task.model_dump(), "training": dict(self.training)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Trial:
        """The trial that `to_json` wrote."""
        lora = value["model"].get("lora")
        model = ModelSpec(**{**value["model"], "lora": lora and Lora.model_validate(lora)})
        return cls(**{**value, "model": model, "task": Task.model_validate(value["task"])})


def identity(trial: Trial) -> dict[str, Any]:
    """All that changes a trial's result, and nothing else, as plain values."""
    parts = {**trial.to_json(), "model": trial.model.identity, "training_version": TRAINING_VERSION}
    del parts["trial_id"], parts["study"]
    if trial.augment_digest is None:  # plain trials keep the ids that they had before there were augmented ones
        del parts["copies"], parts["augment_digest"]
    return parts


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def identified(trial: Trial) -> Trial:
    """The trial with its id: 16 hex digits of the SHA-256 of what changes its result."""
    return replace(trial, trial_id=hashlib.sha256(_canonical(identity(trial)).encode()).hexdigest()[:16])
