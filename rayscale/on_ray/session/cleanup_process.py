"""The small process beside a driver: when the driver is gone, nothing of its Ray is left. See cleanup.py.

Run as a script; it imports nothing but the standard library.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable

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
    entry = f"{VARIABLE}={folder}"
    return _processes(lambda at: _bears(at, entry) or _opened(f"{at}/fd", folder + "/"))


def bearers(entry: str) -> dict[int, str]:
    """Processes of this user with NAME=value in their environment, by number: their command lines; none without /proc.

    For whoever marks what it starts in order to find it again.
    """
    found = {}
    for pid in _processes(lambda at: _bears(at, entry)):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as words:
                found[pid] = words.read().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # gone meanwhile
            continue
    return found


def _processes(wanted: Callable[[str], bool]) -> list[int]:
    """The processes whose folder in /proc shows what is wanted."""
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        try:
            if name.isdigit() and wanted(f"/proc/{name}"):
                found.append(int(name))
        except OSError:  # another user's, or gone
            continue
    return found


def _bears(at: str, entry: str) -> bool:
    with open(f"{at}/environ", "rb") as environ:
        return entry.encode() in environ.read().split(b"\0")


def _opened(descriptors: str, prefix: str) -> bool:
    for each in os.listdir(descriptors):
        try:
            if os.readlink(f"{descriptors}/{each}").startswith(prefix):
                return True
        except OSError:  # closed meanwhile
            continue
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
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        time.sleep(0.02)


def _main(folder: str, scratch: str, driver: int, last_words: str) -> None:
    told = sys.stdin.read().split("\n")
    kill(folder, driver)
    shutil.rmtree(scratch, ignore_errors=True)
    if FINE not in told:
        reason = told[0] or "the run's process was ended, by a signal or by Ray"
        logs = f"; Ray's logs are in {folder}/session_latest/logs" if told[0] else ""
        print(f"{SHOW_CURSOR if sys.stderr.isatty() else ''}\n{last_words}\nrayscale: {reason}{logs}", file=sys.stderr)
        if told[0]:
            return
    if not os.path.exists(f"{folder}/{KEEP}"):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
