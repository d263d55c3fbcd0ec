"""A fit as text for the terminal: parameters with units and intervals, how the search went, what to beware of.

Lines fit 60 columns where words allow and are plain text: they are read in pipes and logs as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len

from rayscale.errors import InputError
from rayscale.laws.formula import find_saved
from rayscale.report.numbers import duration, number, padded, percent, plural, shorten, significant, wrap, wrap_all
from rayscale.report.wording import ADVICE, outcome_of, reach_text, weight_text
from rayscale.system.groups import grouped

WIDTH = 78
_MOST_GROUPS = 40  # groups shown in the table of groups; all are in the JSON


def fit_lines(fits: Sequence[Mapping[str, Any]], held_out: Mapping[str, Any] | None, width: int = WIDTH) -> list[str]:
    """One fit, or the groups of a fit by columns, each as `to_json` gives it, as lines at most `width` wide."""
    if len(fits) == 1 and not fits[0].get("by"):
        return _one(fits[0], width)
    return _groups(fits, held_out, width)


def prediction_lines(prediction: Mapping[str, Any], width: int = WIDTH) -> list[str]:
    """One prediction, as `rayscale.verdict.prediction.predict` gives it."""
    shown = {name: significant(value, 4) for name, value in prediction.items() if isinstance(value, float)}
    target = "loss" if prediction["target"] == "eval_loss" else prediction["target"]
    group = "".join(f", {column} {value}" for column, value in (prediction.get("by") or {}).items())
    optimal = "data_low" in prediction
    texts = [
        f"Predicted {'compute-optimal model size' if optimal else target} {shown['predicted']}, 95% for a new run "
        f"{shown['low']} to {shown['high']}, for the mean over runs {shown['mean_low']} to {shown['mean_high']} "
        f"({prediction['law']} law{group})."
    ]
    if optimal:
        texts.append(f"On data of size {shown['data']} (95%: {shown['data_low']} to {shown['data_high']}).")
    texts.append(f"{reach_text(prediction['extrapolation']).capitalize()}.")
    if prediction.get("speedup") is not None:
        times = f"{significant(prediction['speedup'])} times as many examples per second as the fewest measured"
        texts.append(f"{prediction['gpus']} GPUs train {times}.")
    elif "speedup" in prediction:
        texts.append(f"The speed of {prediction['gpus']} GPUs was not measured.")
    if prediction.get("unused"):
        texts.append(f"Not used by this law: {', '.join(prediction['unused'])}.")
    return [*wrap_all(texts, width), *warning_lines([prediction], width)]


def _one(fit: Mapping[str, Any], width: int) -> list[str]:
    def hanging(text: str) -> list[str]:
        return wrap(text, width, subsequent_indent="  ")

    lines = wrap(f"{fit.get('law')} on {fit.get('target')}: {outcome_of(fit).sentence}", width)
    if fit.get("formula") and not fit.get("members"):
        # A formula with its own left sides is not one of the target: isoflop's are of the best sizes at a compute.
        lines += hanging(fit["formula"] if " = " in fit["formula"] else f"{fit['target']} = {fit['formula']}")
    lines += hanging(_columns_text(fit))
    if fit.get("weights"):
        lines += ["", *hanging(_weights(fit))]
    if fit.get("params"):
        if fit.get("members"):
            formula = fit["members"][0].get("formula")
            lines += ["", *hanging(f"Parameters of the heaviest: {fit['target']} = {formula}")]
        lines += ["", *_parameters(fit, width), "", *wrap(_search(fit), width)]
    return [*lines, *_rows(fit, width), *wrap(_held_text(fit.get("held_out")), width), *warning_lines([fit], width)]


def _columns_text(fit: Mapping[str, Any]) -> str:
    columns, ranges = fit.get("columns") or {}, fit.get("data_range") or {}
    parts = []
    for role, column in columns.items():
        reach = ranges.get(role)
        span = f", {significant(reach[0], 3)} to {significant(reach[1], 3)}" if reach else ""
        parts.append(f"{role} is column {column}{span}")
    if fit.get("weighted_by"):
        parts.append(f"rows are weighted by column {fit['weighted_by']}")
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
    if fit.get("units"):
        return dict(fit["units"])
    if fit.get("stages"):
        return {name: unit for stage in fit["stages"] for name, unit in parameter_units(stage).items()}
    fit = (fit.get("members") or [fit])[0]  # a combination shows the parameters of its heaviest law
    try:
        law = find_saved(str(fit.get("law")), fit.get("formula"))
    except InputError:  # a law of a study file or a combination: its units are not known here
        return {}
    if law.frame:  # parameters of curves in a size, whose units are no products
        return {}
    columns = fit.get("columns") or {}
    units = {}
    for parameter in law.parameters:
        parts = [str(fit.get("target"))] if parameter.kind == "coefficient" else []
        parts += [f"{columns.get(role, role)}{_power(power, fit)}" for role, power in parameter.unit]
        units[parameter.name] = " x ".join(parts) or "-"
    return units


def _power(power: Any, fit: Mapping[str, Any]) -> str:
    """`^alpha` or `^0.5`; a power that is worked out from the law's parameters is the number it came to."""
    if callable(power):
        power = power(fit.get("params") or {})
    return "" if power == 1 else f"^{power if isinstance(power, str) else format(float(power), '.3g')}"


