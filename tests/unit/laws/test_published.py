"""What the automatic choice of laws must reach on published measurements; skipped where these are absent."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rayscale.laws.fit import fit_law

DATA = Path(__file__).parents[4] / "shared" / "data" / "laws"


def read(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is absent: published measurements are not part of the repository")
    return pd.read_csv(path)


@pytest.mark.parametrize(("most", "reached"), [(204_800, 0.046), (51_200, 0.114)])
def test_fine_tuning_at_full_size_is_foretold_from_a_part(most, reached):
    table = read("finetune_flan.csv")
    found = fit_law(table, "auto", by=["dataset", "model"], data="D_ft_examples", target="test_loss", bootstrap=200,
                    where=f"200 <= D_ft_examples <= {most} or D_ft_examples == 1638400",
                    holdout="D_ft_examples == 1638400")  # fmt: skip
    assert found.held_out["n"] == 30
    assert found.held_out["rmse_log"] <= reached
    assert found.held_out["covered"] >= 0.9


def test_pretraining_curves_are_foretold():
    table = read("nsl_language_models.csv")
    found = fit_law(table, "auto", by=["Domain", "Task", "Model"], data="Seen Examples", target="Loss",
                    holdout="Training == 0", bootstrap=200)  # fmt: skip
    assert len(found.groups) == 5
    assert np.mean([group.held_out["rmse_log"] for group in found.groups]) <= 0.0009
    assert found.held_out["covered"] >= 0.9


def test_joint_laws_are_weighed_too():
    table = read("chinchilla_epoch.csv")
    largest = float(table["D"].quantile(0.8))
    found = fit_law(table, "auto", params="N", data="D", target="loss", where="excluded_by_epoch == 0",
                    holdout=f"D > {largest}", bootstrap=200)  # fmt: skip
    assert found.held_out["rmse_log"] < 0.01
    assert sum(share for name, share in found.weights.items() if name.startswith("chinchilla")) > 0.5
