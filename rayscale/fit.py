"""Fit a law to a table: a robust minimum from many starts, intervals by bootstrap over configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from time import perf_counter

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from rayscale.coordinates import Coordinates, link
from rayscale.errors import InputError
from rayscale.fitted import Z95, Estimate, Fit, GroupedFit, score
from rayscale.formula import find_law
from rayscale.huber import DELTA, Array, huber_sum, minimise
from rayscale.laws import Law
from rayscale.observations import Observations, input_columns, observe, refusals, require_columns, select
from rayscale.starts import grid

# With this many configurations per parameter, whole configurations are resampled; with fewer, when most resamples would
# lack some size, noise around the fitted law is drawn: by simulation it covers better there.
MANY_PER_PARAMETER = 8
SAVED_DRAWS = 1000
POLISHED = (24, 12, 12)  # how many starts go on to each delta
TOLERANCES = (1e-4, 1e-4, 1e-9)  # only the last must be exact
DELTAS = (0.1, 0.01, DELTA)  # from near least squares to the objective: more starts end at the best
BATCH_VALUES = 2_000_000  # rows x resamples worked on at once: about 500 MB for five parameters


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
    by: str | list[str] | None = None,
    where: str | None = None,
    holdout: str | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Fit | GroupedFit:
    """Fit `law` to the columns `params` and `data` (sizes, any unit) and `target` (positive) of a table.

    `unique` (distinct data among `data`), `compute`, `gpus` and `loss` name the columns of laws that need them.
    `where` says which rows to use at all, `holdout` which of these to keep out and predict, both as pandas queries.
    With `by` (columns) the result is a GroupedFit, one fit per group. `bootstrap` is the number of resamples; the
    same `seed` gives the same result, whatever the order of the rows.

    A table that cannot identify the law gives outcome `not_identifiable` and says why in `warnings`. Raises TableError
    for a missing or non-numeric column and a bad query, InputError for an unknown law and fewer than two resamples.
    """
    law = find_law(law)
    if bootstrap < 2:
        raise InputError(f"bootstrap is {bootstrap}; an interval needs 2 resamples or more", where="bootstrap")
    given = {"params": params, "data": data, "unique": unique, "compute": compute, "gpus": gpus, "loss": loss}
    columns = input_columns(table, law, given)
    excluded = ~select(table, where, "where") if where else np.zeros(len(table), dtype=bool)
    held = select(table, holdout, "holdout") if holdout else np.zeros(len(table), dtype=bool)

    def fit_rows(rows: NDArray[np.int64]) -> Fit:
        part = table.iloc[rows]
        seen = observe(part, law, target=target, columns=columns, excluded=excluded[rows], held=held[rows])
        # A dropped row is named by its place in the table that was given, not in its group.
        dropped = tuple({**each, "row": int(rows[each["row"]])} for each in seen.dropped)
        found = _fit(replace(seen, dropped=dropped), law, target, bootstrap, seed)
        if holdout is None or found.estimate is None:
            return found
        predictions = pd.concat([seen.held_out, found.predict(seen.held_out)], axis=1)
        return replace(found, held_out=score(predictions, target), predictions=predictions)

    if by is None:
        return fit_rows(np.arange(len(table)))
    keys = [by] if isinstance(by, str) else list(by)
    require_columns(table, keys)
    groups = []
    for key, group in table[keys].reset_index(drop=True).groupby(keys, sort=True, dropna=False):
        plain = (value.item() if isinstance(value, np.generic) else value for value in key)
        names = [value if isinstance(value, int | float) and isfinite(value) else str(value) for value in plain]
        groups.append(replace(fit_rows(group.index.to_numpy()), by=dict(zip(keys, names, strict=True))))
    foretold = [each.predictions for each in groups if each.predictions is not None]
    predictions = pd.concat(foretold) if foretold else None
    return GroupedFit(tuple(groups), None if predictions is None else score(predictions, target), predictions)


def _fit(seen: Observations, law: Law, target: str, bootstrap: int, seed: int) -> Fit:
    """The fit of the used rows, or the refusal of them."""
    began, warnings = perf_counter(), refusals(seen, law)
    ranges = {role: (float(v.min()), float(v.max())) for role, v in seen.inputs.items() if len(v)}
    refused = Fit(law, target, seen.columns, outcome="not_identifiable", data_range=ranges, rows_dropped=seen.dropped,
                  rows_used=len(seen.target), warnings=(*warnings, *seen.warnings()))  # fmt: skip
    if warnings:
        return replace(refused, seconds=perf_counter() - began)
    linked = link(law.link, seen.target)
    coordinates = Coordinates.of(law, seen.inputs, seen.target)
    with np.errstate(all="ignore"):  # far steps may overflow; whatever is not finite in the end is refused below
        ends, objective, settled = search(coordinates, seen.inputs, seen.target)
        best = int(np.argmin(objective))
        at_best = ends[objective <= objective[best] * 1.001 + 1e-12]
        estimate, draws, misfits = _bootstrap(coordinates, seen, linked, ends[best], at_best, bootstrap, seed)
        natural, sample = coordinates.natural(ends[best]), coordinates.natural(draws)
        is_log = coordinates.is_log
        point, cloud = (np.where(is_log, np.log(each), each) for each in (natural, sample))
        pairs = np.array(estimate.interval(point, cloud))
        pairs = np.where(is_log, np.exp(pairs), pairs)
        covariance = np.cov(sample, rowvar=False)
    if not (settled[best] and all(np.isfinite(each).all() for each in (natural, pairs, covariance))):
        text = {"code": "flat_ridge", "message": "no start reached a finite minimum; check the table's largest values"}
        return replace(refused, outcome="failed", warnings=(*refused.warnings, text))
    outcome, findings = _findings(estimate, seen, at_best, pairs, misfits)
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
    coordinates: Coordinates, inputs: Mapping[str, Array], target: Array
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Where the best few starts end, (starts, p), their objective (infinite if it is not finite), and which settled."""
    linked, ends = link(coordinates.law.link, target), grid(coordinates, inputs, target)
    for rank, delta in enumerate(DELTAS):
        here = huber_sum(coordinates.linked(ends, inputs) - linked, 1.0, delta)
        here = np.where(np.isfinite(here), here, np.inf)
        ends = ends[np.argsort(here, kind="stable")[: POLISHED[rank]]]
        ends, objective, settled = minimise(
            coordinates, inputs, ends, linked, np.ones(1), delta=delta, tolerance=TOLERANCES[rank]
        )
    return ends, np.where(np.isfinite(objective), objective, np.inf), settled


