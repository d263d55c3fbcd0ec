"""One owner of a run: rows 24 and 25 of the fault matrix, and what becomes of a lease."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rayscale.errors import InputError, LeaseLostError
from rayscale.runs import lease
from rayscale.runs.lease import hold, read_owner
from rayscale.runs.ledger import Ledger
from rayscale.system.storage import Store

HOLDS = """
import sys, time
from rayscale.runs.lease import hold
from rayscale.system.storage import Store
with hold(Store.open(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "study.yaml").write_text("name: x")
    return Store.open(tmp_path / "run")


@pytest.fixture
def other(store: Store) -> Any:
    """Another process that holds the run."""
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(store.root)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.row
def test_row_24_the_second_driver_is_refused_and_told_who_holds_the_run(store: Store, other: Any) -> None:
    with pytest.raises(InputError, match=rf"another driver runs this study here: process {other.pid} on ") as caught:
        hold(store).__enter__()
    assert (caught.value.code, caught.value.exit_code) == ("run_in_use", 2)
    owner = read_owner(store)
    assert owner is not None
    assert owner.since in str(caught.value)


@pytest.mark.row
def test_row_24_a_killed_owner_on_this_host_is_followed_at_once(store: Store, other: Any) -> None:
    other.kill()
    other.wait()
    assert read_owner(store) is None
    said: list[str] = []
    with hold(store, say=said.append):
        owner = read_owner(store)
        assert owner is not None
        assert owner.pid == os.getpid()
    assert not said  # nothing was waited for
    assert read_owner(store) is None


def written_elsewhere(store: Store, **changes: Any) -> dict[str, Any]:
    """The lease of an owner on another host, of which only its beat tells whether it lives."""
    owner = {
        "token": "t", "host": "far", "pid": 1, "since": "2031-01-01T00:00:00+00:00", "place": "another boot",
        "started": "5", "expiry_seconds": 1.0, "beat": 7, "released": False, **changes,
    }  # fmt: skip
    store.write("lease/000001.json", json.dumps(owner).encode())
    return owner


@pytest.mark.row
def test_row_25_a_clock_set_back_neither_keeps_nor_breaks_a_lease(store: Store) -> None:
    written_elsewhere(store)  # since a day in the future, as after a clock was set back
    with hold(store):  # it stands still for the second it promised
        owner = read_owner(store)
        assert owner is not None
        assert owner.host != "far"
    assert store.names("lease") == ["lease/000002.json"]


def test_an_owner_on_another_host_whose_beat_changes_is_alive(store: Store, monkeypatch: Any) -> None:
    owner = written_elsewhere(store, expiry_seconds=60.0)

    def beat(seconds: float) -> None:
        owner["beat"] += 1
        store.write("lease/000001.json", json.dumps(owner).encode())

    monkeypatch.setattr(lease.time, "sleep", beat)
    with pytest.raises(InputError, match="process 1 on far"):
        hold(store).__enter__()


def test_an_owner_that_was_overtaken_writes_no_more(store: Store) -> None:
    with hold(store, beat_seconds=60) as held:
        ledger = Ledger(store, held.check)
        ledger.guard()
        written_elsewhere(store)
        store.rename("lease/000001.json", "lease/000002.json")
        with pytest.raises(LeaseLostError, match="another one took over the run"):
            ledger.guard()
    assert b'"far"' in store.read("lease/000002.json")  # the end of the loser leaves it as it is


def test_of_many_that_try_at_once_one_owns_the_run(store: Store) -> None:
    code = HOLDS.replace("time.sleep(60)", "time.sleep(1.5)")
    tries = [
        subprocess.Popen([sys.executable, "-c", code, str(store.root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    ended = [process.communicate()[0] for process in tries]
    won = [out for out in ended if b"held" in out]
    assert len(won) >= 1
    assert all(process.returncode == (0 if b"held" in out else 1) for process, out in zip(tries, ended, strict=True))


def test_a_run_that_came_to_nothing_leaves_no_lease(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "new")
    store.check_writable()
    with hold(store):
        assert store.names("lease")
    assert not list((tmp_path / "new").iterdir())


def test_a_heartbeat_goes_on_while_the_owner_works(store: Store) -> None:
    with hold(store, beat_seconds=0.02):
        first, until = store.read("lease/000001.json"), time.monotonic() + 30
        while store.read("lease/000001.json") == first:
            assert time.monotonic() < until
            time.sleep(0.01)
