"""Which trials a law may count: the one rule that the verdict, `Run.fit_rows` and every later fit share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

GUESS = "guessing_loss"  # the column of what guessing scores, where a table has it


def data_column(trials: pd.DataFrame, plan: Mapping[str, Any]) -> str:
    """The column of D: the data axis of the plan, and without a plan that of the task; where it is empty, what was
    requested."""
    if axis := plan.get("data_axis"):
        return str(axis)
    causal = "task" in trials.columns and (trials["task"] == "causal-lm").any()
    axis = "tokens" if causal else "examples"
    return axis if axis in trials.columns and trials[axis].notna().any() else "data_requested"


def unfit(trials: pd.DataFrame) -> NDArray[Any]:
    """Why an ok trial is not among the rows of a law, (rows,), empty where it is; `trials` is numbered from 0.

    A seed counts once, at its fewest GPUs: the same run at more GPUs is the same mathematics, no second sample of the
    noise. Augmented data is other data: the law is that of the plain runs, or of the first augmentation without them.
    A run that did no better than guessing lies on a plateau, where no power law holds.
    """
    reasons = np.full(len(trials), "", dtype=object)
    ok = trials[trials["status"] == "ok"]
    names = ok["augment"].fillna("none").astype(str)
    plain = "none" if (names == "none").any() or not len(names) else min(names)
    reasons[names.index[names != plain]] = f"augmented; the law is fitted to augment {plain}"
    kept = ok[names == plain]
    fewest = kept.groupby(["model", "data_requested", "seed"], dropna=False)["gpus"].transform("min")
    reasons[kept.index[(kept["gpus"] > fewest).fillna(False)]] = "the same seed at more GPUs; counted once"
    for row in np.flatnonzero(untrained(trials) & (reasons == "")):
        loss, guess = trials["eval_loss"].iloc[row], trials[GUESS].iloc[row]
        reasons[row] = f"no better than guessing: a test loss of {loss:.4g}, and guessing has {guess:.4g}"
    return reasons


def untrained(trials: pd.DataFrame) -> NDArray[np.bool_]:
    """Which ok trials did no better than guessing, (rows,); none where the table does not say what guessing scores.

    One whose training loss fell to half of that learnt something: it is too sure of itself, and stays.
    """
    if GUESS not in trials.columns:
        return np.zeros(len(trials), dtype=bool)
    import pandas as pd

    columns = trials.reindex(columns=["eval_loss", "train_loss", GUESS])
    numbers = columns.apply(pd.to_numeric, errors="coerce").astype(float)
    loss, in_training, guess = (numbers[name] for name in numbers)
    flat = (trials["status"] == "ok").fillna(False) & (loss >= guess) & ~(in_training < guess / 2)
    return np.asarray(flat, dtype=bool)


def with_guesses(trials: pd.DataFrame, losses: Mapping[str, float]) -> pd.DataFrame:
    """The trials with the test loss of guessing (by model, in nats) as a column; null for simulated ones, whose law may
    have any scale."""
    guesses = trials["model"].map(losses).astype(float)
    return trials.assign(**{GUESS: guesses.where((trials["executor"] != "simulated").fillna(True))})


def counted(trials: pd.DataFrame) -> pd.DataFrame:
    """The rows of a trial table that a law counts: ok, one augmentation, one GPU count a seed."""
    numbered = trials.reset_index(drop=True)
    taken = (numbered["status"] == "ok").to_numpy(dtype=bool, na_value=False) & (unfit(numbered) == "")
    return numbered[taken].reset_index(drop=True)


def entropy(counts: Iterable[float]) -> float:
    """Entropy in nats of the shares of these counts: no guess that ignores the text has a lower mean loss."""
    positive = [count for count in counts if count > 0]
    return -sum(count / sum(positive) * math.log(count / sum(positive)) for count in positive)


def guessing_loss(
    task_type: str, vocabularies: Mapping[str, int | None], labels: int, of_labels: float | None
) -> dict[str, float]:
    """Test loss of guessing, in nats, by model; empty for a task where nobody has said what guessing is.

    sequence-classification: `of_labels`, the entropy of the test labels' shares, or ln of the number of `labels` where
    the shares are unknown; causal-lm: ln of the model's vocabulary (`vocabularies`, by model).
    """
    if task_type == "causal-lm":
        return {model: math.log(size) for model, size in vocabularies.items() if size}
    if task_type == "sequence-classification" and (of_labels is not None or labels > 1):
        return dict.fromkeys(vocabularies, math.log(labels) if of_labels is None else of_labels)
    return {}
