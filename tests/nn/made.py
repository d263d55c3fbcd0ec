"""Prepared data and trials made for the tests of `nn`, with the attributes of the real ones."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel

from rayscale.runs.trial import ModelSpec, Trial
from rayscale.study.sections import Task
from rayscale.system.disk import write_file
from rayscale.text.prepared import Ragged, Split

VOCABULARY = 40
LABELS = ("cat", "dog", "owl")
LENGTH = 12


@dataclass(frozen=True)
class Made:
    """Prepared data in memory; subsets are prefixes of a seeded permutation, as those of Prepared are."""

    path: Path
    splits: dict[str, Split]
    labels: list[str]
    vocab_size: int = VOCABULARY
    token_ids: dict[str, int] = field(default_factory=lambda: {"pad": 0, "eos": 1})

    @property
    def tokenizer_folder(self) -> Path:
        return self.path / "tokenizer"

    def split(self, name: str) -> Split:
        return self.splits[name]

    def subset(self, axis: str, requested: int, seed: int) -> np.ndarray:
        rows = requested // LENGTH if axis == "tokens" else requested
        return np.random.default_rng(seed).permutation(len(self.splits["train"]))[:rows]

    def having(self, **splits: Split) -> Made:
        """The same with other splits."""
        return replace(self, splits={**self.splits, **splits})


def make_split(rows: list[np.ndarray], labels: np.ndarray | None = None) -> Split:
    """A split of these rows of token ids."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    values = np.concatenate(rows).astype(np.int32) if rows else np.zeros(0, np.int32)
    return Split(values, np.cumsum(lengths) - lengths, lengths, labels, np.arange(len(rows), dtype=np.uint64))


def make_classification(folder: Path) -> Made:
    """Texts of 3 to 12 tokens; the label is the class of words (10-12, 13-15, 16-18) that fill most of the text."""
    draw = np.random.default_rng(7)

    def make(n: int) -> Split:
        labels = draw.integers(0, 3, n).astype(np.int32)
        rows = []
        for label in labels:
            body = draw.integers(19, VOCABULARY, draw.integers(1, 11))
            body[draw.random(len(body)) < 0.7] = 10 + 3 * label + draw.integers(0, 3)
            rows.append(np.concatenate([[2], body, [3]]))
        return make_split(rows, labels)

    return _with_tokenizer(Made(folder, {"train": make(300), "validation": make(40), "test": make(61)}, list(LABELS)))


