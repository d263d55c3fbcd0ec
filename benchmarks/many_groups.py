"""What does a table of many groups cost, and is it worth it? 1,000 planted curves of 6 rows, one fit per group.

Every group is a power law with an offset, its exponent and level from a population; 6 data sizes, each twice the last,
and a held-out row at 4 times the largest; noise 1%. `auto` fits all groups together, a named law each by itself. A row
of the result: CPU seconds, root mean square of the log error at the held-out size, how many of these rows lay in the
95% interval for a new run, its median width (log), and the groups that were refused.

    OMP_NUM_THREADS=1 python benchmarks/many_groups.py [--groups 100 1000] [--law auto power] [--bootstrap 1000]
"""

from __future__ import annotations

import argparse
import resource
import warnings
from time import process_time
from typing import cast

import numpy as np
import pandas as pd

from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.result import GroupedFit

DATA = 1000 * 2.0 ** np.arange(6)
BEYOND = 4.0  # times the largest size: where the held-out row lies
NOISE = 0.01


def planted(groups: int, seed: int) -> pd.DataFrame:
    """Columns group, data, loss: 6 rows and the held-out one of every group."""
    rng = np.random.default_rng(seed)
    data = np.append(DATA, DATA[-1] * BEYOND)
    level = np.exp(rng.normal(0.5, 0.5, (groups, 1)))
    offset, exponent = rng.uniform(0.2, 0.8, (groups, 1)), np.exp(rng.normal(np.log(0.45), 0.2, (groups, 1)))
    loss = level * (offset + (data / DATA[0]) ** -exponent) * np.exp(rng.normal(0, NOISE, (groups, len(data))))
    names = np.repeat([f"g{group:04d}" for group in range(groups)], len(data))
    return pd.DataFrame({"group": names, "data": np.tile(data, groups), "loss": loss.ravel()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, nargs="*", default=[100, 1000])
    parser.add_argument("--law", nargs="*", default=["auto", "power"])
    parser.add_argument("--bootstrap", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print("groups law        CPU-s      rms  covered   width  refused  GiB at most")
    for groups in args.groups:
        table = planted(groups, args.seed)
        for law in args.law:
            began = process_time()
            fit = cast(GroupedFit, fit_law(table, law, data="data", target="loss", by="group",
                                           holdout=f"data > {DATA[-1]}", bootstrap=args.bootstrap))  # fmt: skip
            spent, rows = process_time() - began, fit.predictions
            if rows is None or fit.held_out is None:
                raise SystemExit(f"{law} was refused for all {groups} groups")
            width = float(np.log(rows["high"] / rows["low"]).median())
            refused = sum(not each.params for each in fit.groups)
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            missed, covered = fit.held_out["rmse_log"], 100 * fit.held_out["covered"]
            print(
                f"{groups:6d} {law:9s} {spent:6.1f}  {missed:.5f}  {covered:6.1f}%  {width:.4f}  {refused:7d}"
                f"  {most:11.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
