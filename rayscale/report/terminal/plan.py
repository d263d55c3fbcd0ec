"""The plan on the terminal: a table of models, aligned facts, then notes where something needs a decision.

A model takes one line where the terminal is wide enough, and two elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from rayscale.report.notes import doctor_notes, row_counts, row_decisions, row_details
from rayscale.report.numbers import count, data_volume, duration, fixed, number, plural, shorten, significant
from rayscale.report.terminal.run import Words
from rayscale.system.groups import grouped

#: Findings that a plan shows even where all is well: what more data may bring, and what a score counts.
ALWAYS = ("first look", "tags")

Fact = tuple[str, str]


@dataclass(frozen=True)
class PlanView:
    """A plan (the object of `plan --json`) drawn for the width and the encoding of the terminal it is printed on."""

    plan: dict[str, Any]
    verbose: bool = False  # with the bases of the estimates, every check of the text and every cell that was cut

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = _models(self.plan, wide=True)
        fits = Measurement.get(console, options.update(max_width=1000), wide).maximum <= options.max_width
        yield wide if fits else _models(self.plan, wide=False)
        grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
        for part in (facts(self.plan), details(self.plan) if self.verbose else [], notes(self.plan)):
            if part:
                grid.add_row()
            for label, text in part:
                grid.add_row(Words(label, "bold"), Words(text))
        yield grid


def _models(plan: dict[str, Any], *, wide: bool) -> Table:
    """A row per model, and the totals; a narrow terminal gives parameters and seeds a second line, and memory none."""
    trials = list(plan.get("trials") or [])
    total = plan.get("total") or {}
    axis = str(plan.get("data_axis") or "data").capitalize()
    table = Table(
        box=box.SIMPLE_HEAD, show_footer=bool(trials), show_edge=False, padding=(0, 1), pad_edge=False,
        collapse_padding=True,
    )  # fmt: skip
    footers = {"Model": "Total", "Trials": str(total.get("trials", len(trials))),
               "GPU time": duration(_sum(trials, "gpu_seconds"))}  # fmt: skip
    headers: tuple[str, ...] = ("Model", "Params", axis, "Seeds", "GPUs", "Trials", "Memory", "GPU time")
    if not wide:
        headers = tuple(header for header in headers if header not in ("Params", "Seeds", "Memory"))
    for header in headers:
        side: Literal["left", "right"] = "right" if header in ("Params", "Trials", "Memory", "GPU time") else "left"
        table.add_column(Text(header), footer=Words(footers.get(header, ""), "bold"), overflow="fold", justify=side)
    for name, group in _by_model(trials):
        params = next((count(row["params"]) for row in group if row.get("params")), "")
        sizes, seeds = _sizes(group)
        cells = {
            "Model": shorten(name, 28), "Params": params, axis: sizes, "Seeds": seeds,
            "GPUs": ", ".join(map(str, sorted({int(row.get("gpus") or 1) for row in group}))),
            "Trials": str(len(group)), "Memory": _memory(group), "GPU time": duration(_sum(group, "gpu_seconds")),
        }  # fmt: skip
        if not wide:
            cells["Model"] += f"\n{params} params" if params else ""
            cells[axis] += f"\nseeds {seeds}"
        table.add_row(*(Words(cells[header]) for header in headers))
    return table


def facts(plan: dict[str, Any]) -> list[Fact]:
    """Time, cost, disk, rows and what the text is like, each with its label."""
    total = plan.get("total") or {}
    machine = plan.get("machine") or {}
    on_gpus = machine.get("device") == "cuda"
    lines = []
    if total.get("seconds") is not None:
        slots = plural(machine.get("slots") or 1, "GPU" if on_gpus else "CPU slot")
        lines.append(("Time", f"about {duration(total['seconds'])}{f' on {slots}' if machine else ''}"))
    if total.get("gpu_hours") is not None:
        hours = f"{significant(total['gpu_hours'], 2)} GPU-hours{'' if on_gpus else ' (a CPU slot counts as a GPU)'}"
        if (money := total.get("money")) is not None:
            amount = fixed(money, 2) if money >= 0.01 else "under 0.01"
            hours = f"{amount} {total.get('currency') or ''} for {hours}"
        lines.append(("Cost", hours))
    if total.get("disk_bytes"):
        lines.append(("Disk", data_volume(total["disk_bytes"])))
    if text := row_counts(plan.get("data") or {}):
        lines.append(("Rows", text))
    augmentations = {str(row.get("augment") or "none") for row in plan.get("trials") or []}
    if augmentations - {"none"}:
        shown = ", ".join(sorted(augmentations, key=lambda name: (name != "none", name)))
        lines.append(("Augment", f"{shown}: each of them for every cell{', unless cut' if plan.get('cut') else ''}"))
    passed = [(name, text) for name, text, fix in doctor_notes(plan.get("doctor") or {}) if not fix]
    lines += [(name.capitalize(), text) for name, text in passed if name in ALWAYS]
    if others := [name for name, _ in passed if name not in ALWAYS]:
        lines.append(("Data checks", f"passed: {', '.join(others)}"))
    return lines


def notes(plan: dict[str, Any]) -> list[Fact]:
    """What needs a decision: findings with a fix, labels that no training row has, what was cut, the design's lint."""
    lines = [(name, f"{text}. Fix: {fix}") for name, text, fix in doctor_notes(plan.get("doctor") or {}) if fix]
    lines += [("labels", text) for text in row_decisions(plan.get("data") or {})]
    if cut := plan.get("cut") or []:
        reasons = list(dict.fromkeys(str(item.get("reason", "")) for item in cut))
        lines.append(("cut", f"{plural(len(cut), 'cell')}: {'; '.join(reasons[:3])}"))
    return lines + [(item.get("code", "lint"), item.get("message", "")) for item in plan.get("lint") or []]


