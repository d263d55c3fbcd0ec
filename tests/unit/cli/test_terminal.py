"""What a person is told before a run: what is done, what is left, how long that takes."""

from __future__ import annotations

from pathlib import Path

from rayscale.cli.terminal import standing_text
from rayscale.plan.plan import make_plan
from rayscale.study.study import load_study
from rayscale.system.machine import Machine
from tests.unit.plan.test_plan import SUPPLY


def test_what_is_left_counts_records_and_not_what_is_passed_over(study_file: Path) -> None:
    plan = make_plan(load_study(study_file), Machine("cpu", 2, "x", "this machine"), SUPPLY)
    every = plan.trials
    assert len(every) == 8
    assert standing_text(plan, every, 0) == ""
    assert standing_text(plan, every[:1], 0).startswith("1 of 8 trials will run, about ")  # --only in an empty folder
    assert standing_text(plan, every[:1], 7).startswith("7 trials have a record already; 1 is left to run, about ")
    assert standing_text(plan, every[:7], 1).startswith("1 trial has a record already; 7 are left to run, about ")
    assert standing_text(plan, (), 8) == "All 8 trials have a record already; nothing to train."