def _weights(fit: Mapping[str, Any]) -> str:
    from rayscale.laws.auto.blend import DISCREPANCY, NO_CUTS  # scipy is slow to import, and a fit has done so

    weighed = (fit.get("stages") or [fit])[0]  # of two stages the weights are those of the loss's laws
    if "versions" in (weighed.get("estimate") or {}):
        way = "evidence"
    elif any(NO_CUTS in warning["message"] for warning in fit.get("warnings") or []):
        way = "how well each law fits"
    else:
        way = "how each law predicted held-out larger scales"
    smooth = f", each with a {DISCREPANCY}" if str(fit.get("formula")).endswith(DISCREPANCY) else ""
    return f"Weights, by {way}{smooth}: {weight_text(fit)}"


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
    for reason, rows in grouped((str(entry["reason"]), entry["row"]) for entry in dropped).items():
        # People count the rows of a table from 1; the JSON has places, from 0, as pandas does.
        first = ", ".join(str(row + 1) for row in rows[:5])
        more = ", ..." if len(rows) > 5 else ""
        text = f"{len(rows)}: {reason} ({'row' if len(rows) == 1 else 'rows'} {first}{more} below the header)"
        lines += wrap(text, width, initial_indent="  ", subsequent_indent="    ")
    return lines


def _held_text(held: Mapping[str, Any] | None) -> str:
    if held is None:
        return ""
    if not held.get("n") or held.get("rmse_log") is None:
        return "Held out: no usable row."
    explained = "" if held.get("r2") is None else f", R2 {significant(held['r2'], 3)}"
    covered = "" if held.get("covered") is None else f"; {percent(held['covered'])} of them lie in their 95% interval"
    return (
        f"Held out: {plural(int(held['n']), 'row')}; root mean square of the log error "
        f"{significant(held['rmse_log'], 3)}, mean relative error {percent(held['mape'])}{explained}{covered}."
    )


def warning_lines(fits: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    """Every warning once, with its advice, how many groups it concerns, and the first of these."""
    warnings = [
        (code, (_group_name(fit), messages[0]))
        for fit in fits
        for code, messages in grouped((one["code"], one["message"]) for one in fit.get("warnings") or []).items()
    ]
    lines: list[str] = []
    for code, warned in grouped(warnings).items():
        (first, message), groups = warned[0], ""
        if len(fits) > 1:
            every = len(warned) == len(fits)
            groups = f" in {'all ' if every else ''}{plural(len(warned), 'group')}, for instance {first}"
        advice = f". {ADVICE[code]}" if code in ADVICE and code != "dropped_rows" else ""
        lines += wrap(f"Warning ({code}){groups}: {message}{advice}", width, subsequent_indent="  ")
    return ["", *lines] if lines else []


def _group_name(fit: Mapping[str, Any]) -> str:
    return ", ".join(str(value) for value in (fit.get("by") or {}).values())


def _groups(fits: Sequence[Mapping[str, Any]], held_out: Mapping[str, Any] | None, width: int) -> list[str]:
    laws = ", ".join(dict.fromkeys(str(fit.get("law")) for fit in fits))
    by = ", ".join((fits[0].get("by") or {}) if fits else [])
    outcomes = Counter(str(fit.get("outcome")) for fit in fits)
    title = f"{laws} on {fits[0].get('target')} by {by}: {plural(len(fits), 'group')}"
    counts = ", ".join(f"{name} {amount}" for name, amount in outcomes.items())
    lines = wrap_all([title, f"Outcomes: {counts}"], width)
    weights = [fit["weights"] for fit in fits if fit.get("weights")]
    shared = len(weights) == len(fits) and all(others == weights[0] for others in weights)
    if shared:
        lines += wrap(_weights(fits[0]), width, subsequent_indent="  ")
    rows = []
    for fit in fits[:_MOST_GROUPS]:
        law = ", ".join(f"{key} {significant(value, 3)}" for key, value in (fit.get("params") or {}).items())
        if fit.get("weights"):
            law = weight_text(fit, 2)
        error = (fit.get("held_out") or {}).get("rmse_log")
        short = (shorten(_group_name(fit), 28), str(fit.get("rows_used")), significant(error, 2))
        rows.append((*short, str(fit.get("outcome")), law))
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
    rows_text = f"Rows: {used} used, {dropped} left out{'; --json gives the reason of each' if dropped else ''}."
    return [*lines, *wrap_all([rows_text, _held_text(held_out)], width), *warning_lines(fits, width)]


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Columns side by side; where they are wider than the terminal, one block a row."""
    cells = [tuple(header), *map(tuple, rows)]
    widths = [max(cell_len(row[place]) for row in cells) for place in range(len(header))]
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
