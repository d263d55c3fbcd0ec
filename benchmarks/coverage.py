"""Do the 95% intervals cover, and are they wide for it? Simulated studies whose truth is known, law by law.

Every study: 6, 9 or 16 configurations of 3 seeds, log-normal noise, one fit by `fit_law`, and its prediction at the
largest model and 4 times the largest data. Beside it the naive bootstrap (rows drawn with replacement, percentiles, and
for a new run the plain scatter of the residuals), and as the measure of width the oracle: Fisher's information at the
truth, normal quantiles. A pass: 90-99% of the studies covered, the median width at most twice the oracle's.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py [--law rectified] [--configurations 6 9] [--studies 200] [--wide]
    OMP_NUM_THREADS=1 python benchmarks/coverage.py --fit auto [...]   # the blend of laws, without the naive bootstrap

The oracle is linear: where the design hardly identifies the law (six sizes of shifted in 1.5 decades) it is wider than
what positive parameters allow, and a ratio below 1 is no mistake. Laws of N and D are run on 2x3, 3x3 and 4x4 grids.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from time import process_time
from typing import cast

import numpy as np
import pandas as pd

from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.coordinates import Coordinates
from rayscale.laws.fitting.huber import minimise
from rayscale.laws.fitting.result import Z95, Fit
from rayscale.laws.formula import find_law
from rayscale.laws.law import Law

SEEDS, REACH = 3, 4.0
GRIDS = {6: (2, 3), 9: (3, 3), 16: (4, 4)}
# Made up: losses of a few nats, a third to a half of which data and parameters can still take away.
TRUTHS: dict[str, dict[str, float]] = {
    "chinchilla": {"A": 60.0, "B": 300.0, "E": 2.5, "alpha": 0.33, "beta": 0.4},
    "multiplicative": {"A": 150.0, "E": 1.2, "alpha": 0.12, "beta": 0.2},
    "power": {"B": 30.0, "E": 1.2, "beta": 0.3},
    "rectified": {"B": 500.0, "E": 1.0, "D0": 150.0, "beta": 0.45},
    "shifted": {"B": 40.0, "E": 1.0, "D0": 3000.0, "beta": 0.3},
}


@dataclass(frozen=True)
class Interval:
    """What one method said in every study, (studies,) each: 95% for the mean, and for a new run, in log target."""

    low: np.ndarray
    high: np.ndarray
    run_low: np.ndarray
    run_high: np.ndarray

    def line(self, mean: float, runs: np.ndarray, widths: tuple[float, float]) -> str:
        """Coverage of the mean and of new runs in percent, each with the median width over the oracle's."""
        covered = 100 * np.mean((self.low <= mean) & (mean <= self.high))
        run = 100 * np.mean((self.run_low <= runs) & (runs <= self.run_high))
        wide = float(np.median(self.high - self.low)) / widths[0]
        run_wide = float(np.median(self.run_high - self.run_low)) / widths[1]
        return f"{covered:5.1f}% {wide:5.2f}x   {run:5.1f}% {run_wide:5.2f}x"


def design(law: Law, configurations: int, wide: bool) -> pd.DataFrame:
    """One row per run: params 4 times apart, data 2 times for laws of data alone, else 4 (`wide`: 4 and 10)."""
    if "params" in law.inputs:
        sizes, steps = GRIDS[configurations]
        cells = [(1e6 * 4.0**i, 1e5 * (10.0 if wide else 4.0) ** j) for i in range(sizes) for j in range(steps)]
    else:
        cells = [(1e6, 200.0 * (4.0 if wide else 2.0) ** j) for j in range(configurations)]
    return pd.DataFrame([(n, d) for n, d in cells for _ in range(SEEDS)], columns=["params", "data"])


def oracle(law: Law, truth: Mapping[str, float], runs: pd.DataFrame, at: pd.DataFrame, noise: float) -> float:
    """Standard error of the log mean at `at` that an efficient estimator has, by Fisher's information at the truth.

    The pseudo-inverse: what a design does not identify (alpha from two model sizes) must not matter at `at` either.
    """
    names, values = list(truth), np.array([*truth.values()])

    def slopes(rows: pd.DataFrame) -> np.ndarray:
        inputs = {role: rows[role].to_numpy() for role in law.inputs}
        found = []
        for j in range(len(names)):
            shifted = values.astype(complex)
            shifted[j] *= 1 + 1e-20j  # by its logarithm, so that all are of one scale
            stepped = law.function(inputs, dict(zip(names, shifted, strict=True)))
            found.append(stepped.imag * 1e20 / stepped.real)
        return np.stack(found, axis=-1)

    slope = slopes(at)[0]
    inverse = np.linalg.pinv(slopes(runs).T @ slopes(runs) / noise**2, rcond=1e-13, hermitian=True)
    return float(np.sqrt(slope @ inverse @ slope))


