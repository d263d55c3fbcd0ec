"""Fit a law to a table: a robust minimum from many starts, intervals by bootstrap over configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite
from time import perf_counter
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rayscale.errors import InputError, TableError
from rayscale.laws.auto.auto import fit_auto
from rayscale.laws.auto.blend import AUTO
from rayscale.laws.fitting.bootstrap import resample, spread
from rayscale.laws.fitting.coordinates import Coordinates, link
from rayscale.laws.fitting.diagnosis import diagnose, few_resamples
from rayscale.laws.fitting.held_out import foretell
from rayscale.laws.fitting.huber import DELTA, huber_sum, minimise
from rayscale.laws.fitting.observations import (
    Observations,
    dropped_rows,
    input_columns,
    name_copies,
    name_rows,
    numbers,
    observe_groups,
    refusals,
    require_columns,
    runs_worth,
    select,
    size_columns,
    without_constants,
)
from rayscale.laws.fitting.outcome import Outcome
from rayscale.laws.fitting.result import FORETOLD, Fit, GroupedFit, score
from rayscale.laws.fitting.sizes import with_sizes
from rayscale.laws.fitting.starts import grid
from rayscale.laws.formula import find_law
from rayscale.laws.law import Array, Law
from rayscale.laws.two_stage import TWO_STAGE, TwoStage, check_stages, compose

POLISHED = (24, 12, 12)  # how many starts go on to each delta
TOLERANCES = (1e-4, 1e-4, 1e-9)  # only the last must be exact
DELTAS = (0.1, 0.01, DELTA)  # from near least squares to the objective: more starts end at the best


def fit_law(
    table: pd.DataFrame,
    law: str | Law,
    *,
    target: str,
    params: str | None = None,
    data: str | None = None,
    unique: str | None = None,
    compute: str | None = None,
    gpus: str | None = None,
    loss: str | None = None,
    copies: str | None = None,
    weights: str | None = None,
    through: str | None = None,
    by: str | list[str] | None = None,
    where: str | None = None,
    holdout: str | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Fit | GroupedFit:
    """Fit `law` to the columns `params` and `data` (sizes, any unit) and `target` (positive) of a table.

    `unique` (distinct data among `data`), `compute`, `gpus`, `loss` and `copies` (augmented ones of each example) name
    the columns of laws that need them. A column of sizes may hold text such as `7B`, `350M` or `1.2e9`.
    `weights` names the column of how many runs a row is worth, as the mean of so many is: its variance is that of a
    run over the weight, a row of 0 is left out. Only ratios count: weights are divided by their mean over the rows
    that a fit uses, so that low and high are those of a row of mean weight. Held-out rows count once each.
    `through` names the column of a loss on the way to a metric: `law` is then fitted to that loss, the target is a
    sigmoid of it, and the result is a TwoStage fit, or a GroupedFit of these.
    `where` says which rows to use at all, `holdout` which of these to keep out and predict, both as pandas queries.
    With `by` (columns) the result is a GroupedFit, one fit per group. The law `auto` is a Blend of all suited laws,
    weighed by evidence, on many groups or rows by how each predicts held-out ones; its groups borrow from each other.
    `bootstrap` is the number of resamples; the same `seed` gives the same result, whatever the order of the rows.

    A table that cannot identify the law gives outcome `not_identifiable` and says why in `warnings`. Raises TableError
    for a missing or non-numeric column and a bad query, InputError for an unknown law, fewer than two resamples and a
    seed that is no whole number from 0.
    """
    _check(table, by=by, holdout=holdout, bootstrap=bootstrap, seed=seed)
    given: dict[str, str | None] = {"params": params, "data": data, "unique": unique, "compute": compute, "gpus": gpus,
                                    "loss": loss, "copies": copies}  # fmt: skip
    law = find_law(law)
    if through is not None:
        check_stages(law, target, through, loss)
    elif law.name == TWO_STAGE.name:
        TwoStage.fit(table)  # says why there is none
    table = with_sizes(table, size_columns(table, law.inputs, given))
    if weights and law.result is not None and law.name != "auto":
        raise InputError(f"{law.name} takes no weights: there a row counts as one run; leave them out", where="weights")
    excluded = ~select(table, where, "where") if where else np.zeros(len(table), dtype=bool)
    held = select(table, holdout, "holdout") if holdout else np.zeros(len(table), dtype=bool)
    runs_worth(table, weights, excluded)  # of the whole table first, so that a message names its row there
    places, names = _groups(table, by)
    if through is not None:
        fits = _two_stages(table, law, given, target, through, weights, excluded, held, by, bootstrap, seed)
        return fits[0] if by is None else _grouped(fits, names, target)
    if law.name != "auto":  # auto chooses by itself which sizes matter
        given = without_constants(table, law, given, [rows[~excluded[rows]] for rows in places])
    columns = {} if law.name == "auto" else input_columns(table, law, given)

    def fit_named(groups: list[NDArray[np.int64]]) -> list[Fit]:
        rows = observe_groups(table, groups, law, target=target, columns=columns, excluded=excluded, held=held,
                              weights=weights)  # fmt: skip
        fits = []
        for observations in rows:
            fit = _fit(observations, law, target, bootstrap, seed)
            fits.append(fit if holdout is None else foretell(fit, observations))
        return fits

    def fit_own(rows: NDArray[np.int64]) -> Fit:
        """By the law's own class."""
        chosen = {**columns, **{role: column for role, column in given.items() if column}}
        asked = held[rows] if holdout else None
        fit = cast(Any, law.result).fit(table.iloc[rows], target=target, columns=chosen, excluded=excluded[rows],
                                        held=asked, bootstrap=bootstrap, seed=seed)  # fmt: skip
        return cast(Fit, replace(fit, rows_dropped=name_rows(fit.rows_dropped, rows)))

    def fit_groups(groups: list[NDArray[np.int64]]) -> list[Any]:
        if law.name == "auto":
            fits: list[Any] = list(fit_auto(table, groups, given, target=target, weights=weights, excluded=excluded,
                                            held=held, draws=bootstrap, seed=seed))  # fmt: skip
        else:
            fits = [fit_own(rows) for rows in groups] if law.result is not None else list(fit_named(groups))
        fits = [_count_unpredicted(each, rows[held[rows]]) for each, rows in zip(fits, groups, strict=True)]
        few, dropped = few_resamples(bootstrap), name_copies(table, [each.rows_dropped for each in fits])
        return [replace(each, rows_dropped=rows, weighted_by=weights,
                        warnings=(*each.warnings, *(few if each.params else [])))
                for each, rows in zip(fits, dropped, strict=True)]  # fmt: skip

    if by is None:
        return cast(Fit, fit_groups(places)[0])
    return _grouped(fit_groups(places), names, target)


