"""Who is told how a run goes."""

from __future__ import annotations

from collections.abc import Sequence

from rayscale.plan.estimate import Planned
from rayscale.plan.plan import Plan
from rayscale.report.terminal.run import Snapshot


class Observer:
    """Who is told how the run goes. This one agrees to everything and shows nothing; the command line's shows all."""

    def consent(self, plan: Plan, pending: Sequence[Planned], recorded: int) -> bool:
        """Whether to run this plan, of which so many trials have a record and `pending` will run."""
        return True

    def say(self, text: str) -> None:
        """Something that a person should know."""

    def phase(self, text: str) -> None:
        """A new phase began."""

    def show(self, snapshot: Snapshot) -> None:
        """The state of the run, twice a second."""
