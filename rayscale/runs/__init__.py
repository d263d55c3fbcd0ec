"""A run's folder: trials and their records, the lease of its driver, savepoints, and how far it is.

A run is read by

    import rayscale as rs
    run = rs.load("runs/demo")
    run.trials, run.fit, run.plan
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayscale.system.lazy import lazy

if TYPE_CHECKING:
    from rayscale.runs.folder import Run, load
    from rayscale.runs.ledger import Ledger, TrialRecord
    from rayscale.runs.status import read_status
    from rayscale.runs.trial import Trial

__all__ = ["Ledger", "Run", "Trial", "TrialRecord", "load", "read_status"]

__getattr__ = lazy(
    __name__, Ledger="ledger", Run="folder", Trial="trial", TrialRecord="ledger", load="folder", read_status="status"
)
