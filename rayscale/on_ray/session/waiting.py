"""A run that waits for slots which other jobs hold: what it says, how often, and when it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rayscale.errors import ClusterError
from rayscale.on_ray.session.occupancy import waiting_text
from rayscale.runs.events import Event

SAY_SECONDS = 30.0
QUIET_SECONDS = 3.0  # slots change hands; a wait is worth a word from here on


@dataclass
class Wait:
    """`most` is how many seconds a run may wait in one go, None for no limit; `log` takes events of the run."""

    most: float | None
    log: Callable[[Event], None]
    _said: float | None = None

    def look(self, now: Mapping[str, Any], clock: float) -> bool:
        """Whether the run waits, by the pool's snapshot; says so every 30 s, and when it is over.

        Raises ClusterError at the limit: what is left is not run, and nothing is recorded of it.
        """
        waits = now["waits"]
        if waits is None:
            if self._said is not None:
                self.log({"event": "slots_free", "room": now["room"], "slots": now["slots"]})
            self._said = None
            return False
        text = waiting_text(waits["sizes"], now["slots"], now["room"], now["holders"], waits["seconds"])
        if self.most is not None and waits["seconds"] > self.most:
            raise ClusterError(
                f"no slots came free in run.wait_seconds: {self.most:g}. {text} Run the same command when they are "
                "free, or write wait_seconds: null to wait without a limit",
                code="slots_busy",
            )
        if waits["seconds"] >= QUIET_SECONDS and (self._said is None or clock - self._said >= SAY_SECONDS):
            self._said = clock
            self.log(
                {"event": "waiting_for_slots", "reason": text, "sizes": {str(k): v for k, v in waits["sizes"].items()}}
            )
        return True
