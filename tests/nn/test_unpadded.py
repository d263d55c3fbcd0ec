"""Encoders without padding: the mathematics of padded ones; and tables of which only the used rows are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from made import Made, encoder_sizes, make_trial
from safetensors.torch import load_file
from torch.testing import assert_close

from rayscale.nn.attention.dropout import Lines
from rayscale.nn.attention.grouped import Rows, attend
from rayscale.nn.attention.masks import leave_out_masks, spread_masks
from rayscale.nn.attention.unpadded import LAYERS, pack, unpad
from rayscale.nn.models import used_rows
from rayscale.nn.training import job
from rayscale.nn.training.batches import cut_bucketed_batches, cut_global_batches
from rayscale.nn.training.train import train_trial
from rayscale.runs.trial import ModelSpec

SIZES = encoder_sizes(16, 2, 40, 20)
LENGTHS = (3, 9, 5, 9, 1, 3)


def padded() -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.tensor([[int(place < length) for place in range(max(LENGTHS))] for length in LENGTHS])
    return torch.randint(2, 40, mask.shape).masked_fill(mask == 0, 1), mask


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification"])
def test_unpadded_is_padded(kind: str, head: str) -> None:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SIZES)
    model = getattr(transformers, f"AutoModelFor{head}").from_config(config, attn_implementation="sdpa").eval().double()
    (ids, mask), full = padded(), torch.randint(2, 40, (4, 7))

    def compute(ids: torch.Tensor, given: Any) -> list[torch.Tensor]:
        logits = model(input_ids=ids, attention_mask=given).logits
        if head == "TokenClassification" and given is not None:
            logits = logits * mask[..., None]
        model.zero_grad()
        logits.square().sum().backward()
        return [logits.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    before = compute(ids, mask), compute(full, None)
    unpad(model)
    filled = pack(mask.sum(1).numpy(), mask.shape[1], ids.device, fill=True)
    assert filled.idle
    after = compute(ids, mask), compute(full, None), compute(ids, filled)
    for padded_one, packed_one in zip((*before, before[0]), after, strict=True):
        for one, other in zip(padded_one, packed_one, strict=True):
            assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", LAYERS)
def test_masks_that_are_spread_beforehand_mask_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SIZES)
    make = transformers.AutoModelForTokenClassification
    model = make.from_config(config, attn_implementation="sdpa").eval().double()
    ids, mask = padded()
    before = model(input_ids=ids, attention_mask=mask).logits
    spread_masks(model)

    def asked(*_: object) -> None:
        raise AssertionError("the device was asked")

    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "__bool__", asked)
        patched.setattr(torch.Tensor, "item", asked)
        after = model(input_ids=ids, attention_mask=mask).logits
    assert_close(before[mask == 1], after[mask == 1], rtol=1e-9, atol=1e-9)


def test_a_decoder_without_masks_computes_the_same() -> None:
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 50, "n_positions": 12, "use_cache": False}
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.GPT2Config(**sizes, bos_token_id=None, eos_token_id=None), attn_implementation="sdpa"
    )
    ids, mask = padded()
    model = model.eval().double()
    before = model(input_ids=ids, attention_mask=mask).logits
    leave_out_masks(model)
    after = model(input_ids=ids, attention_mask=mask).logits
    assert not torch.equal(before, after)  # for padding
    assert_close(before[mask == 1], after[mask == 1], rtol=1e-9, atol=1e-9)


def test_attention_with_dropout_has_the_right_gradient() -> None:
    torch.manual_seed(1)
    sizes, groups = (3, 8, 8), (Rows(2, 1, 2), Rows(1, 1, 4))
    tensors = [torch.randn(size, 2, 3, dtype=torch.float64, requires_grad=True) for size in sizes]

    drop = Lines(torch.randint(-(2**31), 2**31, (3, 2, 2), dtype=torch.int32), 0.4)
    assert torch.autograd.gradcheck(lambda *given: attend(*given, groups, 0.5, drop), tensors)


@pytest.mark.parametrize("rest", [True, False])
def test_a_trial_is_the_same_padded_with_its_whole_vocabulary(
    classification: Made, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, rest: bool
) -> None:
    words = classification.split("train").values
    assert len(np.unique(words)) / 40 < 0.81  # some tokens occur nowhere
    monkeypatch.setattr(used_rows, "LARGEST_SHARE", 0.9 if rest else 0.0)
    trial = make_trial(model=ModelSpec("tiny", "pretrained", "bert", 2, path=str(tiny_bert)))
    here = train_trial(trial, classification, save_to=classification.path / "here")
    monkeypatch.setattr(job, "can_unpad", lambda model: False)
    monkeypatch.setattr(job, "rest_unused", lambda model, prepared: None)
    there = train_trial(trial, classification, save_to=classification.path / "there")
    for key in ("train_loss", "validation_loss", "eval_loss"):
        assert here[key] == pytest.approx(there[key], rel=1e-5)
    assert (here["params"], here["flops"]) == (there["params"], there["flops"])
    one, other = (load_file(classification.path / name / "model.safetensors") for name in ("here", "there"))
    assert one.keys() == other.keys()
    table = "bert.embeddings.word_embeddings.weight"
    assert_close(one[table], other[table], rtol=1e-4, atol=2e-5)


def test_bucketed_batches_hold_every_row_once_and_differ_little_in_length(classification: Made) -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1003)
    rows = np.random.default_rng(1).permutation(1003)
    bucketed, plain = cut_bucketed_batches(rows, lengths, 8, 3, 0), cut_global_batches(rows, 8)
    assert sorted(np.concatenate(bucketed)) == list(range(1003))
    assert sorted(map(len, bucketed)) == sorted(map(len, plain))
    spread = [np.mean([np.ptp(lengths[batch]) for batch in found]) for found in (bucketed, plain)]
    assert spread[0] < spread[1] / 10
    result = train_trial(make_trial(training={"batching": "bucketed"}), classification)
    assert result["steps"] == train_trial(make_trial(), classification)["steps"]
