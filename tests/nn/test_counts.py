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
from rayscale.nn.models.build import build_model
from rayscale.nn.models.objectives import find_objective
from rayscale.plan.parameters import LABELLED_BY_LAST_STATE
from rayscale.plan.plan import _parameters
from rayscale.runs.trial import ModelSpec
from rayscale.study.lora import Lora
from rayscale.study.tasks import find_kind
from tests.nn.plainly import count_params

WORDS, LENGTH, WIDTH = 40, 16, 16
SEQUENCES, TOKENS, QUESTIONS = "sequence-classification", "token-classification", "question-answering"
TASKS = ((SEQUENCES, 1), (TOKENS, 2), (QUESTIONS, 1))  # with layers kept
ENCODERS = ("bert", "roberta", "electra", "distilbert", "deberta-v2", "modernbert", "albert", "big_bird")
DONE = {  # where it is not all of TASKS
    "llama": TASKS[:2],
    "olmo2": TASKS[:1],
    "gptj": (TASKS[0], TASKS[2]),
    "bart": (("seq2seq", 1), ("seq2seq", 2)),
    "t5": ((TOKENS, 1),),
}
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
    "t5": {"d_model": WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0},
    "albert": {"embedding_size": 8},  # layers share their weights
    "big_bird": {"block_size": 4, "num_random_blocks": 1},
    "gptj": {"n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": 24, "rotary_dim": 4, "bos_token_id": 0}
    | {"eos_token_id": 0},
    "gpt_neox": {"bos_token_id": 0, "eos_token_id": 0},
    "olmo2": {"bos_token_id": 0, "eos_token_id": 0},
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
        *((kind, "AutoModelForCausalLM") for kind in ("gpt2", "llama", "gpt_neox", "gptj", "olmo2")),
        ("gpt_neox", "AutoModel"),
        *((kind, "AutoModelForSeq2SeqLM") for kind in ("bart", "t5")),
    ],
)
def test_a_plan_counts_the_parameters_that_are_built(kind: str, head: str, tmp_path: Path) -> None:
    folder = save(kind, head, tmp_path)
    for task, layers in DONE.get(kind, TASKS):
        labels = [] if task in (QUESTIONS, "seq2seq") else list(LABELS)
        plain = ModelSpec("tiny", "pretrained", kind, layers, WIDTH, path=str(folder))
        study: Any = SimpleNamespace(task=SimpleNamespace(type=task, kind=find_kind(task), length=LENGTH))
        # Layers that share weights have no numbers, by which adapters are placed.
        for spec in (plain,) if kind == "albert" else (plain, replace(plain, lora=Lora(rank=2))):
            model = build_model(spec, task, labels=labels, vocab_size=WORDS, max_length=LENGTH, seed=3)
            learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
            params, non_embedding, _, trained = _parameters(spec, study, len(labels))
            assert ((params, non_embedding), trained) == (count_params(model), learning), (task, spec.lora)


@pytest.mark.parametrize(("kind", "head"), [("llama", "AutoModelForCausalLM"), ("t5", "AutoModelForSeq2SeqLM")])
def test_what_has_no_head_of_its_own_for_answers_is_refused(kind: str, head: str, tmp_path: Path) -> None:
    spec = ModelSpec("tiny", "pretrained", kind, 1, WIDTH, path=str(save(kind, head, tmp_path)))
    with pytest.raises(InputError, match=f"'{kind}' checkpoint, which cannot do question-answering"):
        build_model(spec, QUESTIONS, labels=[], vocab_size=WORDS, max_length=LENGTH, seed=3)


def test_every_decoder_that_labels_texts_is_known_to_have_no_square_layer() -> None:
    labelling: Any = find_objective(SEQUENCES).head._model_mapping
    writing: Any = transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    masked: Any = transformers.MODEL_FOR_MASKED_LM_MAPPING
    decoders = {kind.model_type for kind in labelling if kind in writing and kind not in masked}
    others = {"bigbird_pegasus", "plbart", "modernbert-decoder", "xlnet"}  # their heads have layers of their own
    assert decoders - others <= LABELLED_BY_LAST_STATE, "new in this transformers: name it where its head belongs"
    assert len(decoders) > 40
