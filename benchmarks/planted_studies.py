"""Do the verdict's intervals hold where the law is wrong? Small planted studies of seven kinds, truth known.

Each study is what people can afford: 3 model sizes, 4 data sizes (each twice the last), one seed, a second one at the
smallest data size, noise 0.5% of the loss. Asked of every fit: the effect of 2, 4 and 16 times the data and of twice
the model, a new run at twice the data, and the data needed for the loss that the truth has at 1.5 times the largest
data size. A pass: 90-99% covered.

    OMP_NUM_THREADS=1 python benchmarks/planted_studies.py [--kind s_shaped] [--studies 100] [--law auto chinchilla]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import process_time
from typing import cast

import numpy as np
import pandas as pd

from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.result import Fit
from rayscale.verdict.allocation import data_needed

PARAMS = np.array([31_200.0, 136_960.0, 470_528.0])
DATA = 30_000.0 * 2.0 ** np.arange(4)
NOISE = 0.005
AIM = 1.5  # times the largest data size: where the needed data truly lies
QUESTIONS = ("2x data", "4x", "16x", "2x model", "new run", "needed")
Truth = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (params, data) to the mean loss


def chinchilla(rng: np.random.Generator) -> Truth:
    """E + A N^-alpha + B D^-beta: at the smallest cell, a third to two thirds are still to be gained."""
    E, alpha, beta = rng.uniform(1.5, 3.0), rng.uniform(0.2, 0.5), rng.uniform(0.25, 0.6)
    model, data = rng.uniform(0.3, 1.5), rng.uniform(1.0, 3.0)
    return lambda n, d: E + model * (n / PARAMS[0]) ** -alpha + data * (d / DATA[0]) ** -beta


def s_shaped(rng: np.random.Generator) -> Truth:
    """A plateau first: little is learnt before some amount of data, then a power law."""
    E, alpha, beta = rng.uniform(1.5, 3.0), rng.uniform(0.2, 0.5), rng.uniform(0.5, 1.2)
    model, data, onset = rng.uniform(0.1, 0.8), rng.uniform(2.0, 3.5), DATA[0] * 2.0 ** rng.uniform(0.0, 2.0)
    return lambda n, d: E + model * (n / PARAMS[0]) ** -alpha + data / (1 + (d / onset) ** (1.5 * beta)) ** (1 / 1.5)


def crossing(rng: np.random.Generator) -> Truth:
    """Larger models start worse and fall faster: the curves cross near the largest data size."""
    E, slope, steeper = rng.uniform(1.5, 2.5), rng.uniform(0.25, 0.4), rng.uniform(0.05, 0.12)
    level, meet = rng.uniform(1.2, 2.2), DATA[-1] * 2.0 ** rng.uniform(-1.0, 0.5)

    def loss(n: np.ndarray, d: np.ndarray) -> np.ndarray:
        return np.asarray(E + level * (d / meet) ** -(slope + steeper * np.log(n / PARAMS[0])))

    return loss


def bump(rng: np.random.Generator) -> Truth:
    """chinchilla with a bump of 2 to 6% along data."""
    base, height = chinchilla(rng), rng.uniform(0.02, 0.06) * rng.choice([-1, 1])
    centre, width = np.log(DATA[0]) + rng.uniform(0.3, 1.8), rng.uniform(0.4, 0.8)
    return lambda n, d: base(n, d) * (1 + height * np.exp(-(((np.log(d) - centre) / width) ** 2) / 2))


def final_plateau(rng: np.random.Generator) -> Truth:
    """A power law that ends in a floor within the data."""
    base, end = chinchilla(rng), DATA[-1] * 2.0 ** rng.uniform(-1.5, 0.0)
    return lambda n, d: base(n, (d**-3.0 + end**-3.0) ** (-1 / 3.0))


KINDS: dict[str, Callable[[np.random.Generator], Truth]] = {
    "chinchilla": chinchilla, "s_shaped": s_shaped, "crossing": crossing, "bump": bump, "final_plateau": final_plateau,
    "uneven_noise": chinchilla, "missing_cells": chinchilla,
}  # fmt: skip


def study(kind: str, seed: int) -> tuple[pd.DataFrame, Truth]:
    """The runs of one study (params, data, loss) and its truth."""
    rng = np.random.default_rng([list(KINDS).index(kind), seed])
    truth = KINDS[kind](rng)
    cells = [(n, d) for n in PARAMS for d in DATA for _ in range(2 if d == DATA[0] else 1)]
    table = pd.DataFrame(cells, columns=["params", "data"])
    if kind == "missing_cells":  # three cells that failed, never the largest of all
        away = {divmod(int(cell), len(DATA)) for cell in rng.choice(len(PARAMS) * len(DATA) - 1, 3, replace=False)}
        gone = [(np.searchsorted(PARAMS, n), np.searchsorted(DATA, d)) in away for n, d in cells]
        table = table[~np.array(gone)].reset_index(drop=True)
    noise = NOISE * np.sqrt(DATA[-1] / table["data"]) if kind == "uneven_noise" else NOISE
    mean = truth(table["params"].to_numpy(), table["data"].to_numpy())
    return table.assign(loss=mean * np.exp(rng.normal(0, noise, len(table)))), truth


def asked(fit: Fit, truth: Truth, seed: int) -> dict[str, tuple[float, float, float] | None]:
    """Question -> (low, truth, high) on a log scale; None where it was refused."""
    n, d = PARAMS[-1], DATA[-1]
    if fit.estimate is None:
        return dict.fromkeys(QUESTIONS)
    here = float(np.log(truth(n, d)))
    answers: dict[str, tuple[float, float, float] | None] = {}
    for name, after in (("2x data", (n, 2 * d)), ("4x", (n, 4 * d)), ("16x", (n, 16 * d)), ("2x model", (2 * n, d))):
        roles = [dict(zip(("params", "data"), size, strict=True)) for size in ((n, d), after)]
        _, low, high = np.log1p(fit.change(*roles))
        answers[name] = low, float(np.log(truth(*after))) - here, high
    row = fit.predict(pd.DataFrame({"params": [n], "data": [2 * d]})).iloc[0]
    new = float(np.log(truth(n, 2 * d))) + np.random.default_rng([99, seed]).normal(0, NOISE)
    answers["new run"] = float(np.log(row["low"])), new, float(np.log(row["high"]))
    needed = data_needed(fit, {"params": n}, float(truth(n, AIM * d)))
    answers["needed"] = None
    if needed is not None:
        high = np.inf if needed["high"] is None else np.log(needed["high"])
        answers["needed"] = float(np.log(needed["low"])), float(np.log(AIM * d)), float(high)
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--law", nargs="*", default=["auto"])
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--bootstrap", type=int, default=300)
    args = parser.parse_args()
    print("covered of those answered (median width in log; refused), nominal 95%")
    for kind in args.kind:
        for law in args.law:
            began, answers, warned = process_time(), [], 0
            for seed in range(args.studies):
                table, truth = study(kind, seed)
                fit = cast(Fit, fit_law(table, law, target="loss", params="params", data="data",
                                        bootstrap=args.bootstrap, seed=seed))  # fmt: skip
                warned += any(warning["code"] == "misspecified" for warning in fit.warnings)
                answers.append(asked(fit, truth, seed))
            parts = []
            for question in answers[0]:
                known = np.array([each[question] for each in answers if each[question] is not None])
                inside = 100 * np.mean((known[:, 0] <= known[:, 1]) & (known[:, 1] <= known[:, 2]))
                width, refused = np.median(known[:, 2] - known[:, 0]), len(answers) - len(known)
                parts.append(f"{question} {inside:3.0f}% ({width:.3f}; {refused})")
            seconds = (process_time() - began) / args.studies
            print(f"{kind:14s} {law:11s} {'  '.join(parts)}  misspecified {warned}  {seconds:.2f} CPU-s", flush=True)


if __name__ == "__main__":
    main()
