"""Savepoints: the folders from which an interrupted trial goes on.

They lie in a run's `checkpoints/<trial_id>/` and have nothing to do with the pretrained checkpoints of checkpoints.py.
A savepoint is written completely before it is named. On a local disk: a hidden folder, every file and the folder itself
fsynced, then renamed. On object storage the manifest, without which the rest counts for nothing, comes last.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pyarrow import fs

from rayscale.runs.events import Event
from rayscale.system import disk
from rayscale.system.storage import Store

FOLDER = "checkpoints"
KEPT = 2
ATTEMPTS = "attempts"  # beside the savepoints; see attempts.py
MANIFEST = "manifest.json"
FORMAT = 1
_TOKEN = f"{FOLDER}/driver.json"


class DamagedError(Exception):
    """A savepoint that cannot be used; the message says why."""


def _unheard(event: Event) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Saving:
    """Where, and about how often, trials are saved. `token` is that of `mark`.

    `wait_seconds` is the longest that training waits for a savepoint to be written; what takes longer is written beside
    training. It must be well below the time-out of the process group. A worker takes `share` of its GPU. `say` gets
    events, from rank 0.
    """

    store: Store
    token: str
    seconds: float
    wait_seconds: float
    say: Callable[[Event], None] = _unheard
    share: float = 1.0


@dataclass(frozen=True)
class Savepoints:
    """The savepoints of one trial. `owner` is what they belong to: plain JSON values, compared as a whole."""

    store: Store
    trial_id: str
    owner: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """Name of the trial's folder in the store."""
        return f"{FOLDER}/{self.trial_id}"

    def name(self, step: int) -> str:
        """Name of a savepoint's folder in the store."""
        return f"{self.folder}/{_name(step)}"

    def write(self, step: int, files: Mapping[str, bytes]) -> int:
        """Keep these files as the savepoint of a step, and of the older ones only the last; returns the bytes written.

        When this returns the savepoint survives a crash. Raises OSError when the storage refuses; then nothing is left.
        """
        digests = {name: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in files.items()}
        body = {"format": FORMAT, "owner": dict(self.owner), "step": step, "files": digests}
        manifest = json.dumps({"sha256": _digest(body), **body}, sort_keys=True, indent=1).encode()
        whole = {**files, MANIFEST: manifest}  # the manifest last
        name = self.name(step)
        if self.store.local is None:
            self.drop(step)
            for file, content in whole.items():
                self.store.write(f"{name}/{file}", content)
        else:
            disk.write_folder(self.store.path(name), partial(_fill, files=whole), lambda _: False)
        self._keep_last(step)
        return sum(len(content) for content in whole.values())

    def steps(self) -> list[int]:
        """Steps of the savepoints that have a name, the last first; whether they are whole `read` tells."""
        steps = (_step(name) for name in _children(self.store, self.folder))
        return sorted((step for step in steps if step is not None), reverse=True)

    def read(self, step: int) -> dict[str, bytes]:
        """The files of a savepoint, every byte checked. Raises DamagedError."""
        folder = self.name(step)
        try:
            manifest = json.loads(self.store.read(f"{folder}/{MANIFEST}"))
            files = manifest["files"]
            if manifest.pop("sha256") != _digest(manifest):
                raise DamagedError(f"{MANIFEST}: its checksum does not match")
            if (manifest["format"], manifest["step"]) != (FORMAT, step):
                raise DamagedError(f"{MANIFEST}: format {manifest['format']}, step {manifest['step']}")
        except FileNotFoundError:
            raise DamagedError(f"{MANIFEST} is missing: the write was not finished") from None
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise DamagedError(f"{MANIFEST}: {type(error).__name__}: {error}") from None
        if manifest["owner"] != dict(self.owner):
            strange = [key for key, value in self.owner.items() if manifest["owner"].get(key) != value]
            raise DamagedError(f"it belongs to another trial (other {', '.join(strange) or 'keys'})")
        return {name: self._checked(f"{folder}/{name}", stated) for name, stated in files.items()}

    def _checked(self, name: str, stated: Mapping[str, Any]) -> bytes:
        short = posixpath.basename(name)
        try:
            content = self.store.read(name)
        except FileNotFoundError:
            raise DamagedError(f"{short} is missing") from None
        except OSError as error:
            raise DamagedError(f"{short}: {error}") from None
        if len(content) != stated["bytes"]:
            raise DamagedError(f"{short} has {len(content)} bytes, {stated['bytes']} were written")
        if hashlib.sha256(content).hexdigest() != stated["sha256"]:
            raise DamagedError(f"{short}: its checksum does not match")
        return content

    def drop(self, step: int) -> None:
        """Delete a savepoint; what a crash leaves of it never looks like one."""
        self._delete(_name(step))

    def _keep_last(self, step: int) -> None:
        """Delete all but this savepoint and the one before it: also later ones, of a course that was not gone on with,
        and what crashes left behind."""
        before = [earlier for earlier in self.steps() if earlier < step][: KEPT - 1]
        kept = {_name(number) for number in (step, *before)} | {ATTEMPTS}
        for name in _children(self.store, self.folder) - kept:
            self._delete(name)

    def _delete(self, name: str) -> None:
        path = f"{self.folder}/{name}"
        if self.store.local is not None:
            full = Path(self.store.path(path))
            hidden = full.with_name(f".{uuid.uuid4().hex}")
            try:
                os.rename(full, hidden)
            except FileNotFoundError:
                return
            shutil.rmtree(hidden, ignore_errors=True)
            return
        if self.store.exists(f"{path}/{MANIFEST}"):
            self.store.filesystem.delete_file(self.store.path(f"{path}/{MANIFEST}"))
        self.store.delete_folder(path)


# ---- the driver's side


def mark(store: Store) -> str:
    """Say in the storage which run of the driver this is; returns the token by which workers know the place again."""
    token = uuid.uuid4().hex
    store.write(_TOKEN, json.dumps({"token": token}).encode())
    return token


def sees(store: Store, token: str) -> bool:
    """Whether this process sees the driver's storage, and the run that gave the token is still the last one."""
    try:
        return json.loads(store.read(_TOKEN))["token"] == token
    except (OSError, ValueError, KeyError, TypeError):
        return False


def forget(store: Store, trial_id: str) -> None:
    """Delete all savepoints of a trial: its record is durable."""
    store.delete_folder(f"{FOLDER}/{trial_id}")


def forget_all_but(store: Store, trial_ids: Iterable[str]) -> None:
    """Delete the savepoints of all other trials, and the folder itself when none is left."""
    kept = set(trial_ids)
    names = _children(store, FOLDER)
    for name in names - kept - {posixpath.basename(_TOKEN)}:
        forget(store, name)
    if not names & kept:
        store.delete_folder(FOLDER)


# ---- files


def _name(step: int) -> str:
    return f"step-{step:09d}"


def _step(name: str) -> int | None:
    head, _, digits = name.partition("-")
    return int(digits) if head == "step" and digits.isdigit() else None


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _children(store: Store, folder: str) -> set[str]:
    selector = fs.FileSelector(store.path(folder), allow_not_found=True)
    return {info.base_name for info in store.filesystem.get_file_info(selector)}


def _fill(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)
