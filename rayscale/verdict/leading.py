"""The laws that a verdict rests on: those of the study's target; where these cannot speak, those of the loss.

Accuracy may rise throughout while the loss rises again: a model can be right more often and too sure where it is wrong.
A study that aims at accuracy is then judged by accuracy. Chosen here once; gains, needed data, hold-out check and
predictions follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rayscale.errors import InputError
from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.result import Fit
from rayscale.laws.formula import find_law
from rayscale.laws.law import Law
from rayscale.runs.fit_rows import GUESS, unfit, untrained
from rayscale.study.metrics import LOWER_IS_BETTER, PERCENTS
from rayscale.verdict.metric_law import LOSS, refusals

# Where the study names no law in log odds: the combination of all suited ones, and the simplest for each model.
OF_METRIC: tuple[str | Law, ...] = ("auto", "logit_power")


@dataclass(frozen=True)
class StudyLaws:
    """The laws of `target`, a column: over all models and of one model each (smallest first), both in the order of the
    study's laws."""

    target: str
    shared: tuple[Fit, ...]
    single: tuple[Fit, ...]

    def of(self, model: str) -> list[Fit]:
        """What may speak of a model, the most trusted first."""
        return [*self.shared, *(fit for fit in self.single if (fit.by or {}).get("model") == model)]


@dataclass(frozen=True)
class Leading:
    """What the verdict rests on: `laws` as named (for the hold-out check), `fitted` to `trials`, and `why`.

    `trials` have the column `fitted.target`. `why` is a sentence, None where the study aims at a loss.
    """

    trials: pd.DataFrame
    laws: tuple[str | Law, ...]
    fitted: StudyLaws
    why: str | None = None

    @property
    def is_loss(self) -> bool:
        """Whether the verdict rests on the loss, and less is better."""
        return self.fitted.target == LOSS


def lead(
    trials: pd.DataFrame, laws: Sequence[str | Law], column: str, metric: str, usual: Sequence[str | Law],
    bootstrap: int, seed: int,
) -> tuple[Leading, StudyLaws | None]:  # fmt: skip
    """The laws to rest on, and those of the loss to show after them (None where these lead, or where they do not hold).

    Of the study's `laws` those in log odds are fitted to a metric, the others (`usual` where none is left) to the loss.
    """
    if metric in LOWER_IS_BETTER:
        return Leading(trials, tuple(laws), fit_study(trials, laws, column, LOSS, bootstrap, seed)), None
    in_odds = tuple(law for law in laws if law != "auto" and find_law(law).link == "logit") or OF_METRIC
    of_loss = tuple(law for law in laws if law not in in_odds) or tuple(usual)
    loss = fit_study(trials, of_loss, column, LOSS, bootstrap, seed)
    quantity, fractions = as_fraction(trials, metric)
    fitted = fit_study(fractions, in_odds, column, quantity, bootstrap, seed)
    able = _able(fractions, fitted, column)
    if any(fit.estimate is not None for fit in able):
        again = rises_again(trials, metric, column)
        why = f"The verdict rests on {metric}, the study's target"
        if again is not None:
            why += f": beyond {again:,.0f} {column} the test loss rises again, and {metric} still improves"
        sound = again is None and any(fit.estimate is not None for fit in (*loss.shared, *loss.single))
        return Leading(fractions, in_odds, fitted, f"{why}."), loss if sound else None
    measured = pd.to_numeric(trials.loc[trials["status"] == "ok", metric], errors="coerce").notna().any()
    reason = reasons(able[:1]) or "no law could be fitted"
    why = f"The verdict rests on the test loss, since no law of {metric} can be fitted: {reason}."
    return Leading(trials, of_loss, loss, why if measured else None), None


def as_fraction(trials: pd.DataFrame, metric: str) -> tuple[str, pd.DataFrame]:
    """The column in which a metric is a fraction, and the trials with it: of a percentage it has a name of its own."""
    unit = 100.0 if metric in PERCENTS else 1.0
    column = f"{metric} / 100" if metric in PERCENTS else metric
    return column, trials.assign(**{column: pd.to_numeric(trials[metric], errors="coerce").astype(float) / unit})


def rises_again(trials: pd.DataFrame, metric: str, column: str) -> float | None:
    """The data size at which the loss is least, where it rises beyond it and the metric does not fall; else None.

    Both are means over the models that were run at the largest size.
    """
    rows = trials[(trials["status"] == "ok") & (unfit(trials) == "")].dropna(subset=[column, LOSS, metric])
    rows = rows.assign(**{name: pd.to_numeric(rows[name]).astype(float) for name in (column, LOSS, metric)})
    if not len(rows):
        return None
    cells = rows.groupby(["model", column])[[LOSS, metric]].mean().reset_index()
    largest = cells[column].max()
    cells = cells[cells["model"].isin(cells.loc[cells[column] == largest, "model"])]
    everywhere = cells[column].map(cells[column].value_counts()) == cells["model"].nunique()
    means = cells[everywhere].groupby(column)[[LOSS, metric]].mean()
    least = float(means[LOSS].idxmin())
    last, turn = means.iloc[-1], means.loc[least]
    # More than seeds differ by: of a single seed nothing is known, and a percent is taken.
    scatter = rows.groupby(["model", column])[LOSS].std(ddof=1).dropna()
    noise = float(np.sqrt((scatter**2).mean())) * 2 / np.sqrt(max(1, cells["model"].nunique())) if len(scatter) else 0.0
    rises = last[LOSS] - turn[LOSS] > max(noise, 0.01 * turn[LOSS])
    return least if rises and last[metric] > turn[metric] else None


