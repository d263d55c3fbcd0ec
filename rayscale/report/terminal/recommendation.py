"""A recommendation as text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from math import floor
from typing import Any

from rayscale.report.numbers import count, duration, plural, shorten, significant, trimmed, wrap, wrap_all
from rayscale.report.terminal.fit import WIDTH, table_lines, warning_lines
from rayscale.report.wording import interval_text, reach_text, weight_text


def recommend_lines(recommendation: Mapping[str, Any], width: int = WIDTH) -> list[str]:
    """A recommendation, as `rayscale.verdict.recommendation.recommend` gives it, as lines at most `width` wide."""
    aim, searched, basis = recommendation["target"], recommendation["searched"], recommendation["basis"]
    unit, metric = searched["data_unit"], aim["metric"]
    wanted = f"{metric} {'<=' if aim['direction'] == 'lower' else '>='} {trimmed(aim['reach'], 4)}"
    if recommendation["allocation"] is not None:
        reach = reach_text(recommendation["extrapolation"])
        texts = [f"Cheapest for {wanted}: {_words(recommendation, unit)}.",
                 f"Predicted {_predicted(recommendation, metric)}; {reach}."]  # fmt: skip
        inside = recommendation["within_data"]
        if inside is not None and inside["allocation"] != recommendation["allocation"]:
            what = f"{_words(inside, unit)}; predicted {_predicted(inside, metric)}"
            texts.append(f"With no more data than was measured: {what}.")
    else:
        texts = [f"Nothing to recommend for {wanted}: {recommendation['reason']}."]
        if (near := recommendation["nearest"]) is not None:
            what = f"{_words(near, unit)}; predicted {_predicted(near, metric)}"
            texts.append(f"Nearest: {what}; {reach_text(near['extrapolation'])}.")
    lines = [*wrap_all(texts, width), "", *_frontier(recommendation, metric, width), ""]
    if basis["law"]:
        error = basis["held_out_error"]
        tested = f"; on the largest data size, held out, it missed by {significant(error, 2)}" if error else ""
        mixed = f" ({weight_text(basis, 3)})" if basis["weights"] else ""
        lines += wrap(f"Quality: the {basis['law']} law{mixed}{tested}. Cost: {basis['cost'] or 'unknown'}.", width)
    least, most = map(count, searched["data"])
    sizes = f"{least} to {most} {unit} ({searched['beyond']:g}× the largest measured)"
    models = plural(len(searched["models"]), "model")
    lines += wrap(f"Searched: {models}, {sizes}, GPUs {', '.join(map(str, searched['gpus']))}.", width)
    for sentence in recommendation["unknown"]:
        lines += wrap(f"Note: {sentence}", width, subsequent_indent="  ")
    return [*lines, *warning_lines([recommendation], width)]


def _words(row: Mapping[str, Any], unit: str) -> str:
    """`base (110 M params) with 8 k examples on 2 GPUs, 1.2 GPU-hours (95%: 1.1 to 1.3), 3 USD, 36 min`."""
    place = row["allocation"]
    workers = f"{place['gpus']} GPU" + ("s" if place["gpus"] > 1 else "")
    if row["share"] < 1:
        workers = f"1/{round(1 / row['share'])} of a GPU"
    text = f"{shorten(place['model'], 40)} ({count(place['params'])} params) "
    text += f"with {count(place['data'], 4)} {unit} on {workers}"
    if row["gpu_hours"] is None:
        return f"{text}, at an unknown cost"
    text += f", {significant(row['gpu_hours'])} GPU-hours"
    if row["gpu_hours_low"] is not None:
        text += f" (95%: {interval_text(row['gpu_hours_low'], row['gpu_hours_high'])})"
    if row["money"] is not None:
        text += f", {significant(row['money']['value'])} {row['money']['unit']}"
    return f"{text}, {duration(row['hours'] * 3600)} of time"


def _predicted(row: Mapping[str, Any], metric: str) -> str:
    between = "one run, no interval"
    if row["low"] is not None:
        between = f"95% for a new run: {interval_text(row['low'], row['high'], digits=4)}"
    likely = f"a new run reaches it with probability {_share(row['probability'])}"
    if row["probability"] is None:
        likely = "the probability that a new run reaches it is unknown"
    return f"{metric} {significant(row['predicted'], 4)} ({between}); {likely}"


def _share(probability: float | None) -> str:
    """Whole percents, rounded down: more was not checked, and nobody is promised more than there is."""
    if probability is None:
        return "?"
    if 0.01 <= probability <= 0.99:
        return f"{floor(100 * probability + 1e-9)}%"
    return "over 99%" if probability > 0.99 else "under 1%"


def _frontier(recommendation: Mapping[str, Any], metric: str, width: int) -> list[str]:
    """Cost against quality: for each step of cost the best prediction."""
    rows = []
    for row in recommendation["frontier"]:
        place = row["allocation"]
        cost = "?" if row["gpu_hours"] is None else significant(row["gpu_hours"])
        between = "" if row["low"] is None else interval_text(row["low"], row["high"])
        mark = "<-" if place == recommendation["allocation"] else ""
        beyond = "" if row["extrapolation"] <= 1 else f"x{significant(row['extrapolation'], 2)}"
        rows.append((shorten(place["model"], 18), count(place["data"]), str(place["gpus"]), cost,
                     significant(row["predicted"], 4), between, _share(row["probability"]), beyond, mark))  # fmt: skip
    header = ("model", "data", "GPUs", "GPU-h", metric, "95% new run", "reach", "beyond", "")
    return table_lines(header, rows, width)
