"""A process that was asked to stop ends in time, whatever stands in the way."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rayscale.system.signals import CODES

HEAD = """\
import os, signal, time
from rayscale.system.signals import Stopped, before_end, deferred, stopping
with stopping(lambda: "go on with the same command"):
"""


def ended(body: str) -> subprocess.CompletedProcess[str]:
    script = HEAD + "".join(f"    {line}\n" for line in body.splitlines())
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)


@pytest.mark.row
def test_row_41_a_clock_that_ray_set_to_abort_the_process_is_stopped() -> None:
    done = ended(
        """\
try:
    with deferred():
        signal.alarm(1)
        os.kill(os.getpid(), signal.SIGTERM)
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            time.sleep(0.1)
except Stopped:
    print("stopped")"""
    )
    assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr


@pytest.mark.row
@pytest.mark.parametrize("obstacle", ["lambda: 1 / 0", "lambda: time.sleep(1000)"])
def test_row_41_the_second_signal_ends_it_at_once_whatever_its_last_acts_do(obstacle: str) -> None:
    done = ended(
        f"""\
before_end.append({obstacle})
before_end.append(lambda: print("told", flush=True))
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1000)
except KeyboardInterrupt:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1000)"""
    )
    assert done.returncode == CODES[2]
    assert done.stdout == "told\n"
    assert "go on with the same command" in done.stderr
