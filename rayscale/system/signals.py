"""Signals: the first Ctrl-C or SIGTERM asks for a clean end; a second one, or a grace that ran out, ends all at once.

A handler of Python runs only when the main thread comes back to Python, and what it raises can be swallowed where it
strikes. So a thread is told of every signal too, through a pipe, and keeps the promise that the process ends in time.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143}
GRACE_SECONDS = 9.0
#: `ray job stop` sends SIGTERM and after 3 s SIGKILL (RAY_JOB_STOP_WAIT_TIME_S of the head's environment).
JOB_GRACE_SECONDS = 2.5
LAST_SECONDS = 2.0  # for what is done before the process is ended at once: a disk may hang
_SHOW_CURSOR = "\x1b[?25h"  # the live view hides it


class Stopped(BaseException):
    """SIGTERM arrived."""


_came: list[int] = []
_words: list[Callable[[], str]] = []
#: Called before the process is ended at once.
before_end: list[Callable[[], None]] = []


def last_words() -> str:
    """What a command that ends here should say, such as how to go on; empty where no command runs."""
    return _words[-1]() if _words else ""


def came() -> bool:
    """Whether a signal asked this process to stop; what fails from then on is likely its consequence."""
    return bool(_came)


def check() -> None:
    """Raise what the signal raised already: code that calls back from C may have swallowed it."""
    if _came:
        raise KeyboardInterrupt if _came[0] == signal.SIGINT else Stopped


@contextmanager
def stopping(words: Callable[[], str]) -> Iterator[list[int]]:
    """Within, the first SIGINT raises KeyboardInterrupt and the first SIGTERM raises Stopped, in the main thread.

    Gives the list of the signals that have come. When a second one arrives, or the process still lives after the grace
    (9 s, in a Ray job 2.5 s), `words()` go to stderr and it ends at once with 130 or 143.
    """
    _came.clear()
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        asked.append(number)
        if len(asked) == 1:  # the second one is the thread's
            _came[:] = [_came[0] if _came else number]
            check()

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    former = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), daemon=True, name="rayscale-signals").start()
    _words.append(words)
    try:
        with _handling(ask):
            yield _came
    finally:
        _words.pop()
        signal.set_wakeup_fd(former)
        os.close(writer)  # ends the thread; a grace that has begun goes on until the process ends


@contextmanager
def _handling(act: Callable[[int, Any], object]) -> Iterator[dict[int, Any]]:
    """Within, `act` takes the signals; gives their former handlers. One that is ignored (nohup) stays so."""
    former = {number: signal.getsignal(number) for number in CODES if signal.getsignal(number) != signal.SIG_IGN}
    try:
        for number in former:
            signal.signal(number, act)
        yield former
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _watch(reader: int) -> None:
    """Read signal numbers until the writing end is closed; end the process at the second, or after the grace."""
    grace_seconds = JOB_GRACE_SECONDS if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else GRACE_SECONDS
    count = 0
    while numbers := os.read(reader, 64):
        for number in numbers:
            if number not in CODES:
                continue
            # While `ray.init` runs, a handler of Ray's in C++ has set a clock that aborts the process in 3 s.
            signal.alarm(0)
            count += 1
            if count > 1:
                _end(number)
            if not _came:  # another handler than ours may stand: `ray.init` puts up its own
                _came.append(number)
            timer = threading.Timer(grace_seconds, lambda number=number: _end(number))
            timer.daemon = True
            timer.start()
    os.close(reader)


def _end(number: int) -> None:
    acts = threading.Thread(target=_act_last, daemon=True)
    acts.start()
    acts.join(LAST_SECONDS)
    with suppress(OSError):  # the terminal is gone
        os.write(2, f"{_SHOW_CURSOR if os.isatty(2) else ''}\n{last_words()}\n".encode(errors="replace"))
    os._exit(CODES[number])


def _act_last() -> None:
    for act in reversed(before_end):
        with suppress(Exception):  # the process ends all the same
            act()


@contextmanager
def deferred() -> Iterator[None]:
    """Signals that arrive within take effect at its end: what is half set up cannot be taken down cleanly.

    What stands within may put up handlers of its own; the former ones are back afterwards.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    late: list[int] = []
    with _handling(lambda number, frame: late.append(number)) as former:
        yield
    for number in late[:1]:
        handler = former[number]
        if callable(handler):
            handler(number, None)  # not sent again: it would count as a second one
        else:
            signal.raise_signal(number)
