"""The exceptions of rayscale: every message names where, what was found, and the mend.

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
    """Base of all errors; `code` is a stable word for machines, `where` the place (file:line: field) if any."""

    exit_code = 1
    show_traceback = False  # the command line prints it too: set where a trial is run to be looked into

    def __init__(self, message: str, *, code: str = "failed", where: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
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

    def __init__(self, message: str, *, code: str = "trial_failed", where: str | None = None, permanent: bool = False):
        super().__init__(message, code=code, where=where)
        self.permanent = permanent


class MemoryTrialError(TrialError):
    """Memory did not suffice for `micro_batch` rows at once; permanent where there is no smaller one."""

    def __init__(self, reason: str, micro_batch: int):
        smallest = micro_batch <= 1
        advice = "; use a smaller model, a smaller task.max_length, or workers with more memory" if smallest else ""
        text = f"out of memory with micro-batches of {micro_batch} ({reason}){advice}"
        super().__init__(text, code="out_of_memory", permanent=smallest)
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
        """What the system said of a place that was to be `done` (read or written), and the mend."""
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            mend = "make room there, then run the same command again: finished trials are safe"
            return cls(f"cannot be written: {reason}; {mend}", code="disk_full", where=place)
        if error.errno in _NO_FOLDER:
            if done == "read":
                mend = "give this user the right to read it, or another folder with --out"
                return cls(f"cannot be read: {reason}; {mend}", code="storage_not_readable", where=place)
            mend = "make it a folder that you can write, or give another one with --out"
            return cls(f"cannot be written: {reason}; {mend}", code="storage_not_writable", where=place)
        mend = "check the storage, then run the same command again: finished trials are safe"
        return cls(f"cannot be {done}: {reason}; {mend}", code="storage_failed", where=place)


class LeaseLostError(RayscaleError):
    """Another driver took the run over while this one was paused; this one must write no more."""


class InputError(RayscaleError):
    """Wrong input: the command ends with exit code 2."""

    exit_code = 2

    def __init__(self, message: str, *, code: str = "wrong_input", where: str | None = None):
        super().__init__(message, code=code, where=where)


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


def nearest(word: str, known: list[str]) -> str:
    """`; did you mean 'x'?` for a misspelling of a `known` word or the beginning of some, else an empty string."""
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1, cutoff=0.6)
    close = close or [name for name in known if len(word) > 1 and name.startswith(word)]
    return f"; did you mean {' or '.join(repr(name) for name in close)}?" if close else ""