def _able(trials: pd.DataFrame, fitted: StudyLaws, column: str) -> list[Fit]:
    """The fits that say how the quantity of the largest model changes with data, the most trusted first."""
    models = sized_models(trials)
    of_largest = fitted.of(models.index[-1]) if len(models) else []
    return [fit for fit in of_largest if fit.role_of(column)]


def reasons(fits: Iterable[Fit]) -> str:
    """Why these fits were refused, each reason once."""
    return "; ".join(dict.fromkeys(text for fit in fits if fit.estimate is None for text in refusals(fit)))


def _fit_rows(
    trials: pd.DataFrame, rows: NDArray[np.bool_], law: str | Law, column: str, target: str, bootstrap: int, seed: int,
    holdout: str | None = None,
) -> Fit:  # fmt: skip
    """The fit of a law to `rows` (a mask) without those that are unfit for it; these are listed as dropped."""
    reasons = unfit(trials)
    places = np.flatnonzero(rows & (reasons == ""))
    size = "params" if _is_over_models(law) else None
    fit = cast(Fit, fit_law(trials.iloc[places], law, params=size, data=column, target=target, holdout=holdout,
                              bootstrap=bootstrap, seed=seed))  # fmt: skip
    dropped = [{**entry, "row": int(places[entry["row"]])} for entry in fit.rows_dropped]
    others = [{"row": int(row), "reason": str(reasons[row])} for row in np.flatnonzero(rows & (reasons != ""))]
    warned = untrained_runs(trials.iloc[np.flatnonzero(rows)])
    warnings = () if warned is None else ({"code": "untrained", "message": untrained_text(warned)},)
    ordered = tuple(sorted([*dropped, *others], key=lambda entry: entry["row"]))
    return replace(fit, rows_dropped=ordered, warnings=(*warnings, *fit.warnings))


def untrained_text(lost: Mapping[str, Any]) -> str:
    """How many runs did no better than guessing, and what guessing scores."""
    low, high = f"{lost['low']:.3g}", f"{lost['high']:.3g}"
    level = low if low == high else f"{low} to {high}"
    return (
        f"{lost['runs']} of {lost['of']} runs did no better than guessing (test loss at or above {level}) and "
        f"{'is' if lost['runs'] == 1 else 'are'} left out of every law"
    )


def untrained_runs(trials: pd.DataFrame) -> dict[str, Any] | None:
    """How many ok runs did no better than guessing, and the least and most that guessing scores; None if none did."""
    worse = untrained(trials)
    if not worse.any():
        return None
    guesses = trials.loc[worse, GUESS]
    return {
        "runs": int(worse.sum()),
        "of": int((trials["status"] == "ok").sum()),
        "low": float(guesses.min()),
        "high": float(guesses.max()),
    }


def sized_models(trials: pd.DataFrame) -> pd.Series:
    """Parameters by model name, the smallest first, of the models of which a run learnt anything."""
    sized = trials[(trials["status"] == "ok") & ~untrained(trials)].dropna(subset=["params"])
    return sized.groupby("model")["params"].median().astype(float).sort_values(kind="stable")


def is_of(trials: pd.DataFrame, model: Any) -> NDArray[np.bool_]:
    """Which trials are of this model, (rows,)."""
    return (trials["model"] == model).to_numpy(dtype=bool, na_value=False)


def _is_over_models(law: str | Law) -> bool:
    return law == "auto" or "params" in find_law(law).inputs


def fit_study(
    trials: pd.DataFrame, laws: Sequence[str | Law], column: str, target: str, bootstrap: int, seed: int,
    holdout: str | None = None,
) -> StudyLaws:  # fmt: skip
    """Every law of `target` over data (`column`) and model sizes.

    Over all models (none with fewer than two sizes) or for each model, as its inputs have it.
    """
    models = sized_models(trials)
    shared, single = [], []
    for law in laws:
        if strange := [role for role in find_law(law).inputs if role not in ("params", "data")]:
            text = f"{find_law(law).name} is a law over {', '.join(strange)}; those of a study are over params and data"
            raise InputError(text, where="laws")
        if _is_over_models(law):
            if models.nunique() > 1 or len(laws) == 1:
                everything = np.ones(len(trials), dtype=bool)
                shared.append(_fit_rows(trials, everything, law, column, target, bootstrap, seed, holdout))
            continue
        for model, params in models.items():
            fit = _fit_rows(trials, is_of(trials, model), law, column, target, bootstrap, seed, holdout)
            single.append(replace(fit, by={"model": model, "params": params}))
    return StudyLaws(target, tuple(shared), tuple(single))
