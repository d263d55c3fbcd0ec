"""One owner: a lease in the run's folder, so that no two drivers write one run.

The owner changes its lease every few seconds. Another driver that sees it change is refused; one that sees it stand
still for the time the owner promised takes the run over, and at once where it can tell that the owner's process is
gone. No clocks are compared: each side measures with its own that cannot be set.

A lease is a file lease/<generation>.json. Taking over means to make the next generation, which only one can: on a local
disk the file is made by a hard link, which fails if it is there. Object storage has no such thing, so there each writes
lease/<generation>-<token>.json, waits until everyone who may have looked before has written too, and the smallest wins.
The highest generation owns the run; a released lease stays, so that no generation is ever used twice.
"""

from __future__ import annotations

import json
import os
import posixpath
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rayscale.errors import InputError, LeaseLostError, StorageError
from rayscale.system.storage import Store

FOLDER = "lease"
BEAT_SECONDS = 2.0
EXPIRY_SECONDS = 30.0
LOOK_SECONDS = 0.25
#: On object storage: who takes longer than this from looking to having written gives up, and who has written waits it.
SETTLE_SECONDS = 5.0


@dataclass(frozen=True)
class Owner:
    """Who holds a run. `since` (UTC) is for people; `place` and `started` name the process beyond its number."""

    token: str
    host: str
    pid: int
    since: str
    place: str | None
    started: str | None
    expiry_seconds: float
    beat: int = 0
    released: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    @property
    def gone(self) -> bool:
        """Whether it released the lease, or its process is known to have ended; False where that cannot be told."""
        if self.released:
            return True
        return self.place is not None and self.place == _place() and _started(self.pid) != self.started

    def content(self) -> bytes:
        """As the lease's file holds it."""
        return json.dumps(asdict(self)).encode()


class Lease:
    """The lease of a run that this process holds."""

    def __init__(self, store: Store, name: str, owner: Owner, beat_seconds: float) -> None:
        self.store, self.name, self.owner = store, name, owner
        self._beat_seconds = beat_seconds
        self._ended = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._keep, daemon=True, name="rayscale-lease")
        self._thread.start()

    def check(self) -> None:
        """Raises LeaseLostError if another driver has taken the run over. Looks into the folder: for every write."""
        if self._lost or self._overtaken():
            self._lost = True
            owner = read_owner(self.store) or "ended since"
            text = f"this driver was unresponsive for too long and another one took over the run ({owner})"
            text += "; stopping; finished trials are safe"
            raise LeaseLostError(text, code="lease_lost", where=self.store.location)

    def release(self) -> None:
        """Stop the heartbeat and let the next driver in."""
        self._ended.set()
        self._thread.join()
        if self._lost:
            return
        with suppress(StorageError):  # the disk is full, perhaps; the next driver finds that this process is gone
            if self.store.local is not None and os.listdir(self.store.root) == [FOLDER]:
                self.store.delete_folder(FOLDER)  # refused, or not agreed to: nothing was written that needs an owner
            else:
                self._write(replace(self.owner, released=True))

    def _keep(self) -> None:
        while not self._ended.wait(self._beat_seconds):
            with suppress(OSError, StorageError):  # for longer than the expiry it loses the lease: `check` finds that
                if self._overtaken():
                    self._lost = True
                    return
                self.owner = replace(self.owner, beat=self.owner.beat + 1)
                self._write(self.owner)

    def _overtaken(self) -> bool:
        newest = _newest(self.store)
        if _generation(newest) != _generation([self.name]):
            return bool(newest)
        owner = _parse(self.store.read(self.name))
        return owner is not None and owner.token != self.owner.token

    def _write(self, owner: Owner) -> None:
        self.store.write(self.name, owner.content())