def _grouped(fits: Sequence[Fit], names: Sequence[Mapping[str, Any]], target: str) -> GroupedFit:
    """The fits of groups of these names, and the score of all their held-out rows."""
    groups = tuple(replace(fit, by=name) for fit, name in zip(fits, names, strict=True))
    foretold = [fit.predictions for fit in groups if fit.predictions is not None]
    predictions = pd.concat(foretold) if foretold else None
    return GroupedFit(groups, None if predictions is None else score(predictions, target), predictions)


def _two_stages(
    table: pd.DataFrame, law: Law, given: Mapping[str, str | None], target: str, through: str,
    weights: str | None, excluded: NDArray[np.bool_], held: NDArray[np.bool_], by: str | list[str] | None,
    bootstrap: int, seed: int,
) -> list[TwoStage]:  # fmt: skip
    """One fit by way of the loss for each group of the table, in the order of `_groups`."""
    out, metric = "_left_out", numbers(table, target)[~excluded]
    if (metric > 1).any():
        text = f"'{target}' is above 1, up to {np.nanmax(metric):g}; write a metric in percent as a fraction"
        raise TableError(f"{text} (0.87, not 87)", where="target")
    if not (metric < 1).any():
        raise TableError(f"no value of '{target}' is below 1: log odds need less", where="target")
    places, _ = _groups(table, by)

    def stage(law: Law, target: str, **roles: str | None) -> Fit | GroupedFit:
        rows = table.assign(**{out: excluded | held})
        return fit_law(rows, law, target=target, weights=weights, by=by, where=f"not {out}", bootstrap=bootstrap,
                       seed=seed, **roles)  # fmt: skip

    stages = [stage(law, through, **given), stage(AUTO, target, loss=through)]
    pairs = zip(*(each.groups if isinstance(each, GroupedFit) else (each,) for each in stages), strict=True)
    fits = []
    for (first, second), rows in zip(pairs, places, strict=True):
        place = {int(row): k for k, row in enumerate(rows)}
        local = [replace(fit, rows_dropped=tuple({**entry, "row": place[entry["row"]]} for entry in fit.rows_dropped))
                 for fit in (first, second)]  # fmt: skip
        fit = compose((local[0], local[1]), table.iloc[rows], target, weights, excluded[rows], held[rows])
        fit = replace(fit, rows_dropped=name_rows(fit.rows_dropped, rows), stages=(first, second))
        fits.append(_count_unpredicted(fit, rows[held[rows]]))
    dropped = name_copies(table, [fit.rows_dropped for fit in fits])
    return [replace(fit, rows_dropped=rows) for fit, rows in zip(fits, dropped, strict=True)]


