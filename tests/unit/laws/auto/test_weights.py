import json

import numpy as np
import pandas as pd
import pytest

from rayscale.errors import InputError
from rayscale.laws.auto.blend import Blend
from rayscale.laws.auto.panel import Panel
from rayscale.laws.auto.weights import choose, suited, trends, trials
from rayscale.laws.catalogue import POWER, RECTIFIED
from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.held_out import nearest_kept
from rayscale.laws.fitting.result import Fit

SIZES = 500.0 * 2.0 ** np.arange(9)


def table_of(law, parameters, noise=0.005, groups=6, seed=0, sizes=SIZES):
    """One curve per group, parameters a little different in each; the largest size is `last`."""
    rng, rows = np.random.default_rng(seed), []
    for group in range(groups):
        own = {name: value * np.exp(0.1 * rng.normal()) for name, value in parameters.items()}
        target = law.function({"data": sizes}, own) * np.exp(noise * rng.normal(size=len(sizes)))
        rows += [{"model": f"m{group}", "data": size, "loss": value} for size, value in zip(sizes, target, strict=True)]
    table = pd.DataFrame(rows)
    return table.assign(last=table["data"] == sizes[-1])


@pytest.fixture(scope="module")
def blended():
    table = table_of(RECTIFIED, {"B": 200.0, "E": 0.9, "D0": 60.0, "beta": 0.45})
    return table, fit_law(table, "auto", target="loss", by="model", holdout="last", bootstrap=100)


def test_laws_suit_the_inputs_there_are():
    names = {law.name for law in suited(["data"], below_one=False)}
    assert {"power", "rectified", "shifted", "bnsl", "power_without_E"} <= names
    assert not names & {"chinchilla", "logit_power", "isoflop", "auto", "amdahl", "metric_sigmoid"}
    assert {law.name for law in suited(["params"], below_one=False)} == names
    assert {law.name for law in suited(["data"], below_one=True)} == names | {"logit_power"}
    joint = {law.name for law in suited(["params", "data"], below_one=False)}
    assert {"chinchilla", "multiplicative"} <= joint
    assert not joint & {"transfer", "power"}
    assert {law.name for law in suited(["gpus"], below_one=False)} == {"speedup", "amdahl"}
    assert "repeated_data" in {law.name for law in suited(["params", "data", "unique"], below_one=False)}
    with pytest.raises(InputError, match="no law takes"):
        suited(["loss", "gpus"], below_one=False)


def test_laws_that_cannot_go_the_way_of_the_target_are_left_out():
    rises = {law.name for law in suited(["params", "data"], True, {"params": 1, "data": 1})}
    assert rises == {"logit_chinchilla"}
    falls = {law.name for law in suited(["size"], True, {"size": -1})}
    assert {"power", "rectified", "bnsl"} <= falls
    assert "logit_power" not in falls
    assert {law.name for law in suited(["data"], True, {"data": 0})} == falls | {"logit_power"}
    grid = {"params": np.repeat([1.0, 2, 4], 3), "data": np.tile([1.0, 2, 4], 3)}
    assert trends([(grid, grid["params"] / grid["data"])]) == {"params": 1, "data": -1}
    assert trends([({"data": SIZES}, np.abs(np.arange(9.0) - 4) + 1)]) == {"data": 0}


def test_a_metric_on_a_small_grid_is_foretold_to_rise_and_stays_below_one():
    sizes, data = (each.ravel() for each in np.meshgrid([4e6, 1e7, 3e7], [1e4, 4e4, 1.6e5]))

    def metric(n, d):
        return 1 / (1 + np.exp(40 * n**-0.3 + 60 * d**-0.4 - 2.5))

    table = pd.DataFrame({"params": sizes, "data": data, "f1": metric(sizes, data)})
    found = fit_law(table, "auto", target="f1", params="params", data="data", bootstrap=50)
    far = pd.DataFrame({"params": [3e7, 3e9], "data": [6.4e5, 1e9]})
    foretold = found.predict(far)
    assert abs(foretold["predicted"][0] - metric(3e7, 6.4e5)) < 0.03
    assert (foretold["predicted"] < 1).all()
    percent = fit_law(table.assign(f1=100 * table["f1"]), "auto", target="f1", params="params", data="data")
    assert percent.outcome == "not_identifiable"
    assert "as a fraction" in percent.warnings[0]["message"]