@contextmanager
def hold(
    store: Store, *, say: Callable[[str], None] = lambda text: None, beat_seconds: float = BEAT_SECONDS,
    expiry_seconds: float = EXPIRY_SECONDS, settle_seconds: float = SETTLE_SECONDS,
) -> Iterator[Lease]:  # fmt: skip
    """Own a run until the end of the block, however it ends. `say` gets a sentence when there is a wait.

    Raises InputError (code run_in_use) while another driver is alive, StorageError where the lease cannot be written.
    """
    owner = Owner(
        uuid.uuid4().hex, socket.gethostname(), os.getpid(), datetime.now(UTC).isoformat(timespec="seconds"), _place(),
        _started(os.getpid()), expiry_seconds,
    )  # fmt: skip
    while (name := _take(store, owner, *_await_end(store, say), settle_seconds)) is None:
        pass  # somebody else was quicker: look again
    lease = Lease(store, name, owner, beat_seconds)
    try:
        for old in store.names(FOLDER, ".json"):
            if _generation([old]) < _generation([name]):
                store.delete(old)
        yield lease
    finally:
        lease.release()


def read_owner(store: Store) -> Owner | None:
    """Who holds a run now, as far as its folder tells; None where nobody does."""
    return next((owner for owner in _owners(store) if owner and not owner.gone), None)


def has_ended(store: Store) -> bool:
    """Whether it is known that no driver runs: there was a lease, and its owner is gone."""
    owners = _owners(store)
    return bool(owners) and all(owner is not None and owner.gone for owner in owners)


def _owners(store: Store) -> list[Owner | None]:
    return [_parse(content) for content in _contents(store).values()]


def _await_end(store: Store, say: Callable[[str], None]) -> tuple[int, float]:
    """Wait until the newest generation is known to be over; returns it, and when it was looked at last."""
    first, since = _contents(store), time.monotonic()
    waiting = False
    while True:
        looked = time.monotonic()
        now = _contents(store)
        owners = {name: _parse(content) for name, content in now.items()}
        alive = {name: owner for name, owner in owners.items() if owner is None or not owner.gone}
        if not alive:
            return _generation(now), looked
        if set(now) != set(first):
            first, since = now, looked
        if changed := [name for name in alive if now[name] != first[name]]:
            text = f"another driver runs this study here: {alive[changed[0]] or 'it does not say which'}"
            fix = "wait for it or stop it, or give another run folder"
            raise InputError(text, fix=fix, code="run_in_use", where=store.location)
        if looked - since >= max(owner.expiry_seconds if owner else EXPIRY_SECONDS for owner in alive.values()):
            return _generation(now), looked
        if not waiting and looked - since > BEAT_SECONDS:
            say(f"Waiting to see whether another driver is alive: {next(iter(alive.values())) or 'unknown'}.")
            waiting = True
        time.sleep(LOOK_SECONDS)


def _take(store: Store, owner: Owner, over: int, looked: float, settle_seconds: float) -> str | None:
    """Make the generation after the one that is over; its name, or None if another driver has it."""
    if store.local is not None:
        name = f"{FOLDER}/{over + 1:06d}.json"
        if not store.create(name, owner.content()):
            return None
        won = _newest(store) == [name]
    else:
        name = f"{FOLDER}/{over + 1:06d}-{owner.token}.json"
        store.write(name, owner.content())
        won = time.monotonic() - looked < settle_seconds
        if won:
            time.sleep(settle_seconds)
            won = _newest(store)[:1] == [name]
    if not won:
        store.delete(name)
    return name if won else None


def _newest(store: Store) -> list[str]:
    """Names of the leases of the highest generation, sorted: one, but for a moment on object storage."""
    names = store.names(FOLDER, ".json")
    highest = _generation(names)
    return [name for name in names if _generation([name]) == highest]


def _generation(names: Iterable[str]) -> int:
    """The highest generation among the names of leases; 0 if there are none."""
    stems = (posixpath.basename(name).removesuffix(".json").split("-")[0] for name in names)
    return max((int(stem) for stem in stems if stem.isdigit()), default=0)


def _contents(store: Store) -> dict[str, bytes]:
    while True:
        try:
            return {name: store.read(name) for name in _newest(store)}
        except FileNotFoundError:
            continue  # taken over just now


def _parse(content: bytes) -> Owner | None:
    try:
        return Owner(**json.loads(content))
    except (ValueError, TypeError):
        return None  # damaged, or of another version: only its change tells that its owner lives


def _place() -> str | None:
    """What process numbers are counted in: this boot of this machine, this container; None where it cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')} {socket.gethostname()}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process began, in ticks since the boot; None if it has ended (a zombie has) or cannot be looked at."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else rest[18]
