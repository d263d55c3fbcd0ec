"""`--law auto`: all suited laws fitted to all groups of a table, weighed by rolling hold-out, and combined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from rayscale.laws.auto.blend import AUTO, Blend, Mixture, blended
from rayscale.laws.auto.discrepancy import Version, configurations, weigh
from rayscale.laws.auto.panel import NOISE_PSEUDO, POPULATION, Panel, PanelFit, draw, draw_correlated, fit_panel
from rayscale.laws.auto.weights import Choice, choose, suited, trends
from rayscale.laws.catalogue import SUFFIX
from rayscale.laws.fitting.bootstrap import SAVED_DRAWS, spread
from rayscale.laws.fitting.coordinates import link
from rayscale.laws.fitting.held_out import beside_held_out, explains_less
from rayscale.laws.fitting.huber import huber_sum
from rayscale.laws.fitting.observations import Observations, count_text, observe, refusals, usual_columns
from rayscale.laws.fitting.outcome import Outcome
from rayscale.laws.fitting.result import Z95, Estimate, Fit, score
from rayscale.laws.law import Array, Law

ALONE = 12  # configurations over several sizes from which on a curve says more by itself than its kind does
FEWEST_ALONE = 5  # configurations of a curve without a population, or two more than the simplest law's parameters
FEWEST = 2  # sizes from which a curve can be fitted among others of its kind
DRAWN_VALUES = 1_000_000  # rows x draws, at most, but with FEWEST_DRAWS draws or more
FEWEST_DRAWS = 200
STATEABLE = (1e-100, 1e100)
MISFIT = 20.0  # Bayes factor of a discrepancy from which on the laws are said to miss the runs ("strong")
OF_HEAVIEST = (
    "outcome",
    "params",
    "standard_errors",
    "intervals",
    "covariance",
    "objective",
    "starts",
    "starts_at_best",
)
WIDE = 10.0  # an exponent whose interval spans this many times is no number to quote


@np.errstate(all="ignore")  # absurd sizes and far steps overflow; what is not finite in the end is refused as failed
def fit_auto(
    table: pd.DataFrame,
    groups: Sequence[NDArray[np.int64]],
    given: Mapping[str, str | None],
    *,
    target: str,
    excluded: NDArray[np.bool_],
    held: NDArray[np.bool_],
    draws: int,
    seed: int,
) -> list[Blend]:
    """One blend per group (rows of the table by position), the laws weighed on all groups together.

    `given`: role -> column as the caller named them; where none is named the usual names are looked for. A size that
    is the same within every group is left out: within a group it changes nothing. `excluded` and `held` are (rows,).
    A curve too short to be fitted alone borrows from the others, if there are enough of these.
    """
    began = perf_counter()
    columns = usual_columns(table, given)
    columns = _varying(table, groups, columns, target, excluded | held)
    rows = [_observe(table, each, columns, target, excluded, held) for each in groups]
    if len(groups) > 1 and len(columns) > 1 and any(alone := [_count(each) >= ALONE for each in rows]):

        def fit(some: list[NDArray[np.int64]]) -> list[Blend]:
            return fit_auto(table, some, given, target=target, excluded=excluded, held=held, draws=draws, seed=seed)

        rest = iter(fit([rows for rows, long in zip(groups, alone, strict=True) if not long]) if not all(alone) else ())
        return [fit([rows])[0] if long else next(rest) for rows, long in zip(groups, alone, strict=True)]
    known = [observations.target for observations in rows if len(observations.target)]
    below_one = bool(known) and max(each.max() for each in known) < 1
    trend = trends([(observations.inputs, observations.target) for observations in rows if len(observations.target)])
    laws = suited(list(columns), below_one, trend)
    if len(columns) == 1:  # a law in data serves any one size
        role = laws[0].inputs[0]
        columns = {role: next(iter(columns.values()))}
        rows = [
            replace(observations, inputs={role: next(iter(observations.inputs.values()))}, columns=columns)
            for observations in rows
        ]
    simplest = min(laws, key=lambda law: len(law.names))
    reasons = [refusals(observations, simplest) for observations in rows]
    shared = sum(not why for why in reasons) >= POPULATION
    if shared:
        reasons = [[] if _can_borrow(observations) else why for observations, why in zip(rows, reasons, strict=True)]
    else:
        whole = min((law for law in laws if not law.name.endswith(SUFFIX)), key=lambda law: len(law.names))
        reasons = [why or _too_few(observations, whole) for observations, why in zip(rows, reasons, strict=True)]
    if rising := _rising(trend, columns, target, below_one, laws):
        reasons = [[*why, rising] for why in reasons]
    sound = [index for index, why in enumerate(reasons) if not why]
    blends = [_refused(observations, target, why) for observations, why in zip(rows, reasons, strict=True)]
    if not sound:
        return blends
    panel = Panel.of(laws[0], [_curve(rows[index]) for index in sound])
    members = [member for law in laws if _is_finite(member := fit_panel(panel, law))]
    if not members:
        return [_failed(each) if index in sound else each for index, each in enumerate(blends)]
    choice = None
    if len(sound) >= POPULATION:
        noise = np.min([_log_noise(panel, each) for each in members], axis=0)
        choice = choose(panel, [member.law for member in members], list(columns), noise)
    for place, index in enumerate(sound):
        blends[index] = _blend(rows[index], blends[index], panel, place, members, choice, draws, seed)
    seconds = (perf_counter() - began) / len(sound)
    blends = [replace(each, seconds=seconds if each.members else 0.0) for each in blends]
    return [
        _foretell(each, observations) if held.any() else each for each, observations in zip(blends, rows, strict=True)
    ]


def _is_finite(member: PanelFit) -> bool:
    return all(np.isfinite(each).all() for each in (member.theta, member.covariance, member.noise, member.prior))


def _failed(refused: Blend) -> Blend:
    text = {"code": "flat_ridge", "message": "no law reached a finite minimum; check the table for extreme values"}
    return replace(refused, outcome=Outcome.FAILED, warnings=(text, *refused.warnings))


def _varying(
    table: pd.DataFrame,
    groups: Sequence[NDArray[np.int64]],
    columns: dict[str, str],
    target: str,
    out: NDArray[np.bool_],
) -> dict[str, str]:  # fmt: skip
    """The columns without those of one size in every group; all of them where none varies."""
    observations = [_observe(table, each, columns, target, out, np.zeros(len(table), dtype=bool)) for each in groups]
    varies = {role: any(len(np.unique(one.inputs[role])) > 1 for one in observations) for role in columns}
    return {role: column for role, column in columns.items() if varies[role]} or columns


def _observe(
    table: pd.DataFrame, rows: NDArray[np.int64], columns: Mapping[str, str], target: str,
    excluded: NDArray[np.bool_], held: NDArray[np.bool_],
) -> Observations:  # fmt: skip
    law = replace(AUTO, inputs=tuple(columns))
    part = table.iloc[rows]
    observations = observe(part, law, target=target, columns=columns, excluded=excluded[rows], held=held[rows])
    # A dropped row is named by its place in the table that was given, not in its group.
    return replace(
        observations, dropped=tuple({**each, "row": int(rows[each["row"]])} for each in observations.dropped)
    )


def _can_borrow(observations: Observations) -> bool:
    varied = all(len(np.unique(values)) >= FEWEST for values in observations.inputs.values())
    return varied and len(observations.target) > 0 and float(np.ptp(observations.target)) > 0


def _rising(
    trend: Mapping[str, int], columns: Mapping[str, str], target: str, below_one: bool, laws: Sequence[Law]
) -> dict[str, str] | None:  # fmt: skip
    """Why a target of 1 and more that only rises is not fitted: laws of a loss fall, a metric's are of fractions."""
    # Without rows there is no trend either.
    up = [column for column, sign in zip(columns.values(), trend.values(), strict=False) if sign > 0]
    if not up or min(trend.values()) < 0 or below_one or not all(law.target == "loss" for law in laws):
        return None
    text = f"{target} rises with {', '.join(up)}, but laws of a loss fall; write a metric in percent as a fraction"
    return {"code": "misspecified", "message": f"{text} (0.87, not 87), or name a law"}


def _too_few(observations: Observations, simplest: Law) -> list[dict[str, str]]:
    """Why a curve that has none to borrow from is too short to choose laws by, where it is."""
    need = min(FEWEST_ALONE, len(simplest.names) + 2)
    if (count := _count(observations)) >= need:
        return []
    text = f"auto needs {need} to choose between laws; {simplest.name} alone needs {len(simplest.names) + 1}"
    return [{"code": "few_points", "message": f"{count_text(count)}; {text}"}]


def _count(observations: Observations) -> int:
    """How many different configurations there are."""
    return int(observations.configurations.max(initial=-1)) + 1


def _refused(observations: Observations, target: str, why: list[dict[str, str]]) -> Blend:
    ranges = {role: (float(v.min()), float(v.max())) for role, v in observations.inputs.items() if len(v)}
    law, columns = replace(AUTO, inputs=tuple(observations.columns)), observations.columns
    return Blend(law, target, columns, outcome=Outcome.NOT_IDENTIFIABLE, rows_used=len(observations.target),
                 rows_dropped=observations.dropped, warnings=(*why, *observations.warnings()),
                 data_range=ranges)  # fmt: skip


def _curve(observations: Observations) -> tuple[Mapping[str, Array], Array, Array]:
    """The rows of one group for a panel. A row given several times is one measurement: its copies share its weight."""
    stacked = np.stack([*observations.inputs.values(), observations.target], axis=1)
    _, which, count = np.unique(stacked, axis=0, return_inverse=True, return_counts=True)
    return observations.inputs, observations.target, 1 / count[which.ravel()]


def _log_noise(panel: Panel, member: PanelFit) -> Array:
    """The deviation of a row's log target by one law, (curves,), whatever scale the law is fitted on."""
    if member.law.link != "logit":
        return member.noise
    return np.asarray(member.noise * (1 - np.exp(panel.level)))


def _blend(
    observations: Observations, refused: Blend, panel: Panel, place: int, members: Sequence[PanelFit],
    choice: Choice | None, draws: int, seed: int,
) -> Blend:  # fmt: skip
    """One curve's blend: laws weighed by `choice`, or, for a lone curve, by evidence, each with a discrepancy."""
    # In absurd units some law's parameters are beyond what a number can hold; the others then do without it.
    # A law with as many parameters as a lone curve has configurations fits anything and says nothing.
    most = np.inf if choice else _count(observations)
    members = [each for each in members if _is_stateable(panel, place, each) and len(each.law.names) < most]
    rng, rows = np.random.default_rng(seed), float(panel.weights[place].sum())
    count = min(draws, SAVED_DRAWS, max(FEWEST_DRAWS, int(DRAWN_VALUES / rows)))
    if choice:
        made = _by_choice(observations, panel, place, members, choice, count, rng)
    else:
        made = _by_evidence(observations, panel, place, members, count, rng) if members else None
    if made is None:
        return _failed(refused)
    drawn, mixture, misfit = made
    mixture = replace(mixture, ranges=refused.data_range)
    fits = [_member(observations, refused, panel, place, members[j], estimate) for j, _, estimate in drawn]
    heaviest, weights = fits[0], {members[j].law.name: share for j, share, _ in drawn}
    return replace(
        refused,
        **{name: getattr(heaviest, name) for name in OF_HEAVIEST},
        law=blended(heaviest.law, weights, list(observations.columns)),
        estimate=cast(Estimate, mixture),
        weights={member.law.name: weights.get(member.law.name, 0.0) for member in members},
        members=tuple(fits),
        warnings=(*_warnings(observations, heaviest, choice, place, misfit), *refused.warnings),
    )


Drawn = list[tuple[int, float, Estimate]]  # a member by its place, its share, and its own estimate; the heaviest first


def _by_choice(
    observations: Observations, panel: Panel, place: int, members: Sequence[PanelFit], choice: Choice, count: int,
    rng: np.random.Generator,
) -> tuple[Drawn, Mixture, float] | None:  # fmt: skip
    """The laws of a curve among others, weighed by hold-out."""
    shares = np.array([choice.weights[member.law.name] for member in members])
    if not shares.any():
        return None
    shares = shares / shares.sum()
    # Of laws that weigh the same, the one of fewest parameters comes first.
    sizes = [len(member.law.names) for member in members]
    order = [int(j) for j in np.lexsort((sizes, -shares)) if shares[j] > 0]
    rows = float(panel.weights[place].sum())
    degrees = max(3, round(rows + NOISE_PSEUDO - np.sum(shares * [len(member.law.names) for member in members])))
    widening = float(stats.t.ppf(0.975, degrees)) / Z95
    drawn = []
    for j in order:
        sample = np.round(draw(panel, members[j], place, max(2, round(count * shares[j])), rng), 7)
        coordinates, noise = panel.coordinates(members[j].law, place), float(members[j].noise[place])
        estimate = Estimate(coordinates, members[j].theta[place], sample, noise, degrees, widening)
        drawn.append((j, float(shares[j]), estimate))
    noise = float(np.sum(shares * [_log_noise(panel, member)[place] for member in members]))
    parts = tuple(estimate for _, _, estimate in drawn)
    return drawn, Mixture(parts, tuple(shares[order].tolist()), {}, choice.drift, noise, degrees, widening), 0.0


def _by_evidence(
    observations: Observations, panel: Panel, place: int, members: Sequence[PanelFit], count: int,
    rng: np.random.Generator,
) -> tuple[Drawn, Mixture, float] | None:  # fmt: skip
    """The laws of a lone curve, each with a discrepancy, weighed by evidence; None for sizes beyond all reason.

    Last the Bayes factor of the discrepancy.
    """
    rows, within, degrees = configurations(panel, place, list(observations.columns), members)
    weighed, misfit = weigh(panel, place, members, rows, within, degrees)
    if not weighed:
        return None
    free = max(3, round(len(rows.target) + degrees - len(members[weighed[0][0]].law.names)))
    versions: dict[int, list[Version]] = {}
    shares: dict[int, list[float]] = {}
    for j, setting, share in weighed:
        covariance = rows.covariance(setting)
        theta, sample = draw_correlated(panel, members[j], place, rows.inputs, rows.target, covariance,
                                        max(2, round(count * share)), rng)  # fmt: skip
        coordinates = panel.coordinates(members[j].law, place)
        estimate = Estimate(coordinates, theta, np.round(sample, 7), setting.noise, free, 1.0)
        versions.setdefault(j, []).append(Version(estimate, setting, rows))
        shares.setdefault(j, []).append(share)
    order = sorted(versions, key=lambda j: -sum(shares[j]))
    drawn = []
    for j in order:
        sample = np.concatenate([version.estimate.draws for version in versions[j]])
        drawn.append((j, sum(shares[j]), replace(versions[j][0].estimate, draws=sample)))
    parts = tuple(version for j in order for version in versions[j])
    noise = float(np.sqrt(sum(share * setting.noise**2 for _, setting, share in weighed)))
    return drawn, Mixture(parts, tuple(share for j in order for share in shares[j]), {}, 0.0, noise, free, 1.0), misfit


def _is_stateable(panel: Panel, place: int, member: PanelFit) -> bool:
    """Whether the parameters and their squares, in the table's units, are numbers, with room for their intervals."""
    coordinates = panel.coordinates(member.law, place)
    with np.errstate(all="ignore"):
        natural = coordinates.natural(member.theta[place])[coordinates.is_log]
    return bool(np.all((natural > STATEABLE[0]) & (natural < STATEABLE[1])))


def _member(
    observations: Observations, refused: Blend, panel: Panel, place: int, member: PanelFit, estimate: Estimate
) -> Fit:
    """One law on one curve as a Fit, from its estimate."""
    law, coordinates = member.law, panel.coordinates(member.law, place)
    theta, sample, (low, high) = estimate.theta, estimate.draws, coordinates.bounds()
    point, cloud, logs = coordinates.natural(theta), coordinates.natural(sample), coordinates.is_log
    placed, clouds = (np.where(logs, np.log(np.where(logs, each, 1.0)), each) for each in (point, cloud))
    pairs = np.array(estimate.interval(placed, clouds))
    limits = np.array([[each.low, each.high] for each in law.parameters]).T
    # Student's t may move an exponent's interval beyond the law's own bounds, where it means nothing.
    pairs = np.where(logs, np.exp(np.clip(pairs, -700, 700)), np.clip(pairs, *limits))
    covariance = spread(cloud)
    missed = coordinates.linked(theta, observations.inputs) - link(law.link, observations.target)
    bound = ", ".join(law.names[j] for j in np.flatnonzero((theta <= low + 1e-9) | (theta >= high - 1e-9)))
    loose = ", ".join(
        each.name
        for each, pair in zip(law.parameters, pairs.T, strict=True)
        if each.kind == "exponent" and pair[0] > 0 and pair[1] > WIDE * pair[0]
    )
    candidates = (
        (bound, "at_bound", f"{bound} of {law.name} reached the search limit: the data do not determine it"),
        (loose, "flat_ridge", f"{loose} of {law.name}: uncertain by a factor of several; do not quote"),
    )
    return Fit(
        law,
        refused.target,
        {role: observations.columns[role] for role in law.inputs},
        outcome=Outcome.AT_BOUND if bound else Outcome.FLAT if loose else Outcome.CONVERGED,
        rows_used=refused.rows_used,
        rows_dropped=(),
        data_range={role: refused.data_range[role] for role in law.inputs},
        warnings=tuple({"code": code, "message": message} for true, code, message in candidates if true),
        params=dict(zip(law.names, point.tolist(), strict=True)),
        standard_errors=dict(zip(law.names, np.sqrt(np.diag(covariance)).tolist(), strict=True)),
        intervals=dict(zip(law.names, map(tuple, pairs.T.tolist()), strict=True)),
        covariance=tuple(map(tuple, covariance.tolist())),
        objective=float(huber_sum(missed)),
        starts=member.polished,
        starts_at_best=int(member.at_best[place]),
        estimate=estimate,
    )


def _warnings(
    observations: Observations, heaviest: Fit, choice: Choice | None, place: int, misfit: float
) -> list[dict[str, str]]:
    groups = observations.configurations
    configurations, need = int(groups.max()) + 1, 2 * len(heaviest.law.names)
    few = [
        observations.columns[role] for role, values in observations.inputs.items() if len(np.unique(values)) == FEWEST
    ]
    skill = choice.skill[place] if choice else 0.0
    candidates = (
        (
            misfit > MISFIT,
            "misspecified",
            "no law that was tried follows these runs within their noise; the intervals include the misfit",
        ),
        (few, "few_sizes", f"two values of {', '.join(few)}: three or more distinguish a power law from other curves"),
        (
            choice is not None and not choice.cuts,
            "few_sizes",
            "too few sizes to hold any out: laws are weighted by how well they fit",
        ),
        (configurations < need, "few_points", f"{configurations} configurations for {need // 2} parameters"),
        (
            configurations == len(groups),
            "no_replicates",
            "no configuration has two seeds: run-to-run noise is estimated from the residuals",
        ),
    )
    warnings = [{"code": code, "message": message} for true, code, message in candidates if true] + list(
        heaviest.warnings
    )
    return [*warnings, explains_less(float(skill), "where larger sizes were held out")] if skill >= 1 else warnings


def _foretell(blend: Blend, observations: Observations) -> Blend:
    """The blend with its predictions of the held-out rows and their score."""
    if blend.estimate is None:
        return blend
    predictions = pd.concat([observations.held_out, blend.predict(observations.held_out)], axis=1)
    return beside_held_out(
        replace(blend, held_out=score(predictions, blend.target), predictions=predictions), observations
    )
