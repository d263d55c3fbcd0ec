"""A trial on a model that others have trained before is, in all bits, the trial on a new one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from made import LABELS, LENGTH, Made, make_classification, make_language, make_pairs, make_split, make_trial
from resume_worker import InterruptedTrialError, interrupted_in, saved_after, saving
from test_resume import timeless

from rayscale.errors import MemoryTrialError
from rayscale.nn.models import build as models
from rayscale.nn.models.objectives import Inputs
from rayscale.nn.models.used_rows import UsedRows
from rayscale.nn.training import cuda_graphs, job, kept_model
from rayscale.nn.training import train as train_module
from rayscale.nn.training.cuda_graphs import Recorder
from rayscale.nn.training.kept_model import KeptModel
from rayscale.nn.training.train import train_trial
from rayscale.on_ray.event_text import event_text
from rayscale.on_ray.lanes.worker import _Worker
from rayscale.runs.trial import ModelSpec, Trial
from rayscale.study.lora import Lora

WORDS = 60  # of which the texts use so few that the others rest


def make_checkpoint(folder: Path) -> Path:
    """A BERT with dropout and a large vocabulary, without a pooler."""
    config = transformers.BertConfig(vocab_size=WORDS, hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
                                     intermediate_size=32, max_position_embeddings=16)  # fmt: skip
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder / "checkpoint")
    return folder / "checkpoint"


def cut(folder: Path) -> ModelSpec:
    return ModelSpec("cut", "pretrained", "bert", 2, path=str(make_checkpoint(folder)))


CASES: dict[str, Callable[[Path], tuple[Trial, Made]]] = {
    "bert": lambda folder: (make_trial(), make_classification(folder)),
    "gpt2": lambda folder: (make_trial("causal-lm"), make_language(folder)),
    "t5": lambda folder: (
        make_trial("seq2seq", model=ModelSpec("t5-1x16", "family", "t5", 1, 16, 40)), make_pairs(folder)
    ),
    "cut": lambda folder: (make_trial(model=cut(folder)), make_classification(folder)),
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Trial, Made]:
    return CASES[request.param](tmp_path)


def changed(trial: Trial, **training: Any) -> Trial:
    return replace(trial, training={**trial.training, **training})


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_trial_after_others_equals_one_alone(case: tuple[Trial, Made], tmp_path: Path) -> None:
    trial, made = case
    alone = train_trial(trial, made, save_to=tmp_path / "alone")
    other = replace(changed(trial, learning_rate=0.02, epochs=3), seed=8, data_requested=trial.data_requested // 2)
    kept = KeptModel()
    first = train_trial(trial, made, save_to=tmp_path / "first", kept=kept)
    ready = kept._ready
    assert ready is not None
    assert train_trial(changed(other, early_stopping=1), made, save_to=tmp_path / "other", kept=kept)["status"] == "ok"
    second = train_trial(trial, made, save_to=tmp_path / "second", kept=kept)
    assert train_trial(changed(other, learning_rate=1e30), made, kept=kept)["status"] == "diverged"
    third = train_trial(trial, made, save_to=tmp_path / "third", kept=kept)
    assert kept._ready is ready
    assert isinstance(ready._rows, UsedRows) == (trial.model.kind == "pretrained")
    for name, each in {"first": first, "second": second, "third": third}.items():
        assert timeless(each) == timeless(alone), name
        assert files(tmp_path / name) == files(tmp_path / "alone"), name
    assert files(tmp_path / "other")["model.safetensors"] != files(tmp_path / "alone")["model.safetensors"]


def test_a_trial_goes_on_from_its_savepoint_in_a_model_of_another(tmp_path: Path) -> None:
    trial, made = CASES["cut"](tmp_path)
    whole, kept, keep = train_trial(trial, made, save_to=tmp_path / "whole"), KeptModel(), saving(tmp_path, print)
    with saved_after(9), interrupted_in(12), pytest.raises(InterruptedTrialError):
        train_trial(trial, made, saving=keep, kept=kept)
    assert kept._ready is None, "the model of a trial that failed is not used again"
    train_trial(replace(trial, seed=8), made, kept=kept)
    ready = kept._ready
    pieces = train_trial(trial, made, saving=keep, save_to=tmp_path / "pieces", kept=kept)
    assert kept._ready is ready is not None
    assert timeless(pieces) == timeless(whole)
    assert files(tmp_path / "pieces") == files(tmp_path / "whole")


def test_what_makes_another_model_drops_the_kept_one_before_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, made = CASES["cut"](tmp_path)
    trial = changed(trial, epochs=1)
    more = made.having(test=make_split([*made.split("test").rows(range(61)), np.array([2, 5, 3])],
                                       np.append(made.split("test").labels, 0)))  # fmt: skip
    deeper = replace(trial, model=replace(trial.model, layers=3))
    kept, there = KeptModel(), []
    build = kept_model.build_model
    monkeypatch.setattr(kept_model, "build_model", lambda *a, **more: there.append(kept._ready) or build(*a, **more))
    train_trial(trial, made, kept=kept)
    others = [(replace(each, data_requested=8), data) for each, data in [
        (deeper, made), (trial, made), (trial, more), (changed(trial, precision="bf16"), more),
        (changed(trial, optimizer="sgd"), more), (trial, replace(more, labels=[*LABELS, "yak"])),
    ]]  # fmt: skip
    for number, (other, data) in enumerate(others, 2):
        ready = kept._ready
        train_trial(other, data, kept=kept)
        assert kept._ready not in (ready, None)
        assert there == [None] * number
    monkeypatch.undo()
    adapted = replace(trial, model=replace(trial.model, lora=Lora(rank=2)))
    train_trial(replace(adapted, data_requested=8), more, kept=kept)
    assert kept._ready is None


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Passes are recorded on this CPU: a replay runs the pass of the trial that recorded it, on the tensors of then."""
    numbers: list[int] = []

    def record(self: Recorder, inputs: Any) -> Any:
        run, held, factor = self._run, cuda_graphs._copied(inputs), torch.zeros(())
        model, loss = inspect.getclosurevars(run).nonlocals["parallel"], torch.zeros(())

        def places() -> list[Any]:
            return [(each.data_ptr(), each.grad is not None and each.grad.data_ptr()) for each in model.parameters()]

        then = places()

        def replay() -> None:
            assert places() == then, "a graph would read other weights, or write other gradients"
            loss.copy_(run(held, factor))

        numbers.append(1)
        graph: Any = SimpleNamespace(replay=replay)
        return cuda_graphs._Recording(graph, list(cuda_graphs._tensors(held)), factor, loss, 1000)

    monkeypatch.setattr(train_module, "can_record", lambda job, model_type: True)
    monkeypatch.setattr(job, "can_unpad", lambda model: False)  # what is packed for a CPU has other sizes than tensors'
    monkeypatch.setattr(Recorder, "__call__", Recorder._pass)
    monkeypatch.setattr(Recorder, "_record", record)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10**12)
    return numbers


