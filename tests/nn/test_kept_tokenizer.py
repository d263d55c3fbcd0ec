"""Checkpoints with tokenizers of all families, and configs that say otherwise: loaded plainly, the kept model gives the
record."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import plainly
import pytest
import torch
import transformers
from test_tasks import MACHINE, _asked, _pairs, _turned
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from rayscale.nn.training.train import train_trial
from rayscale.plan.draft import draft_plan
from rayscale.study.study import load_study
from rayscale.system.storage import Store
from rayscale.text.preparation import Here, prepare
from rayscale.text.tokens.encode import spec_of

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
         "max_position_embeddings": 64}  # fmt: skip
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
LONG = "and so it was that nobody saw them go "
COLUMNS = {
    "sequence-classification": "text: premise, text_pair: hypothesis, label: label",
    "question-answering": "question: question",
    "seq2seq": "source: en, target: de",
    "causal-lm": "text: text",
}


def _frame(tokenizer: Tokenizer, single: str, pair: str) -> None:
    ids = [(token, tokenizer.token_to_id(token)) for token in {part.partition(":")[0] for part in pair.split()}
           if not token.startswith("$")]  # fmt: skip
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)


def wordpiece(texts: list[str]) -> Tokenizer:
    """Cased, as BERT's."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special))
    _frame(tokenizer, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
    return tokenizer


def bytes_of(*special: str, frame: tuple[str, str] | None = None) -> Callable[[list[str]], Tokenizer]:
    """Byte-level BPE, as RoBERTa's and GPT-2's."""

    def make(texts: list[str]) -> Tokenizer:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=list(special), initial_alphabet=alphabet)
        tokenizer.train_from_iterator(texts, trainer)
        if frame:
            _frame(tokenizer, *frame)
        return tokenizer

    return make


def pieces_of(*special: str, frame: tuple[str, str]) -> Callable[[list[str]], Tokenizer]:
    """SentencePiece's unigrams, as T5's, ALBERT's and XLNet's."""

    def make(texts: list[str]) -> Tokenizer:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=list(special), unk_token="<unk>")
        tokenizer.train_from_iterator(texts, trainer)
        _frame(tokenizer, *frame)
        return tokenizer

    return make


@dataclass(frozen=True)
class Kind:
    """A checkpoint: its tokenizer, what its configs say, and what its kept tokenizer must give."""

    task: str
    model: str
    tokenizer: Callable[[list[str]], Tokenizer]
    config: dict[str, Any]
    head: str = "Model"
    sizes: dict[str, Any] = field(default_factory=dict)
    more: dict[str, str] = field(default_factory=dict)
    types: bool = False


PAIRS, ASKED = "sequence-classification", "question-answering"
BERT = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
ROBERTA = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "eos_token": "</s>",
           "bos_token": "<s>"}  # fmt: skip
OF_ROBERTA = bytes_of("<s>", "<pad>", "</s>", "<unk>", frame=("<s> $A </s>", "<s> $A </s> </s> $B </s>"))
OF_ALBERT = pieces_of("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]",
                      frame=("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"))  # fmt: skip
