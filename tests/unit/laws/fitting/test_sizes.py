"""Sizes as people write them, in cells and alone."""

import numpy as np
import pandas as pd
import pytest

from rayscale.errors import TableError
from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.sizes import read_size, with_sizes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("7B", 7e9), ("1.2e9", 1.2e9), ("350M", 350e6), ("1.3b", 1.3e9), ("500k", 5e5), ("2T", 2e12), ("7G", 7e9),
        ("1,000,000", 1e6), (" 70 B ", 70e9), ("0.07B", 0.07e9), (".5m", 5e5), ("1_000", 1000.0), ("-3M", -3e6),
        ("12,345.6K", 12345.6e3), (7, 7.0), (np.float32(0.5), 0.5),
    ],
)  # fmt: skip
def test_a_size_is_a_number_with_or_without_a_unit(text, size):
    assert read_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "B", ".", "7X", "7BB", "1e9B", "1,5", "0,125", "1,00", "1,0000", "7 bn", "x7", "e5", None, True, 2j],
)
def test_what_is_no_size_is_none(text):
    assert read_size(text) is None


@pytest.mark.parametrize("kind", [object, "string", "category"])
def test_a_column_of_text_becomes_numbers_and_what_is_missing_stays_so(kind):
    table = pd.DataFrame({"N": pd.Series(["7B", None, "1,000"], dtype=kind), "note": ["a", "b", "c"]})
    read = with_sizes(table, ["N", "none"])
    assert read["N"].tolist()[::2] == [7e9, 1000.0]
    assert np.isnan(read["N"][1])
    assert table["N"][0] == "7B"
    with pytest.raises(TableError, match="column 'note' must hold numbers, but row 0 holds 'a'; write a number"):
        with_sizes(table, ["note"])


def made():
    sizes, data = np.meshgrid([1e7, 1e8, 1e9], 1e9 * 4.0 ** np.arange(4))
    loss = 1.8 + 400 * sizes.ravel() ** -0.34 + 2000 * data.ravel() ** -0.37
    return pd.DataFrame({"params": sizes.ravel(), "D": data.ravel(), "loss": loss})


@pytest.mark.parametrize("law", ["chinchilla", "auto"])
def test_a_fit_reads_sizes_queries_see_numbers_and_predictions_too(law):
    plain = made()
    text = plain.assign(params=plain["params"].map({1e7: "10M", 1e8: "100m", 1e9: " 1 B"}), D=plain["D"].map(str))
    asked = {"data": "D", "target": "loss", "params": "params", "where": "params > 1.5e6", "holdout": "D > 6e10",
             "bootstrap": 50}  # fmt: skip
    fit, known = fit_law(text, law, **asked), fit_law(plain, law, **asked)
    assert fit.params == known.params
    pd.testing.assert_frame_equal(fit.predictions, known.predictions)
    one = fit.predict(pd.DataFrame({"params": ["70B"], "D": ["2T"]}))
    pd.testing.assert_frame_equal(one, known.predict(pd.DataFrame({"params": [70e9], "D": [2e12]})))
    with pytest.raises(TableError, match="row 0 holds '70X'"):
        fit.predict(pd.DataFrame({"params": ["70X"], "D": ["2T"]}))


def test_usual_columns_are_read_and_a_target_is_not():
    table = made().rename(columns={"D": "tokens"})
    text = table.assign(params=table["params"].map({1e7: "10M", 1e8: "100M", 1e9: "1B"}))
    assert fit_law(text, "chinchilla", target="loss", bootstrap=50).outcome.usable
    assert fit_law(text, "power", data="tokens", target="loss", where="params == '10M'", bootstrap=50).rows_used == 4
    with pytest.raises(TableError, match="column 'loss' must hold numbers"):
        fit_law(table.assign(loss="2K"), "chinchilla", target="loss", bootstrap=50)
