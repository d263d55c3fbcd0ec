"""What the laws miss of one table, as a smooth function of its sizes: a discrepancy (Kennedy & O'Hagan 2001).

log target = law + discrepancy + noise. The discrepancy is a Gaussian process over the logs of the sizes, in a finite
basis, so that every draw of it is a function that can be evaluated anywhere. Its parts: waves (random Fourier features
of a squared exponential, Rahimi & Recht 2007), which the law misses within the data and which die out beyond them;
bends (hinges of random slope from the middle of the data outwards, an integrated Wiener process along every axis),
which say what becomes of an extrapolation if the curve's slope wanders from the law's; and twists of every pair of
axes, a bend along one that grows along the other, as where large models learn faster from data than small ones. How
large each is comes from the evidence (evidence.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayscale.laws.auto.panel import Panel, PanelFit
from rayscale.laws.auto.places import place_of, size_of
from rayscale.laws.fitting.coordinates import link, log_fraction
from rayscale.laws.fitting.result import Estimate
from rayscale.laws.law import Array

# (deviation of log target over the whole span of the data, weight), as what a law can miss on real tables.
BENDS = ((0.0, 0.75), (0.03, 0.08), (0.1, 0.1), (0.2, 0.07))  # along each axis
TWISTS = ((0.0, 0.7), (0.03, 0.1), (0.1, 0.2))  # of each pair of axes
WAVES = ((0.0, 0.8), (0.01, 0.1), (0.04, 0.1))
LENGTH = 2.5  # e-folds over which a wave turns
FREQUENCIES = 48
KNOTS = 10  # within the data, from their middle to either end; as many beyond
LAST_KNOT = np.log(1e6)  # beyond the data
ODD = 3.0  # rows beyond this many deviations of the law count less
MOST_CELLS = 120  # configurations; neighbours of more are averaged: a discrepancy is smooth, and costs their cube


@dataclass(frozen=True)
class Setting:
    """How large noise and discrepancy are, as deviations of log target: `sizes` in the order of `Rows.features`."""

    noise: float
    sizes: tuple[float, ...]

    @property
    def is_smooth(self) -> bool:
        """Whether there is a discrepancy at all."""
        return any(self.sizes)


@dataclass(frozen=True, eq=False)
class Rows:
    """The configurations of a table: `places` (m, axes) of their sizes, logs, mean `target` (m,) on the scale of `link`
    (log, or log odds where all laws are in these), how many runs' worth each is, `weights` (m,). Axes are in the order
    of `roles`."""

    roles: tuple[str, ...]
    places: Array
    target: Array
    weights: Array
    link: str = "log"

    @cached_property
    def inputs(self) -> dict[str, Array]:
        return {role: size_of(role, column) for role, column in zip(self.roles, self.places.T, strict=True)}

    @cached_property
    def _frame(self) -> tuple[Array, float, Array, Array, Array]:
        """Middle of the data (axes,), their longest span, knots and spacing (knots,), wave numbers (axes, waves)."""
        middle, half = (self.places.max(0) + self.places.min(0)) / 2, float(np.ptp(self.places, axis=0).max()) / 2
        inside = np.linspace(0.0, half, KNOTS, endpoint=False)
        beyond = half + np.geomspace(half / KNOTS, LAST_KNOT, KNOTS) - half / KNOTS
        knots = np.concatenate([inside, beyond])
        spacing = np.diff(knots, append=2 * knots[-1] - knots[-2])
        numbers = np.random.default_rng(0).normal(0, 1 / LENGTH, (len(middle), FREQUENCIES))
        return middle, 2 * half, knots, spacing, numbers

    @property
    def levels(self) -> tuple[tuple[tuple[float, float], ...], ...]:
        """What is weighed for the size of each part of `features`: (deviation, weight) of each level."""
        axes = len(self.roles)
        return (*[BENDS] * axes, *[TWISTS] * (axes * (axes - 1) // 2), WAVES)

    def features(self, inputs: Mapping[str, Any]) -> list[Array]:
        """The basis at these inputs, for sizes of 1, (n, features) each: a bend per axis, a twist per pair, waves."""
        middle, span, knots, spacing, numbers = self._frame
        places = np.stack([place_of(role, inputs[role]) for role in self.roles], axis=-1) - middle
        places = np.maximum(places, -LAST_KNOT - span)  # a size of 0 lies so far below
        # A target that falls by several e-folds is missed by more than one that hardly changes.
        scale = max(1.0, float(np.ptp(self.target)))
        hinges = np.maximum(np.stack([places, -places], axis=-1)[..., None] - knots, 0.0) * spacing**0.5
        bends = scale * (3 / span**3) ** 0.5 * hinges.reshape(*places.shape, -1)
        ends = places / np.maximum(np.ptp(self.places, axis=0) / 2, 1e-9)
        twists = [
            np.concatenate([ends[:, [i]] * bends[:, j], ends[:, [j]] * bends[:, i]], axis=1) / 2**0.5
            for i, j in combinations(range(len(self.roles)), 2)
        ]
        turned = places @ numbers
        waves = scale * np.concatenate([np.cos(turned), np.sin(turned)], axis=1) / FREQUENCIES**0.5
        return [*np.moveaxis(bends, 1, 0), *twists, waves]

    @cached_property
    def basis(self) -> list[Array]:
        """The features of the rows themselves."""
        return self.features(self.inputs)

    @cached_property
    def _kernels(self) -> Array:
        """The covariance of each part of the discrepancy at the rows, (parts, m, m)."""
        return np.array([part @ part.T for part in self.basis])

    def smooth(self, sizes: Sequence[float]) -> Array:
        """The covariance of the discrepancy at the rows, (m, m)."""
        return np.asarray(np.tensordot(np.square(sizes), self._kernels, axes=1))

    def covariance(self, setting: Setting) -> Array:
        """Of what a law leaves of the rows, (m, m): the discrepancy and the noise."""
        return np.asarray(self.smooth(setting.sizes) + np.diag(setting.noise**2 / self.weights))

    def to_json(self) -> dict[str, Any]:
        return {
            "roles": list(self.roles),
            "link": self.link,
            **{n: getattr(self, n).tolist() for n in ("places", "target", "weights")},
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Rows:
        places, target, weights = (np.array(saved[name], dtype=float) for name in ("places", "target", "weights"))
        return cls(tuple(saved["roles"]), places, target, weights, saved["link"])


@dataclass(frozen=True, eq=False)
class Version:
    """One law with one setting, and the discrepancy that the rows leave it: its estimate knows both."""

    estimate: Estimate
    setting: Setting
    rows: Rows
    seed: int

    def log_values(self, inputs: Mapping[str, Array]) -> tuple[Array, Array]:
        """Log target at the inputs: of the mean (n,) and of every draw (draws, n)."""
        point, drawn = self._linked(inputs)
        if self.setting.is_smooth:
            there, (mean, weights) = self._scaled(self.rows.features(inputs)), self._weights
            point, drawn = point + there @ mean, drawn + weights @ there.T
        return (point, drawn) if self.rows.link == "log" else (log_fraction(point), log_fraction(drawn))

    @cached_property
    def _weights(self) -> tuple[Array, Array]:
        """The features' weights, given the rows: of the mean (features,) and of every draw (draws, features)."""
        rows = self.rows
        fitted, drawn = self._linked(rows.inputs)
        here, variance = self._scaled(rows.basis), self.setting.noise**2 / rows.weights
        solved = np.linalg.solve(here @ here.T + np.diag(variance), here).T  # (features, rows)
        rng = np.random.default_rng((0, self.seed))
        prior = rng.normal(0, 1, (len(drawn), here.shape[1]))
        disturbed = prior @ here.T + rng.normal(0, 1, drawn.shape) * np.sqrt(variance)
        # Matheron's rule: a draw from the prior, corrected by what it misses of the rows.
        return solved @ (rows.target - fitted), prior + (rows.target - drawn - disturbed) @ solved.T

    def _linked(self, inputs: Mapping[str, Array]) -> tuple[Array, Array]:
        return self.estimate.linked_values(inputs) if self.rows.link == "logit" else self.estimate.log_values(inputs)

    def to_json(self) -> dict[str, Any]:
        """What `read_versions` needs besides the rows and the law's estimate, which has the draws."""
        theta, draws = self.estimate.theta.tolist(), len(self.estimate.draws)
        return {"law": self.estimate.coordinates.law.name, "theta": theta, "draws": draws, **asdict(self.setting)}

    def _scaled(self, basis: Sequence[Array]) -> Array:
        return np.concatenate([size * part for size, part in zip(self.setting.sizes, basis, strict=True)], axis=1)