def _groups(table: pd.DataFrame, by: str | list[str] | None) -> tuple[list[NDArray[np.int64]], list[dict[str, Any]]]:
    """The rows of every group, by position, and the group's name, column -> value; one group of all without `by`."""
    if by is None:
        return [np.arange(len(table))], [{}]
    keys = [by] if isinstance(by, str) else list(by)
    require_columns(table, keys)
    places, names = [], []
    for key, group in table[keys].reset_index(drop=True).groupby(keys, sort=True, dropna=False):
        plain = (value.item() if isinstance(value, np.generic) else value for value in key)
        values = [value if isinstance(value, int | float) and isfinite(value) else str(value) for value in plain]
        names.append(dict(zip(keys, values, strict=True)))
        places.append(group.index.to_numpy())
    return places, names


def _count_unpredicted(fit: Any, held: NDArray[np.int64]) -> Any:
    """The fit; if it is a refusal, with its held-out rows (positions) among the dropped, so that no row vanishes."""
    known = {each["row"] for each in fit.rows_dropped}
    left = [int(row) for row in held if int(row) not in known]
    if fit.params or not left:
        return fit
    dropped = [
        *fit.rows_dropped,
        *({"row": row, "reason": "held out, but there is no fit to predict it"} for row in left),
    ]
    others = [each for each in fit.warnings if each["code"] != "dropped_rows"]
    return replace(fit, rows_dropped=tuple(sorted(dropped, key=lambda each: each["row"])),
                   warnings=(*others, *dropped_rows(dropped)))  # fmt: skip


def _check(table: Any, *, by: Any, holdout: str | None, bootstrap: Any, seed: Any) -> None:
    """Raises TableError or InputError for arguments that no law can be fitted by."""
    if not isinstance(table, pd.DataFrame):
        raise TableError(f"found {type(table).__name__}; a law is fitted to a pandas DataFrame, one row per run")
    if not isinstance(bootstrap, int | np.integer) or bootstrap < 2:
        raise InputError(f"bootstrap is {bootstrap}; an interval needs at least 2 resamples", where="bootstrap")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed is {seed}; it must be a whole number, 0 or more", where="seed")
    if by is not None and not len(by):
        raise InputError("names no column; name one or leave it out", where="by")
    if holdout and (clash := [name for name in FORETOLD if name in table.columns]):
        message = f"the table has a column '{clash[0]}' where the predictions would go; rename it"
        raise TableError(message, code="ambiguous_column", where="holdout")


