"""Layers compiled: the same numbers; what is said where they cannot be. What needs a GPU is in `test_gpu`."""

from __future__ import annotations

import pytest
import torch
import transformers
from made import Made, encoder_sizes, make_trial
from torch.testing import assert_close
from transformers.modeling_layers import GradientCheckpointingLayer

from rayscale.errors import TrialError
from rayscale.nn.models.layers import compile_layers, explain
from rayscale.nn.training.train import train_trial


def test_compiled_layers_compute_the_same() -> None:
    torch.manual_seed(0)
    sizes = {**encoder_sizes(16, 2, 50, 20), "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = transformers.AutoModelForSequenceClassification.from_config(transformers.BertConfig(**sizes))
    batches = [torch.randint(0, 50, (rows, width)) for rows, width in ((3, 7), (4, 9))]
    plain = [model(input_ids=ids).logits for ids in batches]
    compile_layers(model, backend="eager")  # follows the graph that is made, without a C compiler
    for logits, ids in zip(plain, batches, strict=True):
        assert_close(model(input_ids=ids).logits, logits)
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    assert len(layers) == sizes["num_hidden_layers"]
    assert all(layer._compiled_call_impl is not None for layer in layers)


def test_a_cpu_is_refused(classification: Made) -> None:
    with pytest.raises(TrialError, match=r"training\.compile is for CUDA devices") as caught:
        train_trial(make_trial(training={"compile": True}), classification)
    assert caught.value.permanent


def test_a_failure_to_compile_is_explained() -> None:
    def fail(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> None:
        raise RuntimeError("Failed to find C compiler")

    with pytest.raises(RuntimeError) as caught:
        torch.compile(torch.nn.Linear(2, 2), backend=fail)(torch.ones(1, 2))
    told = explain(caught.value)
    assert told is not None
    assert "Failed to find C compiler" in str(told)
    assert "install gcc" in str(told)
    assert explain(RuntimeError("something else")) is None
