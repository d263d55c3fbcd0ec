"""One trial in this very process, as a debugger wants it: no worker, no lane."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
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
    from rayscale.nn.training.train import train_trial

    failures: list[Failure] = []
    while True:
        began, micro_batch = time.monotonic(), micro_batch_after(failures)
        train = partial(train_trial, device=trial.device, progress=progress, saving=saving, micro_batch=micro_batch)
        outcome = _attempt(train, trial, prepared, keep_model, let_raise)
        error = outcome.get("error")
        lost = sum(failure["seconds"] for failure in failures)
        if error:
            failures.append({**error, "seconds": time.monotonic() - began})
        attempts = len(failures) + (not error)
        outcome |= {"exclusive": True, "attempts": attempts, "failures": failures, "lost_seconds": lost}
        if not error or error["permanent"] or not halves(error):
            return outcome
        say(retry_event(trial.trial_id, failures))


def _attempt(
    train: Callable[..., dict[str, Any]], trial: Trial, prepared: Prepared, keep_model: bool, let_raise: bool
) -> TrialOutcome:
    started = datetime.now(UTC)
    try:
        model = trial.model
        checkpoint = str(find_checkpoint(model.path, model.revision).folder) if model.path else None
        with tempfile.TemporaryDirectory(prefix="rayscale-model-") as scratch:
            kept = Path(scratch) / "model" if keep_model else None
            measured = train(trial, prepared, checkpoint=checkpoint, save_to=kept)
            files = read_files(kept) if kept is not None and kept.is_dir() else None
    except Exception as error:  # becomes the trial's reason; other trials continue
        failure = describe(error)
        if let_raise and (failure["permanent"] or not halves(failure)):
            if isinstance(error, RayscaleError):
                error.show_traceback = True
            raise
        return {"status": "failed", "error": failure, "measured": provenance(started, datetime.now(UTC), trial.gpus)}
    measured |= provenance(started, datetime.now(UTC), trial.gpus)
    return {"status": measured["status"], "measured": measured, "model": [files] if files else []}
