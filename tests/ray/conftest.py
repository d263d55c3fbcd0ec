"""One small study on a local Ray. Tiny models, two worker slots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rayscale.on_ray.session.session import Session, connect
from tests.ray.started import Started

WORDS = ("the", "a", "cat", "dog", "bird", "runs", "sleeps", "eats", "fast", "slow", "red", "blue", "big", "house")

STUDY = """\
name: toy
task: {type: sequence-classification, text: text, label: label, max_length: 32}
data: {train: rows.csv, near_duplicates: null}
models:
  - {family: bert, sizes: [1x32, 2x32], vocabulary: 400}
grid: {examples: [40, 80, 160], gpus: [1, 2]}
training: {epochs: 1, global_batch: 16, learning_rate: 2e-3}
run: {accelerator: cpu}
"""


def write_study(folder: Path, text: str = STUDY) -> Path:
    """A study file beside 400 different rows of two learnable classes."""
    rows = []
    for i in range(400):
        words = [WORDS[(i * 7 + j * j * 3 + i // 18) % len(WORDS)] for j in range(4 + i % 9)]
        rows.append(f"{' '.join(words)} number {i},{'animal' if i % 2 else 'place'}{' ' if i % 3 else ''}")
    (folder / "rows.csv").write_text("text,label\n" + "\n".join(row.strip() for row in rows) + "\n")
    path = folder / "study.yaml"
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def _nothing_runs_on() -> Iterator[None]:
    """A test that fails leaves no command running that would fail the next."""
    yield
    for command in Started.started:
        command.process.kill()
    Started.started.clear()


@pytest.fixture(scope="class")
def session() -> Iterator[Session]:
    """A local Ray with this machine's slots: one for each test, or for the tests of a class."""
    with connect("local", "cpu", 60) as found:
        yield found