def test_without_cuts_the_better_fit_weighs_more_and_a_needless_parameter_costs():
    wide, rng = SIZES[:3] * np.array([1, 4, 16]), np.random.default_rng(0)
    truth = {"B": 20.0, "E": 1.5, "beta": 0.3}
    made = [({"data": wide}, POWER.function({"data": wide}, truth) * np.exp(0.002 * rng.normal(size=3)), np.ones(3))
            for _ in range(6)]  # fmt: skip
    choice = choose(Panel.of(POWER, made), suited(["data"], False), ["data"], np.full(6, 0.002))
    assert choice.cuts == 0
    assert choice.weights["power"] > choice.weights["bnsl"]
    assert choice.weights["power"] > choice.weights["power_without_E"]


def test_cuts_ask_only_for_sizes_larger_than_all_that_are_kept():
    curves = [({"data": SIZES}, 3 / SIZES**0.1, np.ones(9)), ({"data": SIZES[:5]}, 3 / SIZES[:5] ** 0.1, np.ones(5))]
    panel = Panel.of(POWER, curves)
    found = trials(panel, ["data"])
    assert [int(trial.kept[0].sum()) for trial in found] == [6, 7, 8]
    assert [int(trial.kept[1].sum()) for trial in found] == [3, 4, 5]  # two cuts, then it is kept whole
    for trial in found:
        for curve in range(2):
            asked = trial.asked[curve] >= 0
            assert not (asked & trial.kept[curve]).any()
            if asked.any():
                kept = panel.inputs["data"][curve][trial.kept[curve]]
                assert panel.inputs["data"][curve][asked].min() > kept.max()


def test_the_law_that_made_the_curves_weighs_more_than_one_that_cannot_follow_them():
    table = table_of(RECTIFIED, {"B": 200.0, "E": 0.9, "D0": 60.0, "beta": 0.6}, noise=0.002)
    curves = [({"data": SIZES}, rows["loss"].to_numpy(), np.ones(9)) for _, rows in table.groupby("model")]
    choice = choose(Panel.of(POWER, curves), [POWER, RECTIFIED], ["data"], np.full(6, 0.002))
    assert choice.weights["rectified"] > 0.9
    assert sum(choice.weights.values()) == pytest.approx(1)
    assert np.nanmax(choice.skill) < 0.5


def test_a_blend_foretells_what_it_has_not_seen(blended):
    _, found = blended
    assert found.held_out["n"] == 6
    assert found.held_out["rmse_log"] < 0.03
    assert found.held_out["covered"] >= 5 / 6
    for group in found.groups:
        assert group.law.name == "auto"
        assert sum(group.weights.values()) == pytest.approx(1)
        assert [member.law.name for member in group.members] == sorted(
            (name for name, share in group.weights.items() if share), key=lambda name: -group.weights[name]
        )
        assert group.params == group.members[0].params
        assert set(group.standard_errors) == set(group.intervals) == set(group.params)


def test_a_blend_lies_among_its_members_and_its_interval_holds_their_spread(blended):
    _, found = blended
    group = found.groups[0]
    far = pd.DataFrame({"data": [SIZES[0], SIZES[7], SIZES[7] * 64]})
    each = np.array([member.predict(far)["predicted"] for member in group.members])
    blend = group.predict(far)
    assert (each.min(0) <= blend["predicted"]).all()
    assert (blend["predicted"] <= each.max(0)).all()
    width = np.log(blend["mean_high"] / blend["mean_low"]).to_numpy()
    assert width[2] > width[1]
    shares = np.array([group.weights[member.law.name] for member in group.members])
    spread = np.sqrt(np.average((np.log(each[:, 2]) - np.log(blend["predicted"][2])) ** 2, weights=shares))
    assert width[2] > 2 * spread
    assert (blend["low"] <= blend["mean_low"]).all()
    assert (blend["mean_high"] <= blend["high"]).all()
    value, low, high = group.change({"data": 1e4}, {"data": 2e4})
    assert low <= value <= high < 0


