"""A small study on plain files, without Ray or torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

STUDY = """\
name: toy
task: {type: sequence-classification, text: text, label: label}
data:
  train: rows.csv
models:
  - {family: bert, sizes: [1x32, 2x64], vocabulary: 512}
grid: {examples: [20, 40, 80], gpus: [1], seeds: {20: 2}}
training: {epochs: 1, learning_rate: 1e-3}
run: {accelerator: cpu}
"""


def write_rows(folder: Path) -> None:
    """200 short rows of two classes."""
    rows = [f"row number {i} about {'cats' if i % 2 else 'dogs'},{'cat' if i % 2 else 'dog'}" for i in range(200)]
    (folder / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")


def write_tokenizer(folder: Path, size: int) -> None:
    """The two files of a tokenizer of words, with so many tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({f"w{number}": number for number in range(size)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"unk_token": "w0"}))


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    """A study file beside its data."""
    write_rows(tmp_path)
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return path