@pytest.mark.parametrize("name", ["gpt2", "cut"])
def test_what_was_recorded_serves_the_next_trial_where_it_would_have_been_recorded(
    name: str, tmp_path: Path, recorded: list[int]
) -> None:
    trial, made = CASES[name](tmp_path)
    other = replace(changed(trial, learning_rate=0.02), seed=8, data_requested=trial.data_requested * 2)
    alone = train_trial(trial, made, save_to=tmp_path / "alone")
    alone_recorded, kept = len(recorded), KeptModel()
    assert alone_recorded > 0
    for number, each in enumerate([trial, other, changed(other, learning_rate=1e30), trial]):
        recorded.clear()
        result = train_trial(each, made, save_to=tmp_path / str(number), kept=kept)
        if each == trial:
            assert timeless(result) == timeless(alone)
            assert result["peak_memory_bytes"] == alone["peak_memory_bytes"] == 10**12 + 1000
            assert files(tmp_path / str(number)) == files(tmp_path / "alone")
        assert len(recorded) == (alone_recorded if number == 0 else 0) or each is other
    assert kept._ready is not None
    assert kept._ready.recorder._run is None, "nothing of the trial is held on to"


@pytest.mark.usefixtures("recorded")
def test_a_recording_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Recorder, inputs: Any) -> None:
        raise RuntimeError("operation not permitted\nwhen a stream is capturing")

    monkeypatch.setattr(Recorder, "_record", fail)
    trial, made = CASES["gpt2"](tmp_path)
    events: list[dict[str, Any]] = []
    kept = KeptModel()
    result = train_trial(trial, made, saving=replace(saving(tmp_path / "run", events.append), seconds=300.0), kept=kept)
    assert result["status"] == "ok"
    assert not kept.holds
    told = [event for event in events if event["event"] == "steps_not_recorded"]
    assert [event["reason"] for event in told] == ["operation not permitted"]
    assert "without CUDA graphs, which is slower: operation not permitted." in str(event_text(told[0]))


