"""Row 15: losses that are no losses. The trial is flagged, and no law is fitted to it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made import Made, make_trial

import rayscale as rs
from rayscale.nn.models.objectives import Objective
from rayscale.nn.training import job, train
from rayscale.runs.ledger import make_record

pytestmark = pytest.mark.row


@pytest.mark.parametrize("strange", [math.nan, math.inf])
@pytest.mark.parametrize("while_training", [True, False])
def test_row_15_a_loss_that_is_no_number_is_a_diverged_trial_with_its_reason(
    classification: Made, monkeypatch: pytest.MonkeyPatch, strange: float, while_training: bool
) -> None:
    whole = job.find_objective

    def find(task_type: str) -> Objective:
        real = whole(task_type)

        def losses(model: Any, inputs: Any) -> Any:
            loss, logits = real.losses(model, inputs)
            return (loss * strange if model.training == while_training else loss), logits

        return replace(real, losses=losses)

    monkeypatch.setattr(job, "find_objective", find)
    trial = make_trial()
    result = train.train_trial(trial, classification)
    assert (result["status"], result["eval_loss"], result["accuracy"]) == ("diverged", None, None)
    assert "loss is" in result["error"]
    assert "learning_rate" in result["error"]
    measured = {name: value for name, value in result.items() if name not in ("curve", "classes")}
    row = make_record(trial, **measured, attempts=1).row
    assert (row["status"], row["eval_loss"]) == ("diverged", None)


def test_row_15_strange_losses_are_kept_out_of_the_fit_and_listed_with_their_reason(tmp_path: Path) -> None:
    sizes = [100, 200, 400, 800, 1600, 3200, 6400, 12800]
    losses = [0.5 + 20 * size**-0.5 for size in sizes]
    rows = [
        make_record(make_trial(trial_id=f"t{i}", data_requested=size), status="ok", eval_loss=loss, tokens=size,
                    examples=size, params=1000).row
        for i, (size, loss) in enumerate(zip(sizes, losses, strict=True))
    ]  # fmt: skip
    clean = pd.DataFrame(rows)
    planted = {1: math.nan, 3: math.inf, 4: 0.0, 6: -1.0}
    strange = pd.concat([clean, clean.iloc[list(planted)].assign(eval_loss=list(planted.values()), seed=9)])
    diverged = clean.iloc[[2]].assign(status="diverged", eval_loss=None, seed=9)
    given = pd.concat([strange, diverged], ignore_index=True)
    fits = [rs.fit_law(each, "power", data="examples", target="eval_loss", bootstrap=20) for each in (clean, given)]
    assert fits[1].params == fits[0].params
    assert fits[1].rows_used == len(sizes)
    dropped = {each["row"]: each["reason"] for each in fits[1].rows_dropped}
    assert sorted(dropped) == list(range(len(sizes), len(sizes) + 5))
    assert all("eval_loss" in reason or "diverged" in reason for reason in dropped.values()), dropped
