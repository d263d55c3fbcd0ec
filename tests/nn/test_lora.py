"""Adapters: what learns and what does not, in every task; padded and not, in pieces, and merged when saved."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from made import LABELS, LENGTH, Made, make_classification, make_language, make_tagged, make_trial
from resume_worker import InterruptedTrialError, interrupted_in, saved_after, saving
from safetensors.torch import load_file
from torch.testing import assert_close

from rayscale.errors import InputError
from rayscale.nn.models.build import build_model
from rayscale.nn.models.lora import adapter_parameters, merge
from rayscale.nn.models.objectives import find_objective
from rayscale.nn.models.size import measure_size
from rayscale.nn.ranks import Group
from rayscale.nn.training import job, train
from rayscale.nn.training.optimizers import make_optimizer
from rayscale.plan.parameters import count_adapters
from rayscale.runs.trial import ModelSpec, Trial
from rayscale.study.lora import Lora
from tests.nn.plainly import count_params

LORA = Lora(rank=2)
CLASSIFIER = {"classifier.weight", "classifier.bias"}
POOLER = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
RATE = {"learning_rate": 1e-2}


@pytest.fixture(scope="module")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 of 2 layers in encoder and decoder."""
    folder = tmp_path_factory.mktemp("tiny-t5")
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, dropout_rate=0.0,
        decoder_start_token_id=0,
    )  # fmt: skip
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def spec(folder: Path, lora: Lora | None = LORA, layers: int = 2) -> ModelSpec:
    return ModelSpec("tiny", "pretrained", "", layers, path=str(folder), lora=lora)


def build(folder: Path, task: str, lora: Lora | None = LORA) -> transformers.PreTrainedModel:
    labels = list(LABELS) if "classification" in task or task == "multi-label" else []
    return build_model(spec(folder, lora), task, labels=labels, vocab_size=40, max_length=LENGTH, seed=3)


def learning(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("task", "kind", "heads"),
    [
        ("sequence-classification", "bert", CLASSIFIER | POOLER),
        ("multi-label", "bert", CLASSIFIER | POOLER),
        ("token-classification", "bert", CLASSIFIER),
        ("question-answering", "bert", {"qa_outputs.weight", "qa_outputs.bias"}),
        ("causal-lm", "gpt2", set()),
        ("seq2seq", "t5", set()),
        ("sequence-classification", "gpt2", {"score.weight"}),
    ],
)
def test_adapters_and_the_new_head_learn_and_the_merged_model_is_a_plain_one(
    task: str, kind: str, heads: set[str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(f"tiny_{kind}")
    model = build(folder, task).eval()
    plain = build(folder, task, None).eval()
    added = {name for name in learning(model) if ".lora_" in name}
    assert learning(model) - added == heads
    ids = torch.randint(2, 40, (3, 7), generator=torch.Generator().manual_seed(1))
    given = {"input_ids": ids, **({"decoder_input_ids": ids[:, :4]} if task == "seq2seq" else {})}
    answers = [model(**given)[0], plain(**given)[0]]
    assert_close(answers[0], answers[1]), "adapters begin as no change"
    answers[0].square().sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad), "or DDP would wait for it"
    assert count_params(model) == count_params(plain)
    size = measure_size(model)
    assert sum(p.numel() for p in model.parameters() if id(p) in adapter_parameters(model)) == count_adapters(
        folder, 2, LORA, task
    )
    assert size.frozen is not None
    assert size.frozen.token_params + size.frozen.example_params < size.token_params + size.example_params

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(std=0.1)
    adapted = model(**given)[0]
    assert not torch.allclose(adapted, answers[1], atol=1e-3)
    merge(model)
    model.save_pretrained(tmp_path)
    again = find_objective(task).head.from_pretrained(tmp_path).eval()
    assert type(again) is type(plain)
    assert_close(again(**given)[0], adapted, rtol=1e-4, atol=1e-5)
    assert {name for name, _ in again.named_parameters()} == {name for name, _ in plain.named_parameters()}


def trial_of(folder: Path, task: str = "sequence-classification", **training: Any) -> Trial:
    rows = 200 * LENGTH if task == "causal-lm" else 200
    return make_trial(task, model=spec(folder), data_requested=rows, training=RATE | training)


@pytest.mark.parametrize("task", ["sequence-classification", "token-classification", "causal-lm"])
def test_a_trial_changes_the_weights_beside_adapters_and_the_head_alone(
    task: str, tiny_bert: Path, tiny_gpt2: Path, tmp_path: Path
) -> None:
    makers = {"token-classification": make_tagged, "causal-lm": make_language}
    made = makers.get(task, make_classification)(tmp_path)
    folder = tiny_gpt2 if task == "causal-lm" else tiny_bert
    trial = trial_of(folder, task)
    result = train.train_trial(trial, made, save_to=tmp_path / "model")
    idle = train.train_trial(trial_of(folder, task, learning_rate=1e-9), made)
    assert result["status"] == "ok"
    assert result["train_loss"] < idle["train_loss"] - 0.01
    full = train.train_trial(replace(trial, model=spec(folder, None)), made)
    assert [result[key] for key in ("params", "params_non_embedding")] == [
        full[key] for key in ("params", "params_non_embedding")
    ]
    assert result["flops"] < full["flops"]
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "model" / "model.safetensors")
    body = {name.removeprefix("bert."): value for name, value in after.items()}
    same = {name for name, value in before.items() if name in body and torch.equal(value, body[name])}
    moved = {name.rpartition(".")[2] for name in body.keys() & before.keys() - same if "pooler" not in name}
    assert moved == {"weight"}, "no bias and no norm"
    assert all("layer." in name or "h." in name for name in body.keys() & before.keys() - same if "pooler" not in name)
    assert any("embeddings" in name or "wte" in name for name in same)
    assert "peft_config" not in json.loads((tmp_path / "model" / "config.json").read_text())


