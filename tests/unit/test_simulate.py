import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayscale.catalogue import CHINCHILLA, POWER
from rayscale.errors import InputError, TableError
from rayscale.simulate import parse_planted, simulate

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
        ("power:B=1,E=1", "needs also beta"),
        ("power:B=1,E=1,beta=fast", "'beta=fast' in"),
        ("power:B=1,B=2,E=1,beta=1", "comes twice"),
        ("power:B=1,E=nan,beta=1", "E is nan"),
        ("power:B=-1,E=1,beta=1", "B is -1.0"),
        ("", "is not registered"),
    ],
)
def test_a_wrong_text_is_refused_with_the_mend(text, message):
    with pytest.raises(InputError, match=message):
        parse_planted(text)


def test_a_wrong_design_is_refused():
    with pytest.raises(TableError, match="no column 'params'"):
        simulate("chinchilla", TRUE, pd.DataFrame({"data_requested": [1.0]}))
    with pytest.raises(InputError, match="params must be positive"):
        simulate("chinchilla", TRUE, DESIGN.assign(params=0))
    with pytest.raises(InputError, match="noise is -1"):
        simulate("chinchilla", TRUE, DESIGN, noise=-1)
    with pytest.raises(InputError, match="no positive finite value"):
        simulate("chinchilla", {**TRUE, "A": 0.0, "B": 0.0, "E": 0.0}, DESIGN)
