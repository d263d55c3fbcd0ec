import json

import numpy as np
import pandas as pd
import pytest

from rayscale.laws.auto.discrepancy import Rows, Setting, configurations
from rayscale.laws.auto.evidence import settings_of, weigh
from rayscale.laws.auto.panel import Panel, fit_panel
from rayscale.laws.catalogue import CHINCHILLA, POWER
from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.result import Fit

PARAMS, DATA = np.array([3e4, 1.4e5, 4.7e5]), 3e4 * 2.0 ** np.arange(4)


def study(loss, noise=0.003, seed=0):
    """3 x 4 cells of a loss(params, data), two seeds at the smallest data size."""
    cells = [(n, d) for n in PARAMS for d in DATA for _ in range(2 if d == DATA[0] else 1)]
    table = pd.DataFrame(cells, columns=["params", "data"])
    errors = np.random.default_rng(seed).normal(0, noise, len(table))
    return table.assign(loss=loss(table["params"], table["data"]) * np.exp(errors))


def smooth(params, data):
    return 2 + (params / PARAMS[0]) ** -0.3 + 2 * (data / DATA[0]) ** -0.4


def crossing(params, data):
    return 2 + 1.6 * (data / DATA[-1]) ** -(0.35 + 0.1 * np.log(params / PARAMS[0]))


def fitted(table):
    return fit_law(table, "auto", target="loss", params="params", data="data", bootstrap=300)


def codes(fit):
    return {warning["code"] for warning in fit.warnings}


def test_a_law_that_holds_needs_no_discrepancy_and_one_that_does_not_says_so():
    assert "misspecified" not in codes(fitted(study(smooth)))
    assert "misspecified" in codes(fitted(study(crossing)))


@pytest.mark.parametrize("loss", [smooth, crossing])
def test_intervals_hold_within_and_beyond_the_data(loss):
    inside = []
    for seed in range(8):
        blend = fitted(study(loss, seed=seed))
        asked = pd.DataFrame({"params": PARAMS[[2, 2, 0]], "data": DATA[[3, 3, 3]] * [2, 4, 2]})
        rows, truth = blend.predict(asked), loss(asked["params"], asked["data"])
        inside += ((rows["mean_low"] <= truth) & (truth <= rows["mean_high"])).tolist()
    assert sum(inside) >= 21  # of 24: fewer than one in 40 times by chance at 95%


def test_a_saved_blend_predicts_the_same():
    blend = fitted(study(crossing))
    again = Fit.from_json(json.loads(json.dumps(blend.to_json(), allow_nan=False)))
    asked = pd.DataFrame({"params": PARAMS, "data": DATA[-1] * np.array([0.7, 2.0, 9.0])})
    pd.testing.assert_frame_equal(blend.predict(asked), again.predict(asked), rtol=1e-9)


def test_one_row_is_predicted_as_within_a_table():
    blend = fitted(study(crossing))
    asked = pd.DataFrame({"params": PARAMS[-1], "data": DATA[-1] * np.array([1.0, 2.0, 8.0])})
    alone = pd.concat([blend.predict(asked.iloc[[place]]) for place in range(3)])
    pd.testing.assert_frame_equal(blend.predict(asked), alone, rtol=1e-9)


def evidence(table):
    inputs = {role: table[role].to_numpy(dtype=float) for role in ("params", "data")}
    panel = Panel.of(CHINCHILLA, [(inputs, table["loss"].to_numpy(), np.ones(len(table)))])
    members = [fit_panel(panel, CHINCHILLA)]
    rows, within, degrees = configurations(panel, 0, ["params", "data"], members, np.ones(len(table)))
    return rows, within, degrees, *weigh(panel, 0, members, rows, within, degrees)


def test_seeds_say_what_is_noise():
    rows, within, degrees, versions, factor = evidence(study(crossing, noise=0.002))
    assert (len(rows.target), degrees) == (12, pytest.approx(3.0, abs=0.5))
    assert within < 3 * 0.01**2
    assert factor > 20
    assert sum(share * setting.noise for _, setting, share in versions) < 0.02
    assert sum(share for _, _, share in versions) == pytest.approx(1.0)