def test_unpadded_checkpointed_and_padded_are_the_same(
    classification: Made, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = [trial_of(tiny_bert), trial_of(tiny_bert, gradient_checkpointing=True)]
    unpadded = [train.train_trial(trial, classification) for trial in trials]
    monkeypatch.setattr(job, "can_unpad", lambda model: False)
    padded = train.train_trial(trials[0], classification)
    for key in ("train_loss", "validation_loss", "eval_loss", "flops"):
        assert unpadded[0][key] == unpadded[1][key]
        assert unpadded[0][key] == pytest.approx(padded[key], rel=1e-5)


def test_a_trial_in_pieces_equals_the_whole_and_its_savepoints_hold_what_learns(
    classification: Made, tiny_bert: Path, tmp_path: Path
) -> None:
    trial = trial_of(tiny_bert, early_stopping=50)
    trial = replace(trial, trial_id="adapted", data_requested=53, model=spec(tiny_bert, Lora(rank=2, dropout=0.3)))
    keep = saving(tmp_path / "run", lambda event: None)
    with saved_after(4, 9):
        with interrupted_in(12), pytest.raises(InterruptedTrialError):
            train.train_trial(trial, classification, saving=keep)
        (place,) = (tmp_path / "run" / "checkpoints" / "adapted").glob("*9/weights.safetensors")
        saved, best = load_file(place), load_file(place.with_name("best.safetensors"))
        pieces = train.train_trial(trial, classification, saving=keep, save_to=tmp_path / "pieces")
    whole = train.train_trial(trial, classification, save_to=tmp_path / "whole")
    assert saved.keys() == best.keys() == learning(build(tiny_bert, "sequence-classification"))
    assert [pieces[key] for key in ("curve", "eval_loss", "steps")] == [
        whole[key] for key in ("curve", "eval_loss", "steps")
    ]
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("pieces", "whole"))
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)


def test_targets_are_ends_of_names_and_wrong_ones_are_told_with_what_there_is(tiny_bert: Path) -> None:
    some = build(tiny_bert, "sequence-classification", Lora(rank=2, target_modules=("query", "attention.output.dense")))
    held = {name.rpartition(".lora_")[0] for name in learning(some) if ".lora_" in name}
    assert {name.partition("layer.")[2] for name in held} == {
        f"{number}.attention.{name}" for number in (0, 1) for name in ("self.query", "output.dense")
    }
    with pytest.raises(InputError, match=r"no linear layer is called 'qery'.*query.*\(there are: query, key, value"):
        build(tiny_bert, "sequence-classification", Lora(target_modules=("qery",)))


