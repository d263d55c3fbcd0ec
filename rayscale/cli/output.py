"""What verbs print: lines in the signs that the terminal has, JSON, and an answer that is a refusal."""

from __future__ import annotations

import json
import sys
from typing import Any

from rayscale.errors import RayscaleError


def width() -> int:
    from shutil import get_terminal_size

    return max(40, min(get_terminal_size((80, 24)).columns, 100))  # prose wider than that is hard to read


def say(line: str) -> None:
    """Print a line in the signs that stdout has."""
    from rayscale.report.terminal.run import encodable

    print(encodable(line, sys.stdout.encoding or "utf-8"))


def print_lines(lines: list[str]) -> None:
    for line in lines:
        say(line)


def print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, allow_nan=False, indent=1))


class RefusedError(Exception):
    """An answer that is a refusal: it is on stdout already, the reason goes to stderr, and the exit code follows."""

    def __init__(self, error: RayscaleError) -> None:
        super().__init__(str(error))
        self.error = error
