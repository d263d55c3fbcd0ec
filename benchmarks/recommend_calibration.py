"""Does `recommend` keep its word? Planted studies: the probability it states against that with which new runs reach it.

Each study is one of benchmarks/planted_studies.py (3 model sizes, 4 data sizes, noise 0.5%), or has an accuracy that
follows a law in log odds (noise 0.05 in log odds). It was timed on 1 and 2 GPUs, at a cost in proportion to params^c x
data: c = 1 in every other study, where small models win; c = 0.3 in the others, where all three contest. The target
lies within the grid or beyond it. Targets `wished` are set by what was measured, as people set theirs: a random place
on the range of measured values, prolonged by a quarter. Targets `true` are the truth at a random allocation, up to 4
times the data. What comes true is exact: the probability under the planted truth that a new run of the recommended
allocation reaches the target. A pass: stated and realised within 5 points. `--uncorrected` states the law's own
probability, without the correction for the choice.

    OMP_NUM_THREADS=1 python benchmarks/recommend_calibration.py [--kind chinchilla mix accuracy] [--studies 200]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import process_time
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
from planted_studies import DATA, KINDS, NOISE, PARAMS, Truth, study
from scipy.special import expit, logit
from scipy.stats import norm

from rayscale.verdict import recommendation, selection
from rayscale.verdict.metric_law import quality

ASKED = (0.5, 0.8, 0.9)
COSTS = (1.0, 0.3)  # powers of the model size, in turn
SECOND_GPU = 0.8  # what a second GPU adds of the first's speed
FARTHEST = 4.0  # times the largest data size: where a `true` target lies at most
ODDS_NOISE = 0.05


def accuracy(seed: int) -> tuple[pd.DataFrame, Truth]:
    """A study whose accuracy follows chinchilla in log odds, below a ceiling."""
    rng = np.random.default_rng([50, seed])
    ceiling, alpha, beta = rng.uniform(1.5, 4.0), rng.uniform(0.2, 0.5), rng.uniform(0.25, 0.6)
    model, data = rng.uniform(0.3, 1.5), rng.uniform(1.0, 3.0)

    def truth(n: Any, d: Any) -> Any:
        return expit(ceiling - model * (n / PARAMS[0]) ** -alpha - data * (d / DATA[0]) ** -beta)

    cells = [(n, d) for n in PARAMS for d in DATA for _ in range(2 if d == DATA[0] else 1)]
    table = pd.DataFrame(cells, columns=["params", "data"])
    odds = logit(truth(table["params"], table["data"])) + rng.normal(0, ODDS_NOISE, len(table))
    return table.assign(loss=expit(odds)), truth


def trials(table: pd.DataFrame, metric: str, rng: np.random.Generator) -> pd.DataFrame:
    """The study's runs as a trial table; those of the first seed also ran on two GPUs, at the same quality."""
    runs = table.assign(seed=table.groupby(["params", "data"]).cumcount(), status="ok", augment="none")
    runs = pd.concat([runs.assign(gpus=1), runs[runs["seed"] == 0].assign(gpus=2)], ignore_index=True)
    return runs.assign(
        trial_id=runs.index.astype(str), model=[f"model-{params:.0f}" for params in runs["params"]],
        data_requested=runs["data"], tokens=runs["data"], exclusive=True, chance=rng.normal(0, 0.02, len(runs)),
        **{metric: runs["loss"]},
    )  # fmt: skip


def timed(runs: pd.DataFrame, power: float) -> pd.DataFrame:
    """The runs with their times, at a cost in proportion to params^power x data."""
    speed = np.where(runs["gpus"] == 2, 1 + SECOND_GPU, 1.0)
    seconds = runs["params"] ** power * runs["data"] / 1e8 / speed * np.exp(runs["chance"])
    return runs.assign(train_seconds=seconds, device_seconds=seconds * runs["gpus"],
                       examples_per_second=runs["data"] / seconds)  # fmt: skip


def target(kind: str, table: pd.DataFrame, truth: Truth, scale: Scale, rng: np.random.Generator) -> float:
    """The value to reach."""
    if kind == "wished":
        means = scale.link(table.groupby(["params", "data"])["loss"].mean())
        worst, best = (means.max(), means.min()) if scale.lower else (means.min(), means.max())
        return float(scale.unlink(best + (worst - best) * rng.uniform(-0.25, 0.75)))
    model, size = rng.choice(PARAMS), np.exp(rng.uniform(np.log(DATA[0]), np.log(FARTHEST * DATA[-1])))
    return float(truth(model, size))


@dataclass(frozen=True)
class Scale:
    """On which noise is normal, and whether less is better."""

    metric: str
    lower: bool
    link: Callable[[Any], Any]
    unlink: Callable[[Any], Any]
    noise: float


LOSS = Scale("eval_loss", True, np.log, np.exp, NOISE)
ACCURACY = Scale("accuracy", False, logit, expit, ODDS_NOISE)


