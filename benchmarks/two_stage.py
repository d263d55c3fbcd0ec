"""Does a metric that has hardly begun to rise follow by way of its loss, and do the intervals hold?

Planted studies of 3 models x 5 data sizes x 2 seeds: the loss is chinchilla's, the metric a sigmoid of it whose middle
lies about the largest run. Asked is the largest model at 2 and 4 times its data, and twice that model at 4 times.
Each way: root mean square error of the metric, coverage of the 95% interval for a new run, its median width.

    OMP_NUM_THREADS=1 python benchmarks/two_stage.py [--studies 50]
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from time import process_time

import numpy as np
import pandas as pd

from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.coordinates import link, unlink

LOSS_NOISE, METRIC_NOISE = 0.004, 0.04  # of log loss, and of log odds given the loss
WAYS = {
    "its own curve, auto": {"law": "auto"},
    "its own curve, logit_chinchilla": {"law": "logit_chinchilla"},
    "through the loss, auto": {"law": "auto", "through": "loss"},
    "through the loss, chinchilla": {"law": "chinchilla", "through": "loss"},
}


def study(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table of runs, and the sizes asked with their mean metric (`truth`) and that of a new run (`acc`)."""
    rng = np.random.default_rng(seed)
    cells = [1e7 * 4.0 ** np.arange(3), 1e6 * 3.0 ** np.arange(5), [0, 1]]
    runs = pd.MultiIndex.from_product(cells, names=["params", "tokens", "seed"]).to_frame(index=False)
    (alpha, beta), floor_of_loss = rng.uniform(0.25, 0.4, 2), rng.uniform(1.4, 2.0)

    def mean_loss(table: pd.DataFrame) -> np.ndarray:
        by_params, by_data = 0.4 * (table["params"] / 4e7) ** -alpha, 1.2 * (table["tokens"] / 1e7) ** -beta
        return (floor_of_loss + by_params + by_data).to_numpy()

    largest = runs[["params", "tokens"]].max()
    asked = pd.DataFrame({"params": largest["params"] * np.array([1, 1, 2]),
                          "tokens": largest["tokens"] * np.array([2, 4, 4])})  # fmt: skip
    top, floor, steep = rng.uniform(0.75, 0.98), rng.uniform(0.2, 0.35), rng.uniform(3, 8)
    middle = mean_loss(pd.DataFrame([largest]))[0] - rng.uniform(-0.1, 0.25)

    def metric(loss: np.ndarray) -> np.ndarray:
        return floor + (top - floor) / (1 + np.exp(steep * (loss - middle)))

    for table in (runs, asked):
        table["loss"] = mean_loss(table) * np.exp(LOSS_NOISE * rng.normal(size=len(table)))
        odds = link("logit", metric(table["loss"].to_numpy())) + METRIC_NOISE * rng.normal(size=len(table))
        table["acc"] = unlink("logit", odds)
    return runs, asked.assign(truth=metric(mean_loss(asked)))


def main() -> None:
    """Print a row for every way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=50)
    studies = parser.parse_args().studies
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    for seed in range(studies):
        runs, asked = study(seed)
        for name, options in WAYS.items():
            began = process_time()
            fit = fit_law(runs, target="acc", params="params", data="tokens", bootstrap=300, seed=seed, **options)
            seconds = process_time() - began
            table = fit.predict(asked)
            held = table["low"].le(asked["acc"]) & table["high"].ge(asked["acc"])
            columns = (table["predicted"] - asked["truth"], held, table["high"] - table["low"])
            found[name].append(np.array([*columns, np.full(3, seconds)], dtype=float))
    print(f"{studies} studies; each at 2x data, 4x data, 2x params and 4x data")
    print(f"{'':34}{'RMS error':>21}{'covered, %':>15}{'median width':>21}{'CPU-s':>7}")
    for name, each in found.items():
        miss, held, width, seconds = np.moveaxis(np.array(each), 1, 0)
        parts = (np.sqrt((miss**2).mean(0)), 100 * held.mean(0), np.median(width, axis=0))
        shown = [" ".join(form.format(value) for value in part) for form, part in
                 zip(("{:6.3f}", "{:4.0f}", "{:6.3f}"), parts, strict=True)]  # fmt: skip
        print(f"{name:34}{shown[0]:>21}{shown[1]:>15}{shown[2]:>21}{seconds.mean():7.2f}")


if __name__ == "__main__":
    main()
