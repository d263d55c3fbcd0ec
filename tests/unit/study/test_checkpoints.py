"""Checkpoints: what they are called, and where in the study a wrong one is."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from safetensors.numpy import save_file

from rayscale.errors import StudyError
from rayscale.plan.draft import draft_plan
from rayscale.plan.estimate import Supply
from rayscale.plan.heads import check_head, padding_of, positions_of
from rayscale.plan.parameters import has_head
from rayscale.plan.plan import make_plan, model_specs
from rayscale.study.checkpoints import NAMES, find_checkpoint
from rayscale.study.study import load_study
from rayscale.system.machine import Machine
from rayscale.system.storage import Store
from tests.unit.conftest import write_tokenizer

MACHINE = Machine("cpu", 2, "a processor", "this machine")
LADDER = "{family: bert, sizes: [1x32, 2x64], vocabulary: 512}"
CONFIG = {"model_type": "bert", "num_hidden_layers": 2, "hidden_size": 32, "vocab_size": 100}


def checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    write_tokenizer(folder, 100)
    return folder


def study(study_file: Path, model: str, *more: tuple[str, str]) -> Path:
    text = study_file.read_text().replace(LADDER, model)
    for old, new in more:
        text = text.replace(old, new)
    study_file.write_text(text)
    return study_file


def names(study_file: Path, model: str) -> list[str]:
    return [spec.name for spec in model_specs(load_study(study(study_file, model)))]


def test_a_folder_called_model_is_named_by_what_holds_it(study_file: Path) -> None:
    checkpoint(study_file.parent / "minilm" / "model")
    assert names(study_file, "{pretrained: minilm/model, layers: [1, 2]}") == ["minilm@1", "minilm"]


def test_a_name_of_ones_own_changes_no_identity(study_file: Path) -> None:
    checkpoint(study_file.parent / "minilm" / "model")
    plain = model_specs(load_study(study(study_file, "{pretrained: minilm/model, layers: [1, 2]}")))
    text = study_file.read_text().replace("pretrained: minilm/model", "pretrained: minilm/model, name: small")
    study_file.write_text(text)
    named = model_specs(load_study(study_file))
    assert [spec.name for spec in named] == ["small@1", "small"]
    assert [spec.identity for spec in named] == [spec.identity for spec in plain]
    study_file.write_text(text.replace("name: small", "name: a/b"))
    with pytest.raises(StudyError, match=r"study.yaml:\d+: models.0.name: found 'a/b'; must be"):
        load_study(study_file)


def test_depth_and_width_are_found_whatever_a_config_calls_them(study_file: Path) -> None:
    folder = checkpoint(study_file.parent / "small")
    config = {"model_type": "distilbert", "n_layers": 3, "dim": 48, "vocab_size": 100}
    (folder / "config.json").write_text(json.dumps(config))
    shape = {"dtype": "F32", "shape": [48, 48], "data_offsets": [0, 0]}
    header = json.dumps({f"transformer.layer.{n}.ffn.lin1.weight": shape for n in range(3)}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    specs = model_specs(load_study(study(study_file, "{pretrained: small, layers: [1, 3]}")))
    assert [(spec.name, spec.layers, spec.width) for spec in specs] == [("small@1", 1, 48), ("small", 3, 48)]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("{pretrained: no/such-model}", "no such folder, and the hub did not give it"),
        ("{pretrained: empty}", "has no config.json"),
    ],
)
def test_a_checkpoint_that_cannot_be_had_is_told_with_its_place(
    study_file: Path, monkeypatch: pytest.MonkeyPatch, model: str, said: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (study_file.parent / "empty").mkdir()
    with pytest.raises(StudyError, match=rf"study.yaml:\d+: models.0.pretrained: .*{said}"):
        model_specs(load_study(study(study_file, model)))


def test_a_bert_for_causal_lm_is_told_with_its_place(study_file: Path) -> None:
    checkpoint(study_file.parent / "small")
    causal = [
        ("sequence-classification, text: text, label: label", "causal-lm, text: text"),
        ("examples: [20, 40, 80]", "tokens: [64]"),
        (", seeds: {20: 2}", ""),
    ]
    path = study(study_file, "{pretrained: small}", *causal)
    with pytest.raises(
        StudyError, match=r"models.0.pretrained: .*/small is a 'bert' .* cannot do causal-lm; give one such as gpt2"
    ):
        model_specs(load_study(path))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "config.json").write_text(json.dumps({**CONFIG, "model_type": "vit"})),
         "wrong is a 'vit' checkpoint, which cannot do sequence-classification; give one such as bert"),
        (lambda folder: (folder / "config.json").write_text(json.dumps({**CONFIG, "model_type": "encoder-decoder"})),
         "'encoder-decoder' checkpoint, which cannot"),
        (lambda folder: write_tokenizer(folder, 101),
         "wrong: the tokenizer knows 101 tokens, the model only 100; copy tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"has no tokenizer\.json; copy it from where"),
        (lambda folder: (folder / "tokenizer_config.json").unlink(), r"has no tokenizer_config\.json; copy it from"),
        (lambda folder: [(folder / name).unlink() for name in NAMES],
         r"has no tokenizer\.json and no tokenizer_config\.json; copy them from"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "the tokenizer cannot be read"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_would_fail_in_every_trial_fails_the_plan_at_its_line(
    study_file: Path, spoil: Callable[[Path], object], said: str
) -> None:
    for name in ("right", "wrong"):
        checkpoint(study_file.parent / name)
    spoil(study_file.parent / "wrong")
    path = study(study_file, "{pretrained: right}\n  - {pretrained: wrong}")
    place = next(n for n, line in enumerate(path.read_text().splitlines(), 1) if "pretrained: wrong" in line)
    with pytest.raises(StudyError, match=rf"study.yaml:{place}: models.1.pretrained: .*{said}"):
        draft_plan(load_study(path), MACHINE, Store.open(path.parent / "run"))


def test_what_a_config_does_not_tell_is_left_to_the_model_floor() -> None:
    for config in ({}, {"model_type": None}, {"model_type": "gpt-sw3"}):
        check_head("here", config, "question-answering")


@pytest.mark.parametrize(
    ("config", "ids", "found"),
    [
        ({"pad_token_id": 0, "eos_token_id": 2}, {"pad": 5}, 0),
        ({"pad_token_id": None, "eos_token_id": 2}, {"pad": 5}, 5),
        ({"eos_token_id": [7, 8]}, {"eos": 3}, 7),
        ({"pad_token_id": -1, "eos_token_id": []}, {"eos": 3}, 3),
        ({"pad_token_id": 100, "vocab_size": 100}, {}, None),
    ],
)
def test_what_pads_texts_is_the_first_that_is_a_row_of_the_embedding(
    config: dict[str, object], ids: dict[str, int], found: int | None
) -> None:
    assert padding_of(config.get, ids) == found


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"max_position_embeddings": -1}, None),
        ({"n_positions": 64}, 64),
        ({"max_position_embeddings": 514, "pad_token_id": 1, "model_type": "longformer"}, 512),
    ],
)
def test_positions_are_those_that_a_text_may_take(config: dict[str, object], found: int | None) -> None:
    assert positions_of(config.get) == found


BESIDE = ("generation_config.json", "chat_template.jinja", "chat_template.json", "added_tokens.json", "spiece.model",
          "additional_chat_templates/tools.jinja", "sentencepiece.bpe.model", "bpe.codes")  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_what_changes_the_kept_model_is_fingerprinted_and_downloaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(tmp_path / "small")
    (folder / "special_tokens_map.json").write_text("{}")
    (folder / "README.md").write_text("nothing that is read")
    before = find_checkpoint(str(folder), None).digest
    files = sorted(path for path in folder.iterdir() if path.name != "README.md")
    told = b"".join(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes() for file in files)
    assert before == hashlib.sha256(told).hexdigest(), "without such files a checkpoint keeps its digest"
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("one")
    one = find_checkpoint(str(folder), None).digest
    (folder / name).write_text("two")
    assert len({before, one, find_checkpoint(str(folder), None).digest}) == 3
    asked: list[str] = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *_, allow_patterns, **__: asked.extend(allow_patterns) or folder
    )
    find_checkpoint("some/where", None)
    assert any(fnmatch.fnmatch(name, pattern) for pattern in asked)


def test_a_head_that_a_checkpoint_brings_is_said_in_the_plan(study_file: Path) -> None:
    def tensors(**head: tuple[int, ...]) -> dict[str, np.ndarray]:
        shapes = {"bert.embeddings.word_embeddings": (100, 32), "bert.encoder.layer.0.output.dense": (32, 64),
                  "bert.encoder.layer.1.output.dense": (32, 64), "bert.pooler.dense": (32, 32), **head}  # fmt: skip
        return {f"{name}.weight": np.zeros(shape, np.float32) for name, shape in shapes.items()}

    folder = checkpoint(study_file.parent / "small")
    config = {**CONFIG, "id2label": {"0": "bad", "1": "good"}}
    (folder / "config.json").write_text(json.dumps(config))
    path, labels = study(study_file, "{pretrained: small}"), 2
    for head, said in (
        ({"classifier": (labels, 32)}, True), ({"classifier": (3, 32)}, False), ({"qa_outputs": (2, 32)}, False),
        ({"cls.seq_relationship": (2, 32)}, False), ({}, False),
    ):  # fmt: skip
        save_file(tensors(**head), folder / "model.safetensors")
        lint = dict(make_plan(load_study(path), MACHINE, Supply("f" * 64, 160, 12.0, labels)).lint)
        assert ("reused_head" in lint) == said, head
        if said:
            assert "small: training starts from the checkpoint's own head" in lint["reused_head"]
            assert "(bad, good)" in lint["reused_head"]
    save_file(tensors(qa_outputs=(2, 32)), folder / "model.safetensors")
    assert has_head(folder, "question-answering", 0)
    assert not has_head(folder, "causal-lm", 2)


def test_weights_that_cannot_be_read_are_refused_at_the_line_of_the_study(study_file: Path) -> None:
    folder = checkpoint(study_file.parent / "small")
    (folder / "model.safetensors").write_bytes(b"no weights at all")
    path = study(study_file, "{pretrained: small}")
    with pytest.raises(StudyError, match="is not a safetensors file") as refused:
        model_specs(load_study(path))
    assert refused.value.where is not None
    assert "models.0.pretrained" in refused.value.where
