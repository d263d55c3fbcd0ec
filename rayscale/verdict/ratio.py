"""A claim put to the test: is quality proportional to examples over GPUs, and do GPUs change quality at all?

On a grid of data sizes and GPU counts the law `ratio` and its rivals each predict every data size from the others; and
runs that differ in nothing but GPUs, at the same global batch, are compared in pairs, with a test of equivalence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy import stats

from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.coordinates import link, unlink
from rayscale.laws.fitting.observations import numbers, require_columns
from rayscale.laws.fitting.result import Fit
from rayscale.laws.law import Array
from rayscale.verdict.speedup import MARGIN, Equivalence, pair

_BOOTSTRAP = 2  # only the point is asked for


@dataclass(frozen=True)
class Rival:
    """How a law foretold the data sizes it had not seen: root mean square log error over `n` runs."""

    law: str
    rmse_log: float
    n: int


@dataclass(frozen=True)
class RatioTest:
    """What the grid says of the claim. `slopes`: change of log quality per log of data and of GPUs, each value, low,
    high (the claim: 1 and -1); `verdict`: refuted, supported or untested; `sentences` for the reader."""

    quality: str
    rivals: tuple[Rival, ...]
    slopes: Mapping[str, tuple[float, float, float]]
    equivalence: Equivalence | None
    verdict: str
    sentences: tuple[str, ...]
    warnings: tuple[dict[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """One JSON object without NaN."""
        return {
            "quality": self.quality,
            "claim": "quality is proportional to data / gpus",
            "verdict": self.verdict,
            "rivals": [vars(each) for each in self.rivals],
            "slopes": {name: list(each) for name, each in self.slopes.items()},
            "equivalence": None if self.equivalence is None else vars(self.equivalence),
            "sentences": list(self.sentences),
            "warnings": list(self.warnings),
        }


def weigh_claim(
    table: pd.DataFrame,
    *,
    quality: str,
    data: str = "data_requested",
    gpus: str = "gpus",
    same: tuple[str, ...] = ("model", "seed", "augment"),
    margin: float = MARGIN,
    seed: int = 0,
) -> RatioTest:
    """The claim tested on a table, one run a row: `quality` (positive, the more the better), `data` and `gpus` columns.

    `same`: columns in which runs must agree to be a pair (those that the table has); laws are fitted for each `model`
    where there is such a column. Raises TableError for a missing or non-numeric column. What cannot be tested is said
    in `warnings`, never guessed.
    """
    require_columns(table, [quality, data, gpus])
    values = {name: numbers(table, name) for name in (quality, data, gpus)}
    good = np.all([np.isfinite(each) & (each > 0) for each in values.values()], axis=0)
    if "status" in table.columns:
        good &= (table["status"] == "ok").to_numpy(dtype=bool, na_value=False)
    rows = table[good].reset_index(drop=True)
    warnings = []
    if not good.all():
        text = f"{int((~good).sum())} rows without a positive {quality}, {data} and {gpus}, or not ok, are not used"
        warnings.append({"code": "dropped_rows", "message": text})
    own = [name for name in ("model",) if name in rows.columns]
    same = tuple(name for name in same if name in rows.columns)
    rivals = _contest(rows, quality, data, gpus, own, seed)
    slopes = _slopes(rows, quality, data, gpus, own)
    paired = pair(rows, quality, gpus, (data, *same), margin)
    if not rivals:
        text = f"fewer than three sizes of {data} in any model: none can be foretold from the others"
        warnings.append({"code": "few_sizes", "message": text})
    if paired is None:
        text = f"no two runs differ in nothing but {gpus}: whether GPUs change {quality} cannot be told"
        warnings.append({"code": "one_size", "message": text})
    verdict = _verdict(rivals, slopes, paired)
    sentences = _sentences(quality, rivals, slopes, paired, verdict)
    return RatioTest(quality, rivals, slopes, paired, verdict, sentences, tuple(warnings))


def _contest(rows: pd.DataFrame, quality: str, data: str, gpus: str, own: list[str], seed: int) -> tuple[Rival, ...]:
    """Every law's error at data sizes left out of its fit, least first, for laws that foretold all of them."""
    bounded = bool(len(rows)) and float(rows[quality].max()) < 1
    curve, kind = ("logit_power", "logit") if bounded else ("power", "log")
    missed: dict[str, list[Array]] = {name: [] for name in ("ratio", "constant", f"{kind}_line", curve)}
    groups = [group for _, group in rows.groupby(own, dropna=False)] if own else [rows]
    for group in groups:
        sizes = np.unique(group[data])
        for size in sizes if len(sizes) >= 3 else ():
            out = (group[data] == size).to_numpy()
            seen, unseen = group[~out], group[out]
            level = np.log(seen[quality].to_numpy(dtype=float))
            # One parameter, one least absolute deviation: the median.
            claimed = [np.log((each[data] / each[gpus]).to_numpy(dtype=float)) for each in (seen, unseen)]
            line = np.polyfit(np.log(seen[data].astype(float)), link(kind, np.exp(level)), 1)
            found = {
                "ratio": np.median(level - claimed[0]) + claimed[1],
                "constant": np.full(len(unseen), np.median(level)),
                f"{kind}_line": np.log(unlink(kind, np.polyval(line, np.log(unseen[data].to_numpy(dtype=float))))),
            }
            fit = cast(Fit, fit_law(seen, curve, target=quality, data=data, bootstrap=_BOOTSTRAP, seed=seed))
            if fit.estimate is not None:
                found[curve] = np.log(fit.predict(unseen)["predicted"].to_numpy())
            measured = np.log(unseen[quality].to_numpy(dtype=float))
            for name in list(missed):
                if name in found:
                    missed[name].append(found[name] - measured)
                else:
                    del missed[name]
    if not missed["constant"]:
        return ()
    scored = [(name, np.concatenate(each)) for name, each in missed.items()]
    return tuple(sorted((Rival(name, float(np.sqrt(np.mean(each**2))), len(each)) for name, each in scored),
                        key=lambda each: each.rmse_log))  # fmt: skip


