"""Every law of the catalogue goes through the same fit: found again in its own table, never a NaN from a bad one."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayscale.laws import catalogue
from rayscale.laws.fit import fit_law
from rayscale.laws.law import Law

LAWS = {value.name: value for value in vars(catalogue).values() if isinstance(value, Law)}
TRUTHS = {
    "power": {"B": 30.0, "E": 1.2, "beta": 0.3},
    "chinchilla": {"A": 60.0, "B": 300.0, "E": 2.5, "alpha": 0.33, "beta": 0.4},
    "chinchilla_rectified": {"A": 60.0, "B": 500.0, "E": 2.5, "D0": 150.0, "alpha": 0.33, "beta": 0.45},
    "chinchilla_tied": {"A": 60.0, "B": 100.0, "E": 2.5, "alpha": 0.33},
    "multiplicative": {"A": 150.0, "E": 1.2, "alpha": 0.12, "beta": 0.2},
    "rectified": {"B": 500.0, "E": 1.0, "D0": 150.0, "beta": 0.45},
    "saturating": {"B": 40.0, "E": 1.0, "D1": 2e5, "beta": 0.3},
    "chinchilla_saturating": {"A": 60.0, "B": 300.0, "E": 2.5, "D1": 2e5, "alpha": 0.33, "beta": 0.4},
    "shifted": {"B": 40.0, "E": 1.0, "D0": 3000.0, "beta": 0.3},
    "bnsl": {"A": 3.0, "E": 0.8, "c0": 0.05, "c1": 0.4, "d1": 2e5, "f1": 0.5},
    "repeated_data": {"A": 60.0, "B": 300.0, "E": 2.5, "alpha": 0.33, "beta": 0.4, "RD": 12.0, "RN": 5.0},
    "transfer": {"k": 0.5, "a": 0.2, "b": 0.4},
    "metric_sigmoid": {"floor": 0.25, "top": 0.9, "k": 3.0, "L0": 2.5},
    "logit_power": {"B": 40.0, "T": 2.0, "beta": 0.3},
    "logit_chinchilla": {"A": 40.0, "B": 60.0, "T": 3.0, "alpha": 0.25, "beta": 0.4},
    "speedup": {"X1": 120.0, "sigma": 0.04, "kappa": 0.001},
    "amdahl": {"X1": 120.0, "sigma": 0.04},
    "ratio": {"k": 1e-4},
}
TRUTHS |= {
    name: {each: value for each, value in TRUTHS[name.removesuffix(catalogue.SUFFIX)].items() if each != "E"}
    for name in LAWS if name.endswith(catalogue.SUFFIX)
}  # fmt: skip
# What a table without noise pins down to 1%: the far ends of a ridge (RN, f1, D0) need not be among it.
SHARP = {name: set(truth) - {"RN", "f1", "A", "c0", "c1", "d1"} for name, truth in TRUTHS.items()}


def design(law):
    params, data, repeats = np.meshgrid(1e5 * 3.0 ** np.arange(4), 1e3 * 4.0 ** np.arange(7), [1.0, 4.0, 16.0])
    table = pd.DataFrame({"params": params.ravel(), "unique": data.ravel(), "data": (data * repeats).ravel()})
    table["gpus"] = 2.0 ** (np.arange(len(table)) % 7)
    table["loss"] = np.linspace(1.5, 4.0, len(table))
    return table.drop_duplicates(list(law.inputs)).reset_index(drop=True)


def planted(law, noise=0.0, seed=0):
    table = design(law)
    truth = law.function({role: table[role].to_numpy() for role in law.inputs}, TRUTHS[law.name])
    return table.assign(y=truth * np.exp(np.random.default_rng(seed).normal(0, noise, len(table))))


def roles(law):
    return {role: role for role in law.inputs}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_a_law_is_recovered_from_its_own_table(law):
    table = planted(law)
    fit = fit_law(table, law.name, target="y", bootstrap=3, **roles(law))
    assert fit.rows_used == len(table)
    assert fit.outcome in ("converged", "flat", "at_bound")
    np.testing.assert_allclose(fit.predict(table)["predicted"], table["y"], rtol=1e-3)
    sharp = SHARP[law.name]
    assert {name: fit.params[name] for name in sharp} == pytest.approx(
        {name: TRUTHS[law.name][name] for name in sharp}, rel=0.02
    )


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_noise_gives_an_interval_around_the_truth_and_a_json_that_predicts_the_same(law):
    table = planted(law, noise=0.002)
    if law.link == "logit":
        table["y"] = table["y"].clip(upper=0.999)
    fit = fit_law(table, law.name, target="y", bootstrap=60, **roles(law))
    found = fit.predict(table)
    truth = planted(law)["y"]
    inside = (found["mean_low"] <= truth) & (truth <= found["mean_high"])
    assert inside.mean() > 0.6
    assert (found["high"] / found["low"]).between(1.002, 1.5).all()
    saved = json.loads(json.dumps(fit.to_json(), allow_nan=False))
    pd.testing.assert_frame_equal(type(fit).from_json(saved).predict(table), found)


anything = st.one_of(
    st.sampled_from([0.0, -1.0, 1.0, 2.0, 1e308, 5e-324, np.nan, np.inf]), st.floats(1e-3, 1e3), st.floats(0.01, 0.99)
)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(*[anything] * 6), max_size=14),
    law=st.sampled_from(sorted(LAWS)),
)
def test_garbage_gives_an_outcome_and_never_nan(rows, law):
    table = pd.DataFrame(rows, columns=["params", "data", "unique", "gpus", "loss", "y"], dtype=float)
    fit = fit_law(table, law, target="y", bootstrap=3, **roles(LAWS[law]))
    assert fit.rows_used + len(fit.rows_dropped) == len(table)
    json.dumps(fit.to_json(), allow_nan=False)
    if fit.estimate is not None:
        asked = {role: [1.0, 50.0] for role in LAWS[law].inputs}
        assert np.isfinite(fit.predict(pd.DataFrame(asked)).to_numpy()).all()


def test_zero_data_is_used_by_a_law_that_takes_it_and_dropped_by_one_that_does_not():
    law = LAWS["shifted"]
    data = np.array([0.0, *200 * 2.0 ** np.arange(10)])
    table = pd.DataFrame({"data": data, "y": law.function({"data": data}, TRUTHS["shifted"])})
    fit = fit_law(table, "shifted", target="y", bootstrap=5)
    assert fit.rows_used == 11
    assert fit.predict(table)["predicted"].to_numpy() == pytest.approx(table["y"].to_numpy(), rel=1e-3)
    assert fit.predict(table)["extrapolation"].tolist() == [1.0] * 11
    dropped = fit_law(table, "power", target="y", bootstrap=5).rows_dropped
    assert dropped == ({"row": 0, "reason": "data is zero"},)


def test_an_accuracy_of_one_has_no_log_odds():
    table = planted(LAWS["logit_power"])
    table.loc[3, "y"] = 1.0
    fit = fit_law(table, "logit_power", target="y", bootstrap=5)
    assert fit.rows_dropped == ({"row": 3, "reason": "y is 1 or more: log odds need less"},)
    assert (fit.predict(table.assign(data=1e30))["high"] < 1).all()


def test_repeated_data_fits_better_than_published_and_its_ridge_is_flagged(shared_data):
    table = pd.read_csv(shared_data / "laws" / "repeated_data.csv")
    fit = fit_law(table, "repeated_data", params="params", data="tokens", unique="unique_tokens", target="loss",
                  bootstrap=50)  # fmt: skip
    assert fit.objective <= 0.0158047
    ridges = [each["message"] for each in fit.warnings if each["code"] == "flat_ridge"]
    assert any("RD" in each for each in ridges)


def test_many_rows_that_determine_a_law_show_no_ridge():
    law = LAWS["chinchilla"]
    fit = fit_law(planted(law, noise=0.01), "chinchilla", target="y", bootstrap=50, **roles(law))
    assert fit.outcome == "converged"


def test_parameters_that_are_trained_are_a_size_of_the_joint_law_of_fine_tuning():
    ranks, data = np.meshgrid(4.0 ** np.arange(1, 5), 500 * 2.0 ** np.arange(6))
    table = pd.DataFrame({"params": 1e8, "params_trained": 18_432 * ranks.ravel(), "examples": data.ravel()})
    sizes = {"params": table["params_trained"], "data": table["examples"]}
    law = LAWS["multiplicative"]
    table["eval_loss"] = law.function(sizes, TRUTHS["multiplicative"])
    fit = fit_law(table, law, params="params_trained", data="examples", target="eval_loss", bootstrap=3)
    assert fit.params == pytest.approx(TRUTHS["multiplicative"], rel=1e-3)
    assert fit.columns == {"params": "params_trained", "data": "examples"}
