"""The plan, the progress and the verdict in the terminal: any width, any encoding."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from rayscale.report.terminal.run import (
    RunningTrial,
    Snapshot,
    encodable,
    plan_table,
    progress_line,
    progress_view,
    verdict_lines,
)  # fmt: skip

STRANGE = "[red]模型[/red]"
SNAPSHOT = Snapshot(
    done=12, failed=1, waiting=27, eta_seconds=151.0, gpu_seconds=320.0, law_line="loss falls 6 % per doubling",
    last_error="RuntimeError: \x1b[31mworker 1\nwas killed", elapsed_seconds=72.0, phase="training",
    running=(
        RunningTrial("a1", "gpt2-3x128", 400_000, 2, 120, 195, 5.31, 12.2),
        RunningTrial("b2", STRANGE + " with a very long name indeed", 800_000, 1, None, None, None, 1.1),
    ),
)  # fmt: skip


def printed(renderable, width: int, encoding: str) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    Console(file=stream, width=width, force_terminal=False).print(renderable)
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.fixture
def plan(simulated) -> dict:
    plan = simulated.plan(simulated.trials())
    for row in plan["trials"]:
        row["model"] = STRANGE if row["model"] == "gpt2-3x128" else row["model"]
    return plan


@pytest.mark.parametrize("width", [60, 120])
@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_views_fit_the_terminal(plan, width, encoding):
    for view in (plan_table(plan), progress_view(SNAPSHOT)):
        text = printed(view, width, encoding)
        assert max(map(len, text.splitlines())) <= width
        assert "\x1b" not in text


def test_plan_is_one_row_per_model_with_totals(plan):
    text = printed(plan_table(plan), 120, "utf-8")
    assert STRANGE in text, "names are not markup"
    assert text.count("100 k to 800 k") == 3
    assert text.count("seeds 3/2/1/1") == 3
    assert "Total" in text
    assert " 42 " in text
    for said in ("on cpu", "GPU-hours", "Basis of the estimate", "Cut: 1 cell ", "two_gpu_counts"):
        assert said in " ".join(text.split())


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
    text = " ".join(printed(plan_table(plan), 120, "ascii").split())
    for said in ("640 MiB", "Memory: up to 640 MiB for each worker", "3 cannot be used, 40 duplicates, 7 also",
                 "bad_rows.txt", "2 dropped duplicates had another label", "4 labels not in the training rows",
                 "learnt: rare (test.csv:7), odd (test.csv:9), one (test.csv:11), ...; give training rows of them",
                 "gpt2-512: 9 of 900 training rows are longer than 32 tokens and cut.",
                 "12 tokens after the last whole training window",
                 "4 targets of the test rows went"):  # fmt: skip
        assert said in text


def test_plan_shows_money_with_its_currency(plan):
    plan["total"]["money"] = 1.5
    assert "1.50 USD" in printed(plan_table(plan), 120, "utf-8")


def test_plan_without_trials_and_with_one_size(plan):
    assert "Model" in printed(plan_table({"trials": [], "total": {}}), 60, "ascii")
    plan["trials"] = plan["trials"][:1]
    text = printed(plan_table(plan), 60, "ascii")
    assert "100 k" in text
    assert "seeds 1" in text


def test_progress_shows_what_runs():
    text = printed(progress_view(SNAPSHOT), 120, "utf-8")
    for said in ("12 of 42 done, 1 failed, 2 running, 27 waiting", "gpt2-3x128", "step 120/195", "5.310", "starting",
                 "about 2 min 31 s left", "30 %", "Law so far",
                 "Last error: RuntimeError: worker 1 was killed"):  # fmt: skip
        assert said in text


def test_progress_of_many_lanes_is_cut_and_says_so():
    running = tuple(replace(SNAPSHOT.running[0], trial_id=str(place)) for place in range(20))
    text = printed(progress_view(replace(SNAPSHOT, running=running)), 60, "ascii")
    assert "and 12 more" in text
    assert text.count("gpt2-3x128") == 8


def test_progress_before_anything_is_known():
    empty = Snapshot(0, 0, (), 0, None, 0.0, None, None, 0.0, "preparing data")
    assert "preparing data: 0 of 0 done" in printed(progress_view(empty), 60, "ascii")
    assert "time left unknown" in progress_line(empty)


def test_progress_line_is_one_ascii_line():
    line = progress_line(replace(SNAPSHOT, law_line="E ≈ 2.1, −6 % × 2", phase="training 模"))
    assert line.isascii()
    assert line.isprintable()
    assert "E ~ 2.1, -6 % x 2" in line


def test_encodable_says_the_same_in_fewer_signs():
    assert encodable("−6 % … ≥ ×2", "ascii") == "-6 % ... >= x2"
    assert encodable("−6 % × 模", "utf-8") == "−6 % × 模"


def test_verdict_is_sentences_in_any_encoding():
    fit = {
        "fits": [{"law": "chinchilla", "target": "eval_loss", "outcome": "not_identifiable", "params": {},
                  "warnings": [{"code": "one_size", "message": "only one value of params"}]}],
        "verdict": {"sentences": ["Twice the data lowers the loss by 6 % (−7 to −5)."],
                    "doubling": {"params": {"value": None, "low": None, "high": None, "unit": "%", "note": "one"}}},
    }  # fmt: skip
    lines = verdict_lines(fit, "ascii")
    assert lines[0] == "Twice the data lowers the loss by 6 % (-7 to -5)."
    assert any("one_size" in line for line in lines)
    assert all(line.isascii() and line for line in lines)


@pytest.mark.parametrize("fit", [None, {}, {"fits": [], "verdict": {}}])
def test_verdict_of_nothing_says_so(fit):
    assert verdict_lines(fit) == ["No law could be fitted, so there is no verdict yet."]
