"""Write docs/cli.md: the help of every command. A test holds the file to what the commands print."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "cli.md"


def page() -> str:
    """The whole document."""
    top = _help()
    verbs = [line.split()[0] for line in top.split("Commands:\n")[1].splitlines() if line.strip()]
    parts = ["# Commands\n\nMade by `python scripts/cli_help.py`.\n", _block("rayscale", top)]
    parts += [_block(f"rayscale {verb}", _help(verb)) for verb in verbs]
    return "\n".join(parts)


def _help(*verb: str) -> str:
    code = "import sys; sys.argv[0] = 'rayscale'; from rayscale.cli.verbs import main; main()"
    environment = {**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"}
    command = [sys.executable, "-c", code, *verb, "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def _block(title: str, text: str) -> str:
    lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
    return f"## {title}\n\n```\n{lines}\n```\n"


if __name__ == "__main__":
    DOCUMENT.write_text(page())
