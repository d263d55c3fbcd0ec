"""Who is told how a run goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rayscale.plan.estimate import Planned
from rayscale.plan.plan import Plan
from rayscale.report.terminal.run import Snapshot


class Observer(Protocol):
    """Who is told how the run goes; the command line shows it, a notebook may ignore it."""

    def consent(self, plan: Plan, pending: Sequence[Planned], recorded: int) -> bool:
        """Whether to go on with this plan, of which so many trials have a record and `pending` will run."""

    def say(self, text: str) -> None:
        """Something that a person should know."""

    def phase(self, text: str) -> None:
        """A new phase began."""

    def show(self, snapshot: Snapshot) -> None:
        """The state of the run, twice a second."""


class Silent:
    """An observer that agrees to everything and says nothing."""

    def consent(self, plan: Plan, pending: Sequence[Planned], recorded: int) -> bool:
        """Always."""
        return True

    def say(self, text: str) -> None:
        """Not shown."""

    def phase(self, text: str) -> None:
        """Not shown."""

    def show(self, snapshot: Snapshot) -> None:
        """Not shown."""
