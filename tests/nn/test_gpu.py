"""What only a GPU can show; skipped elsewhere. `test_unpadded` has what a CPU can of the same code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from made import LENGTH, Made, encoder_sizes, make_trial
from safetensors.torch import load_file
from torch.testing import assert_close

from rayscale.nn.attention.unpadded import LAYERS, unpad
from rayscale.nn.models.objectives import Inputs
from rayscale.nn.training import train
from rayscale.nn.training.cuda_graphs import CudaGraphs, Recorder, Recording
from rayscale.nn.training.kept_model import KeptModel
from rayscale.nn.training.train import train_trial
from rayscale.runs.trial import ModelSpec
from rayscale.study.lora import Lora

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU that torch can use")

LENGTHS = (3, 90, 50, 90, 1, 33, 128, 64)
SIZES = encoder_sizes(128, 4, 400, 140)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification"])
def test_unpadded_is_padded(kind: str, head: str, half: bool) -> None:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SIZES)
    model = getattr(transformers, f"AutoModelFor{head}").from_config(config, attn_implementation="sdpa").cuda()
    mask = torch.tensor([[int(place < length) for place in range(max(LENGTHS))] for length in LENGTHS])
    ids = torch.randint(2, 400, mask.shape).masked_fill(mask == 0, 1).cuda()

    def compute(bf16: bool) -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            logits = model(input_ids=ids, attention_mask=mask.cuda()).logits.float()
        if head == "TokenClassification":
            logits = logits * mask.cuda()[..., None]
        logits.square().sum().backward()
        return logits.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    padded = compute(False)
    unpad(model)
    for one, other in zip(padded, compute(half), strict=True):
        assert float((one - other).norm() / one.norm()) < (2e-2 if half else 1e-5)


def wide(family: str) -> ModelSpec:
    return ModelSpec(f"{family}-1x64", "family", family, 1, 64, 40)


@pytest.mark.parametrize("task", ["sequence-classification", "causal-lm"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recorded_steps_are_the_steps(
    classification: Made, language: Made, task: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[int] = []
    play = Recording.play
    monkeypatch.setattr(Recording, "play", lambda *given: played.append(1) or play(*given))
    made, family = (language, "gpt2") if task == "causal-lm" else (classification, "bert")
    settings = {"task_type": task, "model": wide(family), "data_requested": 12 * 53 if task == "causal-lm" else 53}
    results = []
    for recorded in (True, False):
        with monkeypatch.context() as patched:
            if not recorded:
                patched.setattr(train, "can_record", lambda job, model_type: False)
            patched.setattr(torch.nn.Dropout, "forward", lambda self, given: given)
            training = {"precision": precision, "epochs": 6}
            trial = make_trial(device="cuda", training=training, **settings)  # type: ignore[arg-type]
            results.append(train_trial(trial, made, device="cuda"))
        assert bool(played) == recorded
        played.clear()
    for column in ("train_loss", "validation_loss", "eval_loss"):
        assert results[0][column] == pytest.approx(results[1][column], rel=1e-4 if precision == "fp32" else 2e-2)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("task", ["sequence-classification", "causal-lm"])
def test_compiled_layers_train_alike(
    classification: Made,
    language: Made,
    task: str,
    precision: str,
    tiny_bert: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tiny = ModelSpec("tiny", "pretrained", "bert", 2, path=str(tiny_bert))  # neither has dropout
    made, spec, size = (language, wide("gpt2"), 12 * 53) if task == "causal-lm" else (classification, tiny, 53)
    found = []
    for compiled in (True, False):
        training = {"precision": precision, "epochs": 4, **({"compile": True} if compiled else {})}
        trial = make_trial(task, device="cuda", model=spec, data_requested=size, training=training)
        found.append(train_trial(trial, made, device="cuda"))
    for column in ("train_loss", "eval_loss"):
        assert found[0][column] == pytest.approx(found[1][column], rel=1e-4 if precision == "fp32" else 2e-2)
    assert "steps_not_recorded" not in caplog.text


def test_adapters(classification: Made, tiny_bert: Path) -> None:
    pytest.importorskip("peft")
    spec = ModelSpec("tiny", "pretrained", "bert", 2, path=str(tiny_bert), lora=Lora(rank=4))
    assert train_trial(make_trial(device="cuda", model=spec), classification, device="cuda")["status"] == "ok"


def test_a_trial_on_a_gpu_is_repeated_bit_for_bit(classification: Made) -> None:
    trial = make_trial(device="cuda", model=wide("bert"))
    one, other = (train_trial(trial, classification, device="cuda") for _ in range(2))
    assert (one["eval_loss"], one["train_loss"]) == (other["eval_loss"], other["train_loss"])


@pytest.mark.parametrize("kind", ["bert", "cut", "gpt2"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_trials_on_a_kept_model_are_those_on_new_ones_and_record_nothing_again(
    classification: Made, language: Made, tmp_path: Path, kind: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, made = ("causal-lm", language) if kind == "gpt2" else ("sequence-classification", classification)
    spec = wide(kind)
    if kind == "cut":  # most of its table rests, its body has dropout, a pooler and a new head
        sizes = encoder_sizes(64, 2, 60, 20) | {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
        transformers.BertModel(transformers.BertConfig(**sizes)).save_pretrained(tmp_path / "checkpoint")
        spec = ModelSpec("cut", "pretrained", "bert", 2, path=str(tmp_path / "checkpoint"))
    recorded: list[int] = []
    record = CudaGraphs.record
    monkeypatch.setattr(CudaGraphs, "record", lambda *given: recorded.append(1) or record(*given))
    tokens = LENGTH if task == "causal-lm" else 1
    settings = [(3, 53, 3e-3), (4, 160, 1e-2), (3, 53, 3e-3)]
    found: dict[str, list[Any]] = {}
    kept = KeptModel()
    for way, holder in (("built", None), ("kept", kept)):
        for number, (seed, rows, rate) in enumerate(settings):
            recorded.clear()
            training = {"precision": precision, "epochs": 6, "learning_rate": rate}
            trial = make_trial(
                task, device="cuda", model=spec, seed=seed, data_requested=rows * tokens, training=training
            )
            folder = tmp_path / f"{way}-{number}"
            result = train_trial(trial, made, device="cuda", kept=holder, save_to=folder)
            losses = [result[column] for column in ("train_loss", "validation_loss", "eval_loss")]
            weights = {name: each.tolist() for name, each in load_file(folder / "model.safetensors").items()}
            found.setdefault(way, []).append((losses, weights))
            found.setdefault(f"{way} peaks", []).append(result["peak_memory_bytes"])
            found.setdefault(f"{way} recordings", []).append(len(recorded))
    assert found["built"] == found["kept"]
    assert found["built"][0] == found["built"][2] != found["built"][1]
    assert found["built recordings"][2] > 0 == found["kept recordings"][2], "a trial that comes again has all it needs"
    assert found["kept recordings"][1] <= found["built recordings"][1]
    assert found["kept peaks"] == pytest.approx(found["built peaks"], rel=0.02)


def test_dropout_differs_from_replay_to_replay() -> None:
    model = torch.nn.Dropout(0.5).cuda()
    given = torch.ones(10_000, device="cuda", requires_grad=True)

    def compute(inputs: Inputs, factor: float | torch.Tensor) -> torch.Tensor:
        loss = (model(given) * inputs.ids).sum()
        (loss * factor).backward()
        return loss.detach()

    recorder = Recorder(compute, CudaGraphs())
    inputs = Inputs(torch.arange(10_000, device="cuda"), None, None)
    losses = [float(recorder(inputs, 0.5)) for _ in range(5)]
    assert len(set(losses)) == 5
    assert given.grad is not None
    assert_close(given.grad.mean().item(), 5 * 0.5 * 4999.5, rtol=0.05, atol=0)


def test_a_failed_recording_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    dropout, weight = torch.nn.Dropout(0.5), torch.ones(1000, device="cuda", requires_grad=True)

    def compute(inputs: Inputs, factor: float | torch.Tensor) -> torch.Tensor:
        loss = (dropout(weight) * inputs.ids).sum()
        loss.item()  # waits for the device, which no recording can hold
        (loss * factor).backward()
        return loss.detach()

    torch.manual_seed(3)
    recorder, inputs = Recorder(compute, CudaGraphs()), Inputs(torch.ones(1000, device="cuda"), None, None)
    found = [float(recorder(inputs, 1.0)) for _ in range(4)]
    assert recorder.failure is not None
    torch.manual_seed(3)
    assert found == [float(compute(inputs, 1.0)) for _ in range(4)]
    torch.cuda.empty_cache()
    played: list[int] = []
    play = Recording.play
    monkeypatch.setattr(Recording, "play", lambda *given: played.append(1) or play(*given))
    other = Recorder(lambda given, factor: (dropout(weight) * given.ids).sum().detach(), CudaGraphs())  # it succeeds
    assert len({float(other(inputs, 1.0)) for _ in range(4)}) == 4
    assert played


def test_pretrained_cut(classification: Made, tiny_bert: Path) -> None:
    spec = ModelSpec("tiny", "pretrained", "bert", 2, path=str(tiny_bert))
    assert train_trial(make_trial(device="cuda", model=spec), classification, device="cuda")["status"] == "ok"
