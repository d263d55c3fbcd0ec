import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayscale.errors import InputError
from rayscale.laws.formula import find_law, find_user_law
from rayscale.laws.simulation import simulate
from rayscale.report.rebuild import with_sentences
from rayscale.runs.ledger import COLUMNS
from rayscale.verdict.metric_law import INTERVALS, quality
from rayscale.verdict.prediction import predict
from rayscale.verdict.targets import Goal
from rayscale.verdict.verdict import conclude, law_line

TRUE = {"A": 60.0, "B": 300.0, "E": 2.5, "alpha": 0.33, "beta": 0.4}


def law(params, data):
    return TRUE["E"] + TRUE["A"] * params ** -TRUE["alpha"] + TRUE["B"] * data ** -TRUE["beta"]


def study(sizes=(8e4, 2.4e5, 6.7e5), data=(1e5, 2e5, 4e5, 8e5), gpus=(1, 2), seeds=2, noise=0.01, seed=0):
    design = [
        {"params": n, "data_requested": d, "gpus": g, "seed": s}
        for n in sizes
        for d in data
        for g in gpus
        for s in range(seeds)
    ]
    return simulate("chinchilla", TRUE, pd.DataFrame(design), noise=noise, seed=seed)


def settle(trials, **changes):
    settings = {
        "data_axis": "tokens",
        "target": "eval_loss",
        "reach": None,
        "bootstrap": 60,
    }
    settings |= changes
    found = with_sentences(conclude(trials, **settings), "causal-lm", settings["data_axis"])
    assert json.loads(json.dumps(found, allow_nan=False)) is not None
    return found


def text_of(found):
    return " ".join(found["verdict"]["sentences"])


@pytest.fixture(scope="module")
def whole():
    return settle(study(noise=0.003, seed=1), reach=4.2, bootstrap=200)


def test_the_fits_are_auto_and_chinchilla_over_all_and_power_for_each_model(whole):
    named = [(fit["law"], (fit.get("by") or {}).get("params"), fit["target"]) for fit in whole["fits"]]
    over_models = [(law, None, "eval_loss") for law in ("auto", "chinchilla")]
    assert named == over_models + [("power", n, "eval_loss") for n in (8e4, 2.4e5, 6.7e5)]
    assert all(fit["outcome"] == "converged" for fit in whole["fits"])


def test_gains_of_doubling_hold_the_truth(whole):
    doubling = whole["verdict"]["doubling"]
    here = law(6.7e5, 8e5)
    for axis, after in (("data", law(6.7e5, 1.6e6)), ("params", law(1.34e6, 8e5))):
        gain = doubling[axis]
        assert gain["low"] < gain["value"] < gain["high"] < 0
        assert gain["low"] < 100 * (after / here - 1) < gain["high"]
        assert (gain["unit"], gain["extrapolation"]) == ("%", 2.0)
    assert doubling["gpus"]["value"] == pytest.approx(1.8)
    assert doubling["gpus"]["quality"]["value"] == pytest.approx(0.0)
    assert "speed changes, quality does not" in text_of(whole)


def test_a_run_at_two_gpu_counts_counts_once_and_every_row_is_accounted_for(whole):
    chinchilla = whole["fits"][0]
    assert (chinchilla["rows_used"], len(chinchilla["rows_dropped"])) == (24, 24)
    assert {each["reason"] for each in chinchilla["rows_dropped"]} == {"the same seed at more GPUs; counted once"}


def test_an_unreached_target_says_how_much_data_the_law_asks_for(whole):
    aim = whole["verdict"]["target"]
    assert (aim["reached"], whole["verdict"]["cheapest"]) == (False, None)
    truth = ((4.2 - TRUE["E"] - TRUE["A"] * 6.7e5 ** -TRUE["alpha"]) / TRUE["B"]) ** (-1 / TRUE["beta"])
    assert aim["needed"]["low"] < truth < (aim["needed"]["high"] or np.inf)
    assert aim["needed"]["extrapolation"] == pytest.approx(aim["needed"]["value"] / 8e5)
    assert "× the largest size measured." in whole["verdict"]["sentences"][0]


