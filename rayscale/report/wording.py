"""Words for the parts of a verdict: names of laws, intervals, outcomes, and warnings with their advice.

Reads `fit.json` (or its dict) and changes no number. Page and terminal both speak from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rayscale.laws.fitting.outcome import Outcome
from rayscale.report.numbers import (
    MISSING,
    count,
    duration,
    fixed,
    number,
    outwards,
    percent,
    plain,
    significant,
    trimmed,
)

_TITLES = {"data": "Twice the data", "params": "Twice the model", "gpus": "Twice the GPUs"}
_RATIOS = {"x", "×", "times", "ratio", "factor"}
_SIZES = {"tokens", "examples", "params"}
ADVICE = {
    "few_points": "Add configurations: more data sizes teach more than more seeds.",
    "few_sizes": "Add a data size or a model size well below the smallest; small runs are cheap.",
    "one_size": "Add a second and third value of the axis that has only one, to learn the effect of a larger one.",
    "flat_ridge": Outcome.FLAT.advice,
    "at_bound": Outcome.AT_BOUND.advice,
    "misspecified": "Look at the residuals: another law may follow these runs better.",
    "far_extrapolation": "Run one larger cell before you spend on this prediction.",
    "no_replicates": "Give the smallest cells two or three seeds, to separate noise from trend.",
    "dropped_rows": "The rows are listed with their reasons under the trials.",
    "untrained": "Train longer (more epochs, a smaller global_batch) or start at larger sizes, so that all learn.",
    "constant_target": "The target does not move over this design: widen the sizes or choose another target.",
}


@dataclass(frozen=True)
class Gain:
    """The effect of doubling one thing; `interval` is its 95% interval, `span` says from where to where."""

    title: str
    value: float | None
    change: str
    interval: str
    span: str
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
    return outcome_of(item).usable and bool(item.get("params")) and bool(item.get("estimate"))


def sentences(fit: dict | None) -> list[str]:
    """The verdict's own sentences, or one that says why there is none."""
    spoken = [str(line) for line in ((fit or {}).get("verdict") or {}).get("sentences") or []]
    if spoken:
        return spoken
    if not fits_of(fit):
        return ["No law could be fitted, so there is no verdict yet."]
    return ["The fits below have no verdict."]


def gains(fit: dict | None) -> list[Gain]:
    """The doubling gains that the verdict holds, in the order data, model, GPUs."""
    doubling = ((fit or {}).get("verdict") or {}).get("doubling") or {}
    return [_gain(axis, doubling[axis]) for axis in _TITLES if isinstance(doubling.get(axis), dict)]


def _gain(axis: str, item: dict) -> Gain:
    span = "" if number(item.get("from")) is None else f"{count(item['from'])} to {count(item.get('to'))}"
    value, unit = number(item.get("value")), str(item.get("unit") or "")
    between = interval_text(item.get("low"), item.get("high"), unit)
    return Gain(_TITLES[axis], value, amount(value, unit), between, span, str(item.get("note") or ""))


def amount(value: float | None, unit: str) -> str:
    """A number with its unit, the sign of a factor in front and that of a share behind."""
    if value is None:
        return MISSING
    if unit in _RATIOS:
        return f"×{significant(value)}"
    if unit in {"s", "seconds"}:
        return duration(value)
    if unit == "%":
        return f"{percentage(value)}%"
    if unit in _SIZES:
        return f"{count(value)} {unit}"
    return f"{significant(value)} {unit}".strip()


def amount_text(item: Any) -> str:
    """`−6.1% (95%: −7.2% to −4.9%)` of an object with value, low, high and unit, or of a bare number."""
    item = item if isinstance(item, dict) else {"value": item}
    unit = str(item.get("unit") or "")
    text = amount(number(item.get("value")), unit)
    between = interval_text(item.get("low"), item.get("high"), unit)
    return text + (f" (95%: {between})" if between else "")


def interval_text(low: Any, high: Any, unit: str = "", digits: int = 3) -> str:
    """`−0.35 to −0.27`, rounded outwards; empty where the lower bound is missing."""
    if number(low) is None:
        return ""
    if number(high) is None:
        return f"{amount(outwards(low, digits, up=False), unit)} or more"
    if unit == "%":  # to one decimal, as `percentage` has it
        return f"{percentage(math.floor(10 * low) / 10)}% to {percentage(math.ceil(10 * high) / 10)}%"
    write, sign = (count, "") if unit in _SIZES else (significant, "×" if unit in _RATIOS else "")
    ends = (write(outwards(end, digits, up=is_high), digits) for end, is_high in ((low, False), (high, True)))
    return " to ".join(f"{sign}{end}" for end in ends)


def percentage(value: Any) -> str:
    """A percentage to one decimal: finer than any interval of such a study."""
    share = number(value)
    return MISSING if share is None else fixed(share, 1) if abs(share) < 1000 else significant(share)


def reach_text(extrapolation: float) -> str:
    """How far beyond the data a prediction reaches."""
    if extrapolation <= 1:
        return "within the measured data"
    return f"extrapolated to {trimmed(extrapolation)}× the largest size measured"