def configurations(
    panel: Panel, curve: int, roles: Sequence[str], members: Sequence[PanelFit], worth: Array
) -> tuple[Rows, float, float]:
    """The rows of a curve by configuration, the sum of squares within these, and its degrees of freedom.

    `worth` (n,): how many runs each row is worth, which makes it no more than one row where degrees are counted. A row
    that most laws miss by far counts less.
    """
    known = panel.weights[curve] > 0
    scale = "logit" if all(member.law.link == "logit" for member in members) else "log"
    sizes = np.stack([panel.inputs[role][curve, known] for role in roles], axis=1)
    target, weights = link(scale, panel.target[curve, known]), panel.weights[curve, known]
    places = np.stack([place_of(role, column) for role, column in zip(roles, sizes.T, strict=True)], axis=1)
    rows = Rows(tuple(roles), places, target, weights, scale)
    missed = np.median([np.abs(target - linearise(panel, curve, member, rows)[0]) for member in members], axis=0)
    typical = max(1.4826 * float(np.median(missed)), 1e-9)
    weights = weights * np.minimum(1.0, ODD * typical / np.maximum(missed, 1e-300)) ** 2
    alike = np.unique(sizes, axis=0, return_inverse=True)[1].ravel()
    _, mean = _means(alike, weights, target)
    within = float((weights * (target - mean[alike]) ** 2).sum())
    degrees = float(np.maximum(np.bincount(alike, weights / worth) - 1, 0.0).sum())
    which = _cells(rows.places)
    count, _ = _means(which, weights, target)
    places = np.stack([_means(which, weights, column)[1] for column in rows.places.T], axis=1)
    # Of a cell of several sizes: how far its rows lie from a law, and the law at their middle.
    nearest = min(members, key=lambda member: float(member.noise[curve]))
    off = _means(which, weights, target - linearise(panel, curve, nearest, rows)[0])[1]
    cells = replace(rows, places=places, weights=count)
    return replace(cells, target=linearise(panel, curve, nearest, cells)[0] + off), within, degrees


