"""Every text architecture of the installed transformers: it trains and its kept model, loaded by transformers alone,
gives the loss of the record; or the plan refuses it by name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from made_architectures import EOS, PAD, ROWS, Case, rewrite, save_checkpoint, save_tokenizer, tiny_config
from matrix import LABELS, Outcome, try_case, write_study
from transformers import AutoModel
from transformers.models.auto import modeling_auto
from transformers.utils import logging as transformers_logging

from rayscale.errors import InputError, StudyError
from rayscale.plan import heads
from rayscale.plan.plan import model_specs
from rayscale.study.study import load_study

TEXTS, TOKENS, ANSWERS = "sequence-classification", "token-classification", "question-answering"
MOST = 1e-6  # between record and kept model: float32 on one CPU, in batches of another shape

KINDS = {
    TEXTS: ("albert", "bart", "bloom", "canine", "deberta-v2", "distilbert", "electra", "falcon", "fnet", "gemma2",
            "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "llama", "mistral", "mpnet", "openai-gpt", "opt",
            "phi3", "qwen2", "qwen3", "t5", "xlm", "xlnet"),
    "multi-label": ("distilbert", "gpt2"),
    TOKENS: ("bert", "camembert", "convbert", "layoutlm", "modernbert", "roberta", "xlm-roberta"),
    ANSWERS: ("distilbert", "longformer", "mbart", "splinter"),
    "seq2seq": ("bart", "fsmt", "m2m_100", "marian", "mt5", "pegasus"),
    "causal-lm": ("gemma3_text", "gpt_oss", "granite", "jamba", "mamba", "mixtral", "olmo2", "qwen2_moe"),
}  # fmt: skip

OWL_FIRST = dict(enumerate(("owl", "cat", "dog")))
#: Checkpoints with something unusual.
CASES = {
    "no padding token, several ends": Case("llama", TEXTS, pad=False, config={"eos_token_id": [EOS, 9, 10]}),
    "-1 for no padding": Case("llama", TEXTS, pad=False, edit=partial(rewrite, pad_token_id=-1)),
    "padding beyond the embedding": Case("mistral", TEXTS, pad=False, edit=partial(rewrite, pad_token_id=ROWS)),
    "a tokenizer's padding token alone": Case("gpt_neox", TEXTS, pad=True, edit=partial(rewrite, pad_token_id=None)),
    "no padding for tokens": Case("gpt2", TOKENS, pad=False),
    "no padding for answers": Case("gpt2", ANSWERS, pad=False),
    "files in shards": Case("bert", TEXTS, shard="20KB"),
    "float16": Case("qwen3", TEXTS, dtype=torch.float16),
    "a head for labels of another order": Case(
        "bert", TEXTS, headed=True, config={"id2label": OWL_FIRST, "label2id": {v: k for k, v in OWL_FIRST.items()}}
    ),
    "a head of a regression": Case(
        "roberta", TEXTS, headed=True, config={"num_labels": 1, "problem_type": "regression"}
    ),
    "cut": Case("bart", "seq2seq", layers=1),
    "cut where layers have types": Case("gemma2", TEXTS, layers=1),
}


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """What transformers says of sizes that no real model has."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    yield
    transformers_logging.set_verbosity(level)
    transformers_logging.enable_progress_bar()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepared text goes with the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def holds(outcome: Outcome) -> None:
    assert outcome.planned == outcome.built
    assert outcome.difference < MOST, (outcome.record, outcome.plain)


@pytest.mark.parametrize(("task", "kind"), [(task, kind) for task, kinds in KINDS.items() for kind in kinds])
def test_the_kept_model_of_a_kind_is_that_of_the_record(task: str, kind: str, tmp_path: Path) -> None:
    holds(try_case(Case(kind, task), tmp_path))


@pytest.mark.parametrize("name", CASES)
def test_an_unusual_checkpoint_trains_as_well(name: str, tmp_path: Path) -> None:
    outcome = try_case(CASES[name], tmp_path)
    holds(outcome)
    if CASES[name].task == TEXTS:
        assert outcome.config.problem_type == "single_label_classification"
        assert list(outcome.config.label2id) == list(LABELS)