def _fit(observations: Observations, law: Law, target: str, bootstrap: int, seed: int) -> Fit:
    """The fit of the used rows, or the refusal of them."""
    began, warnings = perf_counter(), refusals(observations, law)
    ranges = {role: (float(v.min()), float(v.max())) for role, v in observations.inputs.items() if len(v)}
    refused = Fit(
        law,
        target,
        observations.columns,
        outcome=Outcome.NOT_IDENTIFIABLE,
        rows_used=len(observations.target),
        rows_dropped=observations.dropped,
        warnings=(*warnings, *observations.warnings()),
        data_range=ranges,
    )
    if warnings:
        return replace(refused, seconds=perf_counter() - began)
    linked = link(law.link, observations.target)
    coordinates = Coordinates.of(law, observations.inputs, observations.target)
    with np.errstate(all="ignore"):  # far steps may overflow; whatever is not finite in the end is refused below
        ends, objective, settled = search(coordinates, observations.inputs, observations.target, observations.weights)
        best = int(np.argmin(objective))
        at_best = ends[objective <= objective[best] * 1.001 + 1e-12]
        estimate, draws, misfits = resample(coordinates, observations, linked, ends[best], at_best, bootstrap, seed)
        natural, sample = coordinates.natural(ends[best]), coordinates.natural(draws)
        is_log = coordinates.is_positive
        point, cloud = (np.where(is_log, np.log(each), each) for each in (natural, sample))
        pairs = np.array(estimate.interval(point, cloud))
        pairs = np.where(is_log, np.exp(pairs), pairs)
        covariance = spread(sample)
        outcome, findings = diagnose(estimate, observations, linked, at_best, pairs, misfits)
    if not (settled[best] and all(np.isfinite(each).all() for each in (natural, pairs, covariance))):
        why = "no start reached a finite minimum; check the table for extreme values"
        if np.isfinite(natural).all():
            why = "the search did not settle: along a ridge, ever larger parameters fit ever so slightly better"
        warning = {"code": "flat_ridge", "message": why}
        return replace(refused, outcome=Outcome.FAILED, warnings=(*refused.warnings, warning))
    return replace(
        refused,
        outcome=outcome,
        params=dict(zip(law.names, natural.tolist(), strict=True)),
        standard_errors=dict(zip(law.names, np.sqrt(np.diag(covariance)).tolist(), strict=True)),
        intervals=dict(zip(law.names, map(tuple, pairs.T.tolist()), strict=True)),
        covariance=tuple(map(tuple, covariance.tolist())),
        objective=float(objective[best]),
        starts=len(ends),
        starts_at_best=len(at_best),
        warnings=(*refused.warnings, *findings),
        estimate=estimate,
        seconds=perf_counter() - began,
    )


def search(
    coordinates: Coordinates, inputs: Mapping[str, Array], target: Array, worth: Array
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Where the best few starts end, (starts, p), their objective (infinite if it is not finite), and which settled."""
    linked, ends = link(coordinates.law.link, target), grid(coordinates, inputs, target, worth)
    for rank, delta in enumerate(DELTAS):
        here = huber_sum(coordinates.linked(ends, inputs) - linked, worth, delta)
        here = np.where(np.isfinite(here), here, np.inf)
        ends = ends[np.argsort(here, kind="stable")[: POLISHED[rank]]]
        ends, objective, settled = minimise(
            coordinates, inputs, ends, linked, worth, delta=delta, tolerance=TOLERANCES[rank]
        )
    return ends, np.where(np.isfinite(objective), objective, np.inf), settled