def make_tagged(folder: Path) -> Made:
    """Sentences of 3 to 12 pieces, of which some carry a tag: that of the group of three that the piece belongs to."""
    draw = np.random.default_rng(13)

    def make(n: int) -> Split:
        rows = [draw.integers(10, VOCABULARY, draw.integers(3, 13)) for _ in range(n)]
        tags = [np.where(draw.random(len(row)) < 0.6, (row - 10) // 3 % 3, -100) for row in rows]
        split = make_split(rows)
        return replace(
            split, lists={"targets": Ragged(np.concatenate(tags).astype(np.int32), np.cumsum([0, *map(len, tags)]))}
        )

    return _with_tokenizer(
        Made(folder, {"train": make(300), "validation": make(40), "test": make(61)}, ["O", "B-X", "B-Y"])
    )


def make_topics(folder: Path) -> Made:
    """Texts of 3 to 12 tokens with any number of three classes: those whose words (10-12, 13-15, 16-18) it holds."""
    draw = np.random.default_rng(17)

    def make(n: int) -> Split:
        rows = [draw.integers(10, VOCABULARY, draw.integers(3, 13)) for _ in range(n)]
        classes = [np.unique((row[row < 19] - 10) // 3) for row in rows]
        borne = Ragged(np.concatenate(classes).astype(np.int32), np.cumsum([0, *map(len, classes)]))
        return replace(make_split(rows), lists={"classes": borne})

    return _with_tokenizer(Made(folder, {"train": make(300), "validation": make(40), "test": make(61)}, list(LABELS)))


def make_language(folder: Path, ragged: bool = False) -> Made:
    """Windows of a chain in which every token has two successors: the loss can fall from ln 40 to ln 2.

    Ragged windows have 4 to 12 tokens. Token i stands for 1 + i % 3 characters; 0 and 1 are special and stand for none.
    """
    draw = np.random.default_rng(11)
    follow = draw.integers(0, VOCABULARY, (VOCABULARY, 2))

    def make(n: int) -> Split:
        rows = []
        for _ in range(n):
            row = [int(draw.integers(0, VOCABULARY))]
            for _ in range(int(draw.integers(3, LENGTH)) if ragged else LENGTH - 1):
                row.append(int(follow[row[-1], draw.integers(0, 2)]))
            rows.append(np.asarray(row))
        return make_split(rows)

    return _with_tokenizer(Made(folder, {"train": make(300), "validation": make(20), "test": make(31)}, []))


def make_pairs(folder: Path) -> Made:
    """Windows of a chain, and what follows on their first tokens, to be written."""
    made = make_language(folder)
    splits = {}
    for name, split in made.splits.items():
        rows = split.rows(range(len(split)))
        targets = Ragged(np.concatenate([row[:4] for row in rows]), 4 * np.arange(len(rows) + 1))
        splits[name] = replace(
            split, lists={"targets": targets}, texts={"reference": pa.chunked_array([["c"] * len(rows)])}
        )
    return made.having(**splits)


def _with_tokenizer(made: Made) -> Made:
    tokenizer = Tokenizer(WordLevel({chr(99 + i) * (1 + i % 3): i for i in range(VOCABULARY)}, chr(99)))
    tokenizer.decoder = Fuse()
    tokenizer.add_special_tokens([chr(99), chr(100) * 2])
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": chr(99), "eos_token": chr(100) * 2}
    made.tokenizer_folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("tokenizer.json", tokenizer.to_str()), ("tokenizer_config.json", json.dumps(config))):
        write_file(made.tokenizer_folder / name, content.encode())  # several ranks may make it
    return made


def make_trial(
    task_type: str = "sequence-classification", *, training: dict[str, Any] | None = None, **fields: Any
) -> Trial:
    """A tiny trial; keywords replace fields, those of `training` one by one."""
    family = "gpt2" if task_type == "causal-lm" else "bert"
    settings = {
        "epochs": 2,
        "global_batch": 8,
        "batching": "random",
        "learning_rate": 3e-3,
        "optimizer": "adamw",
        "schedule": "linear",
        "warmup": 0.1,
        "precision": "auto",
        "weight_decay": 0.01,
    }
    values: dict[str, Any] = {
        "trial_id": "t",
        "study": "s",
        "task": Task.model_validate({"type": task_type, "max_length": LENGTH}),
        "model": ModelSpec(f"{family}-1x16", "family", family, 1, 16, VOCABULARY),
        "data_axis": "tokens" if task_type == "causal-lm" else "examples",
        "data_requested": 12 * 53 if task_type == "causal-lm" else 53,
        "gpus": 1,
        "seed": 3,
        "augment": "none",
        "training": settings | (training or {}),
        "device": "cpu",
        "threads": 1,
        "data_fingerprint": "f",
    }
    return Trial(**(values | fields))


def encoder_sizes(width: int, heads: int, vocabulary: int, positions: int) -> dict[str, Any]:
    """Settings of an encoder of 2 layers and 3 classes without dropout, by the names of all architectures."""
    return {
        "hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": heads, "intermediate_size": 2 * width,
        "vocab_size": vocabulary, "max_position_embeddings": positions, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "num_labels": 3, "pad_token_id": 1, "dim": width, "hidden_dim": 2 * width,
        "n_layers": 2, "n_heads": heads, "dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0,
        "embedding_size": width,
    }  # fmt: skip
