"""Whether a trial that failed is tried again: one decision from what its attempts so far ended with."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from rayscale.on_ray.lanes.lane import Running
from rayscale.runs.events import Event, TrialRetried
from rayscale.runs.outcomes import TrialOutcome
from rayscale.system.failures import Failure

#: Codes of failures whose cause lies outside of the trial: the same work may well succeed another time.
TRANSIENT = frozenset(
    {"worker_died", "node_died", "hang", "lane_ended", "collective", "object_lost", "cluster_unreachable"}
)
OUT_OF_MEMORY = "out_of_memory"
# What a rank says that waited in vain for another (gloo, NCCL), and Ray where an object went with its node.
_COLLECTIVE = re.compile(r"gloo|NCCL|ProcessGroup|Connection (closed|reset) by peer|Broken pipe|Socket Timeout", re.I)
_LOST = re.compile(r"(ObjectLost|ObjectFetchTimedOut|OwnerDied|ObjectReconstruction\w*)Error")


def classify(error: Failure) -> str:
    """The code of a failure: its own, or what its type and message say of an exception without one."""
    code = error.get("code") or "exception"
    if code != "exception":
        return str(code)
    text = f"{error.get('type', '')} {error.get('message', '')}"
    if _LOST.search(text):
        return "object_lost"
    return "collective" if _COLLECTIVE.search(text) else "exception"


def why_not_again(failures: Sequence[Failure], retries: int) -> str | None:
    """Why a trial whose attempts ended with these failures, the last one last, is given up; None: it is tried again.

    Each failure has `code`, `message`, perhaps `type`, `step`, and `permanent`: its own word that a retry cannot help.
    An exception that comes again with the same words at the same step is permanent too; where the step is not known, as
    while loading, it is not. Where memory did not suffice the next attempt has half the micro-batch; that is no retry,
    and ends at one row, which is permanent.
    """
    last = failures[-1]
    if last.get("permanent"):
        return "a retry cannot help"
    if halves(last):
        return None
    counted = sum(not halves(failure) for failure in failures)
    if counted > retries:
        return "the first attempt failed" if retries == 0 else f"all {len(failures)} attempts failed"
    if classify(last) in TRANSIENT or len(failures) == 1 or last.get("step") is None:
        return None
    again = all(last.get(key) == failures[-2].get(key) for key in ("code", "type", "message", "step"))
    return f"the same error came twice at step {last['step']}" if again else None


def micro_batch_after(failures: Sequence[Failure]) -> int | None:
    """The most rows at once for the next attempt: half of what was too much for memory; None: as usual."""
    tried = [failure["micro_batch"] or 1 for failure in failures if halves(failure)]
    return max(1, min(tried) // 2) if tried else None


def halves(failure: Failure) -> bool:
    """Whether memory did not suffice for a micro-batch: the next attempt has half of it."""
    return failure.get("code") == OUT_OF_MEMORY and bool(failure.get("micro_batch"))


def retry_event(trial_id: str, failures: Sequence[Failure]) -> TrialRetried:
    """That a trial is tried again after these failures."""
    last = failures[-1]
    return {
        "event": "trial_retried", "trial_id": trial_id, "attempt": len(failures), "code": last.get("code"),
        "message": last.get("message"), "seconds": last.get("seconds"), "step": last.get("step"),
        "micro_batch": micro_batch_after(failures),
    }  # fmt: skip


class Accounts:
    """Failed attempts by trial; a worker takes `share` of a GPU. `events` is what the run should log, in order."""

    def __init__(self, retries: int, share: float = 1.0) -> None:
        self._retries, self._share = retries, share
        self._failures: defaultdict[str, list[Failure]] = defaultdict(list)
        self.events: list[Event] = []

    def fail(self, running: Running, error: Failure, size: int, now: float) -> TrialOutcome | None:
        """An attempt failed on `size` workers: the outcome if the trial ends with it, None if it is tried again."""
        trial_id, failures = running.cell.trial_id, self._failures[running.cell.trial_id]
        progress = running.progress
        code = classify(error)
        if code == OUT_OF_MEMORY and not error.get("micro_batch"):  # its process was ended before it could say
            rows = progress.get("micro_batch")
            error = {**error, "micro_batch": rows, "permanent": rows == 1}
        seconds = now - running.started
        failures.append({"step": progress.get("step"), **error, "code": code, "seconds": seconds, "size": size})
        reason = why_not_again(failures, self._retries)
        if reason is not None:
            return {"status": "failed", "error": {**failures[-1], "gave_up": reason}, "size": size}
        self.events.append({**retry_event(trial_id, failures), "host": failures[-1].get("host")})
        return None

    def micro_batch(self, trial_id: str) -> int | None:
        """The most rows at once for the next attempt, where memory did not suffice for more; None: as usual."""
        return micro_batch_after(self._failures[trial_id])

    def close(self, trial_id: str, outcome: TrialOutcome) -> TrialOutcome:
        """The outcome of a trial, its share, and what its failed attempts were and cost: seconds x workers x share."""
        failures = self._failures[trial_id]
        attempts = len(failures) + (outcome["status"] != "failed")
        lost = float(sum(failure["seconds"] * failure["size"] for failure in failures)) * self._share
        return {
            **outcome, "trial_id": trial_id, "attempts": max(1, attempts), "failures": failures, "lost_seconds": lost,
            "share": self._share,
        }  # fmt: skip
