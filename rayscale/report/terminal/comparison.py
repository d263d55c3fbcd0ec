"""A comparison of two studies as text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rayscale.report.numbers import count, plural, shorten, significant, wrap, wrap_all
from rayscale.report.terminal.fit import WIDTH, table_lines
from rayscale.report.wording import interval_text
from rayscale.system.groups import grouped
from rayscale.verdict.speedup import MARGIN

_SHOWN = 5  # cells named for each reason


def compare_lines(comparison: Mapping[str, Any], names: tuple[str, str], width: int = WIDTH) -> list[str]:
    """A comparison, as `rayscale.verdict.comparison.compare` gives it, as lines at most `width` wide."""
    metric, wins = comparison["target"], comparison["wins"]
    share = comparison["relative"]["value"]
    relative = "" if share is None else f", {significant(share, 3, sign=True)}%"
    first, second = (significant(mean, 4) for mean in comparison["means"])
    ties = f", {plural(wins['ties'], 'tie')}" if wins["ties"] else ""
    texts = [
        f"Second against first: {names[1]} against {names[0]}.",
        f"{metric} ({comparison['direction']} is better) over {plural(comparison['pairs'], 'pair')} of runs: "
        f"{first} and {second}, a difference of {_signed(comparison['difference'])}{relative}; {_meaning(comparison)}.",
        _rules(metric, comparison["signatures"] or {}),
        f"The second is better in {wins['second']}, the first in {wins['first']}{ties}.",
        _ratio(comparison["speed"], "Speed (examples per second)"),
        _ratio(comparison["cost"], "Cost (device-seconds)"),
    ]
    return [*wrap_all(texts, width), *_laws(comparison, width), *_unpaired(comparison["unpaired"], width)]


def _signed(item: Mapping[str, Any]) -> str:
    between = "one pair, no interval" if item["low"] is None else f"95%: {interval_text(item['low'], item['high'])}"
    return f"{significant(item['value'], 3, sign=True)} ({between})"


def _meaning(comparison: Mapping[str, Any]) -> str:
    gap = comparison["difference"]
    if comparison["signatures"] and all(comparison["signatures"].values()):
        return "counted by different rules, so they cannot be compared"
    if gap["low"] is None:
        return "one pair does not show which is better"
    if gap["low"] <= 0 <= gap["high"]:
        return "these pairs do not show which is better"
    ahead = (gap["value"] < 0) == (comparison["direction"] == "lower")
    return f"the {'second' if ahead else 'first'} is better"


def _rules(metric: str, signatures: Mapping[str, list[str]]) -> str:
    """By which rules either study counted."""
    ways = [f"the {study} by {', '.join(map(repr, rules)) or 'rules that it does not record'}"
            for study, rules in signatures.items()]  # fmt: skip
    return f"How {metric} was counted: {'; '.join(ways)}." if ways else ""


def _ratio(item: Mapping[str, Any], what: str) -> str:
    if item["value"] is None:
        return f"{what}: unknown; {item['note']}."
    between = "" if item["low"] is None else f" (95%: {interval_text(item['low'], item['high'])})"
    return f"{what}: {significant(item['value'])} times the first's{between}, {plural(item['pairs'], 'pair')}."


def _laws(comparison: Mapping[str, Any], width: int) -> list[str]:
    laws = comparison["laws"]
    if laws is None:
        note = comparison.get("laws_note")
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
        differing = ", ".join(parameter["name"] for parameter in law["parameters"] if parameter["differs"])
        note = f"parameters that differ: {differing}" if differing else "no parameter differs for certain"
        lines += ["", *wrap(f"{name} {_predicting(law)}; {law.get('note') or note}.", width)]
        rows = []
        for parameter in law["parameters"]:
            kind = "ratio" if "ratio" in parameter else "difference"
            between = interval_text(parameter["low"], parameter["high"])
            rows.append((parameter["name"], *_both(parameter), f"{kind} {significant(parameter[kind])} ({between})"))
        lines += table_lines(("", "first", "second", "second to first, 95%"), rows, width) if rows else []
        for prediction in law["predictions"]:
            at = f"{count(prediction['data'])} of data" if "data" in prediction else "the largest sizes"
            between = interval_text(prediction["low"], prediction["high"], digits=4)
            lines += wrap(f"Predicted at {at}: {' and '.join(_both(prediction))} (ratio 95%: {between}).", width)
    return lines


def _both(item: Mapping[str, Any]) -> tuple[str, str]:
    return significant(item["first"], 4), significant(item["second"], 4)


def _predicting(law: Mapping[str, Any]) -> str:
    """Whether two laws predict the same: only where the intervals of all ratios lie within the margin."""
    if law["differ"]:
        return "predict differently"
    if all(abs(item[end] - 1) < MARGIN for item in law["predictions"] for end in ("low", "high")):
        return f"predict the same within {100 * MARGIN:g}%"
    return "are not told apart by these trials, which does not mean that they predict the same"


def _unpaired(unpaired: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    if not unpaired:
        return ["", "Every cell is paired."]
    lines = ["", f"Unpaired and left out: {plural(len(unpaired), 'cell')}."]
    for reason, cells in grouped((cell["reason"], cell) for cell in unpaired).items():
        names = (f"{shorten(cell['model'], 24)} {count(cell['data_requested'])} x{cell['gpus']} seed {cell['seed']}"
                 for cell in cells[:_SHOWN])  # fmt: skip
        shown = ", ".join(names) + (", ..." if len(cells) > _SHOWN else "")
        lines += wrap(f"{len(cells)} {reason}: {shown}", width, initial_indent="  ", subsequent_indent="    ")
    return lines
