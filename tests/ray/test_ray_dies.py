"""Ray itself dies under a run: it ends soon with one message, and the same command goes on."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

import rayscale as rs
from rayscale.on_ray.session import session
from tests.ray.conftest import STUDY, write_study
from tests.ray.started import Started
from tests.ray.test_signals import GO_ON, begun, start

TWO = STUDY.replace("[40, 80, 160]", "[150, 300]").replace("[1x32, 2x32]", "[1x32]").replace("[1, 2]", "[1]")


def kill_server(command: Started, name: str) -> None:
    program = session.RAYLET if name == "raylet" else name
    pid = next(pid for pid, words in command.processes().items() if words.split(" ")[0].endswith(f"/{program}"))
    os.kill(pid, signal.SIGKILL)


def logs_of(told: str) -> Path:
    """The folder of Ray's files that the message names."""
    return Path(told.rpartition("Ray's logs are in ")[2].split("/session_latest")[0])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("dies"), TWO.replace("epochs: 1", "epochs: 20"))


@pytest.mark.faults
@pytest.mark.parametrize(("server", "phase"), [("raylet", "preparing"), ("gcs_server", "trial"), ("raylet", "trial")])
def test_row_23_a_server_of_ray_is_killed(study: Path, server: str, phase: str) -> None:
    command = start(study)
    command.until(lambda: begun(study) if phase == "trial" else "Preparing the text" in command.told)
    kill_server(command, server)
    assert command.ends(60) == 1
    assert f"rayscale: Ray's {server} on this machine died (signal 9)" in command.told
    assert GO_ON in command.told
    assert "Traceback" not in command.told
    assert not command.orphans()
    logs = logs_of(command.told)
    assert (logs / "session_latest" / "logs").is_dir()
    shutil.rmtree(logs)


@pytest.mark.faults
def test_row_23_the_same_command_goes_on_and_repeats_nothing(study: Path) -> None:
    command = start(study)
    command.until(lambda: any((study.parent / "run" / "trials").glob("*.json")))
    first = next((study.parent / "run" / "trials").glob("*.json"))
    before = first.stat().st_mtime_ns
    command.until(lambda: command.processes() != {} and begun(study))
    kill_server(command, "gcs_server")
    assert command.ends(60) == 1
    shutil.rmtree(logs_of(command.told))
    again = start(study)
    assert again.ends(240) == 0
    assert first.stat().st_mtime_ns == before
    assert set(rs.load(study.parent / "run").trials.status) == {"ok"}
    assert not again.orphans()
