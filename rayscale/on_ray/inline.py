"""One trial in this very process, as a debugger wants it: no worker, no lane."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rayscale.checkpoints import find_checkpoint
from rayscale.errors import RayscaleError, describe
from rayscale.on_ray.place import place
from rayscale.text.prepared import Prepared
from rayscale.trial import Trial


def run_here(
    trial: Trial,
    prepared: Prepared,
    *,
    keep_model: bool,
    progress: Callable[[dict[str, Any]], None],
    let_raise: bool,
) -> dict[str, Any]:
    """Train a trial of one GPU; returns its outcome, failed if it raised, as a lane would give it.

    With `let_raise` what it raises passes through, for the debugger, and the command line prints the traceback.
    """
    from rayscale.nn.train import train_trial

    started = datetime.now(UTC)
    try:
        model = trial.model
        checkpoint = str(find_checkpoint(model.path, model.revision).folder) if model.path else None
        with tempfile.TemporaryDirectory(prefix="rayscale-model-") as scratch:
            kept = Path(scratch) / "model" if keep_model else None
            measured = train_trial(
                trial, prepared, checkpoint=checkpoint, device=trial.device, progress=progress, save_to=kept
            )
            files = _files(kept) if kept is not None and kept.is_dir() else None
    except Exception as error:  # becomes the trial's reason; other trials go on
        if let_raise:
            if isinstance(error, RayscaleError):
                error.show_traceback = True
            raise
        failed = {"status": "failed", "error": describe(error), "measured": place(started, trial.gpus)}
        return {**failed, "exclusive": True, "attempts": 1}
    measured |= place(started, trial.gpus)
    outcome = {"status": measured["status"], "measured": measured, "exclusive": True, "attempts": 1}
    return {**outcome, "model": [files] if files else []}


def _files(folder: Path) -> dict[str, Any]:
    from rayscale.on_ray.parcels import read_files

    return read_files(folder)
