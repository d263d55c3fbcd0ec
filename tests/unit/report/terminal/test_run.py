"""The progress and the verdict in the terminal: any width, any encoding."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from rayscale.report.terminal.run import (
    ProgressView,
    RunningTrial,
    Snapshot,
    encodable,
    progress_line,
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


@pytest.mark.parametrize("width", [60, 120])
@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_view_fits_the_terminal(width, encoding):
    text = printed(ProgressView(SNAPSHOT), width, encoding)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text


def test_progress_shows_what_runs():
    text = printed(ProgressView(SNAPSHOT), 120, "utf-8")
    for said in ("12 of 42 done, 1 failed, 2 running, 27 waiting", "gpt2-3x128", "step 120/195", "5.310", "starting",
                 "about 2 min 31 s left", "30 %", "Law so far",
                 "Last error: RuntimeError: worker 1 was killed"):  # fmt: skip
        assert said in text


def test_progress_of_many_lanes_is_cut_and_says_so():
    running = tuple(replace(SNAPSHOT.running[0], trial_id=str(place)) for place in range(20))
    text = printed(ProgressView(replace(SNAPSHOT, running=running)), 60, "ascii")
    assert "and 12 more" in text
    assert text.count("gpt2-3x128") == 8


def test_progress_before_anything_is_known():
    empty = Snapshot(0, 0, (), 0, None, 0.0, None, None, 0.0, "preparing data")
    assert "preparing data: 0 of 0 done" in printed(ProgressView(empty), 60, "ascii")
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
