"""How far a long step is, said now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

EVERY_SECONDS = 10.0


@dataclass
class Meter:
    """Counts `total` things of one `kind`; `say` gets a line every ten seconds, none for what is done sooner."""

    say: Callable[[str], None]
    what: str
    total: int
    kind: str = "rows"
    done: int = 0
    begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._said, self._before = self.begun, self.done

    def skip(self, number: int) -> None:
        """So many were done before."""
        self.done += number
        self._before += number

    def add(self, number: int) -> None:
        """So many more are done."""
        self.done += number
        now = time.monotonic()
        if now - self._said >= EVERY_SECONDS and self.done < self.total:
            self._said = now
            pace = (self.done - self._before) / (now - self.begun)
            left = round((self.total - self.done) / pace) if pace else 0
            self.say(
                f"{self.what}: {self.done:,} of {self.total:,} {self.kind} ({_short(pace)} a second, {left} s left)"
            )


def _short(pace: float) -> str:
    return f"{pace:,.0f}" if pace >= 10 else f"{pace:.1f}"