def test_recordings_that_no_trial_plays_make_room(recorded: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "MOST", 2)
    parallel = torch.nn.Linear(1, 1)

    def run(inputs: Inputs, factor: Any) -> torch.Tensor:
        return parallel.weight.detach().sum() * 0

    recorder = Recorder(run)

    def trial(*sizes: int) -> list[int]:
        recorder.begin(run)
        recorded.clear()
        for size in sizes:
            recorder(Inputs(torch.zeros(size), None, None), 1.0)
        recorder.end()
        return [len(recorded), len(recorder._recordings)]

    assert trial(1, 1, 2, 2, 3, 3, 3) == [2, 2]
    assert trial(1, 1, 2, 2) == [0, 2]
    assert trial(3, 3, 3, 2, 2) == [1, 2]
    assert trial(1, 1, 3, 3) == [1, 2]


@pytest.mark.parametrize("holds", [True, False])
def test_a_trial_that_lacks_memory_beside_a_kept_model_is_tried_without(tmp_path: Path, holds: bool) -> None:
    worker = _Worker(None, 0, None, 0, 1, "cuda:0")  # type: ignore[arg-type]
    trial, made = CASES["bert"](tmp_path)
    if holds:
        worker._measure(trial, made)
    assert worker.kept.holds == holds
    train, tries = worker.train.train_trial, []

    def lacking(*given: Any, kept: KeptModel, **more: Any) -> dict[str, Any]:
        tries.append(kept._ready)
        if len(tries) == 1:
            kept._ready = None
            raise MemoryTrialError("out of memory", 8)
        return train(*given, **more, kept=kept)

    worker.train = SimpleNamespace(train_trial=lacking)
    if holds:
        assert worker._measure(trial, made)["micro_batch"] == 8
        assert tries[0] is not tries[1] is None
    else:
        with pytest.raises(MemoryTrialError):
            worker._measure(trial, made)


def test_a_cpu_keeps_none() -> None:
    assert _Worker(None, 0, None, 0, 1, "cpu").kept is None  # type: ignore[arg-type]


SIZES = {"vocab_size": WORDS, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "dim": 16,
         "intermediate_size": 32, "max_position_embeddings": 20, "n_layers": 2, "n_heads": 2, "hidden_dim": 32,
         "embedding_size": 8, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 20, "d_model": 16,
         "num_layers": 2, "num_heads": 2, "d_kv": 8, "d_ff": 32, "pad_token_id": 0, "eos_token_id": 1}  # fmt: skip
ENCODERS = ["bert", "roberta", "distilbert", "electra", "albert"]


@pytest.mark.parametrize(
    ("kind", "task"),
    [(kind, f"{task}-classification") for kind in [*ENCODERS, "gpt2", "llama", "t5"] for task in ("sequence", "token")]
    + [(kind, "question-answering") for kind in [*ENCODERS, "gpt2"]]
    + [("gpt2", "causal-lm"), ("llama", "causal-lm"), ("t5", "seq2seq")],
)
def test_new_weights_are_drawn_again_as_a_new_model_draws_them(kind: str, task: str, tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model(kind, **SIZES)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)

    def build(seed: int) -> Any:
        spec = ModelSpec("m", "pretrained", kind, 2, path=str(tmp_path))
        labels = list(LABELS) if "classification" in task else []
        return models.build_model(spec, task, labels=labels, vocab_size=WORDS, max_length=LENGTH, seed=seed,
                                  checkpoint=tmp_path)  # fmt: skip

    def weights(model: Any) -> dict[str, Any]:
        return {name: each.tolist() for name, each in (*model.named_parameters(), *model.named_buffers())}

    one, other = build(5), build(6)
    tied = (kind, task) in (("gpt2", "causal-lm"), ("t5", "seq2seq"))  # nothing is new
    assert (weights(one) == weights(other)) == tied
    models.draw_again(other, 5)
    assert weights(one) == weights(other)
