"""What held-out rows say of a law, and the rival that it must beat there: the last value, kept constant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from scipy import stats

from rayscale.laws.fitting.observations import Observations, numbers
from rayscale.laws.fitting.result import Fit, far, score
from rayscale.laws.law import Array

F = TypeVar("F", bound=Fit)

RARE = 0.025  # the chance below which a coverage is no bad luck: 1 of 3, 2 of 4, 7 of 10


def foretell(fit: F, observations: Observations) -> F:
    """The fit with its predictions of the held-out rows, their score, and what they say of it; without any an estimate.

    How far they reach, and whether they refute the law, `misspecified`: it foretold them less well than the constant
    did, or most lie outside of their 95% intervals.
    """
    if fit.estimate is None:
        return fit
    table = pd.concat([observations.held_out, fit.predict(observations.held_out)], axis=1)
    fit = replace(fit, held_out=score(table, fit.target), predictions=table)
    if not len(table):
        return fit
    said = far(float(table["extrapolation"].max()))
    if all(each["code"] != "misspecified" for each in fit.warnings):
        said += _refuted(fit, table, observations)
    return replace(fit, warnings=(*fit.warnings, *said))


def _refuted(fit: Fit, table: pd.DataFrame, observations: Observations) -> list[dict[str, str]]:
    measured = np.log(numbers(table, fit.target))
    asked = {role: numbers(table, column) for role, column in observations.columns.items()}
    error = float(np.mean((np.log(numbers(table, "predicted")) - measured) ** 2))
    constant_error = float(np.mean((nearest_kept(observations.inputs, observations.target, asked) - measured) ** 2))
    # Within twice the noise of a run nothing can be told.
    if error > max(constant_error, (2 * fit.known_estimate().noise) ** 2):
        return [explains_less(error / max(constant_error, 1e-300), "on the held-out rows")]
    if fit.held_out and too_narrow(fit.held_out):
        inside = round(fit.held_out["covered"] * len(table))
        inside_text = f"only {inside} of {len(table)} held-out rows lie in their 95% intervals"
        text = f"{inside_text}: they are too narrow beyond the data"
        return [{"code": "misspecified", "message": text}]
    return []


def too_narrow(scored: Mapping[str, Any]) -> bool:
    """Whether fewer held-out rows lie in their 95% intervals than chance explains (one-sided binomial test).

    `scored` as of `rayscale.laws.fitting.result.score`: n, covered.
    """
    n, covered = int(scored["n"]), scored["covered"]
    return covered is not None and bool(stats.binom.cdf(round(covered * n), n, 0.95) < RARE)


def nearest_kept(kept: Mapping[str, Array], target: Array, asked: Mapping[str, Array]) -> Array:
    """Log target of the nearest kept rows, (asked rows,): for one curve beyond its data, that of the last size kept.

    Inputs are role -> (rows,). Nearest by log sizes, each in units of its spread; those as near are averaged.
    """
    places = {role: np.log(np.maximum(values, 1e-300)) for role, values in kept.items()}
    sought = {role: np.log(np.maximum(asked[role], 1e-300)) for role in kept}
    far = np.sum([((sought[r][:, None] - places[r]) / (np.ptp(places[r]) or 1.0)) ** 2 for r in kept], axis=0)
    near = np.isclose(far, far.min(axis=1, keepdims=True))
    return np.asarray((near * np.log(target)).sum(1) / near.sum(1))


def explains_less(times: float, where: str) -> dict[str, str]:
    """The warning that a squared error was so many times that of the constant."""
    text = f"{where} its squared error was {times:.2g} times that of repeating the last value"
    return {"code": "misspecified", "message": f"beyond the data the law predicts less well than a constant: {text}"}
