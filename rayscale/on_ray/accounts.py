"""What each trial's attempts ended with, and the outcome that follows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from rayscale.on_ray.lane import Running
from rayscale.retry import OUT_OF_MEMORY, classify, micro_batch_after, why_not_again


class Accounts:
    """Failed attempts by trial; a worker takes `share` of a GPU. `events` is what the run should log, in order."""

    def __init__(self, retries: int, share: float = 1.0) -> None:
        self._retries, self._share = retries, share
        self._failures: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.events: list[dict[str, Any]] = []

    def begin(self, trial_id: str) -> None:
        """An attempt begins."""
        self.events.append({"event": "trial_started", "trial_id": trial_id})

    def fail(self, running: Running, error: Mapping[str, Any], size: int, now: float) -> dict[str, Any] | None:
        """An attempt failed on `size` slots: the outcome if the trial ends with it, None if it is tried again."""
        trial_id, failures = running.cell.trial_id, self._failures[running.cell.trial_id]
        if classify(error) == OUT_OF_MEMORY and not error.get(
            "micro_batch"
        ):  # its process was ended before it could say
            rows = running.progress.get("micro_batch")
            error = {**error, "micro_batch": rows, "permanent": rows == 1}
        failures.append(
            {
                "step": running.progress.get("step"),
                **error,
                "code": classify(error),
                "seconds": now - running.started,
                "size": size,
            }
        )
        reason = why_not_again(failures, self._retries)
        if reason is not None:
            return {"status": "failed", "error": {**failures[-1], "gave_up": reason}, "size": size}
        why = {key: failures[-1].get(key) for key in ("code", "message", "seconds", "step", "host")}
        why["micro_batch"] = self.micro_batch(trial_id)
        self.events.append({"event": "trial_retried", "trial_id": trial_id, "attempt": len(failures), **why})
        return None

    def micro_batch(self, trial_id: str) -> int | None:
        """The most rows at once for the next attempt, where memory did not suffice for more; None: as usual."""
        return micro_batch_after(self._failures[trial_id])

    def close(self, trial_id: str, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """The outcome of a trial, its share, and what its failed attempts were and cost: seconds x GPUs (or slots)."""
        failures = self._failures[trial_id]
        attempts = len(failures) + (outcome["status"] != "failed")
        lost = float(sum(each["seconds"] * each["size"] for each in failures)) * self._share
        told = {"trial_id": trial_id, "attempts": max(1, attempts), "failures": failures, "lost_seconds": lost}
        return {**outcome, **told, "share": self._share}
