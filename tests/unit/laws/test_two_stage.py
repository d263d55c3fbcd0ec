"""A metric by way of the loss: what a fit of two stages predicts, saves, counts and refuses."""

import json

import numpy as np
import pandas as pd
import pytest

from rayscale.errors import InputError, TableError
from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.coordinates import link, unlink
from rayscale.laws.fitting.result import Fit, without_draws
from rayscale.laws.simulation import simulate
from rayscale.laws.two_stage import TwoStage

LOSS = {"A": 400.0, "B": 600.0, "E": 1.7, "alpha": 0.34, "beta": 0.34}
SIZES = {"params": "params", "data": "tokens"}


def accuracy(loss):
    return 0.25 + 0.6 / (1 + np.exp(4 * (loss - 3.4)))


def planted(seed=0, noise=0.03):
    """3 models x 5 data sizes x 2 seeds; the accuracy is flat until the largest of them."""
    cells = [1e7 * 4.0 ** np.arange(3), 1e6 * 4.0 ** np.arange(5), [0, 1]]
    design = pd.MultiIndex.from_product(cells, names=["params", "tokens", "seed"]).to_frame(index=False)
    table = simulate("chinchilla", LOSS, design, noise=0.003, seed=seed)
    odds = link("logit", accuracy(table["eval_loss"])) + noise * np.random.default_rng(seed).normal(size=len(table))
    return table.assign(accuracy=unlink("logit", odds))


FAR = pd.DataFrame({"params": [1.6e8, 1.6e8], "tokens": [5.12e8, 1.024e9]})
FAR_LOSS = (LOSS["E"] + LOSS["A"] * FAR["params"] ** -0.34 + LOSS["B"] * FAR["tokens"] ** -0.34).to_numpy()


def fitted(table, law="chinchilla", **options):
    options = {"target": "accuracy", "through": "eval_loss", "bootstrap": 100, **SIZES, **options}
    return fit_law(table, law, **options)


@pytest.fixture(scope="module")
def fit():
    return fitted(planted())


@pytest.mark.parametrize("law", ["auto", "chinchilla"])
def test_what_the_loss_says_is_nearer_than_the_curve_of_the_metric(law):
    table, truth = planted(), accuracy(FAR_LOSS)
    predicted = fitted(table, law).predict(FAR)
    by_itself = fit_law(table, "auto", target="accuracy", bootstrap=100, **SIZES).predict(FAR)
    miss, other = (np.abs(each["predicted"] - truth) for each in (predicted, by_itself))
    assert (miss < 0.3 * other).all()
    assert (predicted["mean_low"] < truth).all()
    assert (truth < predicted["mean_high"]).all()


def test_it_is_a_fit_of_both_stages(fit):
    assert isinstance(fit, TwoStage)
    assert [*fit.params] == ["A", "B", "E", "alpha", "beta", "floor", "top", "k", "L0"]
    assert [*fit.params] == [*fit.intervals] == [*fit.standard_errors]
    assert np.shape(fit.covariance) == (9, 9)
    assert [(stage.target, stage.rows_used) for stage in fit.stages] == [("eval_loss", 30), ("accuracy", 30)]
    assert fit.formula.startswith("accuracy = floor + ")
    assert "(eval_loss - L0)" in fit.formula
    assert "; eval_loss = E + A * params" in fit.formula
    value, low, high = fit.change({"params": 1e8, "data": 1e8}, {"params": 1e8, "data": 2e8})
    assert low < value < high


def test_the_saved_fit_predicts_the_same(fit):
    saved = json.loads(json.dumps(fit.to_json(), allow_nan=False))
    again = Fit.from_json(saved)
    assert isinstance(again, TwoStage)
    assert again.formula == fit.formula
    pd.testing.assert_frame_equal(again.predict(FAR), fit.predict(FAR))
    assert json.loads(json.dumps(again.to_json(), allow_nan=False)) == saved


def test_a_saved_blend_of_the_loss_predicts_the_same():
    fit = fitted(planted(), "auto")
    assert fit.weights
    again = Fit.from_json(json.loads(json.dumps(fit.to_json(), allow_nan=False)))
    pd.testing.assert_frame_equal(again.predict(FAR), fit.predict(FAR))


def test_a_new_run_is_less_sure_by_the_noise_of_its_loss_and_of_its_metric(fit):
    predicted = fit.predict(FAR)
    assert (predicted["low"] < predicted["mean_low"]).all()
    assert (predicted["mean_high"] < predicted["high"]).all()
    estimate, inputs = fit.estimate, {"params": FAR["params"].to_numpy(), "data": FAR["tokens"].to_numpy()}
    assert estimate.noise == pytest.approx(0.03, rel=0.4)
    assert (estimate.reach_of_runs(inputs) > 1.96 * estimate.noise).all()


