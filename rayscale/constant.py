"""The rival that every law must beat beyond the data: the last value, kept constant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np

from rayscale.coordinates import Array
from rayscale.fitted import Fit
from rayscale.observations import Observations, numbers

F = TypeVar("F", bound=Fit)


def beside_a_constant(found: F, seen: Observations) -> F:
    """The fit, with the warning `misspecified` if it foretold its held-out rows less well than the constant did."""
    table = found.predictions
    if table is None or not len(table):
        return found
    measured = np.log(numbers(table, found.target))
    asked = {role: numbers(table, column) for role, column in seen.columns.items()}
    own = float(np.mean((np.log(numbers(table, "predicted")) - measured) ** 2))
    others = float(np.mean((nearest_kept(seen.inputs, seen.target, asked) - measured) ** 2))
    # Within twice the noise of a run nothing can be told.
    if own <= max(others, (2 * found.known_estimate().noise) ** 2):
        return found
    times = own / max(others, 1e-300)
    return replace(found, warnings=(*found.warnings, explains_less(times, "on the held-out rows")))


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
    text = f"{where} its squared error was {times:.2g} times that of the last value kept"
    return {"code": "misspecified", "message": f"the chosen form explains less than a constant beyond the data: {text}"}
