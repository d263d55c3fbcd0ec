"""Signals to a run in each of its phases: it ends in time, says how to go on, and leaves no process behind."""

from __future__ import annotations

import json
import os
import pty
import signal
import termios
import threading
from pathlib import Path

import pytest

from tests.ray.conftest import STUDY, write_study
from tests.ray.started import Started

SMALL = STUDY.replace("[40, 80, 160]", "[300]").replace("[1x32, 2x32]", "[1x32]").replace("[1, 2]", "[1]")
GO_ON = "resume with the same command: rayscale run"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One study for all of these tests: each run goes on where the one before was stopped."""
    return write_study(tmp_path_factory.mktemp("signals"), SMALL.replace("epochs: 1", "epochs: 20"))


def start(study: Path, **more: object) -> Started:
    (study.parent / "run" / "events.jsonl").unlink(missing_ok=True)  # the words of this run alone
    words = ["run", str(study), "--out", str(study.parent / "run"), "--yes"]
    return Started(*words, log=study.parent / "log", **more)  # type: ignore[arg-type]


def events(study: Path) -> list[str]:
    file = study.parent / "run" / "events.jsonl"
    return [json.loads(line)["event"] for line in file.read_text().splitlines()] if file.exists() else []


def begun(study: Path) -> bool:
    """Whether the run trains a trial."""
    return "trial_started" in events(study)


def catches(pid: int, number: int) -> bool:
    caught = Path(f"/proc/{pid}/status").read_text().partition("SigCgt:")[2].split()[0]
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.row
@pytest.mark.parametrize(("number", "code", "loaded"), [(signal.SIGINT, 130, ""), (signal.SIGTERM, 143, "pyarrow")])
def test_row_41_a_signal_while_planning(study: Path, number: int, code: int, loaded: str) -> None:
    command = start(study)
    maps = Path(f"/proc/{command.process.pid}/maps")
    command.until(lambda: catches(command.process.pid, signal.SIGTERM) and loaded in maps.read_text())
    command.process.send_signal(number)
    assert command.ends() == code
    assert "Traceback" not in command.told
    assert not command.orphans()


@pytest.mark.faults
@pytest.mark.parametrize(
    ("phase", "number", "code"),
    [
        ("Starting Ray", signal.SIGTERM, 143),
        ("Preparing the text", signal.SIGINT, 130),
        ("trial", signal.SIGTERM, 143),
    ],
)
def test_row_41_a_signal_ends_the_run_cleanly(study: Path, phase: str, number: int, code: int) -> None:
    command = start(study)
    command.until(lambda: begun(study) if phase == "trial" else phase in command.told)
    command.process.send_signal(number)
    assert command.ends() == code
    assert GO_ON in command.told
    assert "Traceback" not in command.told
    assert events(study)[-1] == "run_stopped"
    assert not command.orphans()


@pytest.mark.faults
def test_row_41_ctrl_c_on_a_terminal_leaves_it_as_it_was(study: Path) -> None:
    upper, lower = pty.openpty()
    before = termios.tcgetattr(lower)
    shown = bytearray()

    def read() -> None:
        while data := os.read(upper, 4096):
            shown.extend(data)

    threading.Thread(target=read, daemon=True).start()
    command = start(study, env={"TERM": "xterm"}, terminal=lower)
    command.until(lambda: begun(study))
    os.write(upper, b"\x03")  # to every process of the terminal, as a keyboard does
    assert command.ends() == 130, shown.decode(errors="replace")
    assert not command.orphans()
    assert termios.tcgetattr(lower) == before
    told = shown.decode(errors="replace")
    assert "\x1b[?25l" in told  # the live view was up
    assert told.rfind("\x1b[?25h") > told.rfind("\x1b[?25l")
    assert "resume with the same command" in " ".join(told.split())


@pytest.mark.faults
@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGINT), (signal.SIGKILL,)])
def test_row_41_twice_and_killed_leave_no_orphans_stopped_workers_included(
    study: Path, numbers: tuple[int, ...]
) -> None:
    command = start(study)
    command.until(lambda: begun(study))
    worker = next(pid for pid, words in command.processes().items() if words.startswith("ray::RayTrainWorker"))
    os.kill(worker, signal.SIGSTOP)  # it does not see that its raylet is gone
    for number in numbers:
        command.process.send_signal(number)
    assert command.ends() == (130 if len(numbers) == 2 else -signal.SIGKILL)
    assert len(numbers) == 1 or GO_ON in command.told
    assert not command.orphans()


@pytest.mark.faults
def test_row_41_a_signal_while_fitting_and_the_same_command_ends_the_study(study: Path) -> None:
    command = start(study)
    command.until(lambda: "Fitting the laws" in command.told)
    command.process.send_signal(signal.SIGTERM)
    assert command.ends() == 143
    assert not command.orphans()
    again = start(study)
    assert again.ends(120) == 0
    assert "nothing to train" in again.told
    assert (study.parent / "run" / "report.html").is_file()
