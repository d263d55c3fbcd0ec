import numpy as np
import pandas as pd

from rayscale.laws.fit import fit_law
from rayscale.report.terminal.fit import fit_lines, parameter_units


def group(name, *codes):
    warnings = [{"code": code, "message": f"{name} says {code}"} for code in codes]
    return {"law": "power", "target": "loss", "by": {"set": name}, "outcome": "converged", "rows_used": 6,
            "rows_dropped": [], "params": {"B": 1.0}, "warnings": warnings}  # fmt: skip


def test_a_warning_of_a_thousand_groups_is_one_that_names_the_first():
    groups = [group(f"g{k}", "no_replicates", *(["flat_ridge"] * (k in {3, 8}))) for k in range(1000)]
    lines = fit_lines(groups, None, 200)
    text = "\n".join(lines)
    assert len(lines) < 60
    assert "Warning (no_replicates) in all 1000 groups, for instance g0: g0 says no_replicates." in text
    assert "Warning (flat_ridge) in 2 groups, for instance g3: g3 says flat_ridge." in text
    assert "and 960 more groups; --json has them all" in text
    assert "Rows: 6000 used, 0 left out." in text


def test_a_warning_given_twice_counts_its_group_once():
    text = "\n".join(fit_lines([group("a", "at_bound", "at_bound"), group("b")], None, 200))
    assert "Warning (at_bound) in 1 group, for instance a: a says at_bound." in text


def blend(**fields):
    return {"law": "auto", "target": "loss", "outcome": "converged", "weights": {"power": 1.0}, "warnings": [],
            "estimate": {}, "formula": "weighted mean"} | fields  # fmt: skip


def test_the_weights_are_said_to_be_what_they_are():
    text = "\n".join(fit_lines([blend()], None, 200))
    assert "Weights, by how each law predicted held-out larger scales: power 100%" in text
    short = {"code": "few_sizes", "message": "too few sizes to hold any out: laws are weighted by how well they fit"}
    text = "\n".join(fit_lines([blend(warnings=[short])], None, 200))
    assert "Weights, by how well each law fits: power 100%" in text
    smooth = {"estimate": {"versions": []}, "formula": "weighted mean + smooth discrepancy"}
    for fit in (blend(**smooth), blend(**smooth | {"estimate": {}}, stages=[blend(**smooth), blend()])):
        text = "\n".join(fit_lines([fit], None, 200))
        assert "Weights, by evidence, each with a smooth discrepancy: power 100%" in text


def test_the_parameters_of_two_stages_have_the_units_of_their_stages():
    data = 1e3 * 2.0 ** np.arange(8)
    loss = 1 + 20 * data**-0.4
    table = pd.DataFrame({"D": data, "loss": loss, "acc": 1 / (1 + np.exp(2 * (loss - 1.8)))})
    fit = fit_law(table, "power", target="acc", through="loss", data="D", bootstrap=20)
    units = parameter_units(fit.to_json())
    assert set(units) == set(fit.params)
    assert units["B"] == "loss x D^beta"
