"""Which trials a law may count: the one rule that the verdict, `Run.fit_rows` and every later fit share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def unfit(trials: pd.DataFrame) -> NDArray[Any]:
    """Why an ok trial is not among the rows of a law, (rows,), empty where it is; `trials` is numbered from 0.

    A seed counts once, at its fewest GPUs: the same run at more GPUs is the same mathematics, no second sample of the
    noise. Augmented data is other data: the law is that of the plain runs, or of the first augmentation without them.
    """
    reasons = np.full(len(trials), "", dtype=object)
    ok = trials[trials["status"] == "ok"]
    names = ok["augment"].fillna("none").astype(str)
    plain = "none" if (names == "none").any() or not len(names) else min(names)
    reasons[names.index[names != plain]] = f"augmented; the law is fitted to augment {plain}"
    kept = ok[names == plain]
    fewest = kept.groupby(["model", "data_requested", "seed"], dropna=False)["gpus"].transform("min")
    reasons[kept.index[(kept["gpus"] > fewest).fillna(False)]] = "the same seed at more GPUs; counted once"
    return reasons


def counted(trials: pd.DataFrame) -> pd.DataFrame:
    """The rows of a trial table that a law counts: ok, one augmentation, one GPU count a seed."""
    numbered = trials.reset_index(drop=True)
    taken = (numbered["status"] == "ok").to_numpy(dtype=bool, na_value=False) & (unfit(numbered) == "")
    return numbered[taken].reset_index(drop=True)
