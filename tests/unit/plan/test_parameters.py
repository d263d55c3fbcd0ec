"""Counts against published models and hand-made files; tests/nn/test_models.py holds them against real models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from rayscale.errors import InputError
from rayscale.plan.parameters import count, family_config, initial_deviation, training_flops

BERT_BASE = {"model_type": "bert"}
GPT2 = {"model_type": "gpt2"}


def test_published_sizes() -> None:
    # bert-base-uncased with two labels, and gpt2, as the model cards and `num_parameters` have them.
    assert count(BERT_BASE, "sequence-classification", 2)[0] == 109_483_778
    assert count(GPT2, "causal-lm", 0) == (124_439_808, 124_439_808 - (50257 + 1024) * 768)


def test_cut_takes_whole_layers() -> None:
    whole, cut = (count(BERT_BASE, "sequence-classification", 2, layers)[0] for layers in (12, 3))
    assert whole - cut == 9 * (12 * 768**2 + 13 * 768)


def test_untied_head_counts() -> None:
    tied, untied = (count({**GPT2, "tie_word_embeddings": tie}, "causal-lm", 0)[0] for tie in (True, False))
    assert untied - tied == 50257 * 768


def test_gpt2_classification_head_has_no_bias() -> None:
    assert count(GPT2, "sequence-classification", 5)[0] - count(GPT2, "causal-lm", 0)[0] == 5 * 768


@pytest.mark.parametrize("width", [8, 32, 40, 72, 104, 128, 136])
def test_heads_divide_every_width(width: int) -> None:
    config = family_config("gpt2", 2, width, 300, 16, 0)
    assert width % config["n_head"] == 0
    assert config["n_head"] <= max(1, width // 32)


def test_initial_deviation_is_that_of_gpt2_at_its_width() -> None:
    assert initial_deviation(768) == pytest.approx(0.02)
    assert initial_deviation(192) == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("family", "size", "code"),
    [("t6", (2, 64), "unknown_family"), ("bert", (0, 64), "bad_size"), ("gpt2", (1, 0), "bad_size")],
)
def test_wrong_ladders(family: str, size: tuple[int, int], code: str) -> None:
    with pytest.raises(InputError) as caught:
        family_config(family, *size, 300, 16, 2)
    assert caught.value.code == code


def test_bert_is_no_language_model() -> None:
    with pytest.raises(InputError, match="gpt2"):
        count(BERT_BASE, "causal-lm", 0)


#: A model that is counted from its file alone: config, task, labels.
ANY: tuple[dict[str, Any], str, int] = ({"model_type": "distilgpt"}, "causal-lm", 0)


def _write(folder: Path) -> None:
    layers = {f"transformer.layer.{i}.w": np.zeros((4, 4), np.float32) for i in range(3)}
    other = {
        "embeddings.word_embeddings.weight": np.zeros((10, 4), np.float32),
        "embeddings.position_ids": np.zeros((1, 8), np.int64),
        "norm.bias": np.zeros(4, np.float32),
    }
    save_file(layers, str(folder / "model-00001-of-00002.safetensors"), metadata={"format": "pt"})
    save_file(other, str(folder / "model-00002-of-00002.safetensors"))


def test_header_counts_floating_tensors_of_all_files(tmp_path: Path) -> None:
    _write(tmp_path)
    assert count(*ANY, None, tmp_path) == (48 + 40 + 4, 48 + 4)
    assert count(*ANY, 1, tmp_path) == (16 + 40 + 4, 16 + 4)
    head = 4 * 4 + 4 + 5 * 2
    config = {"model_type": "distilbert", "dim": 4}
    assert count(config, "sequence-classification", 2, 2, tmp_path) == (32 + 40 + 4 + head, 32 + 4 + head)


def test_tables_by_other_names_and_buffers_in_old_files(tmp_path: Path) -> None:
    tensors = {
        "gpt_neox.embed_in.weight": (10, 4),
        "gpt_neox.layers.0.attention.dense.weight": (4, 4),
        "gpt_neox.layers.0.attention.dense.bias": (4,),
        "gpt_neox.layers.0.attention.bias": (1, 1, 8, 8),  # these three do not learn
        "gpt_neox.layers.0.attention.masked_bias": (1,),
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq": (2,),
        "gpt_neox.final_layer_norm.weight": (4,),
        "embed_out.weight": (10, 4),
    }
    save_file(
        {name: np.zeros(shape, np.float16) for name, shape in tensors.items()}, str(tmp_path / "model.safetensors")
    )
    config, body = {"model_type": "gpt_neox", "hidden_size": 4}, 16 + 4 + 4
    assert count(config, "sequence-classification", 2, 1, tmp_path) == (40 + body + 8, body + 8)
    assert count(config, "causal-lm", 0, 1, tmp_path) == (40 + body + 40, body + 40)


def test_layers_by_unknown_names_are_refused(tmp_path: Path) -> None:
    save_file({"transformer.stages.0.q.weight": np.zeros((4, 4), np.float32)}, str(tmp_path / "model.safetensors"))
    with pytest.raises(InputError, match="no layers by the names"):
        count({"model_type": "xlm", "hidden_size": 4}, "sequence-classification", 2, 1, tmp_path)


def test_wrong_headers(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        count(*ANY, None, tmp_path)
    assert caught.value.code == "no_safetensors"
    _write(tmp_path)
    with pytest.raises(InputError, match="3 layers"):
        count(*ANY, 4, tmp_path)
    for content in (b"", b"\xff" * 40, (4).to_bytes(8, "little") + b"nope"):
        (tmp_path / "model-00001-of-00002.safetensors").write_bytes(content)
        with pytest.raises(InputError) as caught:
            count(*ANY, None, tmp_path)
        assert caught.value.code == "bad_safetensors"


def test_training_flops() -> None:
    assert training_flops(100, 10, 2, 8, tokens=50, token_pairs=500, examples=5) == 6 * (5000 + 50) + 12 * 2 * 8 * 500