def test_a_target_below_the_asymptote_is_said_to_be_out_of_reach():
    found = settle(study(), reach=2.0)
    assert found["verdict"]["target"]["needed"] is None
    limit = found["verdict"]["target"]["limit"]
    assert limit["data"] == 8e6
    assert limit["low"] < law(6.7e5, 8e6) < limit["high"]
    assert "within 10 times the data measured" in text_of(found)


def test_the_cheapest_allocation_reaches_the_target_on_the_mean_of_its_seeds():
    trials = study()
    reach = 5.2
    found = settle(trials, reach=reach, price_gpu_hour=2.0, currency="EUR")
    cheapest = found["verdict"]["cheapest"]
    cells = trials.groupby(["params", "data_requested", "gpus"])[["eval_loss", "device_seconds"]].mean()
    best = cells[cells["eval_loss"] <= reach]["device_seconds"].idxmin()
    assert (cheapest["params"], cheapest["data"], cheapest["gpus"]) == best
    hours = cells.loc[best, "device_seconds"] / 3600
    assert cheapest["gpu_hours"]["value"] == pytest.approx(hours)
    assert (cheapest["money"]["value"], cheapest["money"]["unit"]) == (pytest.approx(2 * hours), "EUR")
    assert cheapest["trial_id"] in set(trials["trial_id"])


def with_accuracy(trials, noise=0.03):
    """The trials with an accuracy that rises with data and model size, in log odds, and ends at 0.95."""
    odds = 3.0 - 3.0 * (trials["examples"] / 500) ** -0.4 - 0.5 * (trials["params"] / 8e4) ** -0.4
    wobble = np.random.default_rng(0).normal(0, noise, len(trials))
    return trials.assign(accuracy=1 / (1 + np.exp(-(odds + wobble))))


def confident(trials):
    """The trials with a loss that rises again beyond 2,000 examples."""
    loss = 1.0 + 0.1 * np.abs(np.log(trials["examples"] / 2000)) + 0.02 * (trials["seed"] == 1)
    return trials.assign(eval_loss=loss)


ACCURATE = {"sizes": (8e4, 2.4e5, 6.7e5), "data": (500, 1000, 2000, 4000, 8000), "gpus": (1,)}


@pytest.fixture(scope="module")
def overconfident():
    return settle(confident(with_accuracy(study(**ACCURATE))), data_axis="examples", target="accuracy", reach=0.9,
                  bootstrap=200)  # fmt: skip


def test_the_targets_own_law_leads_where_the_loss_rises_again(overconfident):
    verdict, quantities = overconfident["verdict"], {fit["target"] for fit in overconfident["fits"]}
    assert quantities == {"accuracy"}, "no law of the loss holds"
    assert verdict["leading"] == {
        "target": "accuracy",
        "why": "The verdict rests on accuracy, the study's target: beyond 2,000 examples the test loss rises again, "
        "and accuracy still improves.",
    }
    assert verdict["sentences"][1] == verdict["leading"]["why"]
    assert verdict["held_out"]["law"] == "auto"
    assert verdict["held_out"]["rmse_log"] < 0.03


def test_gains_of_a_metric_are_in_points_and_hold_the_truth(overconfident):
    here = pd.DataFrame({"examples": [8000.0, 16000.0, 8000.0], "params": [6.7e5, 6.7e5, 1.34e6]})
    truth = 100 * with_accuracy(here, noise=0)["accuracy"]
    for axis, after in (("data", truth[1]), ("params", truth[2])):
        gain = overconfident["verdict"]["doubling"][axis]
        assert (gain["unit"], gain["model"]) == ("points", "planted-670000")
        assert gain["low"] < after - truth[0] < gain["high"]
    assert "raises the accuracy of planted-670000 by" in text_of(overconfident)
    assert " points (95% interval" in text_of(overconfident)


def test_the_data_that_a_metric_needs_is_where_its_own_law_rises_to_it(overconfident):
    needed = overconfident["verdict"]["target"]["needed"]
    sizes = np.geomspace(8000, 80_000, 2000)
    truth = with_accuracy(pd.DataFrame({"examples": sizes, "params": 6.7e5}), noise=0)["accuracy"]
    assert needed["law"] == "auto"
    assert needed["low"] < sizes[np.argmax(truth >= 0.9)] < (needed["high"] or np.inf)


