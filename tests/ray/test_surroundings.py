"""A run where little is as on a developer's terminal: no terminal, odd and long paths; and one that cannot fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.ray.conftest import STUDY, write_study
from tests.ray.started import Started

ONE = STUDY.replace("[40, 80, 160]", "[40]").replace("[1x32, 2x32]", "[1x32]").replace("[1, 2]", "[1]")


@pytest.mark.faults
def test_row_42_no_terminal_no_colour_unicode_paths_and_a_long_tmpdir(tmp_path: Path) -> None:
    folder = tmp_path / "Läufe 実験 ☂"
    folder.mkdir()
    long = tmp_path / ("t" * 100)
    long.mkdir()
    study = write_study(folder, ONE)
    out = folder / "Ergebnis 結果"
    command = Started(
        "run", str(study), "--out", str(out), log=tmp_path / "log",
        env={"NO_COLOR": "1", "TMPDIR": str(long), "LC_ALL": "C.UTF-8", "TERM": "dumb"},
    )  # fmt: skip
    assert command.ends(240) == 0, command.told
    assert "\x1b" not in command.told
    assert "Traceback" not in command.told
    assert f"Report: {out}/report.html" in command.told
    assert (out / "report.html").is_file()
    assert not command.orphans()
    assert list(long.iterdir()) == []  # nothing is left in TMPDIR


@pytest.mark.row
def test_row_7_more_gpus_than_this_machine_has_are_refused_with_both_figures_before_ray_starts(tmp_path: Path) -> None:
    study = write_study(tmp_path, ONE.replace("gpus: [1]", "gpus: [64]"))
    command = Started("run", str(study), "--out", str(tmp_path / "run"), "--yes", "--json", log=tmp_path / "log")
    assert command.ends(60) == 2
    error = json.JSONDecoder().raw_decode(command.told[command.told.index("{") :])[0]["error"]
    assert error["where"] == f"{study}:6: grid.gpus"
    assert "asks for 64 GPUs a trial; this machine has" in error["message"]
    assert "Starting Ray" not in command.told
