"""A `rayscale` command started as a user would, whose processes can all be found again, however they were orphaned."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import psutil

from rayscale.on_ray.session import cleanup_process

MARK = "RAYSCALE_TEST_MARK"
CLEANUP_SECONDS = 60.0  # on a machine that others share


class Started:
    """A running command; its output is in `log`."""

    started: ClassVar[list[Started]] = []  # by the test that runs

    def __init__(self, *words: str, log: Path, env: dict[str, str] | None = None, terminal: int | None = None) -> None:
        """`terminal` is the file descriptor of a pseudo-terminal's lower end, to be the command's own."""
        self.mark, self.log = uuid.uuid4().hex, log
        environment = {**os.environ, **(env or {}), MARK: self.mark}
        environment.pop("RAY_ADDRESS", None)
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rayscale", *words],
                env=environment, start_new_session=True,
                stdin=subprocess.DEVNULL if terminal is None else terminal,
                stdout=file if terminal is None else terminal, stderr=file if terminal is None else terminal,
                preexec_fn=None if terminal is None else _own_terminal,
            )  # fmt: skip
        Started.started.append(self)

    @property
    def told(self) -> str:
        """What it has printed."""
        return self.log.read_text(errors="replace")

    def until(self, reached: Callable[[], bool], seconds: float = 240) -> None:
        """Wait until it has come so far; fails when it ends before."""
        give_up = time.monotonic() + seconds
        while not reached():
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.told}"
            assert time.monotonic() < give_up, self.told
            time.sleep(0.02)

    def ends(self, seconds: float = 20) -> int:
        """The exit code; fails, and kills it, when it does not end in time."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"still runs after {seconds} s: {self.told}") from None

    def processes(self) -> dict[int, str]:
        """The processes that it started, and itself while it lives: their command lines by number."""
        running = psutil.process_iter(["environ", "cmdline"])
        ours = (process for process in running if (process.info["environ"] or {}).get(MARK) == self.mark)
        return {process.pid: " ".join(process.info["cmdline"] or ()) for process in ours}

    def orphans(self, seconds: float = 5) -> dict[int, str]:
        """What is left of it that does not go within some seconds, once the small process that clears up has gone."""
        give_up = time.monotonic() + CLEANUP_SECONDS
        while (left := self.processes()) and time.monotonic() < give_up:
            if not any(cleanup_process.__file__ in words for words in left.values()):
                give_up = min(give_up, time.monotonic() + seconds)
            time.sleep(0.05)
        return left


def _own_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
