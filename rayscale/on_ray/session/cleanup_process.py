"""The small process beside a driver: when the driver is gone, nothing of its Ray is left. See cleanup.py.

Run as a script; it imports nothing but the standard library.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress

VARIABLE = "RAYSCALE_RAY_FOLDER"
KEEP = "keep"  # a file of this name keeps the folder
FINE = "fine"
ROUNDS = 200  # a process may be forked while its parent is being killed
CLEAN_ROUNDS = 2  # one look may fall into the moment of an exec, when a process has no environment
SHOW_CURSOR = "\x1b[?25h"  # the live view hides it


def users(folder: str) -> list[int]:
    """Processes of this user that have the folder in their environment, or a file of it open; none without /proc.

    One sign alone would not do: a process that renames itself may overwrite a part of what /proc shows of its
    environment.
    """
    pids = []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        with suppress(OSError):  # another user's, or gone
            if name.isdigit() and _uses(f"/proc/{name}", folder):
                pids.append(int(name))
    return pids


def _uses(process: str, folder: str) -> bool:
    with open(f"{process}/environ", "rb") as environ:
        if f"{VARIABLE}={folder}".encode() in environ.read().split(b"\0"):
            return True
    for descriptor in os.listdir(f"{process}/fd"):
        with suppress(OSError):  # closed meanwhile
            if os.readlink(f"{process}/fd/{descriptor}").startswith(folder + "/"):
                return True
    return False


def kill(folder: str, spared: int) -> None:
    """Kill the users of the folder until none is left but the process `spared`."""
    clean = 0
    for _ in range(ROUNDS):
        left = [pid for pid in users(folder) if pid != spared]
        clean = 0 if left else clean + 1
        if clean == CLEAN_ROUNDS:
            return
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _main(folder: str, scratch: str, driver: int, last_words: str) -> None:
    lines = sys.stdin.read().split("\n")
    kill(folder, driver)
    shutil.rmtree(scratch, ignore_errors=True)
    if FINE not in lines:
        reason = lines[0] or "the run's process was ended, by a signal or by Ray"
        logs = f"; Ray's logs are in {folder}/session_latest/logs" if lines[0] else ""
        print(f"{SHOW_CURSOR if sys.stderr.isatty() else ''}\n{last_words}\nrayscale: {reason}{logs}", file=sys.stderr)
        if lines[0]:
            return
    if not os.path.exists(f"{folder}/{KEEP}"):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
