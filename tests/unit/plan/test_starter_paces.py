"""`init` chooses a batch and epochs with which the smallest size learns, and suggests what the task can use."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayscale.errors import InputError
from rayscale.plan.starter import Chosen, write_starter
from rayscale.study.study import load_study


@pytest.mark.parametrize(
    ("smallest", "classes", "batch_and_epochs"),
    [
        (1000, 2, (32, 3)),
        (1000, 77, (8, 6)),
        (2000, 77, (8, 3)),
        (4000, 77, (16, 3)),
        (50, 2, (8, 12)),
        (16_000, 150, (32, 3)),
    ],
)
def test_the_smallest_size_gets_enough_steps(smallest: int, classes: int, batch_and_epochs: tuple[int, int]) -> None:
    chosen = Chosen("sequence-classification", {}, (smallest, 8 * smallest), "", classes=classes)
    assert chosen.batch_and_epochs == batch_and_epochs


def test_a_file_with_many_classes_gets_a_study_that_says_its_steps(tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("text,label\n" + "".join(f"row {i} of class {i % 20},c{i % 20}\n" for i in range(1000)))
    write_starter(None, data, tmp_path / "study.yaml")
    study = load_study(tmp_path / "study.yaml")
    assert (study.training.global_batch, study.epochs) != (32, 3)
    assert "steps at the smallest size" in (tmp_path / "study.yaml").read_text()


def test_a_study_of_language_models_suggests_no_bert(tmp_path: Path) -> None:
    write_starter("causal-lm", None, tmp_path / "study.yaml")
    assert "MiniLM" not in (tmp_path / "study.yaml").read_text()


def test_semicolons_are_named_as_the_wrong_separator(tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("text;label\n" + "".join(f"row {i};c{i % 2}\n" for i in range(50)))
    with pytest.raises(InputError, match=r"rows.csv:1: its columns look separated by semicolons; save the file with"):
        write_starter(None, data, tmp_path / "study.yaml")
