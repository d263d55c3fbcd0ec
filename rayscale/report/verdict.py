"""The verdict as words: sentences, gains of doubling, the cheapest allocation, and what stands against them.

Reads `fit.json` (or its dict) and changes no number. Page and terminal both speak from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rayscale.report.numbers import MISSING, count, duration, number, significant

_TITLES = {"data": "Twice the data", "params": "Twice the model", "gpus": "Twice the GPUs"}
_RATIOS = {"x", "×", "times", "ratio", "factor"}
_SPOKEN_OUTCOME = {
    "converged": "converged",
    "flat": "flat: the law's floor or exponent is hardly held by the data",
    "at_bound": "at a bound: a parameter ran into the limit of what the law allows",
    "not_identifiable": "not identifiable: this design cannot tell the law's parameters apart",
    "failed": "failed",
}
_ADVICE = {
    "few_points": "Add configurations: more data sizes teach more than more seeds.",
    "few_sizes": "Add a data size or a model size well below the smallest; small runs are cheap.",
    "one_size": "Add a second and third model size to learn what a larger model brings.",
    "flat_ridge": "Read predictions, not parameters: along the ridge many parameters fit alike.",
    "at_bound": "Widen the range of sizes, or choose a law with fewer parameters.",
    "misspecified": "Look at the residuals: another law may follow these runs better.",
    "far_extrapolation": "Run one larger cell before you spend on this prediction.",
    "no_replicates": "Give the smallest cells two or three seeds, so that noise can be told from trend.",
    "dropped_rows": "The rows are listed with their reasons under the trials.",
    "constant_target": "The target does not move over this design: widen the sizes or choose another target.",
}
GOOD_OUTCOMES = frozenset({"converged", "flat", "at_bound"})


@dataclass(frozen=True)
class Gain:
    """What doubling one thing brings; `low` and `high` bound 95%."""

    axis: str
    title: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    note: str


@dataclass(frozen=True)
class Notice:
    """A refusal, a warning or a doubt about one fit, with what to do about it."""

    kind: str
    code: str
    message: str
    advice: str
    law: str


def fits_of(fit: dict | None) -> list[dict]:
    """All fits with the groups of a `--by` fit set apart, each group with its columns under `by`."""
    found: list[dict] = []
    for item in (fit or {}).get("fits") or []:
        groups = item.get("groups")
        if groups:
            found += [{**{"target": item.get("target"), "law": item.get("law")}, **group} for group in groups]
        else:
            found.append(item)
    return found


def usable(item: dict) -> bool:
    """Whether curves and predictions may be drawn from this fit."""
    return item.get("outcome") in GOOD_OUTCOMES and bool(item.get("params"))


def sentences(fit: dict | None) -> list[str]:
    """The verdict's own sentences, or one that says why there is none."""
    spoken = [str(line) for line in ((fit or {}).get("verdict") or {}).get("sentences") or []]
    if spoken:
        return spoken
    if not fits_of(fit):
        return ["No law could be fitted, so there is no verdict yet."]
    return ["The fits below stand without a verdict."]


def gains(fit: dict | None) -> list[Gain]:
    """The doubling gains that the verdict holds, in the order data, model, GPUs."""
    doubling = ((fit or {}).get("verdict") or {}).get("doubling") or {}
    return [_gain(axis, doubling[axis]) for axis in _TITLES if isinstance(doubling.get(axis), dict)]


def _gain(axis: str, item: dict) -> Gain:
    note = item.get("note") or item.get("reason") or item.get("message") or ""
    return Gain(
        axis, _TITLES[axis], number(item.get("value")), number(item.get("low")), number(item.get("high")),
        str(item.get("unit") or ""), str(note),
    )  # fmt: skip


def amount(value: float | None, unit: str) -> str:
    """A number with its unit, the sign of a factor in front and that of a share behind."""
    if value is None:
        return MISSING
    if unit in _RATIOS:
        return f"×{significant(value)}"
    if unit in {"s", "seconds"}:
        return duration(value)
    if unit == "%":
        return f"{significant(value)} %"
    return f"{significant(value)} {unit}".strip()


