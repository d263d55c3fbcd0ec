import numpy as np
import pandas as pd
import pytest

from rayscale.laws.auto import auto
from rayscale.laws.catalogue import POWER
from rayscale.laws.fit import fit_law
from rayscale.laws.simulation import simulate
from tests.unit.laws.auto.test_weights import table_of

POWERS = {"B": 20.0, "E": 1.0, "beta": 0.4}


def table_of_groups(groups):
    """Power laws of 8 sizes and one held out."""
    return table_of(POWER, POWERS, noise=0.01, groups=groups, seed=3)


def simulated(params):
    """A chinchilla loss of these sizes on 5 sizes of data, two seeds of each."""
    cells = [params, 1e6 * 4.0 ** np.arange(5), [0, 1]]
    design = pd.MultiIndex.from_product(cells, names=["params", "data", "seed"]).to_frame(index=False)
    known = {"A": 400.0, "B": 600.0, "E": 1.7, "alpha": 0.34, "beta": 0.34}
    return simulate("chinchilla", known, design, noise=0.003, seed=0).rename(columns={"eval_loss": "loss"})


def fitted(table):
    return fit_law(table, "auto", target="loss", by="model", holdout="last", bootstrap=20)


def fitted_by_sample(table):
    """The same with the laws weighed on 6 groups."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "MOST_WEIGHED", 6)
        return fitted(table)


@pytest.fixture(scope="module")
def sampled():
    table = table_of_groups(12)
    return table, fitted_by_sample(table)


def test_a_sample_of_many_groups_weighs_the_laws_for_all(sampled):
    table, fit = sampled
    everything = fitted(table)
    for one, other in zip(fit.groups, everything.groups, strict=True):
        assert set(one.weights) == set(other.weights)
        assert {member.law.name for member in one.members} == {law for law, share in one.weights.items() if share}
        assert one.weights == fit.groups[0].weights
        assert sum(one.weights.values()) == pytest.approx(1)
    assert fit.groups[0].weights != everything.groups[0].weights
    assert fit.held_out["rmse_log"] < 1.5 * everything.held_out["rmse_log"]


def test_the_sample_does_not_depend_on_the_order_of_the_rows(sampled):
    table, fit = sampled
    shuffled = fitted_by_sample(table.sample(frac=1.0, random_state=1).reset_index(drop=True))
    for one, other in zip(fit.groups, shuffled.groups, strict=True):
        assert one.by == other.by
        assert one.weights == other.weights
        pd.testing.assert_series_equal(
            one.predictions["predicted"], other.predictions["predicted"], check_index=False, rtol=1e-12
        )


def test_the_rows_left_out_of_groups_are_named_by_their_places_in_the_table():
    table = pd.concat([table_of_groups(3), table_of_groups(1)]).reset_index(drop=True)  # the first group's rows again
    table.loc[12, "loss"] = np.nan
    for law in ("auto", "power"):
        fit = fit_law(table, law, target="loss", by="model", where="data > 500", bootstrap=20)
        dropped = {entry["row"]: entry for group in fit.groups for entry in group.rows_dropped}
        assert set(dropped) == {0, 9, 12, 18, *range(27, 36)}
        assert dropped[12]["reason"] == "loss is missing"
        assert dropped[9]["reason"] == "outside where"
        assert dropped[30] == {"row": 30, "reason": "the same as an earlier row", "same_as": 3}


def test_a_size_that_varies_only_among_the_held_out_rows_is_not_ignored():
    table = simulated(params=[1e7, 1e9])
    fit = fit_law(table, "auto", target="loss", params="params", data="data", holdout="params > 1e8", bootstrap=20)
    assert fit.outcome == "not_identifiable"
    assert ("one_size", "only one value of params") in [(each["code"], each["message"][:24]) for each in fit.warnings]


def test_an_accuracy_of_1_is_left_out_and_the_rest_is_fitted_in_log_odds():
    data = np.repeat(1e3 * 2.0 ** np.arange(8), 2)
    odds = 0.5 * np.log(data / 4e3) + 0.05 * np.random.default_rng(0).normal(size=len(data))
    table = pd.DataFrame({"data": data, "acc": 1 / (1 + np.exp(-odds))})
    table.loc[15, "acc"] = 1.0
    fit = fit_law(table, "auto", target="acc", data="data", bootstrap=20)
    assert fit.rows_dropped == ({"row": 15, "reason": "acc is 1 or more: log odds need less"},)
    assert all(member.law.link == "logit" for member in fit.members)
    assert fit.predict(pd.DataFrame({"data": [1e7]}))["predicted"].item() < 1
    percent = fit_law(table.assign(acc=100 * table["acc"]), "auto", target="acc", data="data", bootstrap=20)
    assert any("percent" in each["message"] for each in percent.warnings)


def test_a_loss_of_1_is_used():
    table = table_of_groups(1)
    table["loss"] /= table["loss"].max()
    fit = fit_law(table, "auto", target="loss", data="data", bootstrap=20)
    assert fit.params
    assert not fit.rows_dropped


@pytest.mark.parametrize(("law", "apart"), [("power", 1e-6), ("auto", 6e-3)])  # seeds also say what is noise
def test_four_seeds_of_one_loss_count_as_one_row_of_weight_4(law, apart):
    table = table_of_groups(4)
    table = table[~table["last"]].assign(worth=1.0).reset_index(drop=True)
    odd = table.groupby("model").tail(1).index
    table.loc[odd, "loss"] *= 1.05
    table.loc[odd, "worth"] = 4.0
    seeds = table.loc[np.repeat(table.index, table["worth"].astype(int))].reset_index(drop=True)
    seeds["seed"] = seeds.index
    options = {"target": "loss", "data": "data", "by": "model", "bootstrap": 50}
    far = pd.DataFrame({"data": [1e6]})
    one, four = (
        [np.log(group.predict(far)["predicted"].item()) for group in fit.groups]
        for fit in (fit_law(table, law, weights="worth", **options), fit_law(seeds, law, **options))
    )
    assert np.abs(np.subtract(one, four)).mean() < apart


def test_whether_a_group_is_fitted_does_not_depend_on_others_too_short():
    table = table_of_groups(2)
    short = table_of_groups(4)
    short = short[short["model"].isin(sorted(short["model"].unique())[2:])].groupby("model").head(2)
    few, more = (
        fit_law(each, "auto", target="loss", by="model", bootstrap=20) for each in (table, pd.concat([table, short]))
    )
    assert [fit.outcome for fit in more.groups][2:] == ["not_identifiable"] * 2
    assert [fit.params for fit in more.groups][:2] == [fit.params for fit in few.groups]
