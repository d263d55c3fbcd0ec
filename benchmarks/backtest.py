"""Which law predicts the largest scale of real tables, and do its 95% intervals hold there?

Every table is fitted without its largest scale, group by group, and predicts it: `auto`, each law that ships alone, and
what people do without a tool: the last value kept, a power law of two parameters (log-log), and scipy's curve_fit of a
power law with an offset. A row of the result: root mean square of the log error and mean |log error| over all held-out
rows, how many of them lay in the 95% interval for a new run, and the median width of that interval (log).

    OMP_NUM_THREADS=1 python benchmarks/backtest.py [--data FOLDER] [--cases FOLDER] [--table NAME ...]
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import process_time

import numpy as np
import pandas as pd
from scipy.optimize import curve_fit

from rayscale.errors import RayscaleError
from rayscale.laws.fit import fit_law

ONE = ("power", "power_without_E", "rectified", "shifted", "bnsl")
TWO = ("chinchilla", "chinchilla_tied", "chinchilla_rectified", "chinchilla_without_E", "multiplicative",
       "multiplicative_without_E")  # fmt: skip


@dataclass(frozen=True)
class Test:
    """A table, the columns of its sizes (role -> column) and of its target, its groups, and the rows held out."""

    name: str
    table: pd.DataFrame
    roles: dict[str, str]
    target: str
    by: str | None
    holdout: str

    @property
    def laws(self) -> tuple[str, ...]:
        return (*TWO, *(("repeated_data",) if "unique" in self.roles else ())) if len(self.roles) > 1 else ONE


def tests(data: Path, cases: Path) -> Iterator[Test]:
    """All of them, in the order in which they are printed."""
    flan = pd.read_csv(data / "finetune_flan.csv")
    flan = flan[flan["D_ft_examples"] > 0].rename(columns={"D_ft_examples": "D"}).reset_index(drop=True)
    most = flan["D"].max()
    for part in (8, 32):
        kept = flan[(flan["D"] <= 1.001 * most / part) | (flan["D"] == most)].reset_index(drop=True)
        yield Test(f"flan models 1/{part}", kept, {"data": "D"}, "test_loss", "model", f"D == {most}")
    sized = flan.groupby("family")["N"].nunique()
    several = flan[flan["family"].map(sized) >= 4].reset_index(drop=True)
    for part in (2, 8):
        kept = several[(several["D"] <= 1.001 * most / part) | (several["D"] == most)].reset_index(drop=True)
        both = {"params": "N", "data": "D"}
        yield Test(f"flan families 1/{part}", kept, both, "test_loss", "family", f"D == {most}")
    largest = several["N"] == several.groupby("family")["N"].transform("max")
    corner = several[~(largest ^ (several["D"] > 1.001 * most / 4))].assign(corner=0).reset_index(drop=True)
    corner["corner"] = (corner["N"] == corner.groupby("family")["N"].transform("max")).astype(int)
    yield Test(
        "flan families, largest model", corner, {"params": "N", "data": "D"}, "test_loss", "family", "corner == 1"
    )
    nsl = pd.read_csv(data / "nsl_language_models.csv").rename(columns={"Seen Examples": "D"})
    nsl = nsl.drop_duplicates(["Model", "D", "Loss"]).reset_index(drop=True)
    yield Test("nsl curves", nsl, {"data": "D"}, "Loss", "Model", "Training == 0")
    thin = nsl[nsl.groupby("Model").cumcount() % 8 == 0].reset_index(drop=True)
    sizes = {"params": "Model", "data": "D"}
    yield Test("nsl, all models", thin, sizes, "Loss", None, "Training == 0")
    yield Test("nsl, largest model", thin, sizes, "Loss", None, f"Model == {float(nsl['Model'].max())!r}")
    epoch = pd.read_csv(data / "chinchilla_epoch.csv")
    epoch = epoch[epoch["excluded_by_epoch"].astype(str) != "True"].reset_index(drop=True)
    for share in (0.8, 0.6):
        cut = float(epoch["C"].quantile(share))
        yield Test(
            f"chinchilla, C of top {100 - 100 * share:.0f}%",
            epoch,
            {"params": "N", "data": "D"},
            "loss",
            None,
            f"C > {cut!r}",
        )
    repeated = pd.read_csv(data / "repeated_data.csv").rename(columns={"unique_tokens": "unique"})
    repeated["flop"] = repeated["params"] * repeated["tokens"]
    cut = float(repeated["flop"].quantile(0.75))
    yield Test("repeated data", repeated, {"params": "params", "data": "tokens", "unique": "unique"}, "loss", None,
               f"flop > {cut!r}")  # fmt: skip
    kyo = pd.read_csv(cases / "laws-04-holdout-50pct-silent" / "kyo.csv")
    yield Test("kyo", kyo, {"params": "N", "data": "D"}, "loss", None, "N > 4e9")
    kyo_c = float(kyo["C"].quantile(0.75))
    yield Test("kyo, C of top 25%", kyo, {"params": "N", "data": "D"}, "loss", None, f"C > {kyo_c!r}")
    bnsl = pd.read_csv(cases / "laws-01-bnsl-bound" / "bnsl4.csv")
    yield Test("bnsl paper", bnsl, {"data": "examples"}, "loss", None, "examples >= 800")
    for name in ("hill", "so16107884"):
        table = pd.read_csv(cases / "laws-06-formula-top-bound" / f"{name}.csv")
        axis, target = table.columns
        yield Test(name, table, {"data": axis}, target, None, f"{axis} >= {float(sorted(table[axis])[-3])!r}")
    for case, file in (("laws-03-auto-no-lack-of-fit", "crossing"), ("laws-03-auto-no-lack-of-fit", "scurve")):
        table = pd.read_csv(cases / case / f"{file}.csv")
        roles = {"params": "params", "data": "tokens"}
        yield Test(file, table, roles, "eval_loss", None, f"tokens >= {table['tokens'].max()}")


def by_rayscale(test: Test, law: str, bootstrap: int) -> pd.DataFrame:
    """measured, predicted, low, high of every held-out row."""
    fit = fit_law(
        test.table, law, target=test.target, by=test.by, holdout=test.holdout, bootstrap=bootstrap, **test.roles
    )  # type: ignore[arg-type]
    if fit.predictions is None:
        raise RayscaleError("refused")
    return fit.predictions.rename(columns={test.target: "measured"})[["measured", "predicted", "low", "high"]]


def by_hand(test: Test, rule: Callable[[pd.DataFrame, pd.DataFrame], np.ndarray]) -> pd.DataFrame:
    """The same from a rule on (kept rows, held-out rows) of each group, columns x (data), n (params) and y."""
    held = test.table.eval(test.holdout).to_numpy(dtype=bool)
    table = pd.DataFrame(
        {"x": test.table[test.roles["data"]].astype(float), "y": test.table[test.target].astype(float)}
    )
    table["n"] = test.table[test.roles["params"]].astype(float) if "params" in test.roles else 1.0
    groups = test.table[test.by].astype(str) if test.by else pd.Series("", index=test.table.index)
    parts = []
    for _, rows in table.groupby(groups):
        kept, asked = rows[~held[rows.index]], rows[held[rows.index]]
        if len(asked) and len(kept) >= 3:
            parts.append(
                pd.DataFrame({"measured": asked["y"], "predicted": rule(kept, asked), "low": np.nan, "high": np.nan})
            )
    return pd.concat(parts)


def last_value(kept: pd.DataFrame, asked: pd.DataFrame) -> np.ndarray:
    """The mean of the rows nearest in (log n, log x)."""
    places, sought = (np.log(part[["n", "x"]].to_numpy()) for part in (kept, asked))
    spread = np.maximum(np.ptp(places, axis=0), 1e-9)
    far = (((sought[:, None] - places) / spread) ** 2).sum(2)
    near = np.isclose(far, far.min(1, keepdims=True))
    return np.exp((near * np.log(kept["y"].to_numpy())).sum(1) / near.sum(1))


def log_log(kept: pd.DataFrame, asked: pd.DataFrame) -> np.ndarray:
    """A power law without offset, by least squares of logarithms."""

    def columns(rows: pd.DataFrame) -> np.ndarray:
        return np.stack([np.ones(len(rows)), *np.log(rows[["n", "x"]].to_numpy()).T], axis=1)

    weights = np.linalg.lstsq(columns(kept), np.log(kept["y"].to_numpy()), rcond=None)[0]
    return np.exp(columns(asked) @ weights)


def scipy_offset(kept: pd.DataFrame, asked: pd.DataFrame) -> np.ndarray:
    """curve_fit of E + B x^-b (+ A n^-a), in units of the geometric mean; where it gives up, the last value."""
    scale = np.exp(np.log(kept[["n", "x"]]).mean())
    several = kept["n"].nunique() > 1

    def law(sizes: np.ndarray, *theta: float) -> np.ndarray:
        value = theta[0] + theta[1] * sizes[1] ** -theta[2]
        return value + theta[3] * sizes[0] ** -theta[4] if several else value

    level = float(kept["y"].median())
    start = [level / 2, level / 4, 0.3, level / 4, 0.3][: 5 if several else 3]
    inputs = [(rows[["n", "x"]] / scale).to_numpy().T for rows in (kept, asked)]
    try:
        theta, _ = curve_fit(law, inputs[0], kept["y"].to_numpy(), p0=start, maxfev=20_000)
    except RuntimeError:
        return last_value(kept, asked)
    return np.maximum(law(inputs[1], *theta), 1e-9)


LINE = "{:30s} {:26s} {:>5} {:>8s} {:>8s} {:>8s} {:>7s} {:>6s}"
RULES = {"last value": last_value, "log-log power": log_log, "scipy curve_fit": scipy_offset}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/laws"))
    parser.add_argument("--cases", type=Path, default=Path("../shared/cases"))
    parser.add_argument("--table", nargs="*", help="only those whose name contains one of these")
    parser.add_argument("--only-auto", action="store_true")
    parser.add_argument("--bootstrap", type=int, default=400)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(LINE.format("table", "method", "rows", "rms", "mean", "covered", "width", "CPU-s"))
    for test in tests(args.data, args.cases):
        if args.table and not any(part in test.name for part in args.table):
            continue
        laws = ("auto",) if args.only_auto else ("auto", *test.laws)
        for method in (*laws, *(() if args.only_auto else RULES)):
            began = process_time()
            try:
                rows = by_hand(test, RULES[method]) if method in RULES else by_rayscale(test, method, args.bootstrap)
            except RayscaleError as error:
                print(f"{test.name:30s} {method:26s} refused: {error}", flush=True)
                continue
            missed = np.log(rows["predicted"] / rows["measured"])
            inside = ((rows["low"] <= rows["measured"]) & (rows["measured"] <= rows["high"])).mean()
            known = method not in RULES
            width = np.log(rows["high"] / rows["low"]).median()
            errors = f"{np.sqrt((missed**2).mean()):.5f}", f"{missed.abs().mean():.5f}"
            interval = (f"{100 * inside:.0f}%", f"{width:.4f}") if known else ("-", "-")
            print(
                LINE.format(test.name, method, len(rows), *errors, *interval, f"{process_time() - began:.1f}"),
                flush=True,
            )


if __name__ == "__main__":
    main()