def _means(which: NDArray[np.int64], weights: Array, values: Array) -> tuple[Array, Array]:
    """The weight and the weighted mean of each group, (groups,)."""
    count = np.asarray(np.bincount(which, weights), dtype=float)
    return count, np.asarray(np.bincount(which, weights * values) / count)


def _cells(places: Array) -> NDArray[np.int64]:
    """The number of the configuration of each row, (n,); where there are very many, of neighbouring ones together."""
    distinct, which = np.unique(places, axis=0, return_inverse=True)
    least, span = places.min(0), np.maximum(np.ptp(places, axis=0), 1e-9)
    parts = 1e6
    while len(distinct) > MOST_CELLS:
        distinct, which = np.unique(np.floor((places - least) / span * parts), axis=0, return_inverse=True)
        parts *= 0.8
    return np.asarray(which.ravel(), dtype=np.int64)


def linearise(panel: Panel, curve: int, member: PanelFit, rows: Rows) -> tuple[Array, Array]:
    """A law at the rows, (m,), on their scale, and its derivative by the parameters, (m, p)."""
    return panel.coordinates(replace(member.law, link=rows.link), curve).jacobian(member.theta[curve], rows.inputs)


def read_versions(saved: Sequence[Mapping[str, Any]], rows: Rows, estimates: Sequence[Estimate]) -> list[Version]:
    """The versions from their JSON; each law's draws are in turn those of its versions."""
    known = {estimate.coordinates.law.name: estimate for estimate in estimates}
    first = dict.fromkeys(known, 0)
    versions = []
    for seed, each in enumerate(saved):
        whole, begin = known[each["law"]], first[each["law"]]
        first[each["law"]] += each["draws"]
        own = replace(whole, theta=np.array(each["theta"], dtype=float), draws=whole.draws[begin : first[each["law"]]],
                      noise=each["noise"])  # fmt: skip
        versions.append(Version(own, Setting(each["noise"], tuple(each["sizes"])), rows, seed))
    return versions
