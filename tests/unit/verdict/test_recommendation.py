"""The cheapest allocation for a target, on studies whose truth is known."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

import rayscale as rs
from rayscale.errors import InputError
from rayscale.report.terminal.recommendation import recommend_lines
from rayscale.runs.folder import load
from rayscale.verdict.costs import costs
from rayscale.verdict.recommendation import _nearest, recommend_run
from rayscale.verdict.targets import parse_budget, parse_target
from tests.unit import made_study

SETTINGS: dict[str, Any] = {"bootstrap": 100, "price_gpu_hour": 2.0, "law": "logit_chinchilla"}  # auto takes seconds
LOSS = {**SETTINGS, "law": "chinchilla"}


def cheapest_in_truth(f1: float) -> float:
    """GPU-hours of the cheapest run that reaches it without noise, over the same models up to ten times the data."""
    odds, sizes = np.log(f1 / (1 - f1)), np.geomspace(500, 80_000, 400)
    return min(
        made_study.seconds(params, size, 1) / 3600
        for params in made_study.MODELS.values()
        for size in sizes
        if made_study.true_odds(params, size) >= odds
    )


@pytest.fixture(scope="module")
def found() -> dict:
    return rs.recommend(made_study.trials(), "f1_macro>=0.88", **SETTINGS)


def test_the_recommendation_reaches_the_target_at_nearly_the_least_cost(found: dict) -> None:
    place = found["allocation"]
    truth = 1 / (1 + np.exp(-made_study.true_odds(made_study.MODELS[place["model"]], place["data"])))
    assert found["predicted"] >= 0.88
    assert truth == pytest.approx(0.88, abs=0.02)
    assert found["low"] < truth < found["high"]
    assert found["gpu_hours"] == pytest.approx(cheapest_in_truth(0.88), rel=0.25)
    assert found["gpu_hours_low"] < found["gpu_hours"] < found["gpu_hours_high"]
    assert found["money"] == {"value": found["gpu_hours"] * 2.0, "unit": "USD"}
    assert 0.5 <= found["probability"] < 0.9
    assert found["extrapolation"] == max(1.0, place["data"] / 8000)
    assert place["gpus"] == 1  # a second GPU adds 0.7 of a first: dearer, never better
    assert found["reason"] is None
    json.dumps(found, allow_nan=False)


def test_the_frontier_only_ever_gets_dearer_and_better_and_holds_the_answer(found: dict) -> None:
    cost = [each["gpu_hours"] for each in found["frontier"]]
    quality = [each["predicted"] for each in found["frontier"]]
    assert cost == sorted(cost)
    assert quality == sorted(quality)
    assert found["allocation"] in [each["allocation"] for each in found["frontier"]]
    inside = found["within_data"]
    assert inside["extrapolation"] == 1.0
    assert inside["gpu_hours"] >= found["gpu_hours"]


def test_auto_weighs_the_laws_and_its_rival_by_what_they_foretold() -> None:
    answer = rs.recommend(made_study.trials(), "f1_macro>=0.88", bootstrap=100)
    basis = answer["basis"]
    assert basis["law"] == "auto"
    assert basis["held_out_error"] < basis["rivals"]["logit_power"]
    assert max(basis["weights"], key=basis["weights"].get).startswith("logit")
    assert answer["gpu_hours"] == pytest.approx(cheapest_in_truth(0.88), rel=0.3)


@pytest.mark.parametrize(
    ("law", "said"), [("chinchilla", "f1_macro rises"), ("speedup", "takes gpus"), ("logit", "did you mean")]
)
def test_a_law_that_cannot_follow_the_metric_is_refused(law: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        rs.recommend(made_study.trials(), "f1_macro>=0.88", law=law)


def test_a_formula_serves_as_the_law_of_a_loss() -> None:
    """The user's own formula recommends what the same law that ships does."""
    settings = {**LOSS, "law": "E + B * data ** -beta"}
    answer, same = (rs.recommend(made_study.trials(), "eval_loss<=1.0", **{**settings, "law": law})
                    for law in (settings["law"], "power"))  # fmt: skip
    assert answer["basis"]["law"] == settings["law"]
    assert answer["allocation"] == same["allocation"]
    assert answer["predicted"] == pytest.approx(same["predicted"], rel=1e-3)


def test_more_certainty_costs_more(found: dict) -> None:
    sure = rs.recommend(made_study.trials(), "f1_macro>=0.88", probability=0.95, **SETTINGS)
    assert sure["probability"] >= 0.95
    assert sure["gpu_hours"] > found["gpu_hours"]


def test_a_loss_is_reached_from_above_and_a_perplexity_by_its_loss() -> None:
    trials = made_study.trials()
    loss = rs.recommend(trials, "eval_loss<=1.0", **LOSS)
    assert loss["predicted"] <= 1.0
    assert loss["target"]["direction"] == "lower"
    trials["perplexity"] = np.exp(trials["eval_loss"])
    same = rs.recommend(trials, f"perplexity<={np.e!r}", **LOSS)
    assert same["allocation"] == loss["allocation"]
    assert same["predicted"] == pytest.approx(np.exp(loss["predicted"]))
    assert same["probability"] == pytest.approx(loss["probability"])


