"""Single figures: what they show, what they say about it, and when there is none."""

from __future__ import annotations

import base64

import numpy as np
import pandas as pd
import pytest

from rayscale.report.figures.chart import sign
from rayscale.report.figures.evidence import gather
from rayscale.report.figures.loss import loss_against_data, loss_against_size, metrics_against_data
from rayscale.report.figures.residuals import held_out, residual_rows
from rayscale.report.figures.speed import speed_against_gpus
from rayscale.verdict.speedup import speed_pairs, timed_alone


def refuse(saved, rows):
    raise AssertionError("there is no law to predict from")


def svg(drawn) -> str:
    return base64.b64decode(drawn.wide.partition(",")[2]).decode()


@pytest.fixture
def gathered(simulated):
    """Evidence of a table without a fit."""
    return lambda table: gather(simulated.study(), table.reset_index(drop=True), None)


def test_rising_loss_is_not_called_falling(simulated, gathered):
    table = simulated.trials(gpus=(1,))
    table.loc[(table["model"] == "gpt2-2x32") & (table["data_requested"] == 800_000), "eval_loss"] = 9.0
    assert (
        loss_against_data(gathered(table), refuse).caption == "More data does not steadily lower the loss of gpt2-2x32."
    )


def test_one_data_size_says_nothing_about_more(simulated, gathered):
    drawn = loss_against_data(gathered(simulated.trials(sizes=(100_000,))), refuse)
    assert drawn.caption.startswith("Only one data size was run")


def test_a_percentage_whose_law_is_of_fractions_is_drawn_as_these(simulated):
    table = simulated.trials("sequence-classification", gpus=(1,)).assign(chrf=lambda rows: 100 * rows["accuracy"])
    evidence = gather(simulated.study(), table.reset_index(drop=True), {"fits": [{"target": "chrf / 100"}]})
    assert (evidence.target, evidence.quantity, evidence.lower) == ("chrf / 100", "chrf / 100", False)
    drawn = loss_against_data(evidence, refuse)
    assert drawn.title == "Chrf / 100 against data"
    assert loss_against_size(evidence, refuse).caption.startswith("The largest model is best")


def test_a_smaller_model_may_be_best(simulated, gathered):
    table = simulated.trials(gpus=(1,))
    table.loc[table["model"] == "gpt2-2x64", "eval_loss"] *= 0.5
    assert loss_against_size(gathered(table), refuse).caption.startswith("gpt2-2x64, not the largest model, is best")


def test_the_metrics_shown_are_those_that_tell_most_of_the_task(simulated):
    table = simulated.trials("sequence-classification", gpus=(1,), failed=0)
    empty = dict.fromkeys(("accuracy", "f1_macro", "perplexity"))
    measured = {
        "question-answering": ("exact_match", "f1_words"), "seq2seq": ("exact_match", "chrf"),
        "token-classification": ("accuracy", "f1_micro"), "causal-lm": ("perplexity",),
    }  # fmt: skip
    told = {}
    for task, columns in measured.items():
        values = {name: table["accuracy"] * (100 if name == "chrf" else 1) for name in columns}
        rules = "entities|IOB2|conll" if task == "token-classification" else None
        mine = table.assign(**empty | values, metric_signature=rules)
        drawn = metrics_against_data(gather({"task": {"type": task}}, mine, None))
        told[task] = drawn and (drawn.title, drawn.caption.partition(" (")[0])
    best = table["accuracy"].max()
    assert told == {
        "question-answering": ("Exact match and F1 of words", f"The best run reaches F1 of words {best:.3f}"),
        "seq2seq": ("Exact match and chrF", f"The best run reaches chrF {100 * best:.1f}"),
        "token-classification": ("Accuracy and entity F1", f"The best run reaches entity F1 {best:.3f}"),
        "causal-lm": None,
    }


@pytest.mark.parametrize("aim", ["eval_loss", "accuracy"])
@pytest.mark.parametrize("rules", ["single tags", None])
def test_f1_of_single_tags_is_not_called_that_of_entities(simulated, rules, aim):
    table = simulated.trials("sequence-classification", gpus=(1,), failed=0)
    table = table.assign(task="token-classification", f1_micro=table["accuracy"], metric_signature=rules)
    study = {"task": {"type": "token-classification"}, "target": aim}
    drawn = metrics_against_data(gather(study, table, None))
    assert drawn is None or "ntity" not in drawn.title + drawn.caption + drawn.alt


def test_figures_need_something_to_show(simulated, gathered):
    failed = gathered(simulated.trials(failed=100))
    assert loss_against_data(failed, refuse) is None
    assert loss_against_size(failed, refuse) is None
    assert loss_against_size(gathered(simulated.trials(models={"only": 81_000})), refuse) is None
    one = simulated.trials(gpus=(1,))
    assert speed_against_gpus(gathered(one), one, {}) is None
    assert held_out(failed, {}) is None
    assert held_out(failed, {"n": 0, "note": "one size", "rivals": {"constant": {"rmse_log": 0.1}}}) is None


def test_speed_counts_only_runs_that_were_alone_and_pairs_like_with_like(simulated):
    table = simulated.trials(gpus=(1, 2, 4), failed=0)
    rows = timed_alone(table)
    assert rows["exclusive"].all()
    assert len(rows) < len(table)
    pairs = speed_pairs(rows)
    assert set(pairs["to"]) == {2, 4}
    assert len(pairs) == 2 * 3 * 4, "one pair per step, model and data size; seed 0 alone ran exclusively"
    assert np.exp(pairs["log_ratio"]).between(1.2, 2.2).all()
    assert timed_alone(table.assign(exclusive=None)).empty


def test_three_gpu_counts_have_two_steps(simulated, gathered):
    table = simulated.trials(gpus=(1, 2, 4))
    step = {"from": 2, "to": 4, "value": 1.6, "low": None, "high": None, "unit": "times"}
    drawn = speed_against_gpus(gathered(table), table, {**step, "curve": [step]})
    assert "1 to 2" in svg(drawn)
    assert "2 to 4" in svg(drawn)
    assert drawn.caption == "Twice the GPUs give 1.60 times the speed; the ideal is 2."


def test_speed_without_a_ratio_gives_the_reason(simulated, gathered):
    table = simulated.trials()
    drawn = speed_against_gpus(gathered(table), table, {"value": None, "note": "no two runs alike"})
    assert drawn.caption == "No two runs alike."


def test_residuals_are_logs_of_measured_over_predicted(simulated):
    table = simulated.trials(gpus=(1,), failed=0)
    law = {"target": "eval_loss", "outcome": "converged", "params": {"E": 4.0}, "estimate": {"noise": 0.1}}
    evidence = gather(simulated.study(), table, {"fits": [law]})
    rows = residual_rows(evidence, lambda saved, rows: pd.DataFrame({"predicted": [1.0] * len(rows)}))
    assert len(rows) == len(table)
    assert rows["residual"].gt(1.0).all()


def test_held_out_compares_with_rivals(gathered, simulated):
    check = {"law": "power", "n": 3, "rmse_log": 0.02, "data": 800_000, "unit": "tokens",
             "rivals": {"constant": {"rmse_log": 0.1}}}  # fmt: skip
    drawn = held_out(gathered(simulated.trials()), check)
    assert drawn.caption.replace("\u00a0", " ") == (
        "Fitted without 800 k tokens, a power law for each model misses these runs by 2.0%; "
        "the best rival misses by 10%."
    )
    assert "the last value kept: 10%" in svg(drawn)


def test_many_models_stay_apart():
    assert len({(sign(place)["color"], sign(place)["marker"]) for place in range(64)}) == 64
