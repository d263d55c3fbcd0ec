"""Fixtures of the tests of `nn`: data made in memory, and a tiny checkpoint on disk."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from made import Made, make_classification, make_language


@pytest.fixture(autouse=True, scope="session")
def frozen() -> None:
    """What imports made is no garbage, as in a lane: every trial looks for some at its end."""
    gc.freeze()


@pytest.fixture
def classification(tmp_path: Path) -> Made:
    """Three classes of short texts of different length."""
    return make_classification(tmp_path)


@pytest.fixture
def language(tmp_path: Path) -> Made:
    """Full windows of a learnable chain."""
    return make_language(tmp_path)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT body of 3 layers without head, dropout 0, saved as safetensors."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("tiny-bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 language model of 2 layers, saved as safetensors."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("tiny-gpt2")
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder
