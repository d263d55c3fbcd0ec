"""`--law auto`: all suited laws fitted to all groups of a table, weighed by evidence or hold-out, and combined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rayscale.laws.auto.blend import Blend, over
from rayscale.laws.auto.blending import FEWEST, blend_curve, count_configurations, draw_population, failed, log_noise
from rayscale.laws.auto.panel import POPULATION, Curve, Panel, PanelFit, fit_panel
from rayscale.laws.auto.weights import Choice, choose, suited, trends
from rayscale.laws.catalogue import SUFFIX
from rayscale.laws.fitting.held_out import foretell
from rayscale.laws.fitting.observations import (
    Observations,
    count_text,
    name_rows,
    numbers,
    observe_groups,
    refusals,
    usual_columns,
)
from rayscale.laws.fitting.outcome import Outcome
from rayscale.laws.law import Array, Law

ALONE = 12  # configurations over several sizes from which on a curve says more by itself than its kind does
MOST_ALONE = 100  # groups, of which each is fitted by itself; of more, their kind says enough
MOST_WEIGHED = 256  # groups, of more a sample, by which the laws are weighed
FEWEST_ALONE = 5  # configurations of a curve without a population, or two more than the simplest law's parameters


@np.errstate(all="ignore")  # absurd sizes and far steps overflow; what is not finite in the end is refused as failed
def fit_auto(
    table: pd.DataFrame,
    groups: Sequence[NDArray[np.int64]],
    given: Mapping[str, str | None],
    *,
    target: str,
    weights: str | None,
    excluded: NDArray[np.bool_],
    held: NDArray[np.bool_],
    draws: int,
    seed: int,
    apart: bool = True,
) -> list[Blend]:
    """One blend per group (rows of the table by position), the laws weighed on all groups together.

    Unless few groups can be fitted, or a group has many configurations over several sizes: it is then fitted `apart`.

    `given`: role -> column as the caller named them; where none is named the usual names are looked for. A size that
    is the same within every group is left out: within a group it changes nothing. `weights`: the column of how many
    runs a row is worth, within its group. `excluded` and `held` are (rows,).
    A curve too short to be fitted alone borrows from the others, if there are enough of these.
    """
    began = perf_counter()
    read = partial(_observe, table, groups, target=target, weights=weights, excluded=excluded, held=held)
    rows = read(usual_columns(table, given))
    if (columns := _varying(rows)) != dict(rows[0].columns):
        rows = read(columns)  # a row may lack only a size that is left out
    fit = partial(fit_auto, given=given, target=target, weights=weights, draws=draws, seed=seed)

    def fit_alone(places: NDArray[np.int64]) -> Blend:
        part = table.iloc[places]
        (blend,) = fit(part, [np.arange(len(part))], excluded=excluded[places], held=held[places])
        return replace(blend, rows_dropped=name_rows(blend.rows_dropped, places))

    if apart and 1 < len(groups) <= MOST_ALONE:
        alone = [len(groups) < POPULATION or _stands_alone(observations) for observations in rows]
        if any(alone):
            together = [] if all(alone) else fit(table, groups, excluded=excluded, held=held, apart=False)
            return [fit_alone(groups[k]) if alone[k] else together[k] for k in range(len(groups))]
    targets, trend = _target_of(rows)
    if max(targets, default=0.0) == 1 > min(targets) and (1 in trend.values() or "loss" in columns):
        rows = read(columns, link="logit")  # a metric, whose 1 has no log odds; a loss may be 1
        targets, trend = _target_of(rows)
    below_one = len(targets) > 0 and max(targets) < 1
    laws = suited(list(columns), below_one, trend, _enough(rows))
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
    if not shared and len(groups) > 1:  # no population: what one group is must not decide whether another is fitted
        return [fit_alone(places) for places in groups]
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
    panel, members, choice = _weighed(laws, [_curve(rows[index]) for index in sound], list(columns))
    if not members:
        return [failed(each) if index in sound else each for index, each in enumerate(blends)]
    samples: list[dict[str, Array]] = [{}] * len(sound)
    if choice:
        samples = draw_population(panel, members, choice, draws, seed)
    for place, index in enumerate(sound):
        blends[index] = blend_curve(rows[index], blends[index], panel, place, members, choice, samples[place], draws,
                                    seed)  # fmt: skip
    seconds = (perf_counter() - began) / len(sound)
    blends = [replace(each, seconds=seconds if each.members else 0.0) for each in blends]
    return [
        foretell(each, observations) if held.any() else each for each, observations in zip(blends, rows, strict=True)
    ]


def _weighed(
    laws: Sequence[Law], curves: list[Curve], roles: Sequence[str]
) -> tuple[Panel, list[PanelFit], Choice | None]:
    """The curves, the laws' fits to them and, where they are a population, what the hold-out says of the laws.

    Of many curves a sample is held out, whatever the order of their rows, and only laws with a share are fitted to all.
    """
    many = len(curves) > MOST_WEIGHED
    sample = np.arange(len(curves))
    if many:
        sample = np.sort(np.random.default_rng(0).choice(len(curves), MOST_WEIGHED, replace=False))
    panel, members = _fitted(laws, [curves[place] for place in sample])
    if not members or len(curves) < POPULATION:
        return panel, members, None
    noise = np.min([log_noise(panel, each) for each in members], axis=0)
    choice = choose(panel, [member.law for member in members], roles, noise)
    if many:
        panel, members = _fitted([law for law in laws if choice.weights.get(law.name)], curves)
        skill = np.full(len(curves), np.nan)
        skill[sample] = choice.skill
        choice = replace(choice, skill=skill)
    return panel, members, choice


def _fitted(laws: Sequence[Law], curves: list[Curve]) -> tuple[Panel, list[PanelFit]]:
    panel = Panel.of(laws[0], curves)
    return panel, [member for law in laws if _is_finite(member := fit_panel(panel, law))]


def _is_finite(member: PanelFit) -> bool:
    return all(np.isfinite(each).all() for each in (member.theta, member.covariance, member.noise, member.prior))


def _varying(rows: Sequence[Observations]) -> dict[str, str]:
    """The columns without those of one size in every group, held-out rows included; all of them where none varies."""
    columns = dict(rows[0].columns)

    def varies_in(group: Observations, role: str) -> bool:
        return len(np.unique([*group.inputs[role], *numbers(group.held_out, columns[role])])) > 1

    varies = {role: any(varies_in(group, role) for group in rows) for role in columns}
    return {role: column for role, column in columns.items() if varies[role]} or columns


def _target_of(rows: Sequence[Observations]) -> tuple[Array, dict[str, int]]:
    """The target of all groups together, (n,), and its trends."""
    curves = [(observations.inputs, observations.target) for observations in rows if len(observations.target)]
    return np.concatenate([np.empty(0), *(target for _, target in curves)]), trends(curves)


def _observe(
    table: pd.DataFrame, groups: Sequence[NDArray[np.int64]], columns: Mapping[str, str], *, target: str,
    weights: str | None, excluded: NDArray[np.bool_], held: NDArray[np.bool_], link: str = "log",
) -> list[Observations]:  # fmt: skip
    law = replace(over(columns), link=link)
    return observe_groups(table, groups, law, target=target, columns=columns, weights=weights, excluded=excluded,
                          held=held)  # fmt: skip


def _enough(rows: Sequence[Observations]) -> tuple[int, int]:
    """How many different sizes of every input, and how many configurations, each curve has that has rows at all."""
    curves = [observations for observations in rows if len(observations.target)]
    sizes = [len(np.unique(values)) for observations in curves for values in observations.inputs.values()]
    return min(sizes, default=0), min(map(count_configurations, curves), default=0)


def _stands_alone(observations: Observations) -> bool:
    return len(observations.inputs) > 1 and _can_borrow(observations) and count_configurations(observations) >= ALONE


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
    text = f"{target} rises with {', '.join(up)}, but laws of a loss fall; if it is a metric in percent, write it as a"
    return {"code": "misspecified", "message": f"{text} fraction (0.87, not 87), else name a law"}


def _too_few(observations: Observations, simplest: Law) -> list[dict[str, str]]:
    """Why a curve that has none to borrow from is too short to choose laws by, where it is."""
    need = min(FEWEST_ALONE, len(simplest.names) + 2)
    if (count := count_configurations(observations)) >= need:
        return []
    text = f"auto needs {need} to choose between laws; {simplest.name} alone needs {len(simplest.names) + 1}"
    return [{"code": "few_points", "message": f"{count_text(count)}; {text}"}]


def _refused(observations: Observations, target: str, why: list[dict[str, str]]) -> Blend:
    ranges = {role: (float(v.min()), float(v.max())) for role, v in observations.inputs.items() if len(v)}
    law, columns = over(observations.columns), observations.columns
    return Blend(law, target, columns, outcome=Outcome.NOT_IDENTIFIABLE, rows_used=len(observations.target),
                 rows_dropped=observations.dropped, warnings=(*why, *observations.warnings()),
                 data_range=ranges)  # fmt: skip


def _curve(observations: Observations) -> Curve:
    """The rows of one group for a panel."""
    return observations.inputs, observations.target, observations.weights