def realised(place: dict[str, Any], own: str, truth: Truth, reach: float, scale: Scale) -> float:
    """With what probability a new run of the recommended allocation reaches the target."""
    params = PARAMS[int(np.argmin(np.abs(PARAMS - place["params"])))]
    noise = scale.noise * (np.sqrt(DATA[-1] / place["data"]) if own == "uneven_noise" else 1.0)
    better = scale.link(truth(params, place["data"])) - scale.link(reach)
    return float(norm.cdf((-better if scale.lower else better) / noise))


class Remembered:
    """A study's fit, made once for all targets: none changes it. Stands in for `quality`."""

    def __init__(self) -> None:
        self.fit: Any = None

    def __call__(self, rows: pd.DataFrame, aim: Any, data: str, **options: Any) -> Any:
        if self.fit is None:
            self.fit = quality(rows, aim, data, **options)
            for fit in self.fit.fits.values():
                estimate = fit.known_estimate()
                if "linked_values" not in vars(estimate):  # models of a law over all share it
                    object.__setattr__(estimate, "linked_values", cache_by_value(estimate.linked_values))
        return replace(self.fit, target=aim)


def as_it_is(*_: Any) -> tuple[np.ndarray, np.ndarray]:
    """In place of `optimism`: no correction."""
    return np.array([0.0, 1.0]), np.array([0.0, 1.0])


def answers(kind: str, number: int, law: str, bootstrap: int, uncorrected: bool) -> list[dict[str, Any]]:
    """What is stated and comes true in one study."""
    own = list(KINDS)[number % len(KINDS)] if kind == "mix" else kind
    (table, truth), scale = (accuracy(number), ACCURACY) if kind == "accuracy" else (study(own, number), LOSS)
    rng, rows, power = np.random.default_rng([7, number]), [], COSTS[number % len(COSTS)]
    runs = timed(trials(table, scale.metric, rng), power)
    correction = as_it_is if uncorrected else cache_by_value(selection.optimism)
    with (
        mock.patch.object(recommendation, "quality", Remembered()),
        mock.patch.object(recommendation, "optimism", correction),
    ):
        for aims in ("wished", "true"):
            reach = target(aims, table, truth, scale, rng)
            for asked in ASKED:
                answer = recommendation.recommend(
                    runs, f"{scale.metric}{'<=' if scale.lower else '>='}{reach!r}", data="tokens",
                    probability=asked, law=law, bootstrap=bootstrap,
                )  # fmt: skip
                facts = {"kind": kind, "own": own, "targets": aims, "cost": power, "asked": asked, "study": number,
                         "stated": np.nan}  # fmt: skip
                if (place := answer["allocation"]) is not None:
                    facts |= {"stated": answer["probability"], "law": answer["basis"]["law"],
                              "realised": realised(place, own, truth, reach, scale), **place,
                              "extrapolation": answer["extrapolation"]}  # fmt: skip
                rows.append(facts)
    return rows


def cache_by_value(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, once for the same arrays."""
    known: dict[bytes, Any] = {}

    def remember(*arguments: Any) -> Any:
        parts = (part for one in arguments for part in (one.values() if isinstance(one, dict) else [one]))
        key = b"".join(np.asarray(part).tobytes() for part in parts)
        if key not in known:
            known[key] = function(*arguments)
        return known[key]

    return remember


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = [*KINDS, "mix", "accuracy"]
    parser.add_argument("--kind", nargs="*", choices=kinds, default=["chinchilla", "mix", "accuracy"])
    parser.add_argument("--law", default="auto")
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--bootstrap", type=int, default=300)
    parser.add_argument("--uncorrected", action="store_true", help="the law's own probability")
    parser.add_argument("--out", help="a CSV of every answer")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for kind in args.kind:
        began, first = process_time(), len(rows)
        for number in range(args.studies):
            rows += answers(kind, number, args.law, args.bootstrap, args.uncorrected)
            if args.out:
                pd.DataFrame(rows).to_csv(args.out, index=False)
        print(f"{kind}: {(process_time() - began) / args.studies:.2f} CPU-s a study")
        for _, part in pd.DataFrame(rows[first:]).groupby(["targets", "asked"], sort=False):
            report(part)


def report(part: pd.DataFrame) -> None:
    """What was stated and came true, for one kind of target and one probability asked."""
    known, first = part.dropna(subset=["stated"]), part.iloc[0]
    off = 100 * (known["realised"] - known["stated"])
    error, beyond = off.std() / np.sqrt(len(off)), 100 * (known["extrapolation"] > 1).mean()
    print(f"  {first['targets']:6s}  asked {first['asked']:.2f}: stated {known['stated'].mean():.3f}, realised "
          f"{known['realised'].mean():.3f}, difference {off.mean():+5.1f} +- {error:.1f} points; "
          f"refused {len(part) - len(known)} of {len(part)}, beyond the data {beyond:.0f}%", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
