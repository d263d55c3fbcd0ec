"""What the terminal shows during and after a study: the progress and the verdict.

Pure functions: facts in, text or `rich` renderables out. They fit 60 columns, and where the terminal's encoding
cannot carry a sign (a model named in Chinese, a multiplication sign) they write a plain one instead of failing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rayscale.report.numbers import count, duration, number, plain, shorten, significant
from rayscale.report.wording import notices, sentences

_PLAIN_SIGNS = str.maketrans(
    {
        "–": "-", "—": "-", "−": "-", "‑": "-", "×": "x", "≥": ">=", "≤": "<=", "±": "+/-", "≈": "~", "…": "...",
        "·": "*", "→": "->", "“": '"', "”": '"', "‘": "'", "’": "'", "µ": "u", "\u00a0": " ", "\u202f": " ",
        "α": "alpha", "β": "beta", "°": " deg", "²": "^2", "³": "^3",
    }
)  # fmt: skip

WAITING = "waiting for slots"  # the phase in which other jobs hold all that a run needs: nobody knows the time left


@dataclass(frozen=True)
class RunningTrial:
    """One trial under way. `train_loss` is the latest, `seconds` its time so far; None where not yet known."""

    trial_id: str
    model: str
    data_requested: int
    gpus: int
    step: int | None
    steps: int | None
    train_loss: float | None
    seconds: float


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at one moment. `done` counts finished cells without the `failed` ones."""

    done: int
    failed: int
    running: tuple[RunningTrial, ...]
    waiting: int
    eta_seconds: float | None
    gpu_seconds: float
    law_line: str | None
    last_error: str | None
    elapsed_seconds: float
    phase: str

    @property
    def total(self) -> int:
        return self.done + self.failed + len(self.running) + self.waiting


def encodable(text: str, encoding: str) -> str:
    """The text in signs that `encoding` has: typographic ones become ASCII, others their escape."""
    clean = plain(text)
    try:
        clean.encode(encoding)
    except UnicodeEncodeError:
        return clean.translate(_PLAIN_SIGNS).encode(encoding, "backslashreplace").decode(encoding)
    return clean


@dataclass(frozen=True)
class Words:
    """Text that learns the terminal's encoding only when it is printed; never read as rich's markup."""

    text: str
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._in(options.encoding)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._in(options.encoding))

    def _in(self, encoding: str) -> Text:
        text = "\n".join(encodable(line, encoding) for line in self.text.split("\n"))
        return Text(text, style=self.style, overflow="fold")


# ---- after -----------------------------------------------------------------------------------------------------


def verdict_lines(fit: dict | None, encoding: str = "utf-8") -> list[str]:
    """The verdict in plain sentences, then what was refused and every warning; writable in `encoding`."""
    lines = [*sentences(fit), *(f"{notice.kind} ({notice.code}): {notice.message}" for notice in notices(fit))]
    return [encodable(line, encoding) for line in lines]


# ---- during ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProgressView:
    """A snapshot drawn for the width and the encoding of the terminal it is printed on; one for each new snapshot."""

    snapshot: Snapshot

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Group(*self._parts(options.max_width))

    def _parts(self, width: int) -> Iterator[Any]:
        now = self.snapshot
        yield Words(f"{now.phase}: {_counts(now)}", "bold")
        finished, total = now.done + now.failed, max(now.total, 1)
        bar = Table.grid(padding=(0, 1))
        share = f"{100 * finished // total} %"
        bar.add_row(ProgressBar(total=total, completed=finished, width=min(width, 100) - 6), share)
        yield bar
        yield Words(_clock(now), "dim")
        if now.running:
            yield self._running(width)
        if now.law_line:
            yield Words(f"Law so far: {now.law_line}", "green")
        if now.last_error:
            yield Words(f"Last error: {shorten(now.last_error, 2 * width)}", "red")

    def _running(self, width: int) -> Table:
        shown = self.snapshot.running[:8]
        table = Table.grid(padding=(0, 2 if width >= 90 else 1), pad_edge=False)
        for right in (False, True, True, True, True, True):
            table.add_column(justify="right" if right else "left", no_wrap=True, overflow="fold")
        for trial in shown:
            step = f"{trial.step}/{trial.steps or '?'}"
            step = "starting" if trial.step is None else f"step {step}" if width >= 90 else step
            loss = "" if number(trial.train_loss) is None else f"{trial.train_loss:.3f}"
            words = (
                (shorten(trial.model, 30), count(trial.data_requested), f"{trial.gpus} GPU", step,
                 f"loss {loss}" if loss else "", duration(trial.seconds))
                if width >= 90
                else (shorten(trial.model, max(8, width - 40)), count(trial.data_requested), f"{trial.gpus}g", step,
                      loss, duration(trial.seconds))
            )  # fmt: skip
            table.add_row(*(Words(word, "cyan" if place == 0 else "") for place, word in enumerate(words)))
        if len(self.snapshot.running) > len(shown):
            table.add_row(Words(f"and {len(self.snapshot.running) - len(shown)} more"))
        return table


def progress_line(snapshot: Snapshot) -> str:
    """The snapshot as one plain ASCII line, for logs and pipes."""
    parts = [f"{snapshot.phase}: {_counts(snapshot)}", _clock(snapshot)]
    if snapshot.law_line:
        parts.append(f"law so far: {snapshot.law_line}")
    if snapshot.last_error:
        parts.append(f"last error: {shorten(snapshot.last_error, 160)}")
    return encodable("; ".join(parts), "ascii")


def _counts(now: Snapshot) -> str:
    failed = f", {now.failed} failed" if now.failed else ""
    return f"{now.done} of {now.total} done{failed}, {len(now.running)} running, {now.waiting} waiting"


def _clock(now: Snapshot) -> str:
    left = f"about {duration(now.eta_seconds)} left" if number(now.eta_seconds) is not None else "time left unknown"
    left = "waiting for slots" if now.phase == WAITING else left
    spent = f"{significant(now.gpu_seconds / 3600, 2)} GPU-hours"
    return f"{duration(now.elapsed_seconds)} so far, {left}, {spent}"