def test_what_no_allocation_reaches_is_said_with_the_nearest_one() -> None:
    found = rs.recommend(made_study.trials(), "f1_macro>=0.99", **SETTINGS)
    assert found["allocation"] is None
    assert found["predicted"] is None
    assert "best prediction is 0.9" in found["reason"]
    assert found["nearest"]["allocation"]["model"] == "large"
    near = rs.recommend(made_study.trials(), "f1_macro>=0.93", beyond=1, **SETTINGS)
    assert near["searched"]["data"][1] == 8000
    assert "largest data size" not in near["reason"]


@pytest.mark.parametrize(("scale", "chosen"), [(1e-8, "close"), (1.0, "wide")])
def test_the_nearest_is_the_likeliest_unless_nothing_has_a_chance(scale: float, chosen: str) -> None:
    search = pd.DataFrame({"model": ["wide", "close"], "predicted": [0.6, 0.9], "probability": [0.05, 0.02],
                           "gpu_hours": [1.0, 2.0]})  # fmt: skip
    search["probability"] *= scale
    assert _nearest(search, parse_target("f1_macro>=0.99", ["f1_macro"]), "gpu_hours")["model"] == chosen


def test_a_budget_limits_one_run(found: dict) -> None:
    trials, hours, dollars = made_study.trials(), found["gpu_hours"], found["money"]["value"]
    enough = rs.recommend(trials, "f1_macro>=0.88", budget=f"{hours * 1.01}gpuh", **SETTINGS)
    assert enough["allocation"] == found["allocation"]
    short = rs.recommend(trials, "f1_macro>=0.88", budget=f"{dollars * 0.5}usd", **SETTINGS)
    assert short["allocation"] is None
    assert short["reason"].startswith("the cheapest allocation predicted to reach f1_macro>=0.88 costs")
    assert short["nearest"]["gpu_hours"] <= hours * 0.5


def test_without_times_no_cost_is_made_up(tmp_path) -> None:
    untimed = made_study.trials(timed=False)
    found = rs.recommend(untimed, "f1_macro>=0.88", **SETTINGS)
    assert found["allocation"] is not None
    assert found["gpu_hours"] is None
    assert any("No run was timed" in each for each in found["unknown"])
    assert "budget" in rs.recommend(untimed, "f1_macro>=0.88", budget="1gpuh", **SETTINGS)["reason"]
    run = load(made_study.write_run(tmp_path / "run", untimed))
    planned = recommend_run(run, "f1_macro>=0.88", bootstrap=50, law="logit_chinchilla")
    assert planned["gpu_hours"] is not None
    assert "the plan's estimate, not measured" in planned["basis"]["cost"]


def test_too_few_sizes_leave_what_was_measured() -> None:
    trials = made_study.trials(models=("tiny", "large"), sizes=(4000, 8000))
    found = rs.recommend(trials, "f1_macro>=0.88", **SETTINGS)
    assert found["basis"]["law"] is None
    assert found["allocation"]["data"] in (4000, 8000)
    assert found["allocation"]["model"] == "large"
    assert found["measured"]["runs"] == 3
    assert found["unknown"][0].startswith("No law could be fitted")
    single = rs.recommend(trials[trials["seed"] == 0], "f1_macro>=0.88", **SETTINGS)
    assert single["probability"] is None
    assert single["low"] is None


def test_costs_extrapolate_a_start_and_a_rate_and_borrow_the_ratio_of_speeds() -> None:
    trials = made_study.trials(seeds=2)
    known = costs(trials, "examples")
    seconds = known["base", 1].seconds(np.array([80_000.0]))[0]
    assert seconds == pytest.approx(made_study.seconds(1e6, 80_000, 1), rel=0.05)
    held_back = trials[~((trials["model"] == "base") & (trials["gpus"] == 2))]
    lent = costs(held_back, "examples")["base", 2]
    assert lent.slope == pytest.approx(known["base", 1].slope * 2 / 1.7, rel=0.05)
    assert "speed ratio" in lent.basis
    no_pairs = held_back.assign(exclusive=False)
    assert ("base", 2) not in costs(no_pairs, "examples")


