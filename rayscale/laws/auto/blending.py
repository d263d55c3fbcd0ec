"""One curve's blend of laws, from their fits: shares, draws and what the reader must know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from scipy import stats

from rayscale.laws.auto.blend import NO_CUTS, Blend, Mixture, blended
from rayscale.laws.auto.discrepancy import Version, configurations
from rayscale.laws.auto.evidence import weigh
from rayscale.laws.auto.panel import NOISE_PSEUDO, Panel, PanelFit, draw, draw_correlated
from rayscale.laws.auto.weights import Choice
from rayscale.laws.fitting.bootstrap import SAVED_DRAWS, spread
from rayscale.laws.fitting.coordinates import link
from rayscale.laws.fitting.held_out import explains_less
from rayscale.laws.fitting.huber import huber_sum
from rayscale.laws.fitting.observations import Observations
from rayscale.laws.fitting.outcome import Outcome
from rayscale.laws.fitting.result import Z95, Estimate, Fit
from rayscale.laws.law import Array

FEWEST = 2  # sizes from which a curve can be fitted among others of its kind
DRAWN_VALUES = 1_000_000  # rows x draws, at most, but with FEWEST_DRAWS draws or more
FEWEST_DRAWS = 200
STATEABLE = (1e-100, 1e100)
MISFIT = 20.0  # Bayes factor of a discrepancy from which on the laws are said to miss the runs ("strong")
# Fields of a blend that are those of its heaviest law.
OF_HEAVIEST = (
    "outcome", "params", "standard_errors", "intervals", "covariance", "objective", "starts", "starts_at_best",
)  # fmt: skip
WIDE = 10.0  # an exponent whose interval spans this many times is no number to quote
Drawn = list[tuple[int, float, Estimate]]  # a member by its place, its share, and its own estimate; the heaviest first


def blend_curve(
    observations: Observations, refused: Blend, panel: Panel, place: int, members: Sequence[PanelFit],
    choice: Choice | None, samples: Mapping[str, Array], draws: int, seed: int,
) -> Blend:  # fmt: skip
    """One curve's blend: laws weighed by `choice`, or, for a lone curve, by evidence, each with a discrepancy.

    `samples`: with a choice, each law's draws for this curve, as `draw_population` gives them.
    """
    # In absurd units some law's parameters are beyond what a number can hold; the others then do without it.
    # A law with as many parameters as a lone curve has configurations fits anything and says nothing.
    most = np.inf if choice else count_configurations(observations)
    members = [each for each in members if _is_stateable(panel, place, each) and len(each.law.names) < most]
    if choice:
        made = _by_choice(panel, place, members, choice, samples)
    else:  # versions share the draws, so that there must be some
        rng, count = np.random.default_rng(seed), max(_count_draws(panel, place, draws), FEWEST_DRAWS)
        made = _by_evidence(observations, panel, place, members, count, rng) if members else None
    if made is None:
        return failed(refused)
    drawn, mixture, misfit = made
    mixture = replace(mixture, ranges=refused.data_range)
    fits = [_member(observations, refused, panel, place, members[j], estimate) for j, _, estimate in drawn]
    weighed = [*choice.weights] if choice else [member.law.name for member in members]
    heaviest, weights = fits[0], {members[j].law.name: share for j, share, _ in drawn}
    return replace(
        refused,
        **{name: getattr(heaviest, name) for name in OF_HEAVIEST},
        law=blended(heaviest.law, weights, list(observations.columns), mixture.link),
        estimate=cast(Estimate, mixture),
        weights={name: weights.get(name, 0.0) for name in weighed},
        members=tuple(fits),
        warnings=(*_warnings(observations, heaviest, choice, place, misfit), *refused.warnings),
    )


def draw_population(
    panel: Panel, members: Sequence[PanelFit], choice: Choice, draws: int, seed: int
) -> list[dict[str, Array]]:
    """The draws of every curve of a panel: law -> (count, p), in proportion to its share of the curve, if it has one.

    A law draws for many curves at once; every curve has a generator of its own.
    """
    curves = range(len(panel.level))
    stateable = [np.array([_is_stateable(panel, place, member) for place in curves]) for member in members]
    shares = np.array([choice.weights[member.law.name] for member in members]) * np.stack(stateable, axis=1)
    shares = shares / np.maximum(shares.sum(1, keepdims=True), 1e-300)
    counts = [_count_draws(panel, place, draws) for place in curves]
    rngs = [np.random.default_rng(seed) for _ in curves]
    samples: list[dict[str, Array]] = [{} for _ in curves]
    for j in _heaviest_first(members, choice):
        places = np.flatnonzero(shares[:, j])
        numbers = [max(2, round(counts[place] * shares[place, j])) for place in places]
        drawn = draw(panel, members[j], places.tolist(), numbers, [rngs[place] for place in places])
        for place, sample in zip(places, drawn, strict=True):
            samples[place][members[j].law.name] = np.round(sample, 7)
    return samples


def _count_draws(panel: Panel, place: int, draws: int) -> int:
    rows = float(panel.weights[place].sum())
    return min(draws, SAVED_DRAWS, max(FEWEST_DRAWS, int(DRAWN_VALUES / rows)))


def _heaviest_first(members: Sequence[PanelFit], choice: Choice) -> list[int]:
    """The members with a share by their places; of laws that weigh the same, the one of fewest parameters first."""
    shares = np.array([choice.weights[member.law.name] for member in members])
    sizes = np.array([len(member.law.names) for member in members])
    return [int(j) for j in np.lexsort((sizes, -shares)) if shares[j] > 0]


def _by_choice(
    panel: Panel, place: int, members: Sequence[PanelFit], choice: Choice, samples: Mapping[str, Array]
) -> tuple[Drawn, Mixture, float] | None:
    """The laws of a curve among others, weighed by hold-out."""
    shares = np.array([choice.weights[member.law.name] for member in members])
    if not shares.any():
        return None
    shares, order = shares / shares.sum(), _heaviest_first(members, choice)
    rows = float(panel.weights[place].sum())
    degrees = max(3, round(rows + NOISE_PSEUDO - np.sum(shares * [len(member.law.names) for member in members])))
    widening = float(stats.t.ppf(0.975, degrees)) / Z95
    drawn = []
    for j in order:
        member = members[j]
        coordinates, noise = panel.coordinates(member.law, place), float(member.noise[place])
        estimate = Estimate(coordinates, member.theta[place], samples[member.law.name], noise, degrees, widening)
        drawn.append((j, float(shares[j]), estimate))
    link = "logit" if all(members[j].law.link == "logit" for j in order) else "log"
    of_one = [member.noise if link == "logit" else log_noise(panel, member) for member in members]
    noise = float(np.sum(shares * [noises[place] for noises in of_one]))
    drift = choice.drift if link == "log" else choice.drift / -float(np.expm1(panel.level[place]))
    parts = tuple(estimate for _, _, estimate in drawn)
    return drawn, Mixture(parts, tuple(shares[order].tolist()), {}, drift, noise, degrees, widening, link), 0.0


def _by_evidence(
    observations: Observations, panel: Panel, place: int, members: Sequence[PanelFit], count: int,
    rng: np.random.Generator,
) -> tuple[Drawn, Mixture, float] | None:  # fmt: skip
    """The laws of a lone curve, each with a discrepancy, weighed by evidence; None for sizes beyond all reason.

    Last the Bayes factor of the discrepancy.
    """
    rows, within, degrees = configurations(panel, place, list(observations.columns), members, observations.weights)
    weighed, misfit = weigh(panel, place, members, rows, within, degrees)
    if not weighed:
        return None
    free = max(3, round(len(rows.target) + degrees - len(members[weighed[0][0]].law.names)))
    versions: dict[int, list[Version]] = {}
    shares: dict[int, list[float]] = {}
    for j in dict.fromkeys(member for member, _, _ in weighed):
        parts = [(setting, share) for member, setting, share in weighed if member == j]
        shares[j] = [share for _, share in parts]
        counts = [max(2, round(count * share)) for share in shares[j]]
        covariances = [rows.covariance(setting) for setting, _ in parts]
        fits = draw_correlated(panel, members[j], place, rows.inputs, rows.target, rows.link, covariances, counts, rng)
        coordinates = panel.coordinates(members[j].law, place)
        estimates = [
            Estimate(coordinates, theta, np.round(sample, 7), setting.noise, free, 1.0)
            for (setting, _), (theta, sample) in zip(parts, fits, strict=True)
        ]
        versions[j] = [
            Version(estimate, setting, rows, 0) for (setting, _), estimate in zip(parts, estimates, strict=True)
        ]
    order = sorted(versions, key=lambda j: -sum(shares[j]))
    drawn = []
    for j in order:
        sample = np.concatenate([version.estimate.draws for version in versions[j]])
        drawn.append((j, sum(shares[j]), replace(versions[j][0].estimate, draws=sample)))
    ordered = [version for j in order for version in versions[j]]
    ordered = [replace(version, seed=seed) for seed, version in enumerate(ordered)]
    noise = float(np.sqrt(sum(share * setting.noise**2 for _, setting, share in weighed)))
    weights = tuple(share for j in order for share in shares[j])
    return drawn, Mixture(tuple(ordered), weights, {}, 0.0, noise, free, 1.0, rows.link), misfit


def _is_stateable(panel: Panel, place: int, member: PanelFit) -> bool:
    """Whether the parameters and their squares, in the table's units, are numbers, with room for their intervals."""
    coordinates = panel.coordinates(member.law, place)
    with np.errstate(all="ignore"):
        natural = coordinates.natural(member.theta[place])[coordinates.is_positive]
    return bool(np.all((natural > STATEABLE[0]) & (natural < STATEABLE[1])))