def _slopes(
    rows: pd.DataFrame, quality: str, data: str, gpus: str, own: list[str]
) -> dict[str, tuple[float, float, float]]:
    """Least squares of log quality on log data and log GPUs, a level for each model: value and 95% of each slope."""
    if not len(rows):
        return {}
    levels = (
        pd.get_dummies(rows[own].astype(str).agg("|".join, axis=1)) if own else pd.DataFrame({"": np.ones(len(rows))})
    )
    names = [name for name in (data, gpus) if rows[name].nunique() > 1]
    design = np.column_stack([levels.to_numpy(dtype=float), *[np.log(rows[name].astype(float)) for name in names]])
    degrees = len(rows) - int(np.linalg.matrix_rank(design))
    if not names or degrees < 1 or np.linalg.matrix_rank(design) < design.shape[1]:
        return {}
    y = np.log(rows[quality].to_numpy(dtype=float))
    inverse = np.linalg.inv(design.T @ design)
    found = inverse @ design.T @ y
    deviation = np.sqrt(np.sum((y - design @ found) ** 2) / degrees * np.diag(inverse))
    half = float(stats.t.ppf(0.975, degrees)) * deviation
    start = levels.shape[1]
    low, high = found - half, found + half
    return {("data" if name == data else "gpus"): (float(found[j]), float(low[j]), float(high[j]))
            for j, name in enumerate(names, start)}  # fmt: skip


def _verdict(
    rivals: tuple[Rival, ...], slopes: Mapping[str, tuple[float, float, float]], paired: Equivalence | None
) -> str:
    against = paired is not None and paired.low is not None and not paired.low <= -0.5 <= (paired.high or 0.0)
    excluded = [name for name, claimed in (("data", 1.0), ("gpus", -1.0))
                if name in slopes and not slopes[name][1] <= claimed <= slopes[name][2]]  # fmt: skip
    if rivals and rivals[0].law != "ratio" and (excluded or against):
        return "refuted"
    if rivals and rivals[0].law == "ratio" and not excluded:
        return "supported"
    return "refuted" if excluded and not rivals else "untested" if not rivals else "undecided"


def _sentences(
    quality: str, rivals: tuple[Rival, ...], slopes: Mapping[str, tuple[float, float, float]],
    paired: Equivalence | None, verdict: str,
) -> tuple[str, ...]:  # fmt: skip
    said = []
    if rivals:
        scores = {each.law: each for each in rivals}
        others = ", ".join(f"{each.law} {100 * each.rmse_log:.3g}%" for each in rivals if each.law != "ratio")
        said.append(
            f"Foretelling each data size from the others, the claim that {quality} is proportional to data over GPUs "
            f"missed by {100 * scores['ratio'].rmse_log:.3g}% ({others}; {rivals[0].n} runs)."
        )
    for name, claimed in (("data", 2.0), ("gpus", 0.5)):
        if name in slopes:
            times = [2.0**each for each in slopes[name]]
            what = "the data" if name == "data" else "the GPUs"
            said.append(
                f"Twice {what} multiplies {quality} by {times[0]:.4g} (95%: {times[1]:.4g} to {times[2]:.4g}); "
                f"the claim says {claimed:g}."
            )
    if paired is not None:
        if paired.low is None or paired.high is None:
            said.append(f"One pair of runs differs in GPUs alone: {quality} changed by {100 * paired.value:+.3g}%.")
        else:
            words = {
                "equivalent": f"equivalent within {100 * paired.margin:g}% (p = {paired.p_value:.2g})",
                "different": "GPUs changed quality at the same global batch: look into it",
                "undecided": "no difference is seen, but one of up to "
                f"{100 * (paired.smallest_margin or 0):.2g}% is not ruled out",
            }
            said.append(
                f"At the same global batch more GPUs changed {quality} by {100 * paired.value:+.2g}% (95%: "
                f"{100 * paired.low:+.2g}% to {100 * paired.high:+.2g}%, {paired.pairs} pairs): "
                f"{words[paired.verdict]}."
            )
    ends = {
        "refuted": "The claim is refuted by these runs.",
        "supported": "These runs agree with the claim.",
        "undecided": "These runs do not decide the claim.",
        "untested": "These runs cannot test the claim: it needs three data sizes and two GPU counts.",
    }
    return (*said, ends[verdict])
