"""CPU seconds of a Chinchilla fit and of its bootstrap: rayscale against scipy's L-BFGS-B and the `chinchilla` package.

One run, interleaved, one process at a time; the same rows and the same objective for all: the sum of Huber(1e-3) on
log loss, 240 rows that Epoch AI digitised (Besiroglu et al. 2024, arXiv 2404.10102). The rivals walk the 4,500 starts
of Hoffmann et al. 2022 (arXiv 2203.15556); a sample of them is run and its time scaled up (--starts 4500 runs all).
scipy's objective is written here in plain numpy: with scipy's own numeric gradient, which is what its user gets, and
with a hand-written one. A bootstrap resample of the rivals starts from the best point, as Besiroglu et al. do.

L-BFGS-B with scipy's default tolerances hardly leaves that point: its standard errors, printed beside the times, are
hundreds of times too small. So it is run with tight tolerances too, and only these bootstraps are a fair comparison.

    pip install --target /tmp/rivals --no-deps chinchilla attrdictx ordinal seaborn ruamel.yaml
    OMP_NUM_THREADS=1 python benchmarks/fit_speed.py [TABLE] [--rounds 3] [--chinchilla /tmp/rivals]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from time import process_time
from typing import cast

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.result import Fit

TABLE = Path(__file__).parents[1] / "../shared/data/laws/chinchilla_epoch.csv"
DELTA, ALL_STARTS, BOOTSTRAPS = 1e-3, 4500, 4000
PUBLISHED = 0.00101827402
# Hoffmann et al. 2022: the grid of log A, log B, log E, alpha, beta.
_LOG_COEFFICIENT, _EXPONENT = np.arange(0, 30, 5), np.arange(0, 2.5, 0.5)
GRID = (_LOG_COEFFICIENT, _LOG_COEFFICIENT, np.arange(-1, 1.5, 0.5), _EXPONENT, _EXPONENT)
TIGHT = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 20_000, "maxfun": 100_000}
FIT_TARGET, BOOTSTRAP_TARGET = 500, 50
INSTALL = "pip install --target /tmp/rivals --no-deps chinchilla attrdictx ordinal seaborn ruamel.yaml"


@dataclass(frozen=True)
class Rows:
    """The table in logs, (n,) each."""

    params: np.ndarray
    data: np.ndarray
    loss: np.ndarray


@dataclass(frozen=True)
class Timing:
    """CPU seconds of a fit and of 4,000 resamples (scaled up from what was run), and what they found.

    `errors`: standard errors of A and beta; None for a rival that does no bootstrap.
    """

    fit: float
    objective: float
    bootstrap: float | None = None
    errors: tuple[float, float] | None = None


def objective(theta: np.ndarray, rows: Rows, weights: np.ndarray, gradient: bool) -> float | tuple[float, np.ndarray]:
    """Sum of weights * Huber on log loss at theta = log A, log B, log E, alpha, beta; with its gradient if asked."""
    a, b, e, alpha, beta = theta
    terms = np.stack([a - alpha * rows.params, b - beta * rows.data, np.full_like(rows.loss, e)])
    largest = terms.max(0)
    shares = np.exp(terms - largest)
    total = shares.sum(0)
    residual = largest + np.log(total) - rows.loss
    size = np.abs(residual)
    value = float(weights @ np.where(size <= DELTA, residual**2 / 2, DELTA * (size - DELTA / 2)))
    if not gradient:
        return value
    slope = weights * np.clip(residual, -DELTA, DELTA) * shares / total
    by_a, by_b, by_e = slope
    return value, np.array([by_a.sum(), by_b.sum(), by_e.sum(), -by_a @ rows.params, -by_b @ rows.data])


def time_scipy(
    rows: Rows, gradient: bool, settings: dict[str, float], starts: int, resamples: int, seed: int
) -> Timing:
    """L-BFGS-B from a sample of the starts, then on a sample of resamples from the best end of these."""
    rng, n = np.random.default_rng(seed), len(rows.loss)

    def run(starting: np.ndarray, weights: np.ndarray) -> tuple[float, list[tuple[float, np.ndarray]]]:
        began, found = process_time(), []
        for start, weight in zip(starting, weights, strict=True):
            with np.errstate(all="ignore"):
                end = minimize(
                    objective, start, (rows, weight, gradient), "L-BFGS-B", jac=gradient or None, options=settings
                )
            found.append((float(end.fun), end.x))
        return process_time() - began, found

    grid = np.array(list(product(*GRID)), dtype=float)
    chosen = grid[rng.permutation(len(grid))[:starts]]
    fit, ends = run(chosen, np.ones((len(chosen), n)))
    value, best = min(ends, key=lambda end: end[0])
    cloud, ends = run(np.tile(best, (resamples, 1)), rng.multinomial(n, np.full(n, 1 / n), resamples).astype(float))
    drawn = np.array([end for _, end in ends])
    errors = (float(np.exp(drawn[:, 0]).std(ddof=1)), float(drawn[:, 4].std(ddof=1)))
    return Timing(fit * ALL_STARTS / len(chosen), value, cloud * BOOTSTRAPS / resamples, errors)


def time_rayscale(table: pd.DataFrame, rows: Rows, seed: int) -> Timing:
    """A whole `fit_law` with two resamples, the fewest it takes, and what 4,000 resamples add to it."""

    def fit(bootstrap: int) -> tuple[float, Fit]:
        began = process_time()
        found = fit_law(table, "chinchilla", params="N", data="D", target="loss", bootstrap=bootstrap, seed=seed)
        return process_time() - began, cast(Fit, found)

    fit(2)  # caches are as warm as they are for scipy after its first start
    point, _ = fit(2)
    whole, found = fit(BOOTSTRAPS)
    errors = (found.standard_errors["A"], found.standard_errors["beta"])
    return Timing(point, score(found.params, rows), whole - point, errors)


def score(params: Mapping[str, float], rows: Rows) -> float:
    """The objective at a fit's parameters: everyone is scored here, not by their own account."""
    logs = [np.log(params[name]) for name in ("A", "B", "E")]
    return float(objective(np.array([*logs, params["alpha"], params["beta"]]), rows, np.ones(len(rows.loss)), False))