def _member(
    observations: Observations, refused: Blend, panel: Panel, place: int, member: PanelFit, estimate: Estimate
) -> Fit:
    """One law on one curve as a Fit, from its estimate."""
    law, coordinates = member.law, panel.coordinates(member.law, place)
    theta, sample, (low, high) = estimate.theta, estimate.draws, coordinates.bounds()
    point, cloud, logs = coordinates.natural(theta), coordinates.natural(sample), coordinates.is_positive
    placed, clouds = (np.where(logs, np.log(np.where(logs, each, 1.0)), each) for each in (point, cloud))
    pairs = np.array(estimate.interval(placed, clouds))
    limits = np.array([[each.low, each.high] for each in law.parameters]).T
    # Student's t may move an exponent's interval beyond the law's own bounds, where it means nothing.
    if law.frame is None:
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
        objective=float(huber_sum(missed, observations.weights)),
        starts=member.polished,
        starts_at_best=int(member.at_best[place]),
        estimate=estimate,
    )


def _warnings(
    observations: Observations, heaviest: Fit, choice: Choice | None, place: int, misfit: float
) -> list[dict[str, str]]:
    configurations, need = count_configurations(observations), 2 * len(heaviest.law.names)
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
            NO_CUTS,
        ),
        (configurations < need, "few_points", f"{configurations} configurations for {need // 2} parameters"),
        (
            configurations == len(observations.target),
            "no_replicates",
            "no configuration has two seeds: run-to-run noise is estimated from the residuals",
        ),
    )
    warnings = [{"code": code, "message": message} for true, code, message in candidates if true] + list(
        heaviest.warnings
    )
    return [*warnings, explains_less(float(skill), "where larger sizes were held out")] if skill >= 1 else warnings


def failed(refused: Blend) -> Blend:
    text = {"code": "flat_ridge", "message": "no law reached a finite minimum; check the table for extreme values"}
    return replace(refused, outcome=Outcome.FAILED, warnings=(text, *refused.warnings))


def count_configurations(observations: Observations) -> int:
    """How many different configurations there are."""
    return int(observations.configurations.max(initial=-1)) + 1


def log_noise(panel: Panel, member: PanelFit) -> Array:
    """The deviation of a row's log target by one law, (curves,), whatever scale the law is fitted on."""
    return np.asarray(member.noise * -np.expm1(panel.level) if member.law.link == "logit" else member.noise)