def details(plan: dict[str, Any]) -> list[Fact]:
    """The bases of the estimates, what became of single rows, what each check measured, and every cell that was cut."""
    trials = plan.get("trials") or []
    lines = [("Time basis", basis) for basis in dict.fromkeys(str(row["basis"]) for row in trials if row.get("basis"))]
    if peak := _memory(trials):
        place = "GPU memory" if (plan.get("machine") or {}).get("device") == "cuda" else "memory of the whole process"
        frozen = any(row.get("trained_params", row.get("params")) != row.get("params") for row in trials)
        text = f"{place}, up to {peak} for each worker: the libraries, 16 bytes a parameter"
        lines.append(("Memory basis", f"{text}{' (4 if frozen)' if frozen else ''}, the activations of a micro-batch"))
    lines += [("Rows", text) for text in row_details(plan.get("data") or {})]
    lines += [
        (name, text) for name, text, fix in doctor_notes(plan.get("doctor") or {}) if not fix and name not in ALWAYS
    ]
    return lines + [("cut", f"{item.get('cell', '')}: {item.get('reason', '')}") for item in plan.get("cut") or []]


def _by_model(trials: Sequence[dict]) -> list[tuple[str, list[dict]]]:
    groups = grouped((model_name(row.get("model")), row) for row in trials)
    return sorted(groups.items(), key=lambda item: (number(item[1][0].get("params")) or 0.0, item[0]))


def model_name(model: Any) -> str:
    """The model's name, from a plan that holds it as text or as its whole specification."""
    return str(model.get("name", model)) if isinstance(model, dict) else str(model)


def _sizes(group: Sequence[dict]) -> tuple[str, str]:
    """The data sizes of a model, and the seeds at each."""
    sizes = sorted({int(row.get("data_requested") or 0) for row in group})
    seeds = [len({row.get("seed") for row in group if int(row.get("data_requested") or 0) == size}) for size in sizes]
    reach = count(sizes[0]) if len(sizes) == 1 else f"{count(sizes[0])} to {count(sizes[-1])}"
    return reach, str(seeds[0]) if len(set(seeds)) == 1 else "/".join(map(str, seeds))


def _memory(group: Sequence[dict]) -> str:
    peaks = [peak for row in group if (peak := number(row.get("peak_memory_bytes"))) is not None]
    return data_volume(max(peaks)) if peaks else ""


def _sum(rows: Sequence[dict], key: str) -> float | None:
    values = [value for row in rows if (value := number(row.get(key))) is not None]
    return sum(values) if values else None
