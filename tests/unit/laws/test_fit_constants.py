"""Sizes that do not vary, rows that no fit predicts, and what held-out rows say of a law."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rayscale.errors import TableError
from rayscale.laws.fit import fit_law


def curves() -> pd.DataFrame:
    """Two models, a power law in the data each."""
    rng = np.random.default_rng(0)
    rows = [
        {"model": name, "N": n, "D": d, "loss": (1 + 30 * d**-0.4 + 1e3 / n) * np.exp(rng.normal(0, 0.003))}
        for name, n in (("a", 1e3), ("b", 4e3)) for d in np.geomspace(100, 1e5, 8)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_size_that_is_the_same_within_a_curve_may_be_named() -> None:
    named = fit_law(curves(), "power", by="model", params="N", data="D", target="loss", bootstrap=20)
    plain = fit_law(curves(), "power", by="model", data="D", target="loss", bootstrap=20)
    assert [dict(each.params) for each in named.groups] == [dict(each.params) for each in plain.groups]
    assert all(each.columns == {"data": "D"} for each in named.groups)


def test_a_size_that_varies_on_one_curve_is_refused() -> None:
    with pytest.raises(TableError, match="power takes data; leave params out"):
        fit_law(curves(), "power", params="N", data="D", target="loss", bootstrap=20)


def test_held_out_rows_of_a_group_that_is_refused_do_not_vanish() -> None:
    table = curves()
    table = pd.concat([table, pd.DataFrame([{"model": "c", "N": 9e3, "D": d, "loss": 2.0} for d in (100.0, 1e5)])])
    found = fit_law(table, "power", by="model", data="D", target="loss", holdout="D > 5e4", bootstrap=20)
    for each, rows in zip(found.groups, (8, 8, 2), strict=True):
        held = each.held_out["n"] if each.held_out else 0
        assert each.rows_used + held + len(each.rows_dropped) == rows
    assert "held out, but there is no fit to predict it" in [each["reason"] for each in found.groups[2].rows_dropped]


def test_held_out_rows_far_beyond_the_data_carry_a_warning() -> None:
    table = curves().query("model == 'a'")
    fit = fit_law(table, "power", data="D", target="loss", holdout="D > 5000", bootstrap=20)
    assert "far_extrapolation" in [each["code"] for each in fit.warnings]
    near = fit_law(table, "power", data="D", target="loss", holdout="D > 5e4", bootstrap=20)
    assert "far_extrapolation" not in [each["code"] for each in near.warnings]


def test_a_law_of_another_shape_leaves_waves_and_noise_does_not() -> None:
    d = np.geomspace(100, 1e6, 24)
    bent = pd.DataFrame({"D": d, "loss": 1 + 3 / (1 + (d / 1e4) ** 2)})
    fit = fit_law(bent, "power", data="D", target="loss", bootstrap=20)
    assert "misspecified" in [each["code"] for each in fit.warnings]
    said = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        table = pd.DataFrame({"D": d, "loss": (1 + 30 * d**-0.4) * np.exp(rng.normal(0, 0.01, len(d)))})
        found = fit_law(table, "power", data="D", target="loss", bootstrap=20)
        said += "misspecified" in [each["code"] for each in found.warnings]
    assert said <= 1
