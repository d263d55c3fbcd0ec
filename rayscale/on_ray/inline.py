"""One trial in this very process, as a debugger wants it: no worker, no lane."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rayscale.errors import RayscaleError
from rayscale.on_ray.data.parcels import read_files
from rayscale.on_ray.lanes.retry import halves, micro_batch_after, retry_event
from rayscale.runs.events import Event
from rayscale.runs.outcomes import TrialOutcome
from rayscale.runs.provenance import provenance
from rayscale.runs.savepoints import Saving
from rayscale.runs.trial import Trial
from rayscale.study.checkpoints import find_checkpoint
from rayscale.system.failures import Failure, describe
from rayscale.text.prepared import Prepared


def run_here(
    trial: Trial,
    prepared: Prepared,
    *,
    keep_model: bool,
    saving: Saving | None,
    progress: Callable[[dict[str, Any]], None],
    say: Callable[[Event], None],
    let_raise: bool,
) -> TrialOutcome:
    """Train a trial of one GPU; returns its outcome, failed if it raised, as a lane would give it.

    Where memory does not suffice it is tried again with half the micro-batch, down to one row; `say` gets the event.
    With `let_raise` what else it raises passes through, for the debugger, and the command line prints the traceback.
    """
    failures: list[Failure] = []
    while True:
        began, most = time.monotonic(), micro_batch_after(failures)
        outcome = _attempt(
            trial, prepared, keep_model=keep_model, saving=saving, progress=progress, let_raise=let_raise,
            micro_batch=most,
        )  # fmt: skip
        error = outcome.get("error")
        if error:
            failures.append({**error, "seconds": time.monotonic() - began})
        lost = sum(failure["seconds"] for failure in failures[: -1 if error else None])
        outcome |= {"exclusive": True, "attempts": len(failures) + (not error), "failures": failures,
                    "lost_seconds": lost}  # fmt: skip
        if not error or error["permanent"] or not halves(error):
            return outcome
        say(retry_event(trial.trial_id, failures))


def _attempt(
    trial: Trial,
    prepared: Prepared,
    *,
    keep_model: bool,
    saving: Saving | None,
    progress: Callable[[dict[str, Any]], None],
    let_raise: bool,
    micro_batch: int | None,
) -> TrialOutcome:
    from rayscale.nn.training.train import train_trial

    started = datetime.now(UTC)
    try:
        model = trial.model
        checkpoint = str(find_checkpoint(model.path, model.revision).folder) if model.path else None
        with tempfile.TemporaryDirectory(prefix="rayscale-model-") as scratch:
            kept = Path(scratch) / "model" if keep_model else None
            measured = train_trial(
                trial, prepared, checkpoint=checkpoint, device=trial.device, progress=progress, save_to=kept,
                saving=saving, micro_batch=micro_batch,
            )  # fmt: skip
            files = read_files(kept) if kept is not None and kept.is_dir() else None
    except Exception as error:  # becomes the trial's reason; other trials go on
        failure = describe(error)
        if let_raise and (failure["permanent"] or not halves(failure)):
            if isinstance(error, RayscaleError):
                error.show_traceback = True
            raise
        return {"status": "failed", "error": failure, "measured": provenance(started, datetime.now(UTC), trial.gpus)}
    measured |= provenance(started, datetime.now(UTC), trial.gpus)
    return {"status": measured["status"], "measured": measured, "model": [files] if files else []}