def test_predictions_of_a_run_are_of_what_its_verdict_rests_on(overconfident):
    prediction = predict(json.loads(json.dumps(overconfident)), params=6.7e5, data=16_000)
    truth = with_accuracy(pd.DataFrame({"examples": [16_000.0], "params": [6.7e5]}), noise=0)["accuracy"][0]
    assert prediction["target"] == "accuracy"
    assert prediction["low"] < truth < prediction["high"] < 1
    older = {**overconfident, "verdict": {}}
    with pytest.raises(InputError, match="no law over model sizes"):
        predict(older, params=6.7e5, data=16_000)


def test_a_loss_that_falls_is_shown_after_the_metric():
    trials = with_accuracy(study(**ACCURATE))
    found = settle(trials, data_axis="examples", target="accuracy")
    quantities = [fit["target"] for fit in found["fits"]]
    assert quantities == sorted(quantities)
    assert set(quantities) == {"accuracy", "eval_loss"}
    assert found["verdict"]["leading"]["why"] == "The verdict rests on accuracy, the study's target."


def test_a_metric_too_short_for_a_law_leaves_the_loss_to_lead_and_says_why():
    trials = with_accuracy(study(**ACCURATE))
    trials.loc[trials["examples"] > 500, "accuracy"] = np.nan
    found = settle(trials[trials["seed"] == 0], data_axis="examples", target="accuracy", reach=0.99)
    leading = found["verdict"]["leading"]
    assert leading["target"] == "eval_loss"
    assert leading["why"].startswith("The verdict rests on the test loss, since no law of accuracy can be fitted: ")
    assert found["verdict"]["doubling"]["data"]["unit"] == "%"
    assert found["verdict"]["target"]["note"] == "no law of accuracy predicts how much data would reach it"
    assert leading["why"] in found["verdict"]["sentences"]


def test_a_study_of_the_loss_needs_no_reason(whole):
    assert whole["verdict"]["leading"] == {"target": "eval_loss", "why": None}


def test_percentages_are_fitted_as_fractions_and_laws_in_log_odds_are_the_metrics():
    trials = with_accuracy(study(**ACCURATE)).assign(chrf=lambda rows: 100 * rows["accuracy"])
    laws = [find_law("logit_chinchilla"), find_law("chinchilla")]
    found = settle(trials, data_axis="examples", target="chrf", reach=90.0, laws=laws)
    assert [(fit["law"], fit["target"]) for fit in found["fits"]] == [
        ("logit_chinchilla", "chrf / 100"),
        ("chinchilla", "eval_loss"),
    ]
    assert found["verdict"]["target"]["needed"]["value"] > 8000
    assert "the chrf of planted-670000 by" in text_of(found)


def test_a_metric_is_reached_from_below():
    trials = with_accuracy(study(**ACCURATE))
    reached = settle(trials, reach=0.8, data_axis="examples", target="accuracy")["verdict"]
    assert reached["cheapest"]["accuracy"]["value"] >= 0.8
    assert reached["target"]["direction"] == "higher"


def test_no_interval_of_a_measured_metric_leaves_its_scale():
    trials = study(gpus=(1,))
    for metric, top in (("f1_micro", 1.0), ("chrf", 100.0)):
        trials[metric] = top * np.where(trials["seed"] == 0, 0.95, 0.99)
        best = settle(trials, target=metric)["verdict"]["target"]["best"]
        assert (best["value"], best["high"]) == (pytest.approx(0.97 * top), top)
        assert 0 < best["low"] < 0.9 * top


def test_perplexity_and_bits_come_from_the_law_of_the_loss(whole):
    trials = study(noise=0.003, seed=1)
    trials["bits_per_character"] = 0.4 * trials["eval_loss"]
    units = (("perplexity", np.exp(4.2)), ("bits_per_token", 4.2 / np.log(2)), ("bits_per_character", 1.68))
    for target, reach in units:
        aim = settle(trials, target=target, reach=float(reach))["verdict"]["target"]
        assert aim["needed"]["value"] == pytest.approx(whole["verdict"]["target"]["needed"]["value"], rel=1e-6)


