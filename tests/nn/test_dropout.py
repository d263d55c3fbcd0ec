"""Dropout by row: the masks of a row, whatever stands beside it; their share and their independence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from made import Made, encoder_sizes, make_trial
from torch.nn import functional
from torch.testing import assert_close

from rayscale.nn.attention.dropout import (
    FLAT,
    NOT_BY_ROW,
    Lines,
    Masks,
    by_row,
    may_drop,
    row_keys,
    step_key,
    window_keys,
)
from rayscale.nn.attention.unpadded import LAYERS, pack, unpad
from rayscale.nn.training import job
from rayscale.nn.training.train import train_trial
from rayscale.runs.trial import ModelSpec

LENGTHS = np.array([5, 9, 12, 9, 3, 7])
DROPPED = dict.fromkeys(
    ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "seq_classif_dropout",
     "activation_dropout", "embd_pdrop", "attn_pdrop", "resid_pdrop", "dropout_rate"),
    0.3,
)  # fmt: skip


def keys(rows: Any, step: int = 0, seed: int = 3) -> torch.Tensor:
    return torch.from_numpy(row_keys(step_key(seed, step), np.asarray(rows)))


def draw(share: float, shape: tuple[int, ...], step: int = 0, seed: int = 3, sites: int = 4) -> torch.Tensor:
    """Which elements of tensors of this shape, whose rows are 0 and following, are dropped at each of some dropouts."""
    masks = Masks(keys(range(shape[0]), step, seed))
    places = masks.places(torch.Size(shape))
    assert places is not None
    return torch.stack([masks.lines(places, share).factors(shape[-1]) == 0 for _ in range(sites)]).float()


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_share_is_dropped_and_neighbours_have_nothing_in_common(share: float) -> None:
    shape = (16, 20, 96)
    found, sd = draw(share, shape), (share * (1 - share)) ** 0.5
    factors = Lines(torch.randint(-(2**31), 2**31, (1000, 2), dtype=torch.int32), share).factors(100)
    assert factors.unique().tolist() == pytest.approx([0, 1 / (1 - share)])
    assert float(found.mean()) == pytest.approx(share, abs=5 * sd / found.numel() ** 0.5)
    others = draw(share, shape, step=1), draw(share, shape, seed=4)
    shifted = [found.roll(1, dimension) for dimension in range(4)]  # another site, row, token, column
    for other in (*others, *shifted):
        together = float(((found - share) * (other - share)).sum()) / (sd**2 * found.numel() ** 0.5)
        assert abs(together) < 5  # standard deviations
    in_lines = found.sum(-1).var() / (96 * share * (1 - share))
    assert float(in_lines) == pytest.approx(1, abs=5 * (2 / found[..., 0].numel()) ** 0.5)


def compute(model: Any, rows: list[int], ids: torch.Tensor, mask: torch.Tensor, packed: bool = False) -> torch.Tensor:
    """One number for each of these rows."""
    width = int(LENGTHS[rows].max())
    given, shown = ids[rows][:, :width], mask[rows][:, :width]
    flat = width if model.config.model_type in FLAT else None
    masks, attention = Masks(keys(rows), width=flat), shown
    if packed:
        attention = pack(LENGTHS[rows], width, ids.device)
        tokens = attention.numbers(masks.rows)
        masks = Masks(masks.rows, (tokens, tokens[attention.firsts]))
    more = {"decoder_input_ids": given} if model.config.is_encoder_decoder else {}
    torch.manual_seed(5)
    with torch.no_grad(), by_row(masks):
        logits = model(input_ids=given, attention_mask=attention, **more).logits.double()
    return logits if logits.dim() == 2 else (logits * shown[..., None]).sum(1)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.from_numpy((np.arange(LENGTHS.max()) < LENGTHS[:, None]).astype(np.int64))
    ids = torch.from_numpy(np.random.default_rng(0).integers(3, 40, mask.shape))
    return ids.masked_fill(mask == 0, 1), mask


def strengthen(model: Any) -> Any:
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.15)
    return model.train()


MORE = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "opt": {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 2},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    "bart": {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
             "encoder_attention_heads": 4, "decoder_attention_heads": 4},
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
    "llama": {"num_key_value_heads": 2},
}  # fmt: skip


@pytest.mark.parametrize("kind", ["gpt2", "opt", "llama", "deberta-v2", "bart", "t5", "roberta", "albert"])
def test_masks_do_not_depend_on_the_rows_beside(kind: str) -> None:
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(
        kind, **{**encoder_sizes(32, 4, 40, 20), **DROPPED, "use_cache": False, **MORE.get(kind, {})}
    )
    config.eos_token_id = config.decoder_start_token_id = 2
    heads = {"bart": "Seq2SeqLM", "t5": "Seq2SeqLM", **dict.fromkeys(("gpt2", "opt", "llama"), "CausalLM")}
    head = getattr(transformers, f"AutoModelFor{heads.get(kind, 'TokenClassification')}")
    model, (ids, mask) = strengthen(head.from_config(config)), batch()
    whole = compute(model, [0, 1, 2, 3, 4, 5], ids, mask)
    parts = torch.cat([compute(model, rows, ids, mask) for rows in ([0], [1, 4], [2, 3, 5])])
    assert_close(parts, whole[[0, 1, 4, 2, 3, 5]], rtol=1e-4, atol=1e-4)
    kept = compute(model.eval(), [0, 1, 2, 3, 4, 5], ids, mask)
    assert float((kept - whole).norm() / whole.norm()) > 0.1
    assert kind not in NOT_BY_ROW


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification"])
def test_masks_do_not_depend_on_padding(kind: str, head: str) -> None:
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(kind, **{**encoder_sizes(32, 4, 40, 20), **DROPPED})
    make = getattr(transformers, f"AutoModelFor{head}")
    model, (ids, mask) = strengthen(make.from_config(config, attn_implementation="sdpa")), batch()
    rows = [3, 1, 4, 2, 0, 5]
    padded = compute(model, rows, ids, mask)
    unpad(model)
    assert_close(compute(model, rows, ids, mask, packed=True), padded, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_that_drops_is_that_of_pytorch(masked: bool) -> None:
    torch.manual_seed(2)
    query, key, value = torch.randn(3, 4, 6, 8), torch.randn(3, 2, 6, 8), torch.randn(3, 2, 6, 8)
    mask = torch.rand(3, 1, 6, 6) > 0.4 if masked else None
    if mask is not None:
        mask[..., 0] = True
    told: dict[str, Any] = {"is_causal": not masked, "scale": 0.3, "enable_gqa": True}
    with by_row(Masks(keys(range(3)))):
        plain, nearly = (
            functional.scaled_dot_product_attention(query, key, value, mask, share, **told) for share in (0.0, 1e-9)
        )
        half = functional.scaled_dot_product_attention(query, key, value, mask, 0.5, **told)
    assert_close(nearly, plain)
    assert float((half - plain).norm() / plain.norm()) > 0.3


def test_padding_that_sees_no_token_has_numbers_too() -> None:
    query, key, value = (torch.randn(2, 1, 4, 8, requires_grad=True) for _ in range(3))
    mask = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    mask[0, 0, 3] = False
    with by_row(Masks(keys(range(2)))):
        found = functional.scaled_dot_product_attention(query, key, value, mask, 0.5)
    found.sum().backward()
    assert not found[0, 0, 3].any()
    assert all(bool(each.grad.isfinite().all()) for each in (query, key, value) if each.grad is not None)


def test_outside_a_pass_dropout_is_that_of_pytorch() -> None:
    before = functional.dropout, functional.scaled_dot_product_attention
    with by_row(Masks(keys([0]))):
        assert functional.dropout is not before[0]
    assert (functional.dropout, functional.scaled_dot_product_attention) == before
    with by_row(Masks(keys(range(4)))):
        layer = torch.nn.Dropout(0.3)
        assert len(layer(torch.ones(4, 250, dtype=torch.bfloat16)).unique()) == 2
        assert layer.eval()(torch.ones(4, 5)).unique().tolist() == [1.0]
        assert functional.dropout(torch.ones(4, 5), 1.0).unique().tolist() == [0.0]


def test_windows_have_keys_of_their_own_that_follow_their_row() -> None:
    owners = np.array([0, 0, 0, 1, 2, 2])
    found = window_keys(row_keys(7, np.array([10, 11, 12])), owners)
    assert len(set(found.tolist())) == 6
    assert window_keys(row_keys(7, np.array([12, 10])), np.array([0, 0, 1])).tolist() == [*found[4:], found[0]]


@pytest.mark.parametrize("task", ["sequence-classification", "causal-lm"])
def test_micro_batches_change_nothing_where_there_is_dropout(
    classification: Made, language: Made, tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    made, trial = classification, make_trial()
    if task == "causal-lm":
        made, trial = language, make_trial(task, model=ModelSpec("g", "pretrained", "gpt2", 2, path=str(tiny_gpt2)))
    whole = train_trial(trial, made)
    monkeypatch.setattr(job, "micro_batch_rows", lambda trial: 3)
    pieces = train_trial(trial, made)
    monkeypatch.setattr(Lines, "factors", lambda self, columns: torch.ones(*self.seeds.shape[:-1], columns))
    without = train_trial(trial, made)
    assert pieces["micro_batch"] == 3
    for key in ("train_loss", "validation_loss", "eval_loss"):
        assert pieces[key] == pytest.approx(whole[key], rel=1e-5)
        assert abs(without[key] / whole[key] - 1) > 1e-4


def test_whether_a_model_may_drop_is_seen_in_its_config_and_its_modules() -> None:
    config = transformers.BertConfig(**encoder_sizes(32, 4, 40, 20))
    model = transformers.BertModel(config)
    assert not may_drop(model)
    model.encoder.layer[0].attention.output.dropout.p = 0.1
    assert may_drop(model)
    assert may_drop(transformers.BertModel(transformers.BertConfig(**{**encoder_sizes(32, 4, 40, 20), **DROPPED})))
