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
    from rayscale.nn.training.train import train_trial

    failures: list[Failure] = []
    while True:
        began = time.monotonic()
        started = datetime.now(UTC)
        lost = sum(failure["seconds"] for failure in failures)
        failure: Failure | None = None
        outcome: TrialOutcome
        try:
            model = trial.model
            checkpoint = str(find_checkpoint(model.path, model.revision).folder) if model.path else None
            with tempfile.TemporaryDirectory(prefix="rayscale-model-") as scratch:
                kept = Path(scratch) / "model" if keep_model else None
                measured = train_trial(
                    trial, prepared, device=trial.device, checkpoint=checkpoint, save_to=kept, progress=progress,
                    saving=saving, micro_batch=micro_batch_after(failures),
                )  # fmt: skip
                files = read_files(kept) if kept is not None and kept.is_dir() else None
            measured |= provenance(started, datetime.now(UTC), trial.gpus)
            outcome = {"status": measured["status"], "measured": measured, "model": [files] if files else []}
        except Exception as error:  # becomes the trial's reason; other trials continue
            failure = describe(error)
            if let_raise and (failure["permanent"] or not halves(failure)):
                if isinstance(error, RayscaleError):
                    error.show_traceback = True
                raise
            measured = provenance(started, datetime.now(UTC), trial.gpus)
            outcome = {"status": "failed", "error": failure, "measured": measured}
            failures.append({**failure, "seconds": time.monotonic() - began})
        attempts = len(failures) + (not failure)
        outcome |= {"exclusive": True, "attempts": attempts, "failures": failures, "lost_seconds": lost}
        if not failure or failure["permanent"] or not halves(failure):
            return outcome
        say(retry_event(trial.trial_id, failures))