REFUSED = {
    "neither padding nor end": (
        Case("gpt2", TEXTS, edit=lambda folder: (rewrite(folder, eos_token_id=None, bos_token_id=None),
                                                 (folder / "tokenizer_config.json").write_text("{}"))),
        "names no token that pads or ends a text"),
    "a shard is missing": (
        Case("bert", TEXTS, shard="20KB", edit=lambda folder: sorted(folder.glob("*.safetensors"))[1].unlink()),
        r"lacks 1 of the \d files that model.safetensors.index.json lists, such as model-00002"),
    "sizes in parts": (Case("t5gemma", "seq2seq"), r"'t5gemma' checkpoint, whose config.json keeps its sizes in parts "
                                                   r"\((encoder, decoder|decoder, encoder)\)"),
    "chunks": (Case("reformer", TEXTS), "'reformer' checkpoint, which reads texts only in multiples"),
    "both ways": (Case("xlnet", "causal-lm"), "'xlnet' checkpoint, which reads both ways"),
    "images": (Case("bert", TEXTS,
                    edit=partial(rewrite, model_type="gemma3", text_config={"model_type": "gemma3_text"})),
               r"'gemma3' checkpoint, which reads images, sound or pages as well as text; "
               r"give one of its text part alone \('gemma3_text'\)"),
    "fewer layers in the files": (Case("roberta", TEXTS, edit=partial(rewrite, num_hidden_layers=3)),
                                  "has 2 layers, 3 were asked for"),
}  # fmt: skip


def test_layers_that_cannot_be_left_out_are_refused_at_their_key(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"models.0.layers: .*'xlstm' checkpoint, whose layers cannot be left out"):
        try_case(Case("xlstm", "causal-lm", layers=1), tmp_path)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_train_is_refused_by_the_plan_at_its_line(name: str, tmp_path: Path) -> None:
    case, said = REFUSED[name]
    with pytest.raises(StudyError, match=rf"study.yaml:5: models.0.pretrained: .*{said}"):
        try_case(case, tmp_path)


@pytest.mark.parametrize("kind", heads.AFTER_PADDING)
def test_the_positions_of_a_kind_are_as_many_as_it_reads(kind: str) -> None:
    config = tiny_config(kind, **({"pad_token_id": 1} if kind == "mpnet" else {}))
    longest = heads.positions_of(lambda key: getattr(config, key, None))
    model = AutoModel.from_config(config).eval()
    assert longest
    with torch.no_grad():
        model(input_ids=torch.full((1, longest), PAD + 1))
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, longest + 1), PAD + 1))


EVERY = [
    (task, kind)
    for task, table in heads.TABLES.items()
    if task != "multi-label"
    for kind in getattr(modeling_auto, table)
]


@pytest.mark.faults
@pytest.mark.parametrize(("task", "kind"), EVERY)
def test_every_architecture_trains_or_is_refused_by_name(task: str, kind: str, tmp_path: Path) -> None:
    outcome = refused = None
    try:
        heads.check_head("here", {"model_type": kind}, task)
        outcome = try_case(Case(kind, task), tmp_path)
    except InputError as error:
        refused = error
    if outcome:
        holds(outcome)
    else:
        assert isinstance(refused, StudyError) or str(refused).startswith("here"), "refused after the plan"
        assert f"'{kind}' checkpoint, wh" in str(refused)


def test_a_tokenizer_that_transformers_would_read_as_another_one_is_refused_where_a_model_is_kept(
    tmp_path: Path,
) -> None:
    case = Case("qwen2", TEXTS, edit=lambda folder: save_tokenizer(folder, "decoder", pad=False))
    path = write_study(tmp_path, case, save_checkpoint(case, tmp_path / "checkpoint"))
    study = path.read_text()
    with pytest.raises(StudyError, match="not byte-level BPE, and transformers reads that of every 'qwen2' checkpoint"):
        model_specs(load_study(path))
    path.write_text(study.replace("run: {", "run: {keep: none, "))
    assert model_specs(load_study(path))
