"""The verdict in plain English: what was found, with its interval, its unit and how far it reaches beyond the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Facts = Mapping[str, Any]


def write_sentences(verdict: Facts, fits: Sequence[Facts], task_type: str, data_axis: str) -> list[str]:
    """The sentences of a verdict (its other keys as in fit.json) and of the outcomes of its fits, most useful first."""
    doubling = verdict["doubling"]
    lost = verdict.get("untrained")
    said = [
        "" if lost is None else f"{untrained_text(lost)} {LEFT_OUT} Train them longer, or start at larger sizes.",
        _aim(verdict, data_axis),
        _gain(doubling["data"], f"Twice the {data_axis}", task_type),
        _gain(doubling["params"], "A model twice as large", task_type),
        _which(doubling["data"], doubling["params"], data_axis),
        *(_copy(each) for each in verdict.get("augmentation", ())),
        _gpus(doubling["gpus"]),
        quality_text(doubling["gpus"].get("quality")),
        _foretold(verdict["held_out"], data_axis),
        *(_doubt(fit) for fit in fits[:1]),
    ]
    return [sentence for sentence in said if sentence]


LEFT_OUT = "Such runs say nothing about data or size: no law counts them."


def untrained_text(lost: Facts) -> str:
    """How many runs did no better than guessing, and what guessing scores."""
    level = number(lost["low"]) if lost["low"] == lost["high"] else f"{number(lost['low'])} to {number(lost['high'])}"
    return f"{lost['runs']} of {lost['of']} runs did no better than guessing (test loss at or above {level})."


def number(value: float) -> str:
    """A value to four significant digits, thousands set apart."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _between(facts: Facts, style: str = "{}", sign: bool = False) -> str:
    if facts["low"] is None and facts["high"] is None:
        return "no interval from a single run"
    words = [("no limit" if each is None else style.format(f"{each:+.3g}" if sign else number(each)))
             for each in (facts["low"], facts["high"])]  # fmt: skip
    return f"95%: {words[0]} to {words[1]}"


def _gain(gain: Facts, what: str, task_type: str) -> str:
    if gain["value"] is None:
        return f"{what}: what it brings cannot be said, since {gain['note']}."
    loss = "loss per token" if task_type == "causal-lm" else "loss"
    verb = "lowers" if gain["value"] <= 0 else "raises"
    size = f"{abs(gain['value']):.3g}%"
    certain = "" if gain["low"] * gain["high"] > 0 else ", so even its sign is uncertain"
    return (
        f"{what} ({number(gain['from'])} to {number(gain['to'])}) {verb} the test {loss} of {gain['model']} by {size} "
        f"(change {_between(gain, '{}%', sign=True)}{certain}); "
        f"the {gain['law']} law says so, {number(gain['extrapolation'])} times beyond the data."
    )


def _copy(found: Facts) -> str:
    """What an augmented copy is worth, and where it stops paying."""
    by = "by the test loss" if found["target"] == "eval_loss" else f"by {found['target'].removeprefix('1 - ')}"
    if found["value"] is None:
        return f"What a copy made by {found['augment']} is worth {by} cannot be said: {found['note']}."
    between = f"95%: {found['low']:.2g} to {found['high']:.2g}"
    text = f"An augmented copy ({found['augment']}) is worth {found['value']:.2g} real examples {by} ({between})"
    if found["low"] <= 0 <= found["high"]:
        text += ", so whether it pays at all is uncertain"
    elif found["high"] < 0:
        text += ": it harms"
    end = found["stops_paying"]
    if end is not None:
        words = ["no limit" if each is None else number(each) for each in (end["low"], end["high"])]
        text += f"; above about {number(end['value'])} examples it stops paying (95%: {words[0]} to {words[1]})"
    return f"{text}."


def _which(data: Facts, params: Facts, data_axis: str) -> str:
    if data["value"] is None or params["value"] is None:
        return ""
    first, second = (data, params) if data["value"] < params["value"] else (params, data)
    if first["high"] < second["low"]:
        better, other = (f"the {data_axis}", "the model") if first is data else ("the model", f"the {data_axis}")
        return f"Doubling {better} buys more than doubling {other}: the intervals do not overlap."
    return "Which of these two buys more cannot be told from these trials: the intervals overlap."


def _gpus(gain: Facts) -> str:
    if gain["value"] is None:
        return f"More GPUs: what they bring cannot be said, since {gain['note']}."
    curve = "; a scaling curve would need three GPU counts" if len(gain["curve"]) < 2 else ""
    return (
        f"Going from {gain['from']} to {gain['to']} GPUs trains {number(gain['value'])} times as many examples "
        f"per second ({_between(gain)}, {gain['pairs']} pairs of runs{curve})." + _by_model(gain["models"])
    )


