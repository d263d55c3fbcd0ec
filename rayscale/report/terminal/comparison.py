"""A comparison of two studies as text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayscale.report.numbers import count, plural, shorten, significant, wrap
from rayscale.report.terminal.fit import WIDTH, table_lines
from rayscale.report.wording import interval_text
from rayscale.verdict.speedup import MARGIN

_SHOWN = 5  # cells named for each reason


def compare_lines(found: Mapping[str, Any], names: tuple[str, str], width: int = WIDTH) -> list[str]:
    """A comparison, as `rayscale.verdict.comparison.compare` gives it, as lines at most `width` wide."""
    width = max(40, min(width, 100))
    metric = found["target"]
    lines = wrap(f"Second against first: {names[1]} against {names[0]}.", width)
    share = found["relative"]["value"]
    relative = "" if share is None else f", {significant(share, 3, sign=True)}%"
    means = [significant(each, 4) for each in found["means"]]
    lines += wrap(f"{metric} ({found['direction']} is better) over {plural(found['pairs'], 'pair')} of runs: "
                  f"{means[0]} and {means[1]}, a difference of {_signed(found['difference'])}"
                  f"{relative}; {_meaning(found)}.", width)  # fmt: skip
    if found["signatures"]:
        lines += wrap(_rules(metric, found["signatures"]), width)
    wins = found["wins"]
    ties = f", {plural(wins['ties'], 'tie')}" if wins["ties"] else ""
    lines += wrap(f"The second is better in {wins['second']}, the first in {wins['first']}{ties}.", width)
    lines += wrap(_ratio(found["speed"], "Speed (examples per second)"), width)
    lines += wrap(_ratio(found["cost"], "Cost (device-seconds)"), width)
    lines += _laws(found, width)
    lines += _unpaired(found, width)
    return lines


def _signed(item: Mapping[str, Any]) -> str:
    text = significant(item["value"], 3, sign=True)
    return (
        f"{text} (one pair, no interval)"
        if item["low"] is None
        else f"{text} (95%: {interval_text(item['low'], item['high'])})"
    )


def _meaning(found: Mapping[str, Any]) -> str:
    gap = found["difference"]
    if found["signatures"] and all(found["signatures"].values()):
        return "counted by different rules, so they cannot be compared"
    if gap["low"] is None:
        return "one pair does not show which is better"
    if gap["low"] <= 0 <= gap["high"]:
        return "these pairs do not show which is better"
    ahead = (gap["value"] < 0) == (found["direction"] == "lower")
    return f"the {'second' if ahead else 'first'} is better"


def _rules(metric: str, signatures: Mapping[str, list[str]]) -> str:
    """By which rules either study counted."""
    said = [f"the {study} " + (f"by {', '.join(map(repr, rules))}" if rules else "by rules that it does not record")
            for study, rules in signatures.items()]  # fmt: skip
    return f"How {metric} was counted: {'; '.join(said)}."


def _ratio(item: Mapping[str, Any], what: str) -> str:
    if item["value"] is None:
        return f"{what}: unknown; {item['note']}."
    between = "" if item["low"] is None else f" (95%: {interval_text(item['low'], item['high'])})"
    return f"{what}: {significant(item['value'])} times the first's{between}, {plural(item['pairs'], 'pair')}."


def _laws(found: Mapping[str, Any], width: int) -> list[str]:
    laws = found["laws"]
    if laws is None:
        note = found.get("laws_note")
        return wrap(f"Whether the laws differ is unknown: {note}.", width) if note else []
    if not laws:
        return ["The two studies fitted no law in common."]
    lines: list[str] = []
    shared = [law for law in laws if not law["by"]] or laws
    for law in shared:
        group = ", ".join(f"{key} {value}" for key, value in (law["by"] or {}).items() if key == "model")
        name = f"The {law['law']} laws of {law['target']}{f' ({group})' if group else ''}"
        if law["differ"] is None:
            lines += ["", *wrap(f"{name} cannot be compared: {law['note']}.", width)]
            continue
        named = [each["name"] for each in law["parameters"] if each["differs"]]
        verdict = _predicting(law)
        said = f"; parameters that differ: {', '.join(named)}" if named else "; no parameter differs for certain"
        said = f"; {law['note']}" if law.get("note") else said
        rows = []
        for each in law["parameters"]:
            kind = "ratio" if "ratio" in each else "difference"
            between = interval_text(each["low"], each["high"])
            values = (significant(each["first"], 4), significant(each["second"], 4))
            rows.append((each["name"], *values, f"{kind} {significant(each[kind])} ({between})"))
        lines += ["", *wrap(f"{name} {verdict}{said}.", width)]
        lines += table_lines(("", "first", "second", "second to first, 95%"), rows, width) if rows else []
        for each in law["predictions"]:
            at = f"{count(each['data'])} of data" if "data" in each else "the largest sizes"
            between = interval_text(each["low"], each["high"], digits=4)
            values = (significant(each["first"], 4), significant(each["second"], 4))
            lines += wrap(f"Predicted at {at}: {values[0]} and {values[1]} (ratio 95%: {between}).", width)
    return lines


def _predicting(law: Mapping[str, Any]) -> str:
    """Whether two laws predict the same: only where the intervals of all ratios lie within the margin."""
    if law["differ"]:
        return "predict differently"
    if all(abs(each[end] - 1) < MARGIN for each in law["predictions"] for end in ("low", "high")):
        return f"predict the same within {100 * MARGIN:g}%"
    return "are not told apart by these trials, which does not mean that they predict the same"


def _unpaired(found: Mapping[str, Any], width: int) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for each in found["unpaired"]:
        cell = f"{shorten(each['model'], 24)} {count(each['data_requested'])} x{each['gpus']} seed {each['seed']}"
        reasons.setdefault(each["reason"], []).append(cell)
    if not reasons:
        return ["", "Every cell is paired."]
    lines = ["", f"Unpaired and left out: {plural(len(found['unpaired']), 'cell')}."]
    for reason, cells in reasons.items():
        more = ", ..." if len(cells) > _SHOWN else ""
        lines += wrap(f"{len(cells)} {reason}: {', '.join(cells[:_SHOWN])}{more}", width, initial_indent="  ",
                      subsequent_indent="    ")  # fmt: skip
    return lines
