"""The command line's view of a run: the plan and a question before, a live view during, the verdict after."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.live import Live

from rayscale.plan.estimate import Planned, wall_seconds
from rayscale.plan.observer import Observer
from rayscale.plan.plan import Plan
from rayscale.report.numbers import capitalised, duration, plural
from rayscale.report.terminal.plan import PlanView
from rayscale.report.terminal.run import ProgressView, Snapshot, progress_line, verdict_lines

LINE_EVERY_SECONDS = 30.0


def standing_text(plan: Plan, pending: Sequence[Planned], recorded: int) -> str:
    """What of a plan is done, and what runs now for how long; empty where all of it runs."""
    if len(pending) == len(plan.trials):
        return ""
    if not pending:
        return f"All {recorded} trials have a record already; nothing to train."
    number = len(pending)
    if recorded:
        have, are = ("has" if recorded == 1 else "have"), ("is" if number == 1 else "are")
        left = f"{plural(recorded, 'trial')} {have} a record already; {number} {are} left to run"
    else:
        left = f"{number} of {plural(len(plan.trials), 'trial')} will run"
    return f"{left}, about {duration(wall_seconds(pending, plan.machine.slots, plan.study.run.executor))}."


class Terminal(Observer):
    """Shows a run to a person: a live view on a terminal, a plain line every 30 s elsewhere.

    With `json` everything for people goes to stderr.
    """

    def __init__(self, *, json: bool, yes: bool, verbose: bool = False) -> None:
        self.console = Console(stderr=json, soft_wrap=False, highlight=False)
        self.interactive = self.console.is_terminal
        self.yes = yes
        self.verbose = verbose
        self.agreed = False  # whether a run has begun
        self._live: Live | None = None
        self._last = 0.0

    def consent(self, plan: Plan, pending: Sequence[Planned], recorded: int) -> bool:
        """Show the plan; ask, if a person can answer."""
        self.console.print(PlanView(plan.to_json(), self.verbose))
        self.agreed = True
        if text := standing_text(plan, pending, recorded):
            self.say(text)
        if pending and not self.yes and sys.stdin.isatty() and self.interactive:
            self.agreed = self.console.input("Start? [Y/n] ").strip().lower() in ("", "y", "yes")
        return self.agreed

    def phase(self, text: str) -> None:
        """Say what begins now."""
        self.close()
        self.say(f"{capitalised(text)} ...")

    def show(self, snapshot: Snapshot) -> None:
        """Draw the state of the run."""
        if self.interactive:
            if self._live is None:
                self._live = Live(console=self.console, auto_refresh=False, transient=True)
                self._live.start()
            self._live.update(ProgressView(snapshot), refresh=True)
        elif time.monotonic() - self._last >= LINE_EVERY_SECONDS:
            self._last = time.monotonic()
            self.say(progress_line(snapshot))

    def close(self) -> None:
        """End the live view, if there is one."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """Print one paragraph as it is."""
        self.console.print(text, markup=False, soft_wrap=not self.interactive)

    def verdict(self, fit: dict[str, Any], files: Sequence[str]) -> None:
        """Print the verdict and where the files are."""
        self.close()
        self.say("")
        for line in verdict_lines(fit, self.console.encoding):
            self.say(line)
        self.say("")
        for file in files:
            self.say(file)
