"""No process of a local Ray outlives the run that started it, however that run ended, and no file of Ray's either.

Ray binds its servers to the driver, and workers end when their raylet does. What is stopped, hangs, or was just being
started when the driver was killed stays. So this Ray has a folder of its own, all its processes have that folder in
their environment or files of it open, and a small process beside the driver, which sees the driver's end as the end of
a pipe, kills those that are left and deletes the folder. Ray may also end the driver itself, without a word, when one
of its servers dies; then that small process says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from rayscale.on_ray.session import cleanup_process
from rayscale.system.signals import before_end

#: Ray's longest socket name below its folder; paths of sockets have 107 bytes at most (man 7 unix), on macOS 103.
SOCKET = "/session_2026-11-25_09-35-50_123456_1234567/sockets/plasma_store"
SOCKET_BYTES = 103


class Cleanup:
    """The small process. `folder` is where Ray's files go, `environment` what Ray's processes need to be found."""

    def __init__(self, folder: str, scratch: str, process: subprocess.Popen[bytes]) -> None:
        self.folder, self._process = folder, process
        self.environment = {cleanup_process.VARIABLE: folder, "TMPDIR": scratch}

    def tell(self, text: str) -> None:
        """Why the driver will end, should it not come to say it; cleanup_process.FINE if all is said."""
        assert self._process.stdin is not None
        with suppress(OSError):  # it was killed
            os.write(self._process.stdin.fileno(), text.encode() + b"\n")

    def kill(self) -> None:
        """Kill all processes of this Ray now."""
        cleanup_process.kill(self.folder, os.getpid())


@contextmanager
def cleaning_up(last_words: str) -> Iterator[Cleanup]:
    """Gives a folder for Ray's files; at the end, or when this process dies, its processes are killed and it goes.

    It lies in RAY_TMPDIR or the usual temporary folder (TMPDIR), or in /tmp where these are too long for Ray's sockets.
    What the workers put into their temporary folder lies below TMPDIR in any case, and goes too.
    """
    folder, scratch = (tempfile.mkdtemp(prefix="rs-", dir=base) for base in (_base(), tempfile.gettempdir()))
    # A session of its own: neither Ctrl-C nor the end of the terminal reaches it.
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", cleanup_process.__file__, folder, scratch, str(os.getpid()), last_words],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True, cwd="/",
    )  # fmt: skip
    cleanup = Cleanup(folder, scratch, watcher)
    leave = partial(cleanup.tell, cleanup_process.FINE)
    before_end.append(leave)
    try:
        yield cleanup
    finally:
        before_end.remove(leave)
        leave()
        watcher.communicate()


def _base() -> str:
    wanted = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    fits = len(os.fsencode(f"{wanted}/rs-12345678{SOCKET}")) <= SOCKET_BYTES
    # Only a folder made below it by mkdtemp is used, which is this user's alone.
    return wanted if fits else "/tmp"  # nosec B108
