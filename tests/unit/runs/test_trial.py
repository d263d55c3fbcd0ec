"""The id of a trial: everything that changes its result changes it, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayscale.runs import trial as module
from rayscale.runs.trial import ModelSpec, Trial, identified
from rayscale.study.lora import Lora
from rayscale.study.sections import Task

LADDER = ModelSpec("bert-1x32", "family", "bert", 1, width=32, vocabulary=512)
CHECKPOINT = ModelSpec("mine", "pretrained", "bert", 6, path="/models/mine", revision="main", digest="d" * 64)
ADAPTED = replace(CHECKPOINT, lora=Lora())
TRIAL = Trial(
    "", "toy", Task(type="causal-lm", max_length=64), LADDER, "tokens", 1000, 1, 0, "none",
    {"epochs": 1, "learning_rate": 1e-3}, "cpu", 2, "f" * 64,
)  # fmt: skip
AUGMENTED = replace(TRIAL, augment="synonyms", copies=2, augment_digest="a" * 64)

OTHER: dict[str, Any] = {
    "task": Task(type="causal-lm", max_length=65), "model": replace(LADDER, layers=2), "data_axis": "examples",
    "data_requested": 1001, "gpus": 2, "seed": 1, "augment": "swaps", "training": {"epochs": 2, "learning_rate": 1e-3},
    "device": "cuda", "threads": 3, "data_fingerprint": "e" * 64, "copies": 3, "augment_digest": "b" * 64,
}  # fmt: skip
NAMES = {"trial_id": "x", "study": "another"}


def id_of(trial: Trial) -> str:
    return identified(trial).trial_id


def test_every_field_of_a_trial_changes_its_id_but_names() -> None:
    assert {field.name for field in fields(Trial)} == set(OTHER) | set(NAMES)  # a new field must be judged here
    ids = [id_of(replace(AUGMENTED, **{name: value})) for name, value in OTHER.items()]
    assert len({id_of(AUGMENTED), *ids}) == len(OTHER) + 1
    assert {id_of(replace(AUGMENTED, **{name: value})) for name, value in NAMES.items()} == {id_of(AUGMENTED)}


@pytest.mark.parametrize(
    ("model", "decides"),
    [(LADDER, {"family": "gpt2", "layers": 2, "width": 33, "vocabulary": 513}),
     (CHECKPOINT, {"layers": 5, "digest": "c" * 64, "lora": Lora()}),
     (ADAPTED, {"layers": 5, "digest": "c" * 64, "lora": Lora(rank=4)})],
)  # fmt: skip
def test_a_model_is_its_shape_or_its_content_not_its_name_or_place(model: ModelSpec, decides: dict[str, Any]) -> None:
    places = {"name": "other", "path": "/elsewhere", "revision": "v2"}
    own = id_of(replace(TRIAL, model=model))
    assert all(id_of(replace(TRIAL, model=replace(model, **{name: value}))) != own for name, value in decides.items())
    assert all(id_of(replace(TRIAL, model=replace(model, **{name: value}))) == own for name, value in places.items())


def test_another_version_of_training_makes_other_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    before = id_of(TRIAL)
    monkeypatch.setattr(module, "TRAINING_VERSION", module.TRAINING_VERSION + 1)
    assert id_of(TRIAL) != before


@given(st.dictionaries(st.text(max_size=8), st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)))
def test_the_order_of_settings_changes_nothing(settings: dict[str, Any]) -> None:
    turned = dict(reversed(settings.items()))
    assert id_of(replace(TRIAL, training=settings)) == id_of(replace(TRIAL, training=turned))


def test_adapters_are_part_of_the_id_whatever_the_order_of_their_targets() -> None:
    settings = [{}, {"rank": 4}, {"alpha": 16}, {"dropout": 0.1}, {"target_modules": ["query"]}]
    ids = {id_of(replace(TRIAL, model=replace(CHECKPOINT, lora=Lora(**each)))) for each in settings}
    assert len({id_of(replace(TRIAL, model=CHECKPOINT)), *ids}) == 6
    turned = [Lora(target_modules=names) for names in (["query", "value"], ["value", "query", "value"])]
    assert turned[0] == turned[1]
    trial = replace(TRIAL, model=replace(ADAPTED, lora=turned[0]))
    assert Trial.from_json(json.loads(json.dumps(trial.to_json()))) == trial


def test_ids_of_trials_that_train_all_weights_are_those_from_before_there_were_adapters() -> None:
    assert id_of(replace(TRIAL, model=CHECKPOINT)) == "2975ad8888f3f016"
    assert id_of(TRIAL) == "98345faa0a4cabe9"
    assert "lora" not in replace(TRIAL, model=CHECKPOINT).to_json()["model"]