def test_a_saved_blend_is_read_back_and_predicts_the_same(blended):
    _, found = blended
    group = found.groups[0]
    text = json.dumps(group.to_json(), allow_nan=False)
    read = Fit.from_json(json.loads(text))
    assert isinstance(read, Blend)
    assert read.law.name == "auto"
    far = pd.DataFrame({"data": [1e3, 1e6]})
    pd.testing.assert_frame_equal(read.predict(far), group.predict(far))
    assert read.to_json() == group.to_json()
    with pytest.raises(InputError, match="not a fit saved by rayscale"):
        Fit.from_json({"law": "auto"})


def test_the_order_of_rows_and_the_units_change_no_prediction(blended):
    table, found = blended
    shuffled = table.sample(frac=1, random_state=3).assign(data=lambda rows: rows["data"] * 1e6)
    again = fit_law(shuffled, "auto", target="loss", by="model", holdout="last", bootstrap=100)
    first = found.predictions.sort_values("model")["predicted"].to_numpy()
    np.testing.assert_allclose(again.predictions.sort_values("model")["predicted"], first, rtol=1e-6)


def test_a_curve_that_turns_is_followed_where_it_turned():
    rng = np.random.default_rng(0)
    size = SIZES / SIZES[0]
    loss = np.where(size < 50, 3 * size**-0.2, 3 * 50**-0.2 * (size / 50) ** 0.25) * np.exp(0.003 * rng.normal(size=9))
    blend = fit_law(pd.DataFrame({"data": SIZES, "loss": loss}), "auto", target="loss", bootstrap=200)
    next_loss = 3 * 50**-0.2 * (2 * size[-1] / 50) ** 0.25
    row = blend.predict(pd.DataFrame({"data": [2 * SIZES[-1]]})).iloc[0]
    assert row["low"] < next_loss < row["high"]
    assert row["predicted"] > loss[-1]


@pytest.mark.parametrize("law", ["power", "auto"])
def test_a_law_that_held_out_rows_refute_is_called_misspecified(law):
    rng = np.random.default_rng(0)
    turned = np.where(np.arange(9) > 6, 2.5, 0.0)
    loss = (1 + 40 / SIZES**0.4 + turned) * np.exp(0.003 * rng.normal(size=9))
    table = pd.DataFrame({"data": SIZES, "loss": loss})
    found = fit_law(table, law, target="loss", holdout=f"data > {SIZES[6]}", bootstrap=50)
    assert "misspecified" in {each["code"] for each in found.warnings}
    sound = table.assign(loss=loss - turned)
    found = fit_law(sound, law, target="loss", holdout=f"data > {SIZES[6]}", bootstrap=50)
    assert "misspecified" not in {each["code"] for each in found.warnings}


def test_the_constant_of_many_curves_is_the_nearest_row():
    kept = {"params": np.array([1e6, 1e6, 1e8, 1e8]), "data": np.array([1e3, 1e5, 1e3, 1e5])}
    asked = {"params": np.array([1e6, 1e8]), "data": np.array([1e7, 1e7])}
    np.testing.assert_allclose(np.exp(nearest_kept(kept, np.array([4.0, 3.0, 2.0, 1.0]), asked)), [3.0, 1.0])


def test_a_short_group_borrows_where_others_are_sound_and_is_refused_alone():
    table = table_of(POWER, {"B": 20.0, "E": 1.5, "beta": 0.3}, noise=0.002)
    short = (table["model"] == "m0") & (table["data"] > SIZES[2])
    borrowed = fit_law(table[~short], "auto", target="loss", by="model", bootstrap=50).groups[0]
    assert borrowed.rows_used == 3
    assert "few_points" in {each["code"] for each in borrowed.warnings}
    truth = table[(table["model"] == "m0") & table["last"]]
    assert abs(np.log(borrowed.predict(truth)["predicted"] / truth["loss"]).iloc[0]) < 0.15
    alone = fit_law(table[~short & (table["model"] == "m0")].head(2), "auto", target="loss", bootstrap=50)
    assert alone.outcome == "not_identifiable"
    assert alone.params == {}
    assert "few_points" in {each["code"] for each in alone.warnings}
    json.dumps(alone.to_json(), allow_nan=False)
    assert Fit.from_json(alone.to_json()).outcome == "not_identifiable"
    with pytest.raises(InputError, match="predicts nothing"):
        alone.predict(truth)