def test_a_run_is_priced_by_runs_that_took_as_much_of_a_gpu() -> None:
    lone = made_study.trials(gpus=(1,), seeds=2).assign(share=1.0)
    # Four at once take 2.2 times as long, and each is charged a quarter of that.
    shared = lone.assign(share=0.25, train_seconds=2.2 * lone["train_seconds"],
                         device_seconds=0.55 * lone["device_seconds"])  # fmt: skip
    both = pd.concat([lone, shared], ignore_index=True)
    size, model = np.array([20_000.0]), ("base", 1)
    apart = [costs(each, "examples", share=share)[model] for each, share in ((lone, 1.0), (shared, 0.25))]
    assert [each.share for each in apart] == [1.0, 0.25]
    for known, share in zip(apart, (1.0, 0.25), strict=True):
        assert costs(both, "examples", share=share)[model] == known
    unknown = shared.assign(share=np.nan)  # what they took is not known
    assert costs(pd.concat([lone, unknown], ignore_index=True), "examples")[model] == apart[0]
    assert apart[1].seconds(size) == pytest.approx(0.55 * apart[0].seconds(size))
    assert costs(shared, "examples")[model] == apart[1], "there are no others"
    assert apart[1].basis == "measured where 4 trials shared a GPU"
    found = rs.recommend(shared, "f1_macro>=0.88", **SETTINGS)
    assert found["hours"] == pytest.approx(4 * found["gpu_hours"])
    assert "examples on 1/4 of a GPU, " in " ".join(recommend_lines(found, 100))


def test_the_study_says_how_much_of_a_gpu_a_run_is_to_take(tmp_path) -> None:
    lone = made_study.trials(gpus=(1,), seeds=1, sizes=made_study.SIZES[:3]).assign(share=1.0)
    both = pd.concat([lone, lone.assign(share=0.25, seed=1, trial_id="s" + lone["trial_id"])], ignore_index=True)
    made_study.write_run(tmp_path, both)
    file = tmp_path / "plan.json"
    for count in (1, 4):
        plan = json.loads(file.read_text())
        file.write_text(json.dumps({**plan, "machine": {**plan["machine"], "trials_per_gpu": count}}))
        found = recommend_run(load(tmp_path), "f1_macro>=0.5", bootstrap=100, law="logit_chinchilla")
        assert found["share"] == 1 / count


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("f1_macro", "write METRIC>=VALUE"),
        ("f1>0.9", "did you mean 'f1_macro'"),
        ("accuracy>=0.9", "no run has measured accuracy"),
        ("f1_macro>=92", "write 'f1_macro>=0.92'"),
        ("f1_macro>=92%", "write 'f1_macro>=0.92'"),
        ("f1_macro>=0", "between 0 and 1"),
        ("f1_macro>=nan", "between 0 and 1"),
        ("f1_macro<=0.9", "higher is better"),
        ("f1_macro=0.9", "write 'f1_macro>=0.9'"),
        ("eval_loss>=1", "lower is better"),
        ("eval_loss<=1,5", "not a number"),
        ("eval_loss<=-1", "plain number above 0"),
        ("speed>=3", "not a measure of quality"),
    ],
)
def test_wrong_targets_say_how_to_write_them(target: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        parse_target(target, ["eval_loss", "f1_macro"])
    assert caught.value.where == "--target"


@pytest.mark.parametrize("text", ["20", "20 hours", "-3gpuh", "0gpuh", "nangpuh", "gpuh", "5dollar", "1e999gpuh"])
def test_wrong_budgets_say_how_to_write_them(text: str) -> None:
    with pytest.raises(InputError, match="20gpuh"):
        parse_budget(text, 2.0, "USD")


def test_money_needs_a_price_in_its_currency() -> None:
    assert parse_budget("5eur", 2.0, "EUR").amount == 5.0
    assert parse_budget(" 1.5e1 GPUh", None, "USD").unit == "gpuh"
    with pytest.raises(InputError, match="prices are in USD"):
        parse_budget("5eur", 2.0, "USD")
    with pytest.raises(InputError, match="needs the price"):
        parse_budget("5usd", None, "USD")


@pytest.mark.parametrize("width", [40, 80])
def test_the_text_fits_the_terminal(found: dict, width: int) -> None:
    for each in (found, rs.recommend(made_study.trials(), "f1_macro>=0.99", **SETTINGS)):
        lines = recommend_lines(each, width)
        assert max(map(len, lines)) <= width
        assert any("probability" in line for line in lines)


def test_any_small_table_is_answered_or_refused_without_nan() -> None:
    whole = made_study.trials(models=("tiny", "base"), sizes=(500, 1000, 2000, 4000))
    rng = np.random.default_rng(1)
    for count in (0, 1, 2, 5, 9, 14):
        rows = whole.iloc[np.sort(rng.choice(len(whole), count, replace=False))]
        if rows["f1_macro"].notna().any():
            json.dumps(rs.recommend(rows, "f1_macro>=0.8", bootstrap=20, law="logit_chinchilla"), allow_nan=False)
        else:
            with pytest.raises(InputError, match="no run has measured f1_macro"):
                rs.recommend(rows, "f1_macro>=0.8", bootstrap=20, law="logit_chinchilla")
    broken = pd.concat([whole.assign(status="failed"), whole.head(1)])
    assert rs.recommend(broken, "f1_macro>=0.1", bootstrap=20, law="logit_power")["allocation"]["data"] == 500
