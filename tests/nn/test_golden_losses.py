"""Losses are what they were: where one of them changes, TRAINING_VERSION rises (rayscale/runs/trial.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from golden_losses import losses

GOLDEN = Path(__file__).parents[1] / "golden" / "losses.json"


def test_the_loss_of_each_family_is_that_of_the_golden_record(tmp_path: Path) -> None:
    assert losses(tmp_path) == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-5)
