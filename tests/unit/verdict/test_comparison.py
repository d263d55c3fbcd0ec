"""Two studies in pairs: what is paired, what is not and why, and what the pairs say."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest

import rayscale as rs
from rayscale.errors import InputError
from rayscale.laws.auto.blend import Blend, blended
from rayscale.laws.fitting.result import Fit
from rayscale.report.terminal.comparison import compare_lines
from rayscale.runs.folder import load
from rayscale.verdict.comparison import compare_runs
from tests.unit import made_study

ONE = made_study.trials(0)


def test_a_shift_is_found_with_its_interval_and_its_wins() -> None:
    better = ONE.assign(f1_macro=ONE["f1_macro"] + 0.02 + np.linspace(-0.001, 0.001, len(ONE)),
                        device_seconds=ONE["device_seconds"] * 1.5,
                        examples_per_second=ONE["examples_per_second"] / 1.25)  # fmt: skip
    found = rs.compare(ONE, better)
    assert (found["target"], found["pairs"], found["cells"]) == ("f1_macro", 60, 80)
    gap = found["difference"]
    assert gap["value"] == pytest.approx(0.02, abs=1e-4)
    assert 0.019 < gap["low"] < gap["value"] < gap["high"] < 0.021
    assert found["wins"] == {"first": 0, "second": 60, "ties": 0}
    assert found["cost"]["value"] == pytest.approx(1.5)
    assert found["speed"]["value"] == pytest.approx(0.8)
    assert found["unpaired"] == []
    other = rs.compare(better, ONE)
    assert other["difference"]["value"] == pytest.approx(-gap["value"])
    assert other["wins"]["first"] == 60


def test_a_lower_loss_wins_and_a_study_ties_with_itself() -> None:
    found = rs.compare(ONE, ONE.assign(eval_loss=ONE["eval_loss"] * 1.01), target="eval_loss")
    assert (found["direction"], found["wins"]["first"]) == ("lower", 60)
    assert found["relative"]["value"] == pytest.approx(1.0)
    same = rs.compare(ONE, ONE)
    assert same["wins"] == {"first": 0, "second": 0, "ties": 60}


def test_metrics_counted_by_different_rules_are_not_held_against_each_other_in_silence() -> None:
    strict, lenient = (ONE.assign(metric_signature=f"entities|{rules}") for rules in ("BMES|strict", "IOB2|conll"))
    better = lenient.assign(f1_macro=lenient["f1_macro"] + 0.02)
    found = rs.compare(strict, better, target="f1_macro")
    assert found["signatures"] == {"first": ["entities|BMES|strict"], "second": ["entities|IOB2|conll"]}
    text = " ".join(compare_lines(found, ("a", "b")))
    assert "counted by different rules, so they cannot be compared" in text
    assert "the first by 'entities|BMES|strict'; the second by 'entities|IOB2|conll'" in text
    assert rs.compare(strict, better, target="eval_loss")["signatures"] is None
    assert rs.compare(strict, strict, target="f1_macro")["signatures"] is None
    text = " ".join(compare_lines(rs.compare(ONE, strict, target="f1_macro"), ("a", "b")))
    assert "the first by rules that it does not record" in text


def test_the_same_loss_at_more_gpus_is_no_second_pair() -> None:
    noisy = made_study.trials(1)
    one_gpu = rs.compare(ONE[ONE["gpus"] == 1], noisy[noisy["gpus"] == 1])
    both = rs.compare(ONE, noisy)
    assert both["pairs"] == one_gpu["pairs"] == 60
    assert both["difference"] == one_gpu["difference"]


def test_every_cell_without_a_partner_is_listed_with_its_reason() -> None:
    first, second = ONE.copy(), ONE.copy()
    first["error"] = first["error"].astype(object)
    first.loc[0, ["status", "error"]] = ["failed", "out of memory"]
    second.loc[4, "f1_macro"] = np.nan
    second = second[second["data_requested"] != 8000]
    found = rs.compare(first, second)
    reasons = [each["reason"] for each in found["unpaired"]]
    assert reasons.count("only in the first study") == 16
    assert reasons.count("failed: out of memory in the first study") == 1
    assert reasons.count("has no f1_macro in the second study") == 1
    assert found["cells"] + 1 + 1 + 16 == len(ONE)
    assert {"model", "data_requested", "gpus", "seed"} <= set(found["unpaired"][0])
    json.dumps(found, allow_nan=False)


def test_augmentations_are_paired_across_studies_and_kept_apart_within_one() -> None:
    augmented = ONE.assign(augment="synonyms", f1_macro=ONE["f1_macro"] + 0.01)
    assert rs.compare(ONE, augmented)["pairs"] == 60
    import pandas as pd

    whole = pd.concat([ONE, augmented])
    found = rs.compare(whole, whole)
    assert found["pairs"] == 120
    assert found["unpaired"] == []


def test_what_cannot_be_paired_is_refused_with_the_counts() -> None:
    with pytest.raises(InputError, match="80 cells only in the first study"):
        rs.compare(ONE, ONE.assign(model=ONE["model"] + "-x"))
    with pytest.raises(InputError, match="did you mean 'f1_macro'"):
        rs.compare(ONE, ONE, target="f1_makro")
    with pytest.raises(InputError, match="second study's table: no column 'seed'"):
        rs.compare(ONE, ONE.drop(columns="seed"))
    with pytest.raises(InputError, match="no measured metric in common"):
        rs.compare(ONE, ONE.assign(f1_macro=np.nan, eval_loss=np.nan))


def test_one_pair_has_no_interval() -> None:
    found = rs.compare(ONE.head(1), ONE.head(1).assign(f1_macro=0.9))
    assert found["difference"]["low"] is None
    assert any("one pair does not show" in line for line in compare_lines(found, ("a", "b"), 120))


def test_laws_differ_where_they_predict_differently(tmp_path) -> None:
    def study(name: str, factor: float, seed: int):
        trials = made_study.trials(seed, models=("tiny", "base"), noise=0.02)
        run = load(made_study.write_run(tmp_path / name, trials))
        fit = rs.fit_law(trials.assign(eval_loss=trials["eval_loss"] * factor), "chinchilla", params="params",
                         data="examples", target="eval_loss", bootstrap=100)  # fmt: skip
        run.store.write("fit.json", json.dumps({"fits": [fit.to_json()], "verdict": {}}).encode())
        return run

    one, same, other = study("one", 1.0, 0), study("same", 1.0, 1), study("other", 1.3, 2)
    law = compare_runs(one, same)["laws"][0]
    assert law["differ"] is False
    assert [each["data"] for each in law["predictions"]] == [8000.0, 16000.0]
    told = " ".join(" ".join(compare_lines(compare_runs(one, same), ("one", "same"), 60)).split())
    assert "are not told apart by these trials, which does not mean that they predict the same" in told
    twin = " ".join(" ".join(compare_lines(compare_runs(one, one), ("one", "one"), 60)).split())
    assert "within 1%" not in twin, "their intervals are wider"
    found = compare_runs(one, other)
    law = found["laws"][0]
    assert law["differ"] is True
    assert law["predictions"][0]["ratio"] == pytest.approx(1.3, rel=0.05)
    assert {each["name"] for each in law["parameters"]} == {"A", "B", "E", "alpha", "beta"}
    lines = compare_lines(found, ("one", "other"), 60)
    assert max(map(len, lines)) <= 60
    assert "predict differently" in " ".join(" ".join(lines).split())
    other.store.write("fit.json", b'{"fits": [], "verdict": {}}')
    assert "rayscale report" in compare_runs(one, other)["laws_note"]


def test_parameters_of_different_laws_are_not_held_against_each_other() -> None:
    def blend(law: str) -> Fit:
        """A combination whose heaviest member is `law`."""
        fit = rs.fit_law(ONE[ONE["model"] == "base"], law, data="examples", target="eval_loss", bootstrap=50)
        same = {each.name: getattr(fit, each.name) for each in fields(Fit)}
        return Blend(**{**same, "law": blended(fit.law, {law: 1.0}, ["data"], "log"), "members": (fit,)})

    power, shifted = blend("power"), blend("shifted")
    law = rs.compare(ONE, ONE, fits=([power], [shifted]))["laws"][0]
    assert law["parameters"] == []
    assert "power in the first study, shifted in the second" in law["note"]
    assert isinstance(law["differ"], bool)
    text = " ".join(" ".join(compare_lines(rs.compare(ONE, ONE, fits=([power], [shifted])), ("a", "b"), 120)).split())
    assert "power in the first study" in text
    assert "no parameter differs for certain" not in text
    same = rs.compare(ONE, ONE, fits=([power], [power]))["laws"][0]
    assert {each["name"] for each in same["parameters"]} == {"B", "E", "beta"}
    assert "note" not in same