def test_every_row_is_used_held_out_or_dropped():
    table = planted()
    table.loc[0, "accuracy"] = np.nan  # its loss is used
    table.loc[1, "eval_loss"] = np.nan  # then its metric says nothing
    table.loc[2, "tokens"] = np.nan  # its metric and loss are used
    table.loc[9, "accuracy"] = np.nan  # held out, but not measured
    table.loc[[10, 11], "accuracy"] = 1.0  # no log odds
    fit = fitted(table, where="params < 1e8", holdout="tokens > 2e8")
    held = table[(table["tokens"] > 2e8) & (table["params"] < 1e8)]
    dropped = {entry["row"]: entry["reason"] for entry in fit.rows_dropped}
    outside = dict.fromkeys(range(20, 30), "outside where")
    assert dropped == {1: "eval_loss is missing", 9: "accuracy is missing"} | outside
    assert len(held) == 4
    assert fit.held_out["n"] == 3
    assert fit.rows_used + fit.held_out["n"] + len(dropped) == len(table)
    assert [*fit.predictions.index] == [8, 18, 19]
    assert fit.predictions["predicted"].between(0, 1).all()
    ones = [entry["row"] for entry in fit.stages[1].rows_dropped if "log odds" in entry["reason"]]
    assert ones == [10, 11]
    assert "accuracy: 2 rows of 1 are not used; log odds need less" in [each["message"] for each in fit.warnings]


def test_groups_each_have_two_stages():
    table = pd.concat([planted(seed).assign(task=f"t{seed}") for seed in range(2)], ignore_index=True)
    table.loc[35, "accuracy"] = np.nan
    table.loc[36, "eval_loss"] = np.nan
    grouped = fitted(table, by="task", holdout="tokens > 2e8")
    assert [fit.by for fit in grouped.groups] == [{"task": "t0"}, {"task": "t1"}]
    assert [fit.rows_used for fit in grouped.groups] == [24, 23]
    assert [[entry["row"] for entry in fit.rows_dropped] for fit in grouped.groups] == [[], [36]]
    assert grouped.held_out["n"] == 12


def test_the_outcome_is_the_worse_one_and_warnings_name_their_stage():
    fit = fitted(planted(), "power", params=None)
    assert fit.outcome == max((stage.outcome for stage in fit.stages), key=[*type(fit.outcome)].index)
    assert all(warning["message"].startswith(("eval_loss: ", "accuracy: ")) for warning in fit.warnings)
    one = planted()
    one = fitted(one[one["tokens"] == 1e6])
    assert one.outcome == "not_identifiable"
    assert not one.params
    assert any(warning["message"].startswith("eval_loss: only one value") for warning in one.warnings)
    with pytest.raises(InputError, match="predicts nothing"):
        one.predict(FAR)
    assert Fit.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False))).outcome == "not_identifiable"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"loss": "eval_loss"}, "named twice"),
        ({"law": "metric_sigmoid"}, "takes a loss"),
        ({"law": "isoflop"}, "predicts no loss"),
        ({"law": "two_stage"}, "is a law of log odds"),
        ({"law": "logit_chinchilla"}, "law of log odds"),
        ({"law": "E + k * data ** -beta"}, "parameter 'k'"),
        ({"target": "eval_loss"}, "both the target and the loss"),
        ({"target": "percent"}, "write a metric in percent as a fraction"),
        ({"target": "some_below_1"}, "is above 1, up to 80; write a metric in percent as a fraction"),
        ({"target": "one"}, "no value of 'one' is below 1"),
        ({"through": "nothing"}, "no column 'nothing'"),
    ],
)
def test_what_cannot_be_two_stages_is_refused_in_words(options, says):
    table = planted()
    table = table.assign(percent=100 * table["accuracy"], some_below_1=np.linspace(0.5, 80, len(table)), one=1.0)
    with pytest.raises((InputError, TableError), match=says):
        fitted(table, **options)


@pytest.mark.parametrize("columns", [{}, SIZES, {"params": "params"}])
def test_two_stage_is_no_law_to_name(columns):
    with pytest.raises(InputError, match="through"):
        fit_law(planted(), "two_stage", target="accuracy", **columns)


def test_weights_are_those_of_both_stages(fit):
    table = planted().assign(runs=1.0)
    same = fitted(table, weights="runs")
    assert (same.params, same.intervals, same.weighted_by) == (fit.params, fit.intervals, "runs")
    assert [stage.weighted_by for stage in same.stages] == ["runs", "runs"]
    table.loc[3, "runs"] = 0
    less = fitted(table, weights="runs", holdout="params > 1e8")
    assert {"row": 3, "reason": "runs is zero"} in less.rows_dropped
    assert less.rows_used + len(less.rows_dropped) + len(less.predictions) == len(table)
    assert Fit.from_json(json.loads(json.dumps(less.to_json()))).weighted_by == "runs"


def test_a_fit_printed_without_draws_has_none_in_its_stages(fit):
    short = without_draws(fit.to_json())
    assert '"draws": [' not in json.dumps(short)
    with pytest.raises(InputError, match="printed without its draws"):
        Fit.from_json(short).predict(FAR)
