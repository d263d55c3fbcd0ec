"""A fit as text for the terminal: parameters with units and intervals, how the search went, what to beware of.

Lines fit 60 columns where words allow and are plain text: they are read in pipes and logs as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rayscale.report.numbers import duration, number, padded, percent, plural, shorten, significant, wrap
from rayscale.report.numbers import width as width_of
from rayscale.report.wording import ADVICE, outcome_of, reach_text, weight_text

WIDTH = 78
_MOST_GROUPS = 40  # groups shown in the table of groups; all are in the JSON


def fit_lines(fits: Sequence[Mapping[str, Any]], held_out: Mapping[str, Any] | None, width: int = WIDTH) -> list[str]:
    """One fit, or the groups of a fit by columns, each as `to_json` gives it, as lines at most `width` wide."""
    width = max(40, min(width, 100))
    if len(fits) == 1 and not fits[0].get("by"):
        return _one(fits[0], width)
    return _groups(fits, held_out, width)


def prediction_lines(found: Mapping[str, Any], width: int = WIDTH) -> list[str]:
    """One prediction, as `rayscale.verdict.prediction.predict` gives it."""
    width = max(40, min(width, 100))
    target = "loss" if found["target"] == "eval_loss" else found["target"]
    group = ", ".join(f"{column} {value}" for column, value in (found.get("by") or {}).items())
    if "data_low" in found:
        target = "compute-optimal model size"
    lines = wrap(
        f"Predicted {target} {significant(found['predicted'], 4)}, 95% for a new run {significant(found['low'], 4)} "
        f"to {significant(found['high'], 4)}, for the mean over runs {significant(found['mean_low'], 4)} to "
        f"{significant(found['mean_high'], 4)} ({found['law']} law{f', {group}' if group else ''}).",
        width,
    )
    if "data_low" in found:
        between = f"{significant(found['data_low'], 4)} to {significant(found['data_high'], 4)}"
        lines += wrap(f"On data of size {significant(found['data'], 4)} (95%: {between}).", width)
    beyond = found["extrapolation"]
    lines.append(f"{reach_text(beyond).capitalize()}.")
    if found.get("speedup") is not None:
        speed = significant(found["speedup"])
        lines.append(f"{found['gpus']} GPUs train {speed} times as many examples per second as the fewest measured.")
    elif "speedup" in found:
        lines.append(f"The speed of {found['gpus']} GPUs was not measured.")
    if found.get("unused"):
        lines += wrap(f"Not used by this law: {', '.join(found['unused'])}.", width)
    return [*lines, *warning_lines([found], width)]


def _one(fit: Mapping[str, Any], width: int) -> list[str]:
    lines = wrap(f"{fit.get('law')} on {fit.get('target')}: {outcome_of(fit).sentence}", width)
    if fit.get("formula") and not fit.get("members"):
        # A formula with its own left sides is not one of the target: isoflop's are of the best sizes at a compute.
        formula = fit["formula"] if " = " in fit["formula"] else f"{fit['target']} = {fit['formula']}"
        lines += wrap(formula, width, subsequent_indent="  ")
    lines += wrap(_columns_text(fit), width, subsequent_indent="  ")
    if fit.get("weights"):
        lines += ["", *_weights(fit["weights"], width)]
    if fit.get("params"):
        if fit.get("members"):
            heaviest = fit["members"][0]
            text = f"Parameters of the heaviest: {fit['target']} = {heaviest.get('formula')}"
            lines += ["", *wrap(text, width, subsequent_indent="  ")]
        lines += ["", *_parameters(fit, width), ""]
        lines += wrap(_search(fit), width)
    lines += _rows(fit, width)
    if (held := _held_text(fit.get("held_out"))) is not None:
        lines += wrap(held, width)
    return [*lines, *warning_lines([fit], width)]


def _columns_text(fit: Mapping[str, Any]) -> str:
    columns, ranges = fit.get("columns") or {}, fit.get("data_range") or {}
    parts = []
    for role, column in columns.items():
        reach = ranges.get(role)
        span = f", {significant(reach[0], 3)} to {significant(reach[1], 3)}" if reach else ""
        parts.append(f"{role} is column {column}{span}")
    return "; ".join(parts)


def _parameters(fit: Mapping[str, Any], width: int) -> list[str]:
    units = parameter_units(fit)
    rows = []
    for name, value in fit["params"].items():
        low, high = (fit.get("intervals") or {}).get(name) or (None, None)
        error = (fit.get("standard_errors") or {}).get(name)
        rows.append((name, significant(value, 5), f"{significant(low, 4)} to {significant(high, 4)}",
                     significant(error, 3), units.get(name, "")))  # fmt: skip
    return table_lines(("", "value", "95% interval", "std. error", "unit"), rows, width)


def parameter_units(fit: Mapping[str, Any]) -> dict[str, str]:
    """The unit of each parameter in words of the table's columns: `loss x N^alpha` for A of a law in N."""
    from rayscale.errors import InputError
    from rayscale.laws.formula import find_saved

    if fit.get("units"):
        return dict(fit["units"])
    fit = (fit.get("members") or [fit])[0]  # a combination shows the parameters of its heaviest law
    try:
        law = find_saved(str(fit.get("law")), fit.get("formula"))
    except InputError:  # a law of a study file or a combination: its units are not known here
        return {}
    columns = fit.get("columns") or {}
    found = {}
    for parameter in law.parameters:
        parts = [str(fit.get("target"))] if parameter.kind == "coefficient" else []
        parts += [f"{columns.get(role, role)}{_power(power, fit)}" for role, power in parameter.unit]
        found[parameter.name] = " x ".join(parts) or "-"
    return found


