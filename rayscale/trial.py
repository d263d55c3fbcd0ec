"""A trial: one cell of the grid, and the id that names what would come out of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

# Rises only when a golden loss or the rule of `auto` changes: records of another version are other trials.
TRAINING_VERSION = 3


@dataclass(frozen=True)
class ModelSpec:
    """One model of the grid. `digest` is the content of a checkpoint, `vocabulary` the rows of its embedding."""

    name: str
    kind: str  # "family" or "pretrained"
    family: str  # model_type: bert, gpt2, ...
    layers: int
    width: int | None = None
    vocabulary: int | None = None
    path: str | None = None
    revision: str | None = None
    digest: str | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What decides about results: names and places do not, since other models of a study may change them."""
        if self.digest:
            return {"digest": self.digest, "layers": self.layers}
        return {"family": self.family, "layers": self.layers, "width": self.width, "vocabulary": self.vocabulary}


@dataclass(frozen=True)
class Trial:
    """One cell of the grid; `trial_id` is a hash of everything that changes its result and of nothing else."""

    trial_id: str
    study: str
    task: Mapping[str, Any]
    model: ModelSpec
    data_axis: str  # "examples" or "tokens"
    data_requested: int
    gpus: int
    seed: int
    augment: str
    training: Mapping[str, Any]
    device: str
    threads: int
    data_fingerprint: str
    copies: int = 0  # augmented copies of each training row
    augment_digest: str | None = None  # of the augmentation's steps, settings and sources

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `from_json` makes the same trial."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Trial:
        """The trial that `to_json` wrote."""
        return cls(**{**value, "model": ModelSpec(**value["model"])})


def identity(trial: Trial) -> dict[str, Any]:
    """All that changes a trial's result, and nothing else, as plain values."""
    told = {**trial.to_json(), "model": trial.model.identity, "training_version": TRAINING_VERSION}
    del told["trial_id"], told["study"]
    if trial.augment_digest is None:  # plain trials keep the ids that they had before there were augmented ones
        del told["copies"], told["augment_digest"]
    return told


def identified(trial: Trial) -> Trial:
    """The trial with its id: 16 hex digits of the SHA-256 of what changes its result."""
    canonical = json.dumps(identity(trial), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return replace(trial, trial_id=hashlib.sha256(canonical.encode()).hexdigest()[:16])
