"""Arguments and options that several verbs take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def option(name: str, metavar: str, text: str) -> Any:
    """An option with a value."""
    return typer.Option(name, metavar=metavar, help=text)


def size(name: str, metavar: str, text: str) -> Any:
    """An option whose value is a size: a number, or one such as 7B."""
    return typer.Option(name, metavar=metavar, help=text, parser=_size)


def _size(text: str) -> float:
    from rayscale.laws.fitting.sizes import FIX, read_size

    if (number := read_size(text)) is None:
        raise typer.BadParameter(f"found '{text}'; {FIX}.")
    return number


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; text for people goes to stderr.")]
Yes = Annotated[bool, typer.Option("--yes", help="Start without asking for confirmation.")]
Out = Annotated[str | None, option("--out", "DIR", "Run folder; default: <storage>/<name>.")]
StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="A study file (YAML).")]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, by path or URI.")]
Address = Annotated[str, option("--address", "local|auto|HOST:PORT", "Start Ray on this machine, or join a cluster.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Run failed trials again.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Show the bases of the estimates and the details of the data checks.")
]
Only = Annotated[str | None, option("--only", "TRIAL_ID", "Run this trial alone, even if it has a record.")]
Executor = Annotated[str | None, option("--executor", "lanes|isolated|inline", "Override the study's executor.")]
