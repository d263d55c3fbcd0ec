from rayscale.report.terminal.fit import fit_lines


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
