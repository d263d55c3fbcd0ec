"""The sentences of a verdict: each finding with its interval and how far it reaches beyond the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rayscale.report.numbers import capitalised, percent, plural, significant, spoken, spoken_range, whole
from rayscale.report.wording import ADVICE, amount, interval_text, percentage, reach_text, rival_name
from rayscale.verdict.leading import untrained_text

Facts = Mapping[str, Any]


def verdict_sentences(verdict: Facts, fits: Sequence[Facts], task_type: str, data_axis: str) -> list[str]:
    """The sentences of a verdict (its other keys as in fit.json) and of the outcomes of its fits, most useful first."""
    doubling, untrained = verdict["doubling"], verdict.get("untrained")
    quantity = (verdict.get("leading") or {}).get("target", "eval_loss").removesuffix(" / 100")
    if quantity == "eval_loss":
        quantity = "test loss per token" if task_type == "causal-lm" else "test loss"
    sentences = [
        "" if untrained is None else f"{untrained_text(untrained)}. {ADVICE['untrained']}",
        _aim(verdict, data_axis),
        (verdict.get("leading") or {}).get("why") or "",
        _gain(doubling["data"], f"the {data_axis}", "", quantity),
        _gain(doubling["params"], "the model size", " parameters", quantity),
        _which(doubling["data"], doubling["params"], data_axis),
        *(_copy(worth) for worth in verdict.get("augmentation", ())),
        _gpus(doubling["gpus"]),
        quality_text(doubling["gpus"].get("quality")),
        _held_out(verdict["held_out"], data_axis),
        *(_doubt(fit) for fit in fits[:1]),
    ]
    return [sentence for sentence in sentences if sentence]


def interval(facts: Facts, unit: str = "", digits: int = 3) -> str:
    """`95% interval 239,000 to 330,000` of an object with low and high, or why there is none."""
    if facts["low"] is None and facts["high"] is None:
        return "no interval from a single run"
    return f"95% interval {spoken_range(facts['low'], facts['high'], digits, unit)}"


def _gain(gain: Facts, what: str, unit: str, quantity: str) -> str:
    if gain["value"] is None:
        return f"The effect of doubling {what} is unknown: {gain['note']}."
    change = "%" if gain["unit"] == "%" else f" {gain['unit']}"
    lowers = gain["value"] <= 0
    low, high = (-gain["high"], -gain["low"]) if lowers else (gain["low"], gain["high"])
    unsure = "" if gain["low"] * gain["high"] > 0 else ", so even the sign is uncertain"
    return (
        f"Doubling {what} ({spoken(gain['from'])} to {spoken(gain['to'])}{unit}) {'lowers' if lowers else 'raises'} "
        f"the {quantity} of {gain['model']} by {percentage(abs(gain['value']))}{change} "
        f"(95% interval {interval_text(low, high, gain['unit'])}{unsure}; "
        f"{gain['law']} law, {reach_text(gain['extrapolation'])})."
    )


def _which(data: Facts, params: Facts, data_axis: str) -> str:
    if data["value"] is None or params["value"] is None:
        return ""
    less = data["unit"] == "%"  # of a loss is better, more of a metric
    first, second = (data, params) if (data["value"] < params["value"]) == less else (params, data)
    if first["high"] < second["low"] if less else first["low"] > second["high"]:
        better, other = (data_axis, "model size") if first is data else ("model size", data_axis)
        return f"Doubling the {better} helps more than doubling the {other}: the intervals do not overlap."
    return "These trials do not show which of the two helps more: the intervals overlap."


def _copy(worth: Facts) -> str:
    """What an augmented copy is worth, and where it stops paying."""
    by = "by the test loss" if worth["target"] == "eval_loss" else f"by {worth['target'].removeprefix('1 - ')}"
    if worth["value"] is None:
        return f"The worth of an augmented copy ({worth['augment']}) {by} is unknown: {worth['note']}."
    text = f"An augmented copy ({worth['augment']}) is worth {spoken(worth['value'], 2)} real examples {by} "
    text += f"({interval(worth, digits=2)})"
    if worth["low"] <= 0 <= worth["high"]:
        text += ", so it may not pay at all"
    elif worth["high"] < 0:
        text += ": it harms"
    if end := worth["stops_paying"]:
        text += f"; above about {spoken(end['value'])} examples it stops paying ({interval(end)})"
    return f"{text}."


def _gpus(gain: Facts) -> str:
    if gain["value"] is None:
        return f"The effect of more GPUs is unknown: {gain['note']}."
    curve = "; a scaling curve needs three GPU counts" if len(gain["curve"]) < 2 else ""
    return (
        f"{plural(gain['to'], 'GPU')} train {spoken(gain['value'])} times as many examples per second as "
        f"{gain['from']} ({interval(gain)}, {plural(gain['pairs'], 'pair')} of runs{curve}).{_by_model(gain['models'])}"
    )


def _by_model(models: Sequence[Facts]) -> str:
    """What single models gain, the largest among them, where they differ by more than a tenth."""
    least, most = (choose(models, key=lambda model: model["value"]) for choose in (min, max))
    if most["value"] <= 1.1 * least["value"]:
        return ""
    largest = models[-1]
    ends = [least, most] if largest in (least, most) else [least, most, largest]
    named = [f"{spoken(model['value'])} for {model['model']}{' (the largest)' if model is largest else ''}"
             for model in ends]  # fmt: skip
    return f" Models differ: {', '.join(named)}."


def quality_text(change: Facts | None, what: str = "the test loss") -> str:
    """Whether GPUs change quality: that they do not is said where a test of equivalence says so."""
    if change is None:
        return ""
    bounds = [abs(bound) for bound in (change["value"], change["low"], change["high"]) if bound is not None]
    tiny = max(bounds) < 0.001  # the order of floating-point sums
    size = "less than 0.001%" if tiny else f"{significant(change['value'], 2, sign=True)}%"
    text = f"At the same global batch, more GPUs changed {what} by {size}"
    if change["low"] is None:
        return f"{text} in the only pair of runs; one pair cannot show whether quality changes."
    between = "" if tiny else f"{interval(change, '%', 2)}, "
    within = f"{change['margin']:g}%"
    meaning = {
        "equivalent": "speed changes, quality does not"
        + ("" if tiny else f" (equal within {within}, p = {change['p_value']:.2g})"),
        "different": "quality changes, which it should not; look into it",
        "undecided": f"a change of more than {within} is not ruled out; more seeds would tell",
    }
    return f"{text} ({between}{plural(change['pairs'], 'pair')}): {meaning[change['verdict']]}."


def _aim(verdict: Facts, data_axis: str) -> str:
    aim, cheapest = verdict["target"], verdict["cheapest"]
    metric = aim["metric"]
    if aim["best"] is None:
        return f"Nothing is known about {metric} yet: {aim['note']}."
    best = f"{spoken(aim['best']['value'], 4)} ({aim['best_model']}, {whole(aim['best_data'])} {data_axis})"
    if aim["reach"] is None:
        return f"The best {metric} measured is {best}; the study sets no value to reach."
    wanted = f"{metric} {spoken(aim['reach'], 4)}"
    if cheapest is not None:
        cost = f"{spoken(cheapest['gpu_hours']['value'])} GPU-hours a run ({interval(cheapest['gpu_hours'])})"
        money = f", {spoken(cheapest['money']['value'])} {cheapest['money']['unit']}" if "money" in cheapest else ""
        return (
            f"The cheapest allocation that reaches {wanted} is {cheapest['model']} with {whole(cheapest['data'])} "
            f"{data_axis} on {plural(cheapest['gpus'], 'GPU')}: {spoken(cheapest[metric]['value'], 4)}, for "
            f"{cost}{money}; {cheapest['runs_reaching']} of {plural(cheapest['runs'], 'run')} "
            f"{'reaches' if cheapest['runs'] == 1 else 'reach'} it."
        )
    if aim["reached"]:
        return f"The {wanted} was reached: {best}; its cost is unknown, since its runs were not timed."
    text = f"No allocation reaches {wanted}: the best is {best}, {spoken(aim['gap'])} away"
    if aim["needed"] is None:
        return f"{text}; {aim['note']}."
    needed = aim["needed"]
    return (
        f"{text}. The {needed['law']} law predicts that {needed['model']} would need about {spoken(needed['value'])} "
        f"{needed['unit']} ({interval(needed)}), {spoken(needed['extrapolation'])}× the largest size measured."
    )


def _held_out(held: Facts, data_axis: str) -> str:
    if not held["n"]:
        return f"The law could not be tested on unseen data: {held['note']}."
    rivals = [f"{rival_name(name)} {percent(score['rmse_log'])}" for name, score in held["rivals"].items()]
    against = f" ({', '.join(rivals)})" if rivals else ""
    narrow = ", so its intervals are too narrow" if held.get("too_narrow") else ""
    return (
        f"Fitted without the largest data size, the {held['law']} law missed the {plural(held['n'], 'run')} at "
        f"{spoken(held['data'], 4)} {data_axis} by {percent(held['rmse_log'])}{against}; "
        f"{100 * held['covered']:.0f}% of them lie in its 95% interval{narrow}."
    )


def _doubt(fit: Facts) -> str:
    doubts = {
        "flat": "use its predictions, but do not quote its exponents",
        "at_bound": "a parameter reached its search limit, so predictions far beyond the data are weak",
        "failed": "no minimum was found",
    }
    doubt = doubts.get(fit["outcome"])
    return f"The {fit['law']} law's outcome is {fit['outcome']}: {doubt}." if doubt else ""


_CLAIM_VERDICTS = {
    "true": "True in these trials",
    "false": "False in these trials",
    "unknown": "These trials do not decide it",
}
_CLAIM_RIVALS = {"ratio": "the claim", "constant": "no change at all", "logit_power": "a power law of the log odds",
                 "power": "a power law", "logit_line": "a straight line in log odds",
                 "log_line": "a straight line in logs"}  # fmt: skip


def claim_quality(claim: Facts) -> str:
    """The quality that a claim is about: a metric, or the inverse of one that falls."""
    quality = str(claim["quality"])
    metric = quality.removeprefix("1 / ")
    return quality if metric == quality else f"the inverse of {'the test loss' if metric == 'eval_loss' else metric}"


def claim_sentences(claim: Facts) -> list[str]:
    """What trials say about the claim of `test_claim`, the verdict first."""
    quality = claim_quality(claim)
    sentences = [
        f"The claim: {quality} is proportional to data over GPUs, so twice the data doubles it and twice the GPUs "
        f"halve it. {_CLAIM_VERDICTS[claim['verdict']]}."
    ]
    if claim["rivals"]:
        scores = [f"{_CLAIM_RIVALS[rival['law']]} {percent(rival['rmse_log'])}" for rival in claim["rivals"]]
        runs = plural(claim["rivals"][0]["n"], "run")
        sentences.append(f"Errors when each data size is predicted from the others: {', '.join(scores)} ({runs}).")
    sentences.append(quality_text(claim["equivalence"], quality))
    sentences += [f"{capitalised(warning['message'])}." for warning in claim["warnings"]
                  if warning["code"] != "dropped_rows"]  # fmt: skip
    return [sentence for sentence in sentences if sentence]


def claim_rows(claim: Facts) -> list[tuple[str, str, str, str]]:
    """What is doubled, by what the claim multiplies quality, by what it was multiplied, and the 95% interval."""
    rows = []
    for role, title in (("data", "Twice the data"), ("gpus", "Twice the GPUs")):
        if slope := claim["slopes"].get(role):
            claimed, value, low, high = (2.0 ** slope[key] for key in ("claimed", "value", "low", "high"))
            rows.append((title, f"×{claimed:g}", amount(value, "×"), interval_text(low, high, "×")))
    return rows
