"""Whether the servers of a local Ray still live. Ray itself takes up to a minute to notice, and then ends the driver.

A thread looks at the processes that `ray.init` started. When one has ended, what is left of this Ray is killed, and the
main thread, wherever it waits, gets a ClusterError.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rayscale.errors import ClusterError
from rayscale.on_ray.session.cleanup import Cleanup

LOOK_SECONDS = 0.05


@dataclass
class Guard:
    """What died, if anything did."""

    reason: str | None = None

    def check(self) -> None:
        """Raise ClusterError if a server has died."""
        if self.reason:
            raise ClusterError(self.reason, code="ray_died")


@contextmanager
def guarding(died: Callable[[], str | None], cleanup: Cleanup) -> Iterator[Guard]:
    """Within, the main thread gets a ClusterError as soon as `died()` has a reason for it.

    The process that cleans up hears of it first: Ray may end this one before the main thread comes to raise anything.
    """
    guard, done = Guard(), threading.Event()
    main = threading.main_thread()
    interrupts = threading.current_thread() is main
    former = signal.getsignal(signal.SIGUSR1) if interrupts else None

    def look() -> None:
        while not done.wait(LOOK_SECONDS):
            guard.reason = died()
            if guard.reason:
                cleanup.tell(guard.reason)
                cleanup.kill()
                if interrupts and not done.is_set() and main.ident is not None:
                    signal.pthread_kill(main.ident, signal.SIGUSR1)
                return

    if interrupts:
        signal.signal(signal.SIGUSR1, lambda number, frame: guard.check())
    thread = threading.Thread(target=look, daemon=True, name="rayscale-guard")
    thread.start()
    try:
        yield guard
    except Exception as error:
        if guard.reason and not isinstance(error, ClusterError):
            guard.check()  # what failed is a consequence
        raise
    finally:
        done.set()
        thread.join()
        if interrupts:
            signal.signal(signal.SIGUSR1, former)