def naive(fit: Fit, table: pd.DataFrame, at: pd.DataFrame, draws: int, seed: int) -> tuple[float, float, float, float]:
    """The percentile bootstrap over rows, as fits of scaling laws usually report it: low, high, run_low, run_high."""
    estimate = fit.known_estimate()
    coordinates: Coordinates = estimate.coordinates
    inputs, here = ({role: rows[role].to_numpy() for role in fit.law.inputs} for rows in (table, at))
    target = np.log(table["loss"].to_numpy())
    n = len(target)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), draws).astype(float)
    start = np.repeat(estimate.theta[None], draws, axis=0)
    with np.errstate(all="ignore"):
        ends, _, _ = minimise(coordinates, inputs, start, target, weights, steps=2000, tolerance=1e-6)
        drawn = coordinates.linked(ends, here)[:, 0]
    low, high = np.quantile(drawn, (0.025, 0.975))
    point = float(coordinates.linked(estimate.theta, here)[0])
    noise = Z95 * float(np.std(target - coordinates.linked(estimate.theta, inputs)))
    return low, high, point - np.hypot(point - low, noise), point + np.hypot(high - point, noise)


def cover(law: Law, configurations: int, args: argparse.Namespace) -> list[str]:
    """Two lines: rayscale's and the naive bootstrap's."""
    runs = design(law, configurations, args.wide)
    at = pd.DataFrame({"params": [runs["params"].max()], "data": [REACH * runs["data"].max()]})
    truth = TRUTHS[law.name]
    clean, far = (np.asarray(law.function({r: rows[r].to_numpy() for r in law.inputs}, truth)) for rows in (runs, at))
    rng, mean = np.random.default_rng(args.seed), float(np.log(far[0]))
    tables = [runs.assign(loss=clean * np.exp(rng.normal(0, args.noise, len(runs)))) for _ in range(args.studies)]
    new = mean + rng.normal(0, args.noise, args.studies)
    error = oracle(law, truth, runs, at, args.noise)
    widths = 2 * Z95 * error, 2 * Z95 * float(np.hypot(error, args.noise))
    roles = {role: role for role in law.inputs}
    own, plain, began = [], [], process_time()
    for study, table in enumerate(tables):
        fit = cast(Fit, fit_law(table, args.fit or law, target="loss", bootstrap=args.bootstrap, seed=study, **roles))
        own.append(np.log(fit.predict(at)[["mean_low", "mean_high", "low", "high"]].to_numpy()[0]))
        if not (args.no_naive or args.fit):
            plain.append(naive(fit, table, at, args.bootstrap // 2, study))
    seconds = (process_time() - began) / args.studies
    head = f"{law.name:15s} {configurations:3d}"
    lines = [f"{head}  rayscale   {Interval(*np.array(own).T).line(mean, new, widths)}   {seconds:.2f} CPU-s a study"]
    if plain:
        lines.append(f"{head}  naive      {Interval(*np.array(plain).T).line(mean, new, widths)}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--law", nargs="*", choices=list(TRUTHS), default=list(TRUTHS))
    parser.add_argument("--fit", choices=["auto"], help="what is fitted instead of the law that made the runs")
    parser.add_argument("--configurations", nargs="*", type=int, choices=list(GRIDS), default=list(GRIDS))
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--bootstrap", type=int, default=200)
    parser.add_argument("--noise", type=float, default=0.005, help="deviation of log loss among seeds")
    parser.add_argument("--wide", action="store_true", help="data sizes further apart")
    parser.add_argument("--no-naive", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"{args.studies} studies each, noise {args.noise:g}, nominal 95%, at {REACH:g} times the largest data")
    print(f"{'law':15s} {'m':>3s}  {'method':10s} {'mean':>6s} {'width':>6s}   {'new run':>6s} {'width':>5s}")
    for name in args.law:
        for configurations in args.configurations:
            print("\n".join(cover(find_law(name), configurations, args)), flush=True)


if __name__ == "__main__":
    main()
