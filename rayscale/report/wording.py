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
    "extreme_target": "Write the target in another unit.",
    "constant_target": "The target does not move over this design: widen the sizes or choose another target.",
}


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
    fits: list[dict] = []
    for item in (fit or {}).get("fits") or []:
        shared = {"target": item.get("target"), "law": item.get("law")}
        fits += [shared | group for group in item.get("groups") or [item]]
    return fits


def verdict_of(fit: dict | None) -> dict[str, Any]:
    """The verdict, empty where there is none."""
    return (fit or {}).get("verdict") or {}


def usable(item: dict) -> bool:
    """Whether curves and predictions may be drawn from this fit."""
    return outcome_of(item).usable and bool(item.get("params")) and bool(item.get("estimate"))


def sentences(fit: dict | None) -> list[str]:
    """The verdict's own sentences, or one that says why there is none."""
    missing = (
        "The fits below have no verdict." if fits_of(fit) else "No law could be fitted, so there is no verdict yet."
    )
    return [str(line) for line in verdict_of(fit).get("sentences") or [missing]]


def gains(fit: dict | None) -> list[dict[str, Any]]:
    """The effect of doubling data, model and GPUs, where known: title, value and change, interval, span, note."""
    rows = []
    for axis, title in _TITLES.items():
        if item := (verdict_of(fit).get("doubling") or {}).get(axis):
            span = "" if number(item.get("from")) is None else f"{count(item['from'])} to {count(item.get('to'))}"
            value, unit = number(item.get("value")), str(item.get("unit") or "")
            between = interval_text(item.get("low"), item.get("high"), unit)
            rows.append({"title": title, "value": value, "change": amount(value, unit), "interval": between,
                         "span": span, "note": item.get("note")})  # fmt: skip
    return rows


def amount(value: float | None, unit: str) -> str:
    """A number with its unit, the sign of a factor in front and that of a share behind."""
    if value is None:
        return MISSING
    if unit in _RATIOS:
        return f"×{significant(value)}"
    if unit in {"s", "seconds"}:
        return duration(value)
    if unit in ("%", "points"):
        return f"{percentage(value)}{'%' if unit == '%' else ' points'}"
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
    if unit in ("%", "points"):  # to one decimal, as `percentage` has it
        sign = "%" if unit == "%" else ""
        return f"{percentage(math.floor(10 * low) / 10)}{sign} to {percentage(math.ceil(10 * high) / 10)}{sign}"
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
    names = {"power": "a power law for each model", "constant": "the last value kept",
             "logit_power": "a power law of the log odds for each model"}  # fmt: skip
    return names.get(law, law)


def notices(fit: dict | None) -> list[Notice]:
    """Refusals first, then doubtful outcomes and warnings; each once, with advice."""
    return sorted(dict.fromkeys(_notices(fit)), key=lambda notice: ("Refused", "Doubt", "Warning").index(notice.kind))


def _notices(fit: dict | None) -> Iterator[Notice]:
    leading = (verdict_of(fit).get("leading") or {}).get("target")
    fits = [item for item in fits_of(fit) if leading in (None, item.get("target"))]
    shared = [item for item in fits if not item.get("by")]
    # The verdict stands on the law over all models where it could be fitted, else on all there are.
    for item in shared if any(map(usable, shared)) else fits:
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


def warning_parts(item: dict) -> list[tuple[str, str]]:
    """(code, message) of every warning of a fit."""
    return [(str(warning.get("code", "")), str(warning.get("message", ""))) for warning in item.get("warnings") or []]


def fit_name(item: dict) -> str:
    """`chinchilla on eval_loss`, with the group's columns where there are groups."""
    by = item.get("by") or {}
    group = ", ".join(f"{column} {value if isinstance(value, str) else count(value)}" for column, value in by.items())
    return f"{item.get('law', 'law')} on {item.get('target', 'target')}{f' ({group})' if group else ''}"


def outcome_of(item: Mapping[str, Any]) -> Outcome:
    """How a saved fit ended."""
    return Outcome(item.get("outcome") or Outcome.FAILED)


def cheapest_facts(fit: dict | None) -> list[tuple[str, str]]:
    """The cheapest allocation as (what, how much) pairs; empty where no target was given or none reaches it."""
    cheapest = verdict_of(fit).get("cheapest")
    if not cheapest:
        return []
    metric = str((verdict_of(fit).get("target") or {}).get("metric") or "")
    pairs = [
        ("Model", text_of(cheapest.get("model"))),
        ("Parameters", count(cheapest.get("params"))),
        ("Data", count(cheapest.get("data"))),
        ("GPUs", text_of(cheapest.get("gpus"))),
        ("Augmentation", "" if cheapest.get("augment") == "none" else text_of(cheapest.get("augment"))),
        (metric, amount_text(cheapest.get(metric))),
        ("Runs that reach it", f"{text_of(cheapest.get('runs_reaching'))} of {text_of(cheapest.get('runs'))}"),
        ("GPU-hours a run", amount_text({**(cheapest.get("gpu_hours") or {}), "unit": ""})),
        ("Cost of a run", amount_text(cheapest["money"]) if cheapest.get("money") else ""),
        ("Trial", text_of(cheapest.get("trial_id"))),
    ]
    return [(name, value) for name, value in pairs if value and value != MISSING]


def target_facts(fit: dict | None) -> list[tuple[str, str]]:
    """What was to be reached, what was, and what the law says would be needed, as (what, how much) pairs."""
    target = verdict_of(fit).get("target")
    if not target:
        return []
    needed = target.get("needed") or {}
    direction = f" ({target['direction']} is better)" if target.get("direction") else ""
    away = f"no, {significant(target.get('gap'))} away"
    reached = "" if target.get("reached") is None else "yes" if target["reached"] else away
    model, data = text_of(target.get("best_model")), target.get("best_data")
    note = text_of(target.get("note"))
    pairs = [
        ("Measure", text_of(target.get("metric")) + direction),
        ("To reach", trimmed(target.get("reach"), 4)),
        ("Best measured", amount_text(target["best"]) if target.get("best") else ""),
        ("Best measured with", f"{model} at {count(data)}" if model and data else model),
        ("Reached", reached),
        ("Data that would reach it", amount_text(needed) if needed else ""),
        ("By which law", " for ".join(text_of(needed[key]) for key in ("law", "model") if needed.get(key))),
        ("Extrapolation", f"×{significant(needed['extrapolation'])}" if number(needed.get("extrapolation")) else ""),
        ("Note", "" if any(note in line for line in sentences(fit)) else note),
    ]
    return [(name, value) for name, value in pairs if value and value != MISSING]


def text_of(value: Any) -> str:
    """The value as one line of text, empty where it is missing."""
    return "" if value is None else plain(value)