def _power(power: Any, fit: Mapping[str, Any]) -> str:
    """`^alpha` or `^0.5`; a power that is worked out from the law's parameters is the number it came to."""
    if callable(power):
        power = power(fit.get("params") or {})
    return "" if power == 1 else f"^{power if isinstance(power, str) else format(float(power), '.3g')}"


def _weights(weights: Mapping[str, float], width: int) -> list[str]:
    text = f"Weights, by how each law predicted held-out larger scales: {weight_text({'weights': weights})}"
    return wrap(text, width, subsequent_indent="  ")


def _search(fit: Mapping[str, Any]) -> str:
    objective = f"Objective {significant(fit.get('objective'), 6)} (sum of Huber, delta 0.001, on log residuals)"
    starts, best = number(fit.get("starts")), number(fit.get("starts_at_best"))
    share = f"; {best:.0f} of {starts:.0f} starts ended at the best" if starts and best is not None else ""
    return f"{objective}{share}; {duration(fit.get('seconds'))}."


def _rows(fit: Mapping[str, Any], width: int) -> list[str]:
    held = (fit.get("held_out") or {}).get("n")
    text = f"Rows: {fit.get('rows_used')} used" + (f", {held} held out" if held else "")
    dropped = fit.get("rows_dropped") or []
    lines = wrap(f"{text}, {len(dropped)} left out{':' if dropped else '.'}", width)
    reasons: dict[str, list[int]] = {}
    for each in dropped:
        reasons.setdefault(str(each["reason"]), []).append(each["row"])
    for reason, rows in reasons.items():
        # People count the rows of a table from 1; the JSON has places, from 0, as pandas does.
        first = ", ".join(str(row + 1) for row in rows[:5])
        more = ", ..." if len(rows) > 5 else ""
        text = f"{len(rows)}: {reason} ({'row' if len(rows) == 1 else 'rows'} {first}{more} below the header)"
        lines += wrap(text, width, initial_indent="  ", subsequent_indent="    ")
    return lines


def _held_text(held: Mapping[str, Any] | None) -> str | None:
    if held is None:
        return None
    if not held.get("n") or held.get("rmse_log") is None:
        return "Held out: no usable row."
    text = f"Held out: {plural(int(held['n']), 'row')}"
    text += f"; root mean square of the log error {significant(held['rmse_log'], 3)}"
    text += f", mean relative error {percent(held['mape'])}"
    if held.get("r2") is not None:
        text += f", R2 {significant(held['r2'], 3)}"
    if held.get("covered") is not None:
        text += f"; {percent(held['covered'])} of them lie in their 95% interval"
    return text + "."