def test_frozen_weights_cost_no_gradient_of_their_own(tiny_bert: Path, classification: Made) -> None:
    trial = trial_of(tiny_bert)
    sizes = [measure_size(build(tiny_bert, "sequence-classification", lora)) for lora in (LORA, None)]
    split, rows = classification.split("train"), classification.subset("examples", 20, 0)
    adapted, full = (find_objective(trial.task.type).pass_flops(size, split, rows) for size in sizes)
    tokens, added = int(split.lengths[rows].sum()), count_adapters(tiny_bert, 2, LORA, "sequence-classification")
    assert full - adapted == 2 * tokens * sizes[1].token_params - 6 * tokens * added


def test_the_optimizer_has_what_learns_alone(tiny_bert: Path, classification: Made) -> None:
    made = job.prepare_job(trial_of(tiny_bert), classification, None, Group.join(0, 1, "cpu"))
    model = made.ready.model
    held = [id(p) for group in make_optimizer(model, made).param_groups for p in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in model.parameters() if p.requires_grad}
    assert model.get_input_embeddings().weight.shape[0] == 40, "a frozen table is left whole"


def test_by_auto_the_head_keeps_the_rate_that_it_has_beside_a_body_that_learns(
    tiny_bert: Path, classification: Made
) -> None:
    jobs = [
        job.prepare_job(
            make_trial(model=spec(tiny_bert, lora), training={"learning_rate": "auto"}),
            classification, None, Group.join(0, 1, "cpu"),
        )
        for lora in (LORA, None)
    ]  # fmt: skip
    adapted, full = jobs
    assert adapted.learning_rate > full.learning_rate
    assert adapted.learning_rate * adapted.head_factor == pytest.approx(full.learning_rate * full.head_factor)
    assert adapted.learning_rate * adapted.body_factor == pytest.approx(full.learning_rate), "the pooler's"


def test_without_peft_the_extra_is_named(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(InputError, match=r"pip install 'rayscale\[lora\]'") as caught:
        build(tiny_bert, "sequence-classification")
    assert caught.value.code == "missing_extra"


MIXTURES = {
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
                  "decoder_sparse_step": 1},
    "gpt_oss": {"num_local_experts": 4, "head_dim": 8},
    "deepseek_v3": {"n_routed_experts": 4, "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1,
                    "first_k_dense_replace": 1, "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8,
                    "qk_nope_head_dim": 8, "v_head_dim": 8},
}  # fmt: skip


@pytest.mark.parametrize("kind", MIXTURES)
def test_what_stands_beside_a_mixture_of_experts_is_what_is_counted(kind: str, tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=32, max_position_embeddings=16, num_experts_per_tok=2, pad_token_id=0, **MIXTURES[kind],
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    model = build(tmp_path / "base", "causal-lm").eval()
    names = learning(model)
    assert all(".lora_" in name for name in names)
    assert not any(".experts." in name or ".gate." in name or "router" in name for name in names)
    assert any("mlp" in name for name in names) == (kind in ("qwen2_moe", "deepseek_v3")), "dense layers, shared ones"
    counted = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert counted == count_adapters(tmp_path / "base", 2, LORA, "causal-lm")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(std=0.1)
    ids = torch.randint(2, 40, (3, 7), generator=torch.Generator().manual_seed(1))
    adapted = model(input_ids=ids).logits
    merge(model)
    model.save_pretrained(tmp_path / "kept")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "kept").eval()
    assert_close(again(input_ids=ids).logits, adapted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lora", [None, LORA])
def test_in_bf16_the_record_is_that_of_the_saved_model(
    lora: Lora | None, language: Made, tiny_gpt2: Path, tmp_path: Path
) -> None:
    settings = RATE | {"precision": "bf16", "epochs": 1}
    trial = make_trial("causal-lm", model=spec(tiny_gpt2, lora), training=settings)
    result = train.train_trial(trial, language, save_to=tmp_path / "model")
    assert result["precision"] == "bf16"
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    ids = torch.tensor([row.tolist() for row in language.split("test").rows(range(len(language.split("test"))))])
    with torch.inference_mode():
        assert result["eval_loss"] == pytest.approx(float(model(input_ids=ids, labels=ids).loss), rel=2e-6)