def weight_text(item: Mapping[str, Any], most: int | None = None) -> str:
    """The weights of a combination of laws, the heaviest first; empty for one law."""
    weights = sorted((item.get("weights") or {}).items(), key=lambda pair: -pair[1])[:most]
    return ", ".join(f"{name} {percent(weight)}" for name, weight in weights if weight > 0)


def rival_name(law: str) -> str:
    """A law of the held-out check in words."""
    return {"power": "a power law for each model", "constant": "the last value kept"}.get(law, law)


def notices(fit: dict | None) -> list[Notice]:
    """Refusals first, then doubtful outcomes and warnings; each once, with advice."""
    found = list(dict.fromkeys(_notices(fit)))
    order = {"Refused": 0, "Doubt": 1, "Warning": 2}
    return sorted(found, key=lambda notice: order[notice.kind])


def _notices(fit: dict | None) -> Iterator[Notice]:
    for item in _speaking(fits_of(fit)):
        law = fit_name(item)
        outcome = outcome_of(item)
        warned = warning_parts(item)
        if not usable(item):
            yield Notice("Refused", outcome, f"{law}: {outcome.sentence}", "", law)
        elif outcome is not Outcome.CONVERGED and not any(code.startswith(outcome) for code, _ in warned):
            yield Notice("Doubt", outcome, f"{law}: {outcome.sentence}", "", law)
        for code, message in warned:
            kind = "Warning" if usable(item) or code == "dropped_rows" else "Refused"
            yield Notice(kind, code, f"{law}: {message}", ADVICE.get(code, ""), law)


def _speaking(fits: list[dict]) -> list[dict]:
    """The fits that the verdict stands on: the law over all models where it could be fitted, else all there are."""
    shared = [item for item in fits if not item.get("by")]
    return shared if any(usable(item) for item in shared) else fits


def warning_parts(item: dict) -> list[tuple[str, str]]:
    """(code, message) of every warning of a fit."""
    return [(str(each.get("code", "")), str(each.get("message", ""))) for each in item.get("warnings") or []]


def fit_name(item: dict) -> str:
    """`chinchilla on eval_loss`, with the group's columns where there are groups."""
    name = f"{item.get('law', 'law')} on {item.get('target', 'target')}"
    by = item.get("by")
    if isinstance(by, dict) and by:
        parts = (f"{column} {value if isinstance(value, str) else count(value)}" for column, value in by.items())
        name += f" ({', '.join(parts)})"
    return name


def outcome_of(item: Mapping[str, Any]) -> Outcome:
    """How a saved fit ended."""
    return Outcome(item.get("outcome") or Outcome.FAILED)


def cheapest_facts(fit: dict | None) -> list[tuple[str, str]]:
    """The cheapest allocation as (what, how much) pairs; empty where no target was given or none reaches it."""
    found = ((fit or {}).get("verdict") or {}).get("cheapest")
    if not isinstance(found, dict):
        return []
    metric = str((((fit or {}).get("verdict") or {}).get("target") or {}).get("metric") or "")
    pairs = [
        ("Model", text_of(found.get("model"))),
        ("Parameters", count(found.get("params"))),
        ("Data", count(found.get("data"))),
        ("GPUs", text_of(found.get("gpus"))),
        ("Augmentation", "" if found.get("augment") == "none" else text_of(found.get("augment"))),
        (metric, amount_text(found.get(metric))),
        ("Runs that reach it", f"{text_of(found.get('runs_reaching'))} of {text_of(found.get('runs'))}"),
        ("GPU-hours a run", amount_text({**(found.get("gpu_hours") or {}), "unit": ""})),
        ("Cost of a run", amount_text(found["money"]) if found.get("money") else ""),
        ("Trial", text_of(found.get("trial_id"))),
    ]
    return [(name, value) for name, value in pairs if value and value != MISSING]


def target_facts(fit: dict | None) -> list[tuple[str, str]]:
    """What was to be reached, what was, and what the law says would be needed, as (what, how much) pairs."""
    found = ((fit or {}).get("verdict") or {}).get("target")
    if not isinstance(found, dict):
        return []
    needed = found.get("needed") or {}
    direction = f" ({found['direction']} is better)" if found.get("direction") else ""
    away = f"no, {significant(found.get('gap'))} away"
    reached = "" if found.get("reached") is None else "yes" if found["reached"] else away
    note = text_of(found.get("note"))
    pairs = [
        ("Measure", text_of(found.get("metric")) + direction),
        ("To reach", trimmed(found.get("reach"), 4)),
        ("Best measured", amount_text(found["best"]) if found.get("best") else ""),
        ("Best measured with", _cell_text(found)),
        ("Reached", reached),
        ("Data that would reach it", amount_text(needed) if needed else ""),
        ("By which law", " for ".join(text_of(needed[key]) for key in ("law", "model") if needed.get(key))),
        ("Extrapolation", f"×{significant(needed['extrapolation'])}" if number(needed.get("extrapolation")) else ""),
        ("Note", "" if any(note in line for line in sentences(fit)) else note),
    ]
    return [(name, value) for name, value in pairs if value and value != MISSING]


def _cell_text(found: dict) -> str:
    model, data = text_of(found.get("best_model")), found.get("best_data")
    return f"{model} at {count(data)}" if model and data else model


def text_of(value: Any) -> str:
    """The value as one line of text, empty where it is missing."""
    return "" if value is None else plain(value)
