"""No process of a local Ray outlives the run that started it, however that run ended.

Ray binds its servers to the driver, and workers end when their raylet does. What is stopped, hangs, or was just being
started when the driver was killed stays. So all of them carry a mark in their environment, and a small process beside
the driver, which sees the driver's end as the end of a pipe, kills whatever still carries it.

Run as a script it is that process; it imports nothing but the standard library.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "RAYSCALE_SESSION"
ROUNDS = 50  # a process may be forked while its parent is being killed


@contextmanager
def reaping() -> Iterator[dict[str, str]]:
    """Gives the environment to start processes with; at the end, or when this process dies, none of them is left.

    Where there is no /proc nothing happens; Ray has a reaper of its own there.
    """
    mark = uuid.uuid4().hex
    if sys.platform != "linux":
        yield {}
        return
    # A session of its own: neither Ctrl-C nor the end of the terminal reaches it.
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, mark], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield {VARIABLE: mark}
    finally:
        watcher.communicate()


def marked(mark: str) -> list[int]:
    """Processes of this user that carry the mark; those that have ended but were not waited for do not count."""
    wanted, found = f"{VARIABLE}={mark}".encode(), []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as environ:  # empty for one that has ended
                if wanted in environ.read().split(b"\0"):
                    found.append(int(name))
        except OSError:  # another user's, or gone
            continue
    return found


def kill(mark: str) -> None:
    """Kill what carries the mark until nothing is left."""
    for _ in range(ROUNDS):
        left = marked(mark)
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        time.sleep(0.02)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    kill(sys.argv[1])
