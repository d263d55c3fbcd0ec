"""What must not change unmeant: ids, fits, the words of a report. `python -m tests.golden.make` writes them anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden.make import GOLDEN, simulated, trial_ids

WORDS = ("law", "target", "outcome", "rows_used")


def test_trial_ids_are_those_of_the_golden_record(tmp_path: Path) -> None:
    assert trial_ids(tmp_path) == json.loads((GOLDEN / "trial_ids.json").read_text())


def test_fits_and_words_of_a_simulated_study_are_those_of_the_golden_record(tmp_path: Path) -> None:
    facts, words = simulated(tmp_path)
    golden = json.loads((GOLDEN / "fit.json").read_text())
    for fit, known in zip(facts["fits"], golden["fits"], strict=True):
        assert [fit[name] for name in WORDS] == [known[name] for name in WORDS]
        if known["objective"] is not None:
            assert fit["objective"] == pytest.approx(known["objective"], rel=1e-3)
    for axis, known in golden["doubling"].items():
        numbers = {name: value for name, value in known.items() if isinstance(value, float)}
        assert {name: facts["doubling"][axis][name] for name in numbers} == pytest.approx(numbers, rel=1e-3)
    assert words == (GOLDEN / "report.txt").read_text()
