"""Studies made on the spot, prepared in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rayscale.study.study import Data, Grid, Ladder, Study, Task

MakeStudy = Callable[..., Study]


@pytest.fixture(scope="session")
def make_study() -> MakeStudy:
    """A study of text files: `make_study(train, test=..., task="causal-lm", text=..., label=..., **data)`."""

    def make(
        train: str | Path,
        *,
        task: str = "sequence-classification",
        text: str = "text",
        label: str = "label",
        max_length: int | None = None,
        **data: Any,
    ) -> Study:
        data = {key: str(value) if isinstance(value, Path) else value for key, value in data.items()}
        lm = task == "causal-lm"
        return Study(
            name="study",
            task=Task(type=task, text=text, label=label, max_length=max_length),
            data=Data(train=str(train), **data),
            models=(Ladder(family="gpt2" if lm else "bert", sizes=("1x64",)),),
            grid=Grid(tokens=(1000,)) if lm else Grid(examples=(100,)),
        )

    return make


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A CSV of 400 different short texts with two labels."""
    path = tmp_path / "pets.csv"
    rows = [f"the {'cat' if i % 2 else 'dog'} number {i} runs home,{'cat' if i % 2 else 'dog'}\n" for i in range(400)]
    path.write_text("text,label\n" + "".join(rows))
    return path