END = "<|endoftext|>"
KINDS = {
    "a cased BERT whose config lets transformers lower": Kind(
        PAIRS, "bert", wordpiece, {**BERT, "tokenizer_class": "BertTokenizer"}, types=True),
    "a config with kinds of tokens that the model lacks": Kind(
        PAIRS, "roberta", wordpiece,
        {**BERT, "tokenizer_class": "BertTokenizer", "do_lower_case": False,
         "model_input_names": ["input_ids", "token_type_ids", "attention_mask"]},
        sizes={"pad_token_id": 0, "type_vocab_size": 1}),
    "questions to RoBERTa": Kind(ASKED, "roberta", OF_ROBERTA, {**ROBERTA, "tokenizer_class": "RobertaTokenizer"},
                                 sizes={"pad_token_id": 1, "type_vocab_size": 1}),
    "ALBERT": Kind(
        PAIRS, "albert", OF_ALBERT,
        {**BERT, "pad_token": "<pad>", "unk_token": "<unk>", "tokenizer_class": "AlbertTokenizer"},
        sizes={"embedding_size": 16, "pad_token_id": 0}, types=True),
    "GPT-2 that pads on the left, without a token for it": Kind(
        PAIRS, "gpt2", bytes_of(END),
        {"eos_token": END, "bos_token": END, "unk_token": END, "tokenizer_class": "GPT2Tokenizer",
         "padding_side": "left", "truncation_side": "left", "model_max_length": int(1e30)},
        sizes={"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64, "eos_token_id": 0, "bos_token_id": 0}),
    "special tokens that tokenizer.json lacks": Kind(
        PAIRS, "bert", wordpiece, {**BERT, "tokenizer_class": "PreTrainedTokenizerFast"},
        more={"special_tokens_map.json": json.dumps({**BERT, "additional_special_tokens": ["cat"]}),
              "added_tokens.json": json.dumps({"dog": 400})}, types=True),
    "T5 that writes by beams": Kind(
        "seq2seq", "t5", pieces_of("<pad>", "</s>", "<unk>", frame=("$A </s>", "$A </s> $B </s>")),
        {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "T5Tokenizer",
         "extra_ids": 0},
        head="ForConditionalGeneration",
        sizes={"d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0},
        more={"generation_config.json": json.dumps(
            {"num_beams": 4, "length_penalty": 0.6, "early_stopping": True, "temperature": 0.6, "max_length": 5,
             "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0, "no_repeat_ngram_size": 3})}),
    "Llama with a template and a way to write": Kind(
        "causal-lm", "llama", bytes_of(END, "<|pad|>"),
        {"eos_token": END, "pad_token": "<|pad|>", "tokenizer_class": "LlamaTokenizer", "padding_side": "left",
         "add_bos_token": True},
        head="ForCausalLM", sizes={"eos_token_id": 0, "bos_token_id": 0, "use_cache": True},
        more={"chat_template.jinja": TEMPLATE, "additional_chat_templates/tools.jinja": "tools " + TEMPLATE,
              "generation_config.json": json.dumps({"temperature": 0.6, "do_sample": True, "eos_token_id": [0, 1]})}),
}  # fmt: skip


def _rows(task: str) -> list[dict[str, Any]]:
    draw = np.random.default_rng(3)
    if task == "causal-lm":
        return [{"text": " ".join(row["premise"] for row in (_pairs(draw) for _ in range(30)))} for _ in range(12)]
    make = {PAIRS: _pairs, ASKED: _asked, "seq2seq": _turned}[task]
    rows = [json.loads(text) for text in {json.dumps(make(draw)): None for _ in range(200)}][:72]
    if task == PAIRS:
        for row in rows[::5]:
            row["hypothesis"] = LONG * 2 + row["hypothesis"].upper()  # is cut, at the end
    return rows


def _checkpoint(kind: Kind, texts: list[str], folder: Path) -> None:
    tokenizer = kind.tokenizer(texts)
    config = transformers.AutoConfig.for_model(
        kind.model, **{**SIZES, "vocab_size": tokenizer.get_vocab_size() + 8, **kind.sizes}
    )
    torch.manual_seed(0)
    stem = type(config).__name__.removesuffix("Config")
    getattr(transformers, f"{stem}{kind.head}")(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in {"tokenizer_config.json": json.dumps(kind.config), **kind.more}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)


@pytest.mark.parametrize("name", KINDS)
def test_a_kept_checkpoint_loaded_plainly_gives_the_record(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    rows = _rows(kind.task)
    held = 1 if kind.task == "causal-lm" else 24
    for part, those in (("train", rows[held:]), ("test", rows[:held])):
        (tmp_path / f"{part}.jsonl").write_text("\n".join(map(json.dumps, those)))
    _checkpoint(kind, [str(text) for row in rows for text in row.values()], tmp_path / "base")
    grid = "tokens: [320]" if kind.task == "causal-lm" else "examples: [32]"
    (tmp_path / "study.yaml").write_text(f"""name: kept
task: {{type: {kind.task}, {COLUMNS[kind.task]}, max_length: 32}}
data: {{train: train.jsonl, test: test.jsonl, validation_fraction: 0.3, near_duplicates: null}}
models: [{{pretrained: base}}]
grid: {{{grid}, gpus: [1], seeds: 1}}
training: {{epochs: 2, global_batch: 8, learning_rate: 0.01}}
""")
    study = load_study(tmp_path / "study.yaml")
    (planned,) = draft_plan(study, MACHINE, Store.open(tmp_path / "run")).trials
    (prepared,) = prepare(study, [spec_of(planned.trial.model)], [0, 1], Here()).values()
    result = train_trial(planned.trial, prepared, save_to=tmp_path / "model")
    assert result["status"] == "ok", result
    given = rows[:held]
    if kind.task == "causal-lm":
        given = plainly.windows_of(tmp_path / "model", [row["text"] for row in given], 32)
    found = plainly.measure(tmp_path / "model", kind.task, given)
    assert found["eval_loss"] == pytest.approx(result["eval_loss"], rel=1e-5)
    score = {PAIRS: "accuracy", "seq2seq": "exact_match"}.get(kind.task)
    if score:
        assert found["right"] == pytest.approx(result[score], abs=1e-9)
    _, tokenizer = plainly.load(tmp_path / "model", kind.task)
    assert ("token_type_ids" in tokenizer("a", "b")) == kind.types
    if kind.task != "causal-lm":
        assert tokenizer.model_max_length == 32
    for file in kind.more.keys() & {"chat_template.jinja", "additional_chat_templates/tools.jinja"}:
        assert (tmp_path / "model" / file).read_text() == kind.more[file]
        assert set(tokenizer.chat_template) == {"default", "tools"}
        assert tokenizer.apply_chat_template([{"content": "hm"}], tokenize=False) == "hm"
    if kind.task in ("causal-lm", "seq2seq"):
        way = json.loads((tmp_path / "model" / "generation_config.json").read_text())
        asked = json.loads(kind.more["generation_config.json"])
        kept = {"temperature", "do_sample"} if kind.task == "causal-lm" else {"no_repeat_ngram_size", "pad_token_id"}
        assert {key: way.get(key) for key in (*kept, "eos_token_id")} == {
            key: asked[key] for key in (*kept, "eos_token_id")
        }
        assert json.loads((tmp_path / "model" / "config.json").read_text())["use_cache"] is True
