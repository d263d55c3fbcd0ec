"""A trial: it learns, accumulates exactly, reports what it did, and leaves nothing behind."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made import LABELS, LENGTH, VOCABULARY, Made, make_split, make_tagged, make_trial
from resume_worker import InterruptedTrialError, interrupted_in, saved_after, saving
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rayscale.errors import DataError, TrialError
from rayscale.nn import devices
from rayscale.nn.attention import grouped
from rayscale.nn.training import course, job, train
from rayscale.nn.training.train import train_trial
from rayscale.runs.trial import ModelSpec
from rayscale.text.prepared import Ragged

CLOCKED = {"train_seconds", "eval_seconds", "examples_per_second", "tokens_per_second", "peak_memory_bytes"}


def numbers(result: dict[str, Any]) -> str:
    """All that a trial measured but time and memory, bit for bit."""
    return json.dumps({k: v for k, v in result.items() if k not in CLOCKED})


def test_classifier_learns(classification: Made) -> None:
    trial = make_trial(data_requested=300, training={"epochs": 6, "learning_rate": "auto"})
    result = train_trial(trial, classification)
    majority = np.bincount(classification.split("test").labels).max() / 61
    assert result["status"] == "ok"
    assert result["eval_loss"] < 0.7 < math.log(3)
    assert result["accuracy"] > majority + 0.2
    assert result["validation_loss"] < result["curve"][0]["train_loss"]


def test_language_model_learns(language: Made) -> None:
    trial = make_trial("causal-lm", data_requested=300 * LENGTH, training={"epochs": 4, "learning_rate": 1e-2})
    result = train_trial(trial, language)
    tokens = language.split("test").values
    shares = np.bincount(tokens) / len(tokens)
    unigram = -float(np.sum(shares[shares > 0] * np.log(shares[shares > 0])))
    assert result["eval_loss"] < unigram - 1
    assert result["perplexity"] == pytest.approx(math.exp(result["eval_loss"]))
    # A window's first token is no target; the others stand for 1 + id % 3 characters, special ones for none.
    targets = np.concatenate([row[1:] for row in language.split("test").rows(range(31))])
    characters = int((1 + targets[targets > 1] % 3).sum())
    assert len(targets) == 31 * (LENGTH - 1)
    assert result["bits_per_token"] == pytest.approx(result["eval_loss"] / math.log(2))
    assert result["bits_per_character"] == pytest.approx(result["bits_per_token"] * len(targets) / characters)


@pytest.mark.parametrize(
    "training",
    [{"optimizer": "sgd", "learning_rate": 0.1}, {"optimizer": "adafactor", "learning_rate": 1e-2},
     {"schedule": "constant_with_cooldown", "learning_rate": 3e-3}],
)  # fmt: skip
def test_other_optimizers_and_schedules_learn_and_go_on_bit_for_bit(
    classification: Made, tmp_path: Path, training: dict[str, Any]
) -> None:
    trial = make_trial(data_requested=300, training={"epochs": 3, **training})
    whole = train_trial(trial, classification)
    assert whole["eval_loss"] < 1.0 < math.log(3)
    keep = saving(tmp_path, lambda event: None)
    with saved_after(30), interrupted_in(60), pytest.raises(InterruptedTrialError):
        train_trial(trial, classification, saving=keep)
    assert numbers(train_trial(trial, classification, saving=keep)) == numbers(whole)


def test_a_plateau_slows_and_early_stopping_takes_the_best_weights_also_in_pieces(
    classification: Made, tmp_path: Path
) -> None:
    watched = {"epochs": 20, "learning_rate": 2e-2, "schedule": "plateau", "early_stopping": 3, "plateau_factor": 0.25}
    trial = make_trial(training=watched)
    whole = train_trial(trial, classification)
    seen = {p["step"]: p["validation_loss"] for p in whole["curve"] if p["validation_loss"] is not None}
    best = min(seen, key=lambda step: seen[step])
    assert list(seen) == list(range(7, whole["steps"] + 1, 7)), "the end of every epoch"
    assert whole["steps"] == best + 3 * 7 < 20 * 7
    assert whole["epochs"] == pytest.approx(whole["steps"] / 7)
    assert whole["validation_loss"] == seen[best]
    rates = {p["step"]: p["learning_rate"] for p in whole["curve"]}
    assert rates[best + 14] == pytest.approx(rates[best + 7] / 4)
    keep = saving(tmp_path, lambda event: None)
    with saved_after(best + 3), interrupted_in(best + 5), pytest.raises(InterruptedTrialError):
        train_trial(trial, classification, saving=keep)
    assert numbers(train_trial(trial, classification, saving=keep)) == numbers(whole)


def test_record_says_what_was_done(language: Made) -> None:
    result = train_trial(make_trial("causal-lm"), language)
    assert (result["examples"], result["tokens"], result["epochs"]) == (53, 53 * LENGTH, 2)
    assert (result["steps"], result["global_batch"], result["micro_batch"]) == (14, 8, 8)
    assert (result["optimizer"], result["schedule"], result["precision"]) == ("adamw", "linear", "fp32")
    per_token = 6 * (result["params_non_embedding"] + 40 * 16) + 12 * 1 * 16 * LENGTH
    assert result["flops"] == 2 * 53 * LENGTH * per_token
    assert result["tokens_per_second"] == pytest.approx(LENGTH * result["examples_per_second"])
    assert (result["mfu"], result["accuracy"], result["error"]) == (None, None, None)
    measured = devices.restart_memory_peak(torch.device("cpu"))  # not every system does
    assert (result["peak_memory_bytes"] or 0) > 1 << 20 if measured else result["peak_memory_bytes"] is None
    json.dumps(result, allow_nan=False)


def test_speed_leaves_out_the_first_steps_and_the_pauses(language: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    class Clock:
        """A second for each of the first three of 14 steps, a tenth for the others, a hundred for each validation."""

        def perf_counter(self) -> float:
            return now[0]

    def step(*given: Any) -> torch.Tensor:
        steps.append(len(given[5]))
        now[0] += 1.0 if len(steps) <= 3 else 0.1
        return original_step(*given)

    def slow_evaluate(*given: Any, **more: Any) -> Any:
        now[0] += 100.0
        return original_evaluate(*given, **more)

    steps: list[int] = []
    original_step, original_evaluate = train.take_step, train.evaluate
    monkeypatch.setattr(train, "time", Clock())
    monkeypatch.setattr(course, "time", Clock())
    monkeypatch.setattr(train, "take_step", step)
    monkeypatch.setattr(train, "evaluate", slow_evaluate)
    result = train_trial(make_trial("causal-lm"), language)
    assert len(steps) == result["steps"] == 14
    assert result["examples_per_second"] == pytest.approx(sum(steps[3:]) / 1.1)
    assert result["tokens_per_second"] == pytest.approx(sum(steps[3:]) * LENGTH / 1.1)
    assert result["train_seconds"] == pytest.approx(3 * 1.0 + 11 * 0.1)


def test_curve(classification: Made) -> None:
    curve = train_trial(make_trial(data_requested=300, training={"epochs": 3}), classification)["curve"]
    assert 38 <= len(curve) <= 53
    assert [point["step"] for point in curve if point["validation_loss"] is not None] == [38, 76, 114]
    assert max(point["learning_rate"] for point in curve) <= 3e-3


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_accumulation_changes_nothing(
    classification: Made, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, micro_batch: int
) -> None:
    trial = make_trial(model=ModelSpec("tiny", "pretrained", "bert", 2, path=str(tiny_bert)))
    whole = train_trial(trial, classification)
    monkeypatch.setattr(job, "micro_batch_rows", lambda trial: micro_batch)
    pieces = train_trial(trial, classification)
    assert pieces["micro_batch"] == micro_batch
    for key in ("train_loss", "validation_loss", "eval_loss", "flops"):
        assert pieces[key] == pytest.approx(whole[key], rel=1e-5)


@pytest.mark.row
@pytest.mark.parametrize("task", ["sequence-classification", "causal-lm"])
def test_checkpointing_computes_layers_twice_and_changes_nothing(
    classification: Made, language: Made, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    computed = [0]

    def count(*given: Any, **more: Any) -> Any:
        computed[0] += 1
        return attend(*given, **more)

    classifies = task == "sequence-classification"
    owner, name = (grouped, "attend") if classifies else (torch.nn.functional, "scaled_dot_product_attention")
    attend = getattr(owner, name)
    monkeypatch.setattr(owner, name, count)
    family = "bert" if classifies else "gpt2"
    model, found = ModelSpec("two", "family", family, 2, 16, VOCABULARY), []
    for twice in (False, True):
        computed[0] = 0
        trial = make_trial(task, model=model, training={"gradient_checkpointing": twice, "epochs": 1})
        result = train_trial(trial, classification if classifies else language)
        found.append((computed[0], {key: result[key] for key in ("train_loss", "validation_loss", "eval_loss")}))
    assert found[0][0] < found[1][0]
    assert found[0][1] == found[1][1]


def test_row_15_a_loss_that_is_no_number_is_a_result_of_its_own_kind(language: Made) -> None:
    result = train_trial(make_trial("causal-lm", training={"learning_rate": 1e30}), language)
    assert result["status"] == "diverged"
    assert "learning_rate was 1e+30" in result["error"]
    assert result["eval_loss"] is None
    assert result["steps"] < 14
    json.dumps(result, allow_nan=False)


def test_progress(language: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayscale.nn.training.heartbeat.PROGRESS_SECONDS", 0.0)
    told: list[dict[str, Any]] = []
    train_trial(make_trial("causal-lm"), language, progress=told.append)
    assert list(dict.fromkeys(each["phase"] for each in told)) == ["load", "train", "validation", "test"]
    assert [each["step"] for each in told if each["phase"] == "train"][-1] == 14
    assert told[-1]["steps"] == 14
    assert told[-1]["train_loss"] is not None


@pytest.mark.parametrize("task", ["sequence-classification", "causal-lm"])
def test_saved_model_loads_and_repeats_the_loss(
    task: str, classification: Made, language: Made, tmp_path: Path
) -> None:
    made = language if task == "causal-lm" else classification
    folder = tmp_path / "models" / "t"
    folder.mkdir(parents=True)
    result = train_trial(make_trial(task), made, save_to=folder)
    assert sorted(p.name for p in folder.parent.iterdir()) == ["t"]
    assert (folder / "tokenizer.json").exists()
    auto = AutoModelForCausalLM if task == "causal-lm" else AutoModelForSequenceClassification
    model = auto.from_pretrained(folder).eval()
    test, losses = made.split("test"), []
    with torch.inference_mode():
        for number, row in enumerate(test.rows(range(len(test)))):
            ids = torch.tensor(row[None], dtype=torch.int64)
            labels = ids if task == "causal-lm" else torch.tensor(test.labels[number : number + 1], dtype=torch.int64)
            losses.append(float(model(input_ids=ids, labels=labels).loss))
    assert np.mean(losses) == pytest.approx(result["eval_loss"], rel=1e-4)
    if task != "causal-lm":
        assert model.config.id2label == dict(enumerate(LABELS))


def test_a_trial_leaves_nothing_behind(classification: Made, language: Made, tiny_bert: Path) -> None:
    trials = [
        (make_trial(), classification),
        (make_trial("causal-lm"), language),
        (make_trial(model=ModelSpec("tiny", "pretrained", "bert", 2, path=str(tiny_bert))), classification),
    ]
    first = [numbers(train_trial(*each)) for each in trials]

    def fail(_: dict[str, Any]) -> None:
        raise RuntimeError("stopped in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        train_trial(make_trial("causal-lm", seed=9), language, progress=fail)
    # What a careless neighbour may have left.
    torch.manual_seed(5)
    random.seed(5)
    torch.set_default_dtype(torch.float64)
    try:
        assert [numbers(train_trial(*each)) for each in reversed(trials)] == first[::-1]
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_global_state_comes_back(language: Made) -> None:
    def state() -> list[Any]:
        return [
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_rng_state().sum().item(),
            torch.is_grad_enabled(),
            np.random.get_state()[1].sum(),
            random.getstate(),
        ]

    before = state()
    train_trial(make_trial("causal-lm", threads=2, data_requested=2 * LENGTH), language)
    assert state() == before
    with pytest.raises(DataError):
        train_trial(make_trial("causal-lm", data_requested=3), language)
    assert state() == before


def test_seeds_differ(language: Made) -> None:
    losses = {train_trial(make_trial("causal-lm", seed=seed), language)["eval_loss"] for seed in range(3)}
    assert len(losses) == 3


def test_bf16_on_a_cpu(language: Made) -> None:
    result = train_trial(make_trial("causal-lm", training={"precision": "bf16"}), language)
    full = train_trial(make_trial("causal-lm"), language)
    assert result["precision"] == "bf16"
    assert result["eval_loss"] == pytest.approx(full["eval_loss"], rel=0.02)


def test_tf32_is_refused_where_there_is_none(language: Made) -> None:
    with pytest.raises(TrialError, match="a CPU has no TF32; set training") as error:
        train_trial(make_trial("causal-lm", training={"precision": "tf32"}), language)
    assert (error.value.code, error.value.permanent) == ("no_tf32", True)


def test_without_validation_rows(language: Made) -> None:
    result = train_trial(make_trial("causal-lm"), language.having(validation=make_split([])))
    assert (result["status"], result["validation_loss"]) == ("ok", None)


def test_batches_whose_targets_were_all_cut_teach_nothing_and_a_split_without_any_is_refused(tmp_path: Path) -> None:
    made = make_tagged(tmp_path)
    train = made.split("train")
    cut = train.lists["targets"].values.copy()
    trial = make_trial("token-classification", training={"global_batch": 1})
    first = int(made.subset("examples", trial.data_requested, trial.seed)[0])
    cut[int(train.starts[first]) : int(train.starts[first] + train.lengths[first])] = -100
    split = replace(train, lists={"targets": Ragged(cut, np.append(train.starts, len(cut)))})
    result = train_trial(trial, made.having(train=split))
    assert (result["status"], result["steps"]) == ("ok", 2 * trial.data_requested)
    bare = replace(train, lists={"targets": Ragged(np.full_like(cut, -100), np.append(train.starts, len(cut)))})
    for name in ("train", "validation", "test"):
        with pytest.raises(DataError, match=r"has a target within task.max_length \(12 tokens\); raise it"):
            train_trial(trial, made.having(**{name: bare}))


def test_wrong_data(language: Made, classification: Made, tmp_path: Path) -> None:
    for made, code in (
        (language.having(test=make_split([])), "too_little_data"),
        (language.having(test=make_split([np.arange(LENGTH + 1)])), "too_long"),
    ):
        with pytest.raises(DataError) as caught:
            train_trial(make_trial("causal-lm"), made)
        assert caught.value.code == code
    with pytest.raises(TrialError, match="tokenizer"):
        train_trial(make_trial(), replace(classification, path=classification.path / "none"), save_to=tmp_path / "m")
