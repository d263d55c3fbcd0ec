"""The account of a trial's attempts: how far each came and what it cost, so that the next can say what was lost.

On a local disk an attempt that has lasted a while overwrites its one line after every step, which takes microseconds: a
killed process leaves the last line that it wrote, to the next attempt or to another driver. On object storage the line
is written beside each savepoint only. A short attempt writes nothing. Where the storage refuses, the account is lost
and the attempt goes on.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from rayscale.errors import StorageError
from rayscale.runs.savepoints import ATTEMPTS, FOLDER
from rayscale.system.storage import Store

_LINE_BYTES = 128  # always as long, so that a line leaves nothing of the one before


@dataclass(frozen=True)
class Account:
    """What one attempt came to. `interval_steps` is about how many steps lie between two savepoints, 0 if unknown."""

    step: int
    device_seconds: float
    interval_steps: float


@dataclass
class Attempt:
    """An attempt in progress, on `gpus` GPUs (or slots); one of them keeps its account, from `quiet_seconds` on."""

    store: Store
    trial_id: str
    gpus: float
    quiet_seconds: float
    account: Account = Account(0, 0.0, 0.0)
    _began: float = field(default_factory=time.monotonic)
    _handle: int | None = None
    _name: str = ""

    def tell(self, step: int, interval_steps: float) -> None:
        """Training came to this step."""
        seconds = time.monotonic() - self._began
        self.account = Account(step, round(seconds * self.gpus, 3), round(interval_steps, 1))
        if self.store.local is not None and (self._handle is not None or seconds >= self.quiet_seconds):
            self._overwrite()

    def keep(self) -> None:
        """Make it last, also where `tell` did not."""
        if self.store.local is not None:
            self._overwrite()
        else:
            self._name = self._name or f"{_folder(self.trial_id)}/{time.time_ns()}.json"
            with suppress(StorageError):
                self.store.write(self._name, self._line())

    def close(self) -> None:
        """No step follows."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _overwrite(self) -> None:
        with suppress(OSError):
            os.pwrite(self._open() if self._handle is None else self._handle, self._line(), 0)

    def _line(self) -> bytes:
        return json.dumps(asdict(self.account)).encode().ljust(_LINE_BYTES - 1) + b"\n"

    def _open(self) -> int:
        folder = self.store.path(_folder(self.trial_id))
        os.makedirs(folder, exist_ok=True)
        number = len(os.listdir(folder)) + 1
        self._handle = os.open(f"{folder}/{number:06d}.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        return self._handle


def earlier_attempts(store: Store, trial_id: str) -> list[Account]:
    """What the attempts of a trial came to, the first first; an attempt counts from its first step on."""
    accounts = []
    for name in store.names(_folder(trial_id), ".json"):
        # A process may die before its first line is whole, and storage may not give it back.
        with suppress(ValueError, TypeError, OSError):
            accounts.append(Account(**json.loads(store.read(name))))
    return accounts


@dataclass(frozen=True)
class Earlier:
    """What a trial came to under drivers before this one."""

    attempts: int = 0
    device_seconds: float = 0.0


def earlier_drivers(store: Store, trial_ids: Iterable[str], events: Iterable[Mapping[str, Any]]) -> dict[str, Earlier]:
    """What is known of the unfinished attempts of these trials, to be asked before they begin again.

    Attempts are counted by the run's events, since short ones leave no account; their seconds are not known.
    """
    begun: Counter[str] = Counter()
    for event in events:
        if event["event"] == "trial_started":
            begun[event["trial_id"]] += 1
        elif event["event"] == "trial_finished":
            del begun[event["trial_id"]]
    attempts = {trial_id: earlier_attempts(store, trial_id) for trial_id in trial_ids}
    return {
        trial_id: Earlier(max(begun[trial_id], len(accounts)), sum(account.device_seconds for account in accounts))
        for trial_id, accounts in attempts.items()
    }


def _folder(trial_id: str) -> str:
    return f"{FOLDER}/{trial_id}/{ATTEMPTS}"