def _bootstrap(
    coordinates: Coordinates, seen: Observations, linked: Array, theta: Array, tied: Array, count: int, seed: int
) -> tuple[Estimate, Array, bool]:
    """The estimate, all its draws (count, p), and whether the law misfits; the seeds of a configuration go together.

    Resamples start in turn from every solution as good as the best (`tied`): along a ridge these differ, and the
    intervals must know it.
    """
    fitted, groups = coordinates.linked(theta, seen.inputs), seen.configurations
    run, mean, degrees, misfits = _noise(linked - fitted, groups, len(theta))
    rng, m, n, draws = np.random.default_rng(seed), int(groups.max()) + 1, len(groups), []
    batch = max(1, BATCH_VALUES // n)
    for first in range(0, count, batch):
        size = min(batch, count - first)
        if m >= MANY_PER_PARAMETER * len(theta):
            targets, weights = linked, rng.multinomial(m, np.full(m, 1 / m), size)[:, groups].astype(float)
        else:
            misses = rng.normal(0, 1, (size, m))[:, groups] * mean
            targets, weights = fitted + misses + rng.normal(0, 1, (size, n)) * run, np.ones(1)
        start = tied[np.arange(first, first + size) % len(tied)]
        # A resample need not settle as finely as the point: 1e-6 of its objective is far below the scatter of draws.
        draws.append(minimise(coordinates, seen.inputs, start, targets, weights, steps=600, tolerance=1e-6)[0])
    everything = np.concatenate(draws)
    widening = float(stats.t.ppf(0.975, degrees)) / Z95
    kept = np.round(everything[:SAVED_DRAWS], 7)
    return Estimate(coordinates, theta, kept, float(np.hypot(run, mean)), degrees, widening), everything, misfits


def _noise(residual: Array, groups: NDArray[np.int64], parameters: int) -> tuple[float, float, int, bool]:
    """Deviation of a run, deviation of a configuration's mean, degrees of freedom behind them, whether the law misfits.

    The classical lack-of-fit test: where the means of configurations scatter more than their seeds explain, the law
    misses something, and the misses are noise of their own, known from as few configurations as there are.
    """
    n, m = len(residual), int(groups.max()) + 1
    # Winsorised at five robust deviations, so that garbage rows do not set the noise. A fit by Huber passes through
    # about as many rows as it has parameters; their residuals of zero say nothing.
    limit = 5 * 1.4826 * np.median(np.sort(np.abs(residual))[parameters:])
    residual = np.clip(residual, -limit, limit)
    count = np.bincount(groups)
    means = np.bincount(groups, residual) / count
    within = float(np.sum((residual - means[groups]) ** 2)) / max(n - m, 1)
    between = float(np.sum(count * means**2)) / (m - parameters)
    # Below 1e-16 (1e-8 of the target) there is rounding only. Rows given twice agree fully: they are no second sample.
    if n > m and between > max(1e-16, within * stats.f.isf(0.01, m - parameters, n - m)):
        return within**0.5, ((between - within) / float(count.mean())) ** 0.5, m - parameters, True
    return float(np.sum(residual**2) / (n - parameters)) ** 0.5, 0.0, n - parameters, False


def _findings(
    estimate: Estimate, seen: Observations, tied: Array, pairs: Array, misfits: bool
) -> tuple[str, list[dict[str, str]]]:
    """The outcome of a fit that settled, and what its reader must know."""
    law, theta = estimate.coordinates.law, estimate.theta
    low, high = estimate.coordinates.bounds()
    m, n = len(np.unique(seen.configurations)), len(seen.target)
    bound = [law.names[j] for j in np.flatnonzero((theta <= low + 1e-9) | (theta >= high - 1e-9))]
    exponents = np.flatnonzero(~estimate.coordinates.is_log)
    loose = [law.names[j] for j in exponents if np.ptp(tied[:, j]) > 0.1 * theta[j] or pairs[1, j] > 10 * pairs[0, j]]
    few = [seen.columns[role] for role, values in seen.inputs.items() if len(np.unique(values)) == 2]
    said = (
        (few, "few_sizes", f"two values of {', '.join(few)}: three or more tell a power law from other curves"),
        (m < 2 * len(theta), "few_points", f"{m} configurations for {len(theta)} parameters: hence wide intervals"),
        (bound, "at_bound", f"{', '.join(bound)} ended at the edge of the search: the table does not determine it"),
        (loose, "flat_ridge", f"{', '.join(loose)} could be several times as large or small: no number to quote"),
        (misfits, "misspecified", "configurations miss the law by more than seeds explain; the intervals allow for it"),
        (n == m, "no_replicates", "no configuration was run twice: the noise of a run is read from the residuals"),
    )
    outcome = "at_bound" if bound else "flat" if loose else "converged"
    return outcome, [{"code": code, "message": message} for true, code, message in said if true]
