"""`--law auto`: all suited laws fitted to all groups of a table, weighed by rolling hold-out, and combined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rayscale.laws.auto.blend import AUTO, Blend
from rayscale.laws.auto.blending import FEWEST, blend_curve, count_configurations, failed, log_noise
from rayscale.laws.auto.panel import POPULATION, Panel, PanelFit, fit_panel
from rayscale.laws.auto.weights import choose, suited, trends
from rayscale.laws.catalogue import SUFFIX
from rayscale.laws.fitting.held_out import beside_held_out
from rayscale.laws.fitting.observations import Observations, count_text, observe, refusals, usual_columns
from rayscale.laws.fitting.outcome import Outcome
from rayscale.laws.fitting.result import score
from rayscale.laws.law import Array, Law

ALONE = 12  # configurations over several sizes from which on a curve says more by itself than its kind does
MOST_ALONE = 100  # groups, of which each is fitted by itself; of more, their kind says enough
FEWEST_ALONE = 5  # configurations of a curve without a population, or two more than the simplest law's parameters


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
    apart: bool = True,
) -> list[Blend]:
    """One blend per group (rows of the table by position), the laws weighed on all groups together.

    Unless the groups are few, or a group has many configurations over several sizes: such a one is fitted `apart`.

    `given`: role -> column as the caller named them; where none is named the usual names are looked for. A size that
    is the same within every group is left out: within a group it changes nothing. `excluded` and `held` are (rows,).
    A curve too short to be fitted alone borrows from the others, if there are enough of these.
    """
    began = perf_counter()
    columns = usual_columns(table, given)
    columns = _varying(table, groups, columns, target, excluded | held)
    rows = [_observe(table, each, columns, target, excluded, held) for each in groups]
    if apart and len(groups) > 1:
        alone = [len(groups) < POPULATION or _stands_alone(observations) for observations in rows]
        if any(alone) and len(groups) <= MOST_ALONE:
            fit = partial(
                fit_auto, table, given=given, target=target, excluded=excluded, held=held, draws=draws, seed=seed
            )
            together = fit(groups, apart=False) if not all(alone) else []
            return [fit([groups[k]])[0] if alone[k] else together[k] for k in range(len(groups))]
    known = [observations.target for observations in rows if len(observations.target)]
    below_one = bool(known) and max(each.max() for each in known) < 1
    trend = trends([(observations.inputs, observations.target) for observations in rows if len(observations.target)])
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
        return [failed(each) if index in sound else each for index, each in enumerate(blends)]
    choice = None
    if len(sound) >= POPULATION:
        noise = np.min([log_noise(panel, each) for each in members], axis=0)
        choice = choose(panel, [member.law for member in members], list(columns), noise)
    for place, index in enumerate(sound):
        blends[index] = blend_curve(rows[index], blends[index], panel, place, members, choice, draws, seed)
    seconds = (perf_counter() - began) / len(sound)
    blends = [replace(each, seconds=seconds if each.members else 0.0) for each in blends]
    return [
        _foretell(each, observations) if held.any() else each for each, observations in zip(blends, rows, strict=True)
    ]


def _is_finite(member: PanelFit) -> bool:
    return all(np.isfinite(each).all() for each in (member.theta, member.covariance, member.noise, member.prior))


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
    text = f"{target} rises with {', '.join(up)}, but laws of a loss fall; write a metric in percent as a fraction"
    return {"code": "misspecified", "message": f"{text} (0.87, not 87), or name a law"}


def _too_few(observations: Observations, simplest: Law) -> list[dict[str, str]]:
    """Why a curve that has none to borrow from is too short to choose laws by, where it is."""
    need = min(FEWEST_ALONE, len(simplest.names) + 2)
    if (count := count_configurations(observations)) >= need:
        return []
    text = f"auto needs {need} to choose between laws; {simplest.name} alone needs {len(simplest.names) + 1}"
    return [{"code": "few_points", "message": f"{count_text(count)}; {text}"}]


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


def _foretell(blend: Blend, observations: Observations) -> Blend:
    """The blend with its predictions of the held-out rows and their score."""
    if blend.estimate is None:
        return blend
    predictions = pd.concat([observations.held_out, blend.predict(observations.held_out)], axis=1)
    return beside_held_out(
        replace(blend, held_out=score(predictions, blend.target), predictions=predictions), observations
    )