@pytest.mark.parametrize(("metric", "reach"), [("bits_per_token", 6.2), ("bits_per_character", 1.85)])
def test_verdict_and_recommendation_agree_on_bits_whatever_the_tokenizers(metric, reach):
    trials = study(gpus=(1,))
    trials["bits_per_character"] = trials["eval_loss"] * trials["params"].map({8e4: 0.4, 2.4e5: 0.43, 6.7e5: 0.46})
    aim = settle(trials, target=metric, reach=reach, laws=[find_law("chinchilla")])["verdict"]["target"]
    needed = np.array([aim["needed"]["value"]])
    by_bits, by_loss = (
        quality(trials, Goal(name, reach), "tokens", law="chinchilla", bootstrap=60).predict(aim["best_model"], needed)
        for name in (metric, "eval_loss")
    )
    assert by_bits["predicted"][0] == pytest.approx(reach, rel=1e-3)
    mine = trials[trials["model"] == aim["best_model"]]
    unit = (mine[metric] / mine["eval_loss"]).iloc[0]
    for name in INTERVALS:
        assert by_bits[name][0] == pytest.approx(unit * by_loss[name][0], rel=1e-6)


def test_the_held_out_largest_size_is_foretold_better_than_by_its_rivals():
    found = settle(study(data=(1e5, 2e5, 4e5, 8e5, 1.6e6)))
    held = found["verdict"]["held_out"]
    assert (held["law"], held["n"], held["data"]) == ("auto", 6, 1.6e6)
    assert held["rmse_log"] < held["rivals"]["constant"]["rmse_log"]
    assert set(held["rivals"]) == {"chinchilla", "power", "constant"}
    assert found["fits"][0]["held_out"]["rmse_log"] == held["rmse_log"]


def test_a_law_worse_than_a_constant_is_called_misspecified():
    trials = study(noise=0.001)
    trials.loc[trials["tokens"] == 8e5, "eval_loss"] = trials.loc[trials["tokens"] == 4e5, "eval_loss"].to_numpy()
    codes = {each["code"] for each in settle(trials)["fits"][0]["warnings"]}
    assert "misspecified" in codes


def test_held_out_runs_outside_their_intervals_make_the_law_misspecified():
    trials = study(noise=0.001)
    last = trials["tokens"] == 8e5
    trials.loc[last, "eval_loss"] *= 0.97  # better than the last value kept, and nowhere near the interval
    found = settle(trials)
    held = found["verdict"]["held_out"]
    assert held["covered"] < 0.5
    assert held["rmse_log"] < held["rivals"]["constant"]["rmse_log"]
    said = {each["message"] for each in found["fits"][0]["warnings"] if each["code"] == "misspecified"}
    assert any("held-out runs lie in their 95% interval" in message for message in said)
    assert "so its intervals are too narrow" in text_of(found)
    assert not settle(study())["verdict"]["held_out"]["too_narrow"]


def test_speed_counts_only_runs_that_had_the_machine_to_themselves():
    trials = study()
    shared = trials["gpus"] == 2
    trials.loc[shared, "exclusive"] = False
    gain = settle(trials)["verdict"]["doubling"]["gpus"]
    assert gain["value"] is None
    assert "had the machine to themselves" in gain["note"]
    trials.loc[shared & (trials["seed"] == 0), "exclusive"] = True
    assert settle(trials)["verdict"]["doubling"]["gpus"]["pairs"] == 12


def test_a_change_of_quality_by_gpus_is_reported():
    trials = study()
    trials.loc[trials["gpus"] == 2, "eval_loss"] *= 1.02
    found = settle(trials)
    assert found["verdict"]["doubling"]["gpus"]["quality"]["value"] == pytest.approx(2.0)
    assert "look into it" in text_of(found)


def test_three_gpu_counts_give_a_curve_and_a_saved_speed():
    found = settle(study(gpus=(1, 2, 4), seeds=1))
    curve = found["verdict"]["doubling"]["gpus"]["curve"]
    assert [(step["from"], step["to"]) for step in curve] == [(1, 2), (2, 4)]
    assert predict(found, params=1e6, data=1e6, gpus=4)["speedup"] == pytest.approx(3.4)
    assert predict(found, params=1e6, data=1e6, gpus=8)["speedup"] is None


