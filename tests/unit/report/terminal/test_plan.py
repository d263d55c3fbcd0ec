"""The plan on the terminal: any width, any encoding; facts always, details on request, notes where one must decide."""

from __future__ import annotations

import pytest

from rayscale.report.terminal.plan import PlanView, details, facts, notes
from tests.unit.report.terminal.test_run import STRANGE, printed


@pytest.fixture
def plan(simulated) -> dict:
    plan = simulated.plan(simulated.trials())
    for row in plan["trials"]:
        row["model"] = STRANGE if row["model"] == "gpt2-3x128" else row["model"]
    return plan


def test_plan_is_one_row_per_model_with_totals(plan):
    text = printed(PlanView(plan), 120, "utf-8")
    assert STRANGE in text, "names are not markup"
    assert text.count("100 k to 800 k") == 3
    assert text.count("3/2/1/1") == 3
    assert "Total" in text
    assert " 42 " in text
    for words in ("slots", "GPU-hours", "cut 1 cell: ", "two_gpu_counts"):
        assert words in " ".join(text.split())
    assert "Time basis" not in text
    assert "Time basis" in printed(PlanView(plan, verbose=True), 120, "utf-8")


def test_a_narrow_terminal_gives_each_model_a_second_line(plan):
    assert printed(PlanView(plan), 60, "utf-8").count("seeds 3/2/1/1") == 3


@pytest.mark.parametrize("width", [60, 120])
@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_view_fits_the_terminal(plan, width, encoding):
    for verbose in (False, True):
        text = printed(PlanView(plan, verbose), width, encoding)
        assert max(map(len, text.splitlines())) <= width
        assert "\x1b" not in text


def test_plan_shows_memory_and_what_became_of_the_rows(plan):
    for row in plan["trials"]:
        row["peak_memory_bytes"] = 640 * 2**20
    plan["data"] = {
        "exact": True, "read": 1200, "train": 900, "validation": 100, "test": 150,
        "dropped": {"bad_row": 3, "empty": 0, "duplicate": 40, "in_validation": 0, "in_test": 7},
        "conflicting_labels": 2, "labels_not_in_training": ["rare", "odd", "one", "two"],
        "places_of_these": ["/far/test.csv:7", "/far/test.csv:9", "/far/test.csv:11", "/far/test.csv:2"],
        "tokens": {"gpt2-512": {"train": {"rows": 900, "truncated_rows": 9, "max_length": 32, "dropped_tokens": 12},
                                 "test": {"unread": 4}}},
    }  # fmt: skip
    text = " ".join(printed(PlanView(plan), 120, "ascii").split())
    for words in (
        "640 MiB",
        "3 cannot be used, 40 duplicates, 7 also",
        "4 labels not in the training rows",
        "learnt: rare (test.csv:7), odd (test.csv:9), one (test.csv:11), ...; add training rows with them",
    ):
        assert words in text
    assert "bad_rows.txt" not in text
    text = " ".join(printed(PlanView(plan, verbose=True), 120, "ascii").split())
    for words in ("up to 640 MiB for each worker", "bad_rows.txt", "2 dropped duplicates had another label",
                  "gpt2-512: 9 of 900 training rows are longer than 32 tokens and cut.",
                  "12 tokens after the last whole training window",
                  "truncation removed 4 targets from the test rows"):  # fmt: skip
        assert words in text


def test_a_check_that_passed_is_a_word_and_one_that_did_not_a_note():
    findings = [{"name": "rows", "level": "ok", "found": "all", "mend": ""},
                {"name": "lengths", "level": "warn", "found": "9 are cut", "mend": "raise task.max_length"},
                {"name": "tags", "level": "ok", "found": "entities are marked by BMES", "mend": ""}]  # fmt: skip
    plan = {"doctor": {"findings": findings}}
    assert facts(plan) == [("Tags", "entities are marked by BMES"), ("Data checks", "passed: rows")]
    assert notes(plan) == [("lengths", "9 are cut. Fix: raise task.max_length")]
    assert details(plan) == [("rows", "all")]


def test_plan_shows_money_with_its_currency(plan):
    plan["total"]["money"] = 1.5
    assert "1.50 USD" in printed(PlanView(plan), 120, "utf-8")


def test_plan_without_trials_and_with_one_size(plan):
    assert "Model" in printed(PlanView({"trials": [], "total": {}}), 60, "ascii")
    plan["trials"] = plan["trials"][:1]
    text = printed(PlanView(plan), 60, "ascii")
    assert "100 k" in text
    assert "seeds 1" in text