def test_a_lone_curve_of_few_sizes_is_refused_or_fitted_by_laws_with_fewer_parameters_than_it_has_sizes():
    loss = 1.5 + 20 / SIZES**0.3
    table = pd.DataFrame({"data": SIZES, "loss": loss})
    for count in (3, 4):
        found = fit_law(table.head(count), "auto", target="loss", bootstrap=50)
        assert found.outcome == "not_identifiable"
        assert "few_points" in {each["code"] for each in found.warnings}
    found = fit_law(table.head(5), "auto", target="loss", bootstrap=50)
    assert found.members
    assert all(len(member.law.names) < 5 for member in found.members)


def test_wrong_rows_leave_the_other_groups_and_a_long_curve_their_intervals():
    far = pd.DataFrame({"data": [8 * SIZES[-1]]})

    def widths(found):
        return [float(np.log(each["mean_high"] / each["mean_low"]).iloc[0]) for each in found]

    table = table_of(POWER, {"B": 20.0, "E": 1.5, "beta": 0.3}, groups=5)
    table.loc[22, "loss"] *= 100
    groups = fit_law(table, "auto", target="loss", by="model", bootstrap=100).groups
    assert max(widths(group.predict(far) for group in groups)) < 0.2
    rng = np.random.default_rng(0)
    sizes = np.repeat(np.geomspace(500, 1.3e5, 20), 5)
    loss = (2 + 30 * sizes**-0.4) * np.exp(0.01 * rng.normal(size=100))
    loss[rng.choice(100, 10, replace=False)] *= 100
    found = fit_law(pd.DataFrame({"data": sizes, "loss": loss}), "auto", target="loss", bootstrap=100)
    assert widths([found.predict(far)])[0] < 0.5
    assert found.estimate.noise < 0.02
    assert found.predict(far)["predicted"].iloc[0] == pytest.approx(2 + 30 * (8 * SIZES[-1]) ** -0.4, rel=0.05)


@pytest.mark.parametrize(
    ("outcome", "code", "loss"),
    [
        ("at_bound", "at_bound", 3 * np.exp(0.02 * np.random.default_rng(0).normal(size=9))),
        (
            "flat",
            "flat_ridge",
            (2 + (SIZES / SIZES[0]) ** -0.3) * np.exp(0.03 * np.random.default_rng(2).normal(size=9)),
        ),
    ],
)
def test_a_blend_that_is_not_sure_names_the_parameter_and_counts_its_heaviest_laws_starts(outcome, code, loss):
    found = fit_law(pd.DataFrame({"data": SIZES, "loss": loss}), "auto", target="loss", bootstrap=50)
    assert found.outcome == outcome
    message = next(each["message"] for each in found.warnings if each["code"] == code)
    names = message.split(" of ")[0].split(", ")
    assert set(names) <= set(found.params)
    assert (found.starts, found.starts_at_best) == (found.members[0].starts, found.members[0].starts_at_best)
    assert 1 <= found.starts_at_best <= found.starts <= 4


def test_no_row_vanishes_and_a_size_of_one_value_is_left_out():
    table = table_of(POWER, {"B": 20.0, "E": 1.5, "beta": 0.3}, groups=3)
    table["params"] = table["model"].map({"m0": 1e6, "m1": 2e6, "m2": 4e6})
    zero = pd.DataFrame([{"model": "m1", "data": 0.0, "loss": 9.0, "last": False, "params": 2e6}])
    found = fit_law(pd.concat([table, zero]), "auto", params="params", data="data", target="loss", by="model",
                    holdout="last", bootstrap=50)  # fmt: skip
    assert found.groups[1].rows_dropped == ({"row": len(table), "reason": "data is zero"},)
    assert all(group.columns == {"data": "data"} for group in found.groups)
    assert [group.rows_used + group.held_out["n"] for group in found.groups] == [9, 9, 9]


def test_copies_of_a_row_are_one_measurement():
    table = table_of(POWER, {"B": 20.0, "E": 1.5, "beta": 0.3}, groups=1)
    once = fit_law(table, "auto", target="loss", holdout="last", bootstrap=200)
    thrice = fit_law(pd.concat([table] * 3), "auto", target="loss", holdout="last", bootstrap=200)
    foretold = [fit.predictions["predicted"].iloc[0] for fit in (once, thrice)]
    np.testing.assert_allclose(*foretold, rtol=1e-6)
    np.testing.assert_allclose(thrice.estimate.noise, once.estimate.noise, rtol=1e-3)
