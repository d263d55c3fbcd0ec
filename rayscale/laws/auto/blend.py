"""Several laws as one: their weighted mean in log target, with intervals that know how far the laws are apart."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rayscale.laws.auto.discrepancy import Rows, Version, read_versions
from rayscale.laws.auto.places import may_be_zero, offset
from rayscale.laws.fitting.coordinates import log_fraction, log_odds
from rayscale.laws.fitting.result import Fit, interval
from rayscale.laws.law import Law

DISCREPANCY = "smooth discrepancy"
NO_CUTS = "too few sizes to hold any out: laws are weighted by how well they fit"
Inputs = Mapping[str, NDArray[np.float64]]


class Part(Protocol):
    """One law's estimate: its log target at inputs (n,), of the point (n,) and of its draws (draws, n)."""

    def log_values(self, inputs: Inputs) -> tuple[NDArray[Any], NDArray[Any]]: ...


@dataclass(frozen=True, eq=False)
class Mixture:
    """The estimate of a blend: predicts and is widened as a single law's estimate is, on the scale of `link`: log
    target, or its log odds where all laws are in these.

    The point is the weighted mean of the parts. Its draws are the parts' draws together, each part having drawn in
    proportion to its share: between-law spread is then in every interval. `drift`: what the laws, all together, miss
    beyond the data, as deviation on that scale at one e-fold of reach; it grows with the square of the log reach, as
    what an unknown curvature makes of an extrapolation. Every draw has one such curvature.
    `noise` and `degrees` as in Estimate; `widening` is Student's t over the normal.
    `ranges`: role -> least and most size of the data, from where the reach counts.
    """

    parts: tuple[Part, ...]
    shares: tuple[float, ...]
    ranges: Mapping[str, tuple[float, float]]
    drift: float
    noise: float
    degrees: int
    widening: float
    link: str = "log"

    def interval(self, point: Any, drawn: Any) -> tuple[Any, Any]:
        """95% interval around `point` from `drawn` (draws first): percentiles, moved out for few rows."""
        return interval(point, drawn, self.widening)

    def linked_values(self, inputs: Inputs) -> tuple[NDArray[Any], NDArray[Any]]:
        """On the scale of `link` at the inputs: of the blend (n,) and of every draw (draws, n)."""
        parts = [part.log_values(inputs) for part in self.parts]
        points, drawn = np.array([point for point, _ in parts]), np.concatenate([draws for _, draws in parts])
        if self.link == "logit":
            points, drawn = log_odds(points), log_odds(drawn)
        drift = np.outer(_bends(len(drawn)), self.drift * reach(inputs, self.ranges) ** 2)
        return np.einsum("l,ln->n", self.shares, points), drawn + drift

    def log_values(self, inputs: Inputs) -> tuple[NDArray[Any], NDArray[Any]]:
        """Log target at the inputs, of the same shapes."""
        point, drawn = self.linked_values(inputs)
        return (point, drawn) if self.link == "log" else (log_fraction(point), log_fraction(drawn))

    def to_json(self) -> dict[str, Any]:
        """What `Blend.read_estimate` needs besides the members, which are saved as fits of their own."""
        names = ("drift", "noise", "degrees", "widening", "link")
        saved = {"shares": list(self.shares), **{name: getattr(self, name) for name in names}}
        versions = [part for part in self.parts if isinstance(part, Version)]
        if versions:
            saved |= {"rows": versions[0].rows.to_json(), "versions": [version.to_json() for version in versions]}
        return saved


def reach(inputs: Inputs, ranges: Mapping[str, tuple[float, float]]) -> NDArray[np.float64]:
    """How far beyond the data each row lies, (n,): the log of the times above the most or below the least size."""
    beyond = []
    for role, (least, most) in ranges.items():
        if role in inputs:
            shift = offset(role)
            sizes = np.maximum(inputs[role] + shift, 1e-300)
            beyond.append(np.maximum(0.0, np.maximum(np.log(sizes / (most + shift)), np.log((least + shift) / sizes))))
    return np.asarray(np.max(beyond, axis=0))


def _bends(count: int) -> NDArray[np.float64]:
    """A standard normal number for every draw, always the same ones: the quantiles, in a fixed random order."""
    quantiles = stats.norm.ppf((np.arange(count) + 0.5) / max(count, 1))
    return np.asarray(np.random.default_rng(0).permutation(quantiles))


def blended(heaviest: Law, weights: Mapping[str, float], roles: Sequence[str], link: str) -> Law:
    """The law named auto, over these inputs: to show, as predictions come from the Mixture, on the scale `link`."""
    listed = sorted(weights.items(), key=lambda item: -item[1])
    shares = ", ".join(f"{share:.2f} {name}" for name, share in listed if share)
    formula = AUTO.formula if link == "log" else "weighted mean of log odds"
    return replace(over(roles), formula=f"{formula}: {shares}", parameters=heaviest.parameters, units=heaviest.units,
                   link=link)  # fmt: skip


def over(roles: Collection[str]) -> Law:
    """The law named auto over these inputs."""
    return replace(AUTO, inputs=tuple(roles), zero=may_be_zero(roles))


@dataclass(frozen=True, eq=False)
class Blend(Fit):
    """What `--law auto` finds: a Fit whose law is named auto and whose predictions are those of a Mixture.

    `weights`: law -> share, of all that were weighed; `members`: the fits of those with a share, the heaviest first.
    params, standard_errors, intervals, covariance, objective and outcome are the heaviest's.
    """

    members: tuple[Fit, ...] = ()

    @property
    def formula(self) -> str:
        """The laws with their shares, and whether a discrepancy is added to any."""
        parts: tuple[Part, ...] = self.estimate.parts if isinstance(self.estimate, Mixture) else ()
        smooth = any(isinstance(part, Version) and part.setting.is_smooth for part in parts)
        return f"{self.law.formula} + {DISCREPANCY}" if smooth else self.law.formula

    @classmethod
    def read_fields(cls, law: Law, saved: Mapping[str, Any]) -> dict[str, Any]:
        """As a Fit's; the members are fits themselves."""
        members = tuple(Fit.from_json(member) for member in saved["members"])
        link = (saved.get("estimate") or {}).get("link", "log")
        law = blended(members[0].law if members else AUTO, saved["weights"] or {}, list(saved["columns"]), link)
        return super().read_fields(law, {**saved, "members": members})

    @classmethod
    def read_estimate(cls, law: Law, known: Mapping[str, Any], saved: Mapping[str, Any]) -> Any:
        """The mixture of the members' estimates."""
        estimates = [member.known_estimate() for member in known["members"]]
        parts: Sequence[Part] = estimates
        if "versions" in saved:
            parts = read_versions(saved["versions"], Rows.from_json(saved["rows"]), estimates)
        numbers = {name: saved[name] for name in ("drift", "noise", "degrees", "widening")}
        link = saved.get("link", "log")  # as earlier versions saved it
        return Mixture(tuple(parts), tuple(saved["shares"]), known["data_range"], **numbers, link=link)


# So that a saved blend is read back by its law's name, as every saved fit is; fit_law fits `auto` over all groups.
AUTO = Law("auto", "weighted mean of log predictions", lambda inputs, parameters: 0.0, (), (), "loss", "", result=Blend)
