"""The exceptions of rayscale: every message names where, what was found, and the fix.

RayscaleError            exit 1  the job failed
├── TrialError                   one trial failed; `permanent` says whether a retry can help
│   └── MemoryTrialError         memory did not suffice; a smaller micro-batch may
├── ClusterError                 Ray or the cluster failed
├── StorageError                 the run's folder could not be written: the disk is full, ...
├── LeaseLostError               another driver took the run over
└── InputError           exit 2  wrong input
    ├── StudyError               the study file
    ├── DataError                the text data
    └── TableError               a table of trials given to a fit
"""

from __future__ import annotations

import errno
from typing import Any


class RayscaleError(Exception):
    """Base of all errors; `code` is a stable word for machines, `where` the place (file:line: field) if any.

    The message is what was found and, where there is one, the `fix`.
    """

    exit_code = 1
    code = "failed"
    show_traceback = False  # the command line prints it too: set where a trial is run to be looked into

    def __init__(self, text: str, *, fix: str = "", code: str | None = None, where: str | None = None) -> None:
        self.message = f"{text}; {fix}" if fix else text
        super().__init__(self.message)
        self.code = code or self.code
        self.where = where

    def __str__(self) -> str:
        if not self.where or self.message.startswith(self.where):
            return self.message
        return f"{self.where}: {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own reduce would call __init__ without the keywords; errors travel between Ray processes.
        return _rebuild, (type(self), self.message, self.__dict__.copy())


class TrialError(RayscaleError):
    """One trial failed; a permanent failure is not retried."""

    code = "trial_failed"

    def __init__(self, text: str, *, fix: str = "", code: str | None = None, permanent: bool = False):
        super().__init__(text, fix=fix, code=code)
        self.permanent = permanent


class MemoryTrialError(TrialError):
    """Memory did not suffice for `micro_batch` rows at once; permanent where there is no smaller one."""

    def __init__(self, reason: str, micro_batch: int):
        smallest = micro_batch <= 1
        fix = "use a smaller model, a smaller task.max_length, or workers with more memory" if smallest else ""
        text = f"out of memory with micro-batches of {micro_batch} ({reason})"
        super().__init__(text, fix=fix, code="out_of_memory", permanent=smallest)
        self.micro_batch = micro_batch


#: What the system says of a place where this user can write nothing; ENOENT of a link that leads nowhere, and of /proc.
_NO_FOLDER = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOENT,
              errno.ELOOP)  # fmt: skip


class ClusterError(RayscaleError):
    """Ray could not start, connect or keep the work alive."""


class StorageError(RayscaleError):
    """The run's folder could not be written; what was acknowledged before is safe."""

    @classmethod
    def at(cls, place: str, error: OSError, done: str = "written") -> StorageError:
        """What the system said of a place that was to be `done` (read or written), and the fix."""
        text = f"cannot be {done}: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            fix, code = "make room there, then run the same command again: finished trials are safe", "disk_full"
        elif error.errno in _NO_FOLDER and done == "read":
            fix, code = "give this user the right to read it, or another folder with --out", "storage_not_readable"
        elif error.errno in _NO_FOLDER:
            fix, code = "make it a folder that you can write, or give another one with --out", "storage_not_writable"
        else:
            fix, code = "check the storage, then run the same command again: finished trials are safe", "storage_failed"
        return cls(text, fix=fix, code=code, where=place)


class LeaseLostError(RayscaleError):
    """Another driver took the run over while this one was paused; this one must write no more."""


class InputError(RayscaleError):
    """Wrong input: the command ends with exit code 2."""

    exit_code = 2
    code = "wrong_input"


class StudyError(InputError):
    """The study file is wrong; the message lists every error found."""


class DataError(InputError):
    """The text data is wrong; the message names file, line and column."""


class TableError(InputError):
    """A table given to a fit lacks what the fit needs."""


def _rebuild(kind: type[RayscaleError], message: str, state: dict[str, Any]) -> RayscaleError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


def first_line(error: BaseException) -> str:
    """The first line of what an error says; the name of its type where it says nothing."""
    text = error.message if isinstance(error, RayscaleError) else str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0]


def nearest(word: str, known: list[str]) -> str:
    """`; did you mean 'x'?` for a misspelling of a `known` word or the beginning of some, else an empty string."""
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1, cutoff=0.6)
    close = close or [name for name in known if len(word) > 1 and name.startswith(word)]
    return f"; did you mean {' or '.join(repr(name) for name in close)}?" if close else ""