def gain_text(gain: Gain) -> str:
    """`−0.31 nats (95%: −0.35 to −0.27)`, or the reason why there is no number."""
    if gain.value is None:
        return gain.note or "cannot be told from this study"
    text = amount(gain.value, gain.unit)
    between = interval_text(gain.low, gain.high, gain.unit)
    return text + (f" (95%: {between})" if between else "") + (f"; {gain.note}" if gain.note else "")


def interval_text(low: Any, high: Any, unit: str = "") -> str:
    """`−0.35 to −0.27`, empty where a bound is missing."""
    if number(low) is None or number(high) is None:
        return ""
    if unit in _RATIOS:
        return f"×{significant(low)} to ×{significant(high)}"
    return f"{significant(low)} to {significant(high)}"


def notices(fit: dict | None) -> list[Notice]:
    """Refusals first, then doubtful outcomes and warnings; each once, with advice."""
    found = list(dict.fromkeys(_notices(fit)))
    order = {"Refused": 0, "Doubt": 1, "Warning": 2}
    return sorted(found, key=lambda notice: order[notice.kind])


def _notices(fit: dict | None) -> Iterator[Notice]:
    for item in fits_of(fit):
        law = fit_name(item)
        outcome = str(item.get("outcome") or "failed")
        warned = [warning_parts(warning) for warning in item.get("warnings") or []]
        if not usable(item):
            reason = item.get("reason") or item.get("message") or _SPOKEN_OUTCOME.get(outcome, outcome)
            yield Notice("Refused", outcome, f"{law}: {reason}", "", law)
        elif outcome != "converged" and not any(code.startswith(outcome) for code, _ in warned):
            yield Notice("Doubt", outcome, f"{law}: {_SPOKEN_OUTCOME[outcome]}", "", law)
        for code, message in warned:
            yield Notice("Warning", code, f"{law}: {message}", _ADVICE.get(code, ""), law)


def warning_parts(warning: Any) -> tuple[str, str]:
    """(code, message) of a warning saved as a mapping or as a pair."""
    if isinstance(warning, dict):
        return str(warning.get("code", "")), str(warning.get("message", ""))
    code, message = (list(warning) + ["", ""])[:2]
    return str(code), str(message)


def fit_name(item: dict) -> str:
    """`chinchilla on eval_loss`, with the group's columns where there are groups."""
    name = f"{item.get('law', 'law')} on {item.get('target', 'target')}"
    by = item.get("by")
    if isinstance(by, dict) and by:
        name += " (" + ", ".join(f"{column} {value}" for column, value in by.items()) + ")"
    return name


def spoken_outcome(item: dict) -> str:
    outcome = str(item.get("outcome") or "failed")
    return _SPOKEN_OUTCOME.get(outcome, outcome)


def cheapest_facts(fit: dict | None) -> list[tuple[str, str]]:
    """The cheapest allocation as (what, how much) pairs; empty where no target was given or none reaches it."""
    cheapest = ((fit or {}).get("verdict") or {}).get("cheapest")
    return named_facts(cheapest) if isinstance(cheapest, dict) else []


def target_facts(fit: dict | None) -> list[tuple[str, str]]:
    """What was to be reached and how far it is, as (what, how much) pairs."""
    target = ((fit or {}).get("verdict") or {}).get("target")
    return named_facts(target) if isinstance(target, dict) else []


def named_facts(item: dict, prefix: str = "") -> list[tuple[str, str]]:
    """A JSON object as readable pairs: names without underscores, quantities with their interval."""
    pairs: list[tuple[str, str]] = []
    for key, value in item.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(value, dict) and "value" in value:
            pairs.append((name, gain_text(_gain("data", value))))
        elif isinstance(value, dict):
            pairs += named_facts(value, prefix=f"{name}: ")
        elif value is not None and value != [] and value != "":
            pairs.append((name, fact_text(key, value)))
    return pairs


def fact_text(key: str, value: Any) -> str:
    """One value of a JSON object, sizes with their multiple, times in minutes and hours."""
    if isinstance(value, (list, tuple)):
        return ", ".join(fact_text(key, part) for part in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if number(value) is None or isinstance(value, str):
        return str(value)
    if key.endswith("seconds"):
        return duration(value)
    if key in {"params", "tokens", "examples", "data", "data_requested", "flops"}:
        return count(value)
    return str(value) if isinstance(value, int) else significant(value, 4)