def _by_model(models: Sequence[Facts]) -> str:
    """What single models gain, the largest among them, where they differ by more than a tenth."""
    least, most = (choose(models, key=lambda each: each["value"]) for choose in (min, max))
    if most["value"] <= 1.1 * least["value"]:
        return ""
    largest = models[-1]
    low, high = (
        f"{number(each['value'])} times for {each['model']}{', the largest' if each is largest else ''}"
        for each in (least, most)
    )
    own = f"; {number(largest['value'])} for {largest['model']}, the largest" if largest not in (least, most) else ""
    return f" Models differ, from {low}{',' * (least is largest)} to {high}{own}."


def quality_text(change: Facts | None) -> str:
    """Whether GPUs change quality: that they do not is said where a test of equivalence says so."""
    if change is None:
        return ""
    bounds = [abs(each) for each in (change["value"], change["low"], change["high"]) if each is not None]
    tiny = max(bounds) < 0.001  # the order of floating-point sums
    size = "less than 0.001%" if tiny else f"{change['value']:+.2g}%"
    text = f"At the same global batch more GPUs changed the test loss by {size}"
    if change["low"] is None:
        return f"{text} in the one pair of runs there is; one pair cannot tell whether quality changes."
    between = "" if tiny else f"{_between(change, '{}%', sign=True)}, "
    within = f"{change['margin']:g}%"
    meaning = {
        "equivalent": "speed changes, quality does not"
        + ("" if tiny else f" (equal within {within} by a test of equivalence, p = {change['p_value']:.2g})"),
        "different": "quality changes, which at one global batch it should not; look into it",
        "undecided": f"whether quality changes cannot be told, since a change of more than {within} is not ruled out; "
        "more seeds would tell",
    }
    return f"{text} ({between}{change['pairs']} pairs): {meaning[change['verdict']]}."


def _aim(verdict: Facts, data_axis: str) -> str:
    aim, cheapest = verdict["target"], verdict["cheapest"]
    if aim["best"] is None:
        return f"Nothing can be said about {aim['metric']} yet: {aim['note']}."
    best = f"{number(aim['best']['value'])} ({aim['best_model']}, {aim['best_data']:,} {data_axis})"
    if aim["reach"] is None:
        return f"The best {aim['metric']} measured is {best}; the study names no value to reach."
    wanted = f"{aim['metric']} {number(aim['reach'])}"
    if aim["reached"] and cheapest is None:
        return f"The {wanted} was reached: {best}; what it cost is unknown, since its runs were not timed."
    if cheapest is not None:
        cost = f"{number(cheapest['gpu_hours']['value'])} GPU-hours ({_between(cheapest['gpu_hours'])})"
        money = f", {number(cheapest['money']['value'])} {cheapest['money']['unit']}" if "money" in cheapest else ""
        workers = f"{cheapest['gpus']} GPU" + ("s" if cheapest["gpus"] > 1 else "")
        return (
            f"The cheapest allocation that reaches {wanted} is {cheapest['model']} with {cheapest['data']:,} "
            f"{data_axis} on {workers}: {number(cheapest[aim['metric']]['value'])}, for {cost}{money} a run; "
            f"{cheapest['runs_reaching']} of {cheapest['runs']} runs reach it."
        )
    text = f"No allocation reaches {wanted}: the best is {best}, {number(aim['gap'])} away"
    if aim["needed"] is None:
        return f"{text}; {aim['note']}."
    needed = aim["needed"]
    return (
        f"{text}. By the {needed['law']} law {needed['model']} would need {number(needed['value'])} {needed['unit']} "
        f"({_between(needed)}), {number(needed['extrapolation'])} times beyond the data."
    )


def _foretold(held: Facts, data_axis: str) -> str:
    if not held["n"]:
        return f"The law could not be tested on data it had not seen: {held['note']}."
    words = {"power": "a power law for each model", "constant": "keeping the last value"}
    rivals = [f"{words.get(name, name)} {_missed(found)}" for name, found in held["rivals"].items()]
    against = f" ({', '.join(rivals)})" if rivals else ""
    return (
        f"Fitted without the largest data size, {held['law']} missed the {held['n']} runs at {number(held['data'])} "
        f"{data_axis} by {_missed(held)}{against}; {100 * held['covered']:.0f}% of them lie in its 95% "
        "interval" + (", so all its intervals here are too narrow." if held.get("too_narrow") else ".")
    )


def _missed(held: Facts) -> str:
    """An error of the log as a percentage, two digits of it, and no power of ten."""
    percent = 100 * held["rmse_log"]
    return f"{percent:.2g}%" if percent < 99.5 else f"{percent:.0f}%"


def _doubt(fit: Facts) -> str:
    about = {
        "flat": "its predictions can be used, its exponents not be quoted",
        "at_bound": "a parameter ran to the edge of the search, so predictions far beyond the data are weak",
        "failed": "no minimum was found",
    }
    doubt = about.get(fit["outcome"])
    return f"The {fit['law']} law's outcome is {fit['outcome']}: {doubt}." if doubt else ""
