"""What lies in jobs/: ready studies, and the script that hands its options on."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

JOBS = Path(__file__).parents[2] / "jobs"


def command(*arguments: str) -> list[str]:
    spec = importlib.util.spec_from_file_location("run_study_job", JOBS / "run_study.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.command(arguments)


def test_the_run_folder_is_below_home_unless_it_is_named(study_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    study = str(study_file)
    usual = command(study)
    out = usual[7]
    assert re.fullmatch(r"/home/somebody/rayscale-runs/toy-[0-9a-f]{8}", out)
    assert usual == ["rayscale", "run", study, "--address", "auto", "--yes", "--out", out]
    for named in (["--out", "/there"], ["--out=/there"]):
        found = command(study, *named, "--retry-failed", "--only", "0123")
        assert found == [*usual[:7], "/there", "--retry-failed", "--only", "0123"]
    assert command(study, "--address=there:6379")[3:5] == ["--address", "there:6379"]


def test_storage_elsewhere_is_left_to_the_study(study_file: Path) -> None:
    study_file.write_text(study_file.read_text().replace("accelerator: cpu", "accelerator: cpu, storage: s3://bucket"))
    assert "--out" not in command(str(study_file))


@pytest.mark.parametrize(
    ("storage", "out"),
    [("/mnt/shared", "/mnt/shared/toy"), ("results", "/home/somebody/results/toy"), ("~/r/", "/home/somebody/r/toy")],
)
def test_a_storage_that_the_study_names_is_where_the_run_lies(
    study_file: Path, monkeypatch: pytest.MonkeyPatch, storage: str, out: str
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    text = study_file.read_text().replace("accelerator: cpu", f"accelerator: cpu, storage: {storage}")
    study_file.write_text(text)
    assert command(str(study_file))[7] == out


@pytest.mark.parametrize(("arguments", "said"), [(["none.yaml"], "no such file"), ([], "study")])
def test_a_wrong_call_is_refused_as_by_the_command_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    asked = [sys.executable, str(JOBS / "run_study.py"), *arguments]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_study_that_the_guide_submits_can_be_planned() -> None:
    asked = [sys.executable, "-m", "rayscale", "plan", str(JOBS / "corpus.yaml"), "--json"]
    assert "jobs/run_study.py jobs/corpus.yaml" in (JOBS.parent / "docs" / "clusters.md").read_text()
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
