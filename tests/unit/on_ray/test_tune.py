"""The order of the cells in Ray Tune."""

from __future__ import annotations

from pathlib import Path

from ray.tune.search.search_generator import SearchGenerator

from rayscale.on_ray.tune import CellOrder


def test_tune_restores_the_state_that_it_saved_of_a_run(tmp_path: Path) -> None:
    SearchGenerator(CellOrder([], set(), lambda: 1)).save_to_dir(str(tmp_path), "session")
    SearchGenerator(CellOrder([], set(), lambda: 1)).restore_from_dir(str(tmp_path))