# Run in a process of its own: the package needs others that rayscale does not. Its chart is left out of the time.
RIVAL = """
import json, os, resource, sys, tempfile, time
import numpy as np
from chinchilla import Chinchilla
from chinchilla._metrics import log_huber

def spent():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)

n = sum(1 for _ in open(os.path.join(sys.argv[1], "df.csv"))) - 1
grid = dict(E=np.exp([-0.5, 0.0, 0.5]), a=np.array([5.0, 15.0]), b=np.array([5.0, 15.0]),
            alpha=np.array([0.5, 1.5]), beta=np.array([0.5, 1.5]))
model = Chinchilla(sys.argv[1], param_grid=grid, loss_fn=lambda y, p: n * log_huber(y, p, 1e-3), log_level=40)
model.visualizer.optim = lambda *args, **kwargs: None
began = spent()
with np.errstate(all="ignore"):
    model.fit(parallel=False)
print(json.dumps({"seconds": spent() - began, "starts": 48, **{k: float(v) for k, v in model.params.items()}}))
"""


def time_chinchilla(table: pd.DataFrame, rows: Rows, folder: str) -> Timing:
    """The package's own fit (BFGS, numeric gradient, long doubles) from 48 of the starts, scaled up to 4,500."""
    path = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    with tempfile.TemporaryDirectory() as project:
        table.assign(C=6 * table["N"] * table["D"])[["C", "N", "D", "loss"]].to_csv(f"{project}/df.csv", index=False)
        done = subprocess.run(
            [sys.executable, "-c", RIVAL, project], env={**os.environ, "PYTHONPATH": path, "MPLBACKEND": "agg"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"the chinchilla package failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Timing(found["seconds"] * ALL_STARTS / found["starts"], score(found, rows))


def has_chinchilla(folder: str) -> bool:
    """Whether the optional rival can be imported with `folder` on the path."""
    return any((Path(place) / "chinchilla" / "core.py").exists() for place in [folder, *sys.path] if place)


def main() -> None:
    """Measure and print a table of medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", nargs="?", type=Path, default=TABLE, help="chinchilla_epoch.csv")
    parser.add_argument("--rounds", type=int, default=3, help="times everything is run, interleaved (default 3)")
    parser.add_argument(
        "--starts", type=int, default=45, help="of scipy's 4,500 starts, run in each round (default 45)"
    )
    parser.add_argument("--resamples", type=int, default=40, help="of scipy's 4,000, run in each round (default 40)")
    parser.add_argument("--chinchilla", default="", help="the folder into which the chinchilla package was installed")
    options = parser.parse_args()
    if not options.table.exists():
        raise SystemExit(f"no table at {options.table}: give the path of chinchilla_epoch.csv (columns N, D, loss)")
    table = pd.read_csv(options.table).query("excluded_by_epoch == 0").reset_index(drop=True)
    rows = Rows(*(np.log(table[name].to_numpy()) for name in ("N", "D", "loss")))
    rivals: dict[str, Callable[[int], Timing]] = {"rayscale": lambda seed: time_rayscale(table, rows, seed)}
    for how, gradient, settings in (
        ("numeric gradient, defaults", False, {}),
        ("numeric gradient, tight", False, TIGHT),
        ("gradient by hand, tight", True, TIGHT),
    ):
        sample = (gradient, settings, options.starts, options.resamples)
        rivals[f"L-BFGS-B, {how}"] = lambda seed, sample=sample: time_scipy(rows, *sample, seed)
    if has_chinchilla(options.chinchilla):
        rivals["chinchilla package, BFGS"] = lambda seed: time_chinchilla(table, rows, options.chinchilla)
    else:
        print("the chinchilla package is not installed; to measure it too, see --help and:\n    " + INSTALL + "\n")
    found: dict[str, list[Timing]] = {name: [] for name in rivals}
    for turn in range(options.rounds):
        for name, measure in rivals.items():
            found[name].append(measure(turn))
            print(f"round {turn + 1}: {name:36} {found[name][-1]}", flush=True)
    report(found, options)


def report(found: Mapping[str, list[Timing]], options: argparse.Namespace) -> None:
    """Medians over rounds, the best objective of each, and how many times less CPU rayscale took."""
    print(
        f"\nCPU seconds, medians of {options.rounds} rounds; rivals scaled from {options.starts} starts (the "
        f"chinchilla package: 48) and {options.resamples} resamples\n"
        f"{'':36} {'fit':>8} {'times':>6} {'best objective':>17} "
        f"{'bootstrap':>10} {'times':>6} {'se A':>8} {'se beta':>8}"
    )
    ours = found["rayscale"]
    fit, cloud = statistics.median(each.fit for each in ours), statistics.median(each.bootstrap or 0 for each in ours)
    for name, rounds in found.items():
        spent = statistics.median(each.fit for each in rounds)
        line = f"{name:36} {spent:8.3f} {spent / fit:6,.0f} {min(each.objective for each in rounds):17.13f}"
        resampled = [(each.bootstrap, each.errors) for each in rounds if each.bootstrap and each.errors]
        if resampled:
            spent = statistics.median(seconds for seconds, _ in resampled)
            a, beta = (statistics.median(errors[j] for _, errors in resampled) for j in (0, 1))
            line += f" {spent:10.2f} {spent / cloud:6,.0f} {a:8.2f} {beta:8.5f}"
        print(line)
    print(f"targets: fit {FIT_TARGET} times less, objective <= {PUBLISHED}; bootstrap {BOOTSTRAP_TARGET} times less, "
          "standard errors 124.5 and 0.0206 (Besiroglu et al.)")  # fmt: skip


if __name__ == "__main__":
    main()
