import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayscale.errors import InputError, TableError
from rayscale.laws.catalogue import CHINCHILLA, POWER
from rayscale.laws.fitting.coordinates import Coordinates, link
from rayscale.laws.law import Law
from rayscale.laws.simulation import parse_planted, simulate
from rayscale.system.registry import entries, resolve

TRUE = {"A": 60.0, "B": 300.0, "E": 2.5, "alpha": 0.33, "beta": 0.4}
DESIGN = pd.DataFrame(
    [
        {"params": n, "data_requested": d, "gpus": g, "seed": s}
        for n in (8e4, 2.4e5)
        for d in (1e5, 4e5)
        for g in (1, 2)
        for s in (0, 1)
    ]
)


def test_without_noise_the_law_is_met_exactly():
    table = simulate("chinchilla", TRUE, DESIGN, noise=0.0)
    expected = CHINCHILLA.function({"params": DESIGN["params"], "data": DESIGN["data_requested"]}, TRUE)
    np.testing.assert_allclose(table["eval_loss"], expected)
    assert (table["status"] == "ok").all()
    assert table["trial_id"].is_unique


def test_noise_has_the_size_asked_for_and_comes_from_the_seed():
    design = pd.DataFrame({"params": 1e5, "data_requested": 1e5, "seed": range(4000)})
    table = simulate("chinchilla", TRUE, design, noise=0.02, seed=3)
    assert np.log(table["eval_loss"]).std() == pytest.approx(0.02, rel=0.05)
    pd.testing.assert_frame_equal(table, simulate("chinchilla", TRUE, design, noise=0.02, seed=3))
    assert not table["eval_loss"].equals(simulate("chinchilla", TRUE, design, noise=0.02, seed=4)["eval_loss"])


def test_gpus_change_speed_and_not_quality():
    table = simulate("chinchilla", TRUE, DESIGN, noise=0.05)
    pairs = table.pivot(index=["params", "data_requested", "seed"], columns="gpus")
    assert (pairs["eval_loss"][1] == pairs["eval_loss"][2]).all()
    assert (pairs["examples_per_second"][2] > pairs["examples_per_second"][1]).all()


def test_a_share_of_a_gpu_has_that_share_of_its_speed_and_cost():
    whole, shared = (simulate("chinchilla", TRUE, DESIGN.assign(share=share), noise=0.0) for share in (1.0, 0.25))
    assert shared["train_seconds"].to_numpy() == pytest.approx(4 * whole["train_seconds"].to_numpy())
    assert shared["device_seconds"].to_numpy() == pytest.approx(whole["device_seconds"].to_numpy())


def test_the_design_given_is_left_alone():
    before = DESIGN.copy()
    simulate("chinchilla", TRUE, DESIGN)
    pd.testing.assert_frame_equal(DESIGN, before)


@settings(max_examples=30, deadline=None)
@given(values=st.tuples(*[st.floats(0, 1e6, allow_nan=False)] * 5))
def test_a_planted_law_is_read_back_from_its_text(values):
    parameters = dict(zip(CHINCHILLA.names, values, strict=True))
    text = "chinchilla:" + ",".join(f"{name}={value!r}" for name, value in parameters.items())
    assert parse_planted(text) == (CHINCHILLA, parameters)


def test_spaces_are_allowed():
    assert parse_planted(" power : B = 3e2, E=1, beta= .4 ") == (POWER, {"B": 300.0, "E": 1.0, "beta": 0.4})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chinchila:A=1", "'chinchila' is not registered"),
        ("power", "write power:B=..,E=..,beta=.."),
        ("power:B=1,E=1,bta=1", "no parameter 'bta'; did you mean 'beta'"),
        ("power:B=1,E=1", "also needs beta"),
        ("power:B=1,E=1,beta=fast", "'beta=fast' in"),
        ("power:B=1,B=2,E=1,beta=1", "is given twice"),
        ("power:B=1,E=nan,beta=1", "E is nan"),
        ("power:B=-1,E=1,beta=1", "B is -1.0"),
        ("", "is not registered"),
    ],
)
def test_a_wrong_text_is_refused_with_the_mend(text, message):
    with pytest.raises(InputError, match=message):
        parse_planted(text)


