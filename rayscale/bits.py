"""Bits tell the loss in another unit, and have no law of their own: the one rule of the verdict and of `recommend`."""

from __future__ import annotations

import pandas as pd

from rayscale.observations import numbers

LOSS = "eval_loss"


def bits_per_nat(trials: pd.DataFrame, metric: str) -> dict[str, float]:
    """Model -> bits over the loss: the median of its runs, NaN where none has both.

    A constant of the model's tokenizer, log2(e) for bits per token. Raises TableError for a table without either.
    """
    ratio = pd.Series(numbers(trials, metric) / numbers(trials, LOSS))
    models = trials["model"].astype(str).to_numpy()
    return {str(model): float(each) for model, each in ratio.groupby(models).median().items()}
