"""Rows 16 and 21 on a real Ray, within a trial: what dies costs the steps since the last checkpoint, and no number."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import rayscale as rs
from rayscale.on_ray import run_study
from tests.ray.conftest import STUDY, write_study
from tests.ray.started import Started
from tests.ray.test_lanes import TIMES

LONG = (
    STUDY.replace("[40, 80, 160]", "[300]").replace("epochs: 1", "epochs: 120").replace("[1x32, 2x32]", "[1x32]")
    .replace("gpus: [1, 2]", "gpus: [1]").replace("{accelerator: cpu}", "{accelerator: cpu, checkpoint_seconds: 0.2}")
)  # fmt: skip


def row(run: rs.Run) -> dict[str, Any]:
    (found,) = run.records
    return {name: value for name, value in found.row.items() if name not in TIMES | {"attempts"}}


def events(out: Path, name: str) -> list[dict[str, Any]]:
    lines = (out / "events.jsonl").read_text().splitlines() if (out / "events.jsonl").exists() else []
    return [event for event in map(json.loads, lines) if event["event"] == name]


@pytest.mark.faults
def test_row_16_and_21_a_killed_rank_and_a_killed_driver_cost_no_more_than_a_checkpoint(tmp_path: Path) -> None:
    study, out = write_study(tmp_path, LONG), tmp_path / "run"
    words = ("run", str(study), "--out", str(out), "--yes")

    first = Started(*words, log=tmp_path / "first.log")
    first.until(lambda: len(events(out, "checkpoint_saved")) >= 2)
    (rank,) = [pid for pid, name in first.processes().items() if name.startswith("ray::RayTrainWorker")]
    os.kill(rank, signal.SIGKILL)
    first.until(lambda: bool(events(out, "trial_resumed")))
    saved = len(events(out, "checkpoint_saved"))
    first.until(lambda: len(events(out, "checkpoint_saved")) > saved)
    first.process.kill()
    assert first.ends() == -signal.SIGKILL
    assert first.orphans(20) == {}

    second = Started(*words, log=tmp_path / "second.log")
    assert second.ends(240) == 0, second.told
    assert "resumed from its checkpoint at step" in second.told
    run = rs.load(out)
    resumed = events(out, "trial_resumed")
    assert len(resumed) == 2
    assert resumed[1]["step"] > resumed[0]["step"] > 0
    assert all(each["from"].startswith("checkpoints/") for each in resumed)
    (record,) = run.records
    assert record.row["attempts"] == 3
    assert record.row["device_seconds"] > record.row["train_seconds"]
    assert not (out / "checkpoints").exists()

    clean = run_study(study, out=str(tmp_path / "clean"))
    assert clean is not None
    assert row(run) == row(clean)