LAWS = [resolve("rayscale.laws", entry.name) for entry in entries("rayscale.laws")]
PLANTED = [law for law in LAWS if isinstance(law, Law) and law.result is None and law.name != "auto"]
FULL = pd.DataFrame(
    {
        "params": np.tile([1e6, 1e7, 1e8], 8),
        "data_requested": np.repeat([1e6, 1e7, 1e8, 1e9], 6),
        "unique": np.repeat([1e6, 4e6, 4e7, 1e9], 6),
        "copies": np.tile([0.0, 1.0, 0.0, 2.0], 6),
        "gpus": np.tile([1, 2, 4, 8], 6),
        "loss": np.linspace(4.0, 2.0, 24),
        "seed": 0,
    }
)


def ordinary(law):
    """Natural parameters at the law's middle starts, for the design FULL and a target of about 0.5."""
    inputs = {role: FULL.get("data_requested" if role == "data" else role) for role in law.inputs if role != "compute"}
    coordinates = Coordinates.of(law, {role: np.array(each) for role, each in inputs.items()}, np.full(24, 0.5))
    starts = coordinates.starts()
    return dict(zip(law.names, coordinates.natural(starts[len(starts) // 2]).tolist(), strict=True))


@pytest.mark.parametrize("law", PLANTED, ids=lambda law: law.name)
def test_every_law_can_be_planted(law):
    truth = ordinary(law)
    column = {"loss": "eval_loss"}.get(law.target, law.target)
    table = simulate(law, truth, FULL, noise=0.0)
    inputs = {role: FULL["data_requested" if role == "data" else role].to_numpy(dtype=float) for role in law.inputs}
    np.testing.assert_allclose(table[column], law.function(inputs, truth), rtol=1e-9)
    noisy = simulate(law, truth, FULL, noise=0.05, seed=1)
    moved = link(law.link, noisy[column].to_numpy()) - link(law.link, table[column].to_numpy())
    assert 0.02 < moved.std() < 0.09
    only = FULL[[*("data_requested" if role == "data" else role for role in law.inputs), "seed"]]
    np.testing.assert_allclose(simulate(law, truth, only, noise=0.0)[column], table[column], rtol=1e-9)


def test_the_formula_of_a_user_is_planted_and_compute_is_worked_out():
    table = simulate("E + B * compute ** -beta", {"E": 1.0, "B": 50.0, "beta": 0.2}, DESIGN, noise=0.0)
    compute = 6 * DESIGN["params"] * DESIGN["data_requested"]
    np.testing.assert_allclose(table["eval_loss"], 1 + 50 * compute**-0.2)
    law, found = parse_planted("mine=E + B * data ** -beta:E=1,B=2,beta=0.5")
    assert (law.name, found) == ("mine", {"E": 1.0, "B": 2.0, "beta": 0.5})


def test_what_cannot_be_planted_is_named():
    with pytest.raises(InputError, match="simulate chinchilla and fit isoflop"):
        simulate("isoflop", {"kN": 1.0, "a": 0.5}, DESIGN)
    with pytest.raises(TableError, match="no column 'unique'"):
        simulate("repeated_data", {**TRUE, "RD": 5.0, "RN": 5.0}, DESIGN)
    with pytest.raises(TableError, match="no column 'loss'"):
        simulate("metric_sigmoid", {"floor": 0.1, "top": 0.9, "k": 2.0, "L0": 3.0}, DESIGN)
    free = simulate("rectified", {"B": 9.0, "E": 1.0, "D0": 3.0, "beta": 0.4}, pd.DataFrame({"examples": [0.0, 100.0]}))
    assert (free["eval_loss"] > 0).all()
    with pytest.raises(InputError, match="data must be positive"):
        simulate("power", {"B": 9.0, "E": 1.0, "beta": 0.4}, pd.DataFrame({"examples": [0.0, 100.0]}))


def test_a_wrong_design_is_refused():
    with pytest.raises(TableError, match="no column 'params'"):
        simulate("chinchilla", TRUE, pd.DataFrame({"data_requested": [1.0]}))
    with pytest.raises(InputError, match="params must be positive"):
        simulate("chinchilla", TRUE, DESIGN.assign(params=0))
    with pytest.raises(InputError, match="noise is -1"):
        simulate("chinchilla", TRUE, DESIGN, noise=-1)
    with pytest.raises(InputError, match="no positive finite value"):
        simulate("chinchilla", {**TRUE, "A": 0.0, "B": 0.0, "E": 0.0}, DESIGN)
