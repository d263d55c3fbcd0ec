"""What a plan says of a checkpoint's parameters, and of those that learn beside adapters, is what is built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from made import LABELS, encoder_sizes

from rayscale.errors import InputError
from rayscale.lora import Lora
from rayscale.nn.models import build_model, count_params
from rayscale.plan import _parameters
from rayscale.tasks import find_kind
from rayscale.trial import ModelSpec

WORDS, LENGTH, WIDTH = 40, 16, 16
TASKS = (("sequence-classification", 1), ("token-classification", 2), ("question-answering", 1))  # with layers kept
ENCODERS = ("bert", "roberta", "electra", "distilbert", "deberta-v2", "modernbert")
OWN: dict[str, dict[str, Any]] = {
    "electra": {"embedding_size": 8},  # narrower than the body, with a projection between
    "modernbert": dict.fromkeys(("bos_token_id", "cls_token_id"), 2)
    | dict.fromkeys(("eos_token_id", "sep_token_id"), 3),
    "gpt2": {"n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": 24, "bos_token_id": 0, "eos_token_id": 0},
    "bart": {
        "d_model": WIDTH,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "forced_eos_token_id": 2,
        "decoder_start_token_id": 2,
    }
    | {f"{part}_{name}": 2 for part in ("encoder", "decoder") for name in ("layers", "attention_heads", "ffn_dim")},
    "llama": {"num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 0},
}


def save(kind: str, head: str, folder: Path) -> Path:
    settings = {**encoder_sizes(WIDTH, 2, WORDS, 24), **OWN.get(kind, {})}
    del settings["num_labels"]
    config = transformers.AutoConfig.for_model(kind, **settings)
    torch.manual_seed(0)
    getattr(transformers, head).from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("roberta", "AutoModel"),
        ("mpnet", "AutoModel"),
        *((kind, "AutoModelForMaskedLM") for kind in ENCODERS),
        *((kind, "AutoModelForCausalLM") for kind in ("gpt2", "llama")),
        ("bart", "AutoModelForSeq2SeqLM"),
    ],
)
def test_a_plan_counts_the_parameters_that_are_built(kind: str, head: str, tmp_path: Path) -> None:
    folder = save(kind, head, tmp_path)
    tasks = (("seq2seq", 1), ("seq2seq", 2)) if kind == "bart" else TASKS[: 2 if kind == "llama" else 3]
    for task, layers in tasks:
        labels = [] if task in ("question-answering", "seq2seq") else list(LABELS)
        plain = ModelSpec("tiny", "pretrained", kind, layers, WIDTH, path=str(folder))
        study: Any = SimpleNamespace(task=SimpleNamespace(type=task, kind=find_kind(task), length=LENGTH))
        for spec in (plain, replace(plain, lora=Lora(rank=2))):
            model = build_model(spec, task, labels=labels, vocab_size=WORDS, max_length=LENGTH, seed=3)
            learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
            params, non_embedding, _, trained = _parameters(spec, study, len(labels))
            assert ((params, non_embedding), trained) == (count_params(model), learning), (task, spec.lora)


@pytest.mark.parametrize(("kind", "head"), [("llama", "AutoModelForCausalLM"), ("t5", "AutoModelForSeq2SeqLM")])
def test_what_has_no_head_of_its_own_for_answers_is_refused(kind: str, head: str, tmp_path: Path) -> None:
    spec = ModelSpec("tiny", "pretrained", kind, 1, WIDTH, path=str(save(kind, head, tmp_path)))
    with pytest.raises(InputError, match=f"'{kind}' checkpoint, which cannot do question-answering"):
        build_model(spec, "question-answering", labels=[], vocab_size=WORDS, max_length=LENGTH, seed=3)
