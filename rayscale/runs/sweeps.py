"""Sweeps of the learning rate: of the trials that differ in their rate alone, the best stands for the cell.

It is chosen by the loss on validation rows, never by the test loss, and bears the cost of all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayscale.runs.trial import CELL

if TYPE_CHECKING:
    import pandas as pd

#: Status of a trial whose cell another rate fits better.
OUTDONE = "outdone"


def settle(trials: pd.DataFrame) -> pd.DataFrame:
    """The trial table with one ok row for each cell.

    In a cell of several ok trials that with the lowest validation loss (the lower rate of equal ones) stays ok. It gets
    the device seconds of all trials of the cell, failed and diverged ones too; the others lose theirs and are OUTDONE.
    Those without a validation loss, as simulated ones are, come last: a law counts a cell once in any case.
    """
    import pandas as pd  # at use: whoever opens a run folder waits for it only when a table is asked for

    keys = [trials[column] for column in CELL]
    several = trials.groupby(keys, dropna=False)["trial_id"].transform("size") > 1
    if not several.any():
        return trials
    able = several & (trials["status"] == "ok")
    ordered = trials[able].sort_values(["validation_loss", "learning_rate"], kind="stable")
    best = trials.index.isin(ordered.index[~ordered.duplicated(CELL)])
    decided = pd.Series(best, trials.index).groupby(keys, dropna=False).transform("any")
    whole = trials.groupby(keys, dropna=False)["device_seconds"].transform("sum", min_count=1)
    return trials.assign(
        device_seconds=whole.where(best, trials["device_seconds"].mask(decided)),
        status=trials["status"].mask(able & ~best, OUTDONE),
    )