def test_a_row_that_all_laws_miss_counts_less():
    table = study(smooth)
    table.loc[4, "loss"] *= 50
    rows, *_ = evidence(table)
    assert rows.weights.min() < 0.05
    far = fitted(table).predict(pd.DataFrame({"params": [PARAMS[-1]], "data": [2 * DATA[-1]]})).iloc[0]
    assert far["predicted"] == pytest.approx(smooth(PARAMS[-1], 2 * DATA[-1]), rel=0.05)


def test_the_discrepancy_is_of_its_size_within_the_data_and_grows_beyond():
    places = np.log(np.array([[n, d] for n in PARAMS for d in DATA]))
    rows = Rows(("params", "data"), places, np.zeros(len(places)), np.ones(len(places)))
    asked = {"params": PARAMS[[1, 1, 1]], "data": DATA[-1] * np.array([1.0, 10.0, 100.0])}
    by_params, by_data, twist, waves = rows.features(asked)
    spread = (by_data**2).sum(1) ** 0.5
    assert 0.1 < spread[0] < 1 < spread[1] < spread[2]
    assert np.ptp(by_params, axis=0).max() == 0.0
    spread = (twist**2).sum(1) ** 0.5
    assert 0 < spread[0] < spread[1] < spread[2]
    np.testing.assert_allclose((waves**2).sum(1), 1.0)
    noise = rows.covariance(Setting(0.1, (0.0, 0.0, 0.0, 0.0)))
    np.testing.assert_allclose(noise, 0.01 * np.eye(len(places)))


def test_groups_with_many_sizes_are_fitted_alone_and_come_back_in_order():
    long, short = study(smooth).assign(group="b"), study(smooth).assign(group="a")
    short = short[short["params"] == PARAMS[0]]
    table = pd.concat([short, long])
    groups = fit_law(table, "auto", target="loss", params="params", data="data", by="group", bootstrap=50).groups
    assert [fit.by["group"] for fit in groups] == ["a", "b"]
    assert [fit.rows_used for fit in groups] == [len(short), len(long)]


def test_a_law_of_data_alone_has_a_discrepancy_too():
    table = study(smooth)
    table = table[table["params"] == PARAMS[0]].drop(columns="params")
    table = pd.concat([table, table.assign(data=table["data"] * 16, loss=table["loss"] * 0.7)])
    blend = fit_law(table, "auto", target="loss", data="data", bootstrap=50)
    assert POWER.inputs == tuple(blend.columns)
    assert blend.estimate.to_json()["versions"]


def test_settings_have_the_weights_of_their_levels():
    levels = (((0.0, 0.25), (0.1, 0.75)), ((0.0, 0.5), (0.02, 0.25), (0.3, 0.25)))
    sizes, weights = settings_of(levels)
    assert sizes[0] == (0.0, 0.0)
    assert weights[0] == pytest.approx(0.125)
    assert weights.sum() == pytest.approx(1.0)
    for axis, part in enumerate(levels):
        for size, weight in part:
            share = sum(w for place, w in zip(sizes, weights, strict=True) if place[axis] == size)
            assert share == pytest.approx(weight, abs=0.03)


def test_each_axis_bends_for_itself():
    curved = study(lambda n, d: 2 + (n / PARAMS[0]) ** -0.3 + 2 * np.exp(-0.1 * np.log(d / DATA[0]) ** 2), noise=1e-4)
    *_, versions, _ = evidence(curved)
    by_params, by_data = np.average(
        [setting.sizes[:2] for _, setting, _ in versions], axis=0, weights=[share for *_, share in versions]
    )
    assert by_data > 1.5 * by_params


def test_models_that_learn_from_data_at_their_own_pace_are_predicted():
    asked = pd.DataFrame({"params": PARAMS, "data": 2 * DATA[-1]})
    for seed in range(3):
        rows = fitted(study(crossing, seed=seed)).predict(asked)
        np.testing.assert_allclose(rows["predicted"], crossing(asked["params"], asked["data"]), rtol=0.06)
        assert (rows["mean_high"] / rows["mean_low"]).max() < 1.35