def test_augmented_and_failed_runs_are_left_out_with_their_reason():
    trials = study()
    trials.loc[trials["seed"] == 1, "augment"] = "syn"
    trials.loc[0, "status"] = "failed"
    reasons = {each["row"]: each["reason"] for each in settle(trials)["fits"][0]["rows_dropped"]}
    assert reasons[0] == "status failed"
    assert reasons[1] == "augmented; the law is fitted to augment none"


def test_one_model_size_gives_its_own_law_and_says_what_is_missing():
    found = settle(study(sizes=(8e4,)))
    assert [fit["law"] for fit in found["fits"]] == ["power"]
    assert found["verdict"]["doubling"]["data"]["value"] < 0
    assert found["verdict"]["doubling"]["params"]["note"] == "only one model size was run"
    assert predict(found, params=8e4, data=1e6)["law"] == "power"
    with pytest.raises(InputError, match="none for 90000 parameters"):
        predict(found, params=9e4, data=1e6)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(st.integers(0, 47), max_size=30, unique=True), metric=st.sampled_from(["eval_loss", "accuracy"]))
def test_any_part_of_a_study_gives_a_verdict(rows, metric):
    trials = study().assign(accuracy=0.7)
    found = settle(trials.iloc[rows], target=metric, reach=0.9, bootstrap=10)
    assert len(found["verdict"]["sentences"]) >= 4
    assert not re.search(r"\b(nan|None|inf)\b", text_of(found))


def test_an_empty_table_of_the_ledger_gives_a_verdict():
    empty = pd.DataFrame({column: pd.Series(dtype=object) for column in COLUMNS})
    found = settle(empty)
    assert found["fits"] == []
    assert "no trial has finished" in text_of(found)
    assert law_line(empty, "tokens") is None


def test_a_table_with_null_columns_and_whole_numbers_gives_a_verdict():
    trials = study().astype({"params": "Int64", "tokens": "Int64", "gpus": "Int64", "exclusive": "boolean"})
    trials["accuracy"] = None
    trials.loc[len(trials)] = {"trial_id": "x", "status": "failed", "model": "planted-80000"}
    found = settle(trials, target="accuracy", reach=0.9)
    assert found["verdict"]["target"]["note"] == "no finished trial has measured accuracy"
    assert found["fits"][0]["outcome"] == "converged"


def test_predictions_from_the_saved_file_are_those_of_the_fit(whole):
    saved = json.loads(json.dumps(whole))
    found = predict(saved, params=6.7e5, data=3.2e6)
    assert found["low"] < found["mean_low"] < found["predicted"] < found["mean_high"] < found["high"]
    assert found["low"] < law(6.7e5, 3.2e6) < found["high"]
    assert found["extrapolation"] == pytest.approx(4.0)
    assert predict(saved["fits"][0], params=6.7e5, data=3.2e6) == found
    far = predict(saved, params=6.7e5, data=8e7)
    assert "far_extrapolation" in {each["code"] for each in far["warnings"]}
    with pytest.raises(InputError, match="must be positive"):
        predict(saved, params=-1, data=8e7)


def test_the_law_so_far_is_one_line():
    assert law_line(study(), "tokens").startswith("twice the data: -")
    assert law_line(study().head(3), "tokens") is None


def test_an_unknown_data_axis_is_refused():
    with pytest.raises(InputError, match="examples or tokens"):
        settle(study(), data_axis="words")


def test_the_verdict_rests_on_the_laws_that_the_study_names():
    mine = find_user_law("mine", {"formula": "E + A * params ** -a * data ** -b"})
    sizes = tuple(1e5 * 2**k for k in range(7))
    found = settle(study(noise=0.003, data=sizes), laws=[mine, find_law("rectified")])
    assert [fit["law"] for fit in found["fits"]] == ["mine", "rectified", "rectified", "rectified"]
    assert {found["verdict"]["doubling"][role]["law"] for role in ("data", "params")} == {"mine"}
    assert found["verdict"]["held_out"]["law"] == "mine"
    assert set(found["verdict"]["held_out"]["rivals"]) == {"rectified", "constant"}


def test_a_law_over_something_else_is_no_law_of_a_loss():
    with pytest.raises(InputError, match="speedup is a law over gpus"):
        settle(study(), laws=[find_law("speedup")])