def warning_lines(fits: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    """Every warning once, with its advice, and how many groups it concerns."""
    found: dict[str, list[str]] = {}
    for fit in fits:
        for each in fit.get("warnings") or []:
            found.setdefault(each["code"], []).append(each["message"])
    lines: list[str] = []
    for code, messages in found.items():
        groups = f" in {plural(len(messages), 'group')}, for instance" if len(fits) > 1 else ""
        advice = f". {ADVICE[code]}" if code in ADVICE and code != "dropped_rows" else ""
        lines += wrap(f"Warning ({code}){groups}: {messages[0]}{advice}", width, subsequent_indent="  ")
    return ["", *lines] if lines else []


def _groups(fits: Sequence[Mapping[str, Any]], held_out: Mapping[str, Any] | None, width: int) -> list[str]:
    laws = ", ".join(dict.fromkeys(str(fit.get("law")) for fit in fits))
    by = ", ".join((fits[0].get("by") or {}) if fits else [])
    lines = wrap(f"{laws} on {fits[0].get('target')} by {by}: {plural(len(fits), 'group')}", width)
    outcomes = Counter(str(fit.get("outcome")) for fit in fits)
    lines += wrap("Outcomes: " + ", ".join(f"{name} {amount}" for name, amount in outcomes.items()), width)
    weights = [fit["weights"] for fit in fits if fit.get("weights")]
    shared = len(weights) == len(fits) and all(each == weights[0] for each in weights)
    if shared:
        lines += _weights(weights[0], width)
    rows = []
    for fit in fits[:_MOST_GROUPS]:
        name = ", ".join(str(value) for value in (fit.get("by") or {}).values())
        found = ", ".join(f"{key} {significant(value, 3)}" for key, value in (fit.get("params") or {}).items())
        if fit.get("weights"):
            found = weight_text(fit, 2)
        error = (fit.get("held_out") or {}).get("rmse_log")
        short = (shorten(name, 28), str(fit.get("rows_used")), significant(error, 2))
        rows.append((*short, str(fit.get("outcome")), found))
    header = ("group", "rows", "held-out error", "outcome", "law")
    wide = table_lines(header, rows, width)
    # Where the parameters do not fit beside the rest, they are left to the JSON.
    if shared or len(wide) > len(rows) + 1:
        wide = table_lines(header[:-1], [row[:-1] for row in rows], width)
    lines += ["", *wide, ""]
    if len(fits) > _MOST_GROUPS:
        lines += [f"and {len(fits) - _MOST_GROUPS} more groups; --json has them all", ""]
    dropped = sum(len(fit.get("rows_dropped") or []) for fit in fits)
    used = sum(int(fit.get("rows_used") or 0) for fit in fits)
    lines += wrap(f"Rows: {used} used, {dropped} left out; --json gives the reason of each.", width)
    if (held := _held_text(held_out)) is not None:
        lines += wrap(held, width)
    return [*lines, *warning_lines(fits, width)]


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Columns side by side; where they are wider than the terminal, one block a row."""
    cells = [tuple(header), *map(tuple, rows)]
    widths = [max(width_of(row[place]) for row in cells) for place in range(len(header))]
    if sum(widths) + 2 * (len(widths) - 1) <= width:
        last = len(widths) - 1
        return [
            "  ".join(
                padded(text, widths[place], right=place not in (0, last)) for place, text in enumerate(row)
            ).rstrip()
            for row in cells
        ]
    lines: list[str] = []
    for row in rows:
        parts = [f"{name} {text}" for name, text in zip(header[1:], row[1:], strict=True) if text]
        lines += wrap(f"{row[0]}: {'; '.join(parts)}", width, subsequent_indent="  ")
    return lines
