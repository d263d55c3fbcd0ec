"""What errors say."""

from __future__ import annotations

import pickle

import pytest

from rayscale.errors import DataError, MemoryTrialError, RayscaleError, first_line


def test_a_message_is_what_was_found_and_its_fix_also_in_another_process() -> None:
    error = pickle.loads(pickle.dumps(DataError("no rows", fix="give more text", where="rows.csv:1")))
    assert (str(error), error.code, error.exit_code) == ("rows.csv:1: no rows; give more text", "wrong_input", 2)
    memory = pickle.loads(pickle.dumps(MemoryTrialError("CUDA", 2)))
    assert (memory.code, memory.permanent, memory.micro_batch) == ("out_of_memory", False, 2)
    assert RayscaleError("it broke").code == "failed"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\nfirst \nsecond"), "first "),
        (RuntimeError(), "RuntimeError"),
        (DataError("no rows", where="rows.csv"), "no rows"),
    ],
)
def test_the_first_line_of_an_error_is_never_empty(error: Exception, line: str) -> None:
    assert first_line(error) == line
