"""A ledger on a disk that crashes at any call and byte: what it acknowledged is read back whole, or told as damaged."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from pyarrow import fs

from rayscale.errors import StorageError
from rayscale.runs import ledger
from rayscale.runs.folder import recover
from rayscale.runs.ledger import Ledger, NewerRecordError, TrialRecord
from rayscale.system import disk
from rayscale.system.storage import Store
from tests.unit.crashing import Crash, Disk

ROOT = "/place/run"
EMPTY = dict.fromkeys(ledger.COLUMNS)
IDS = st.sampled_from(["a" * 16, "b" * 16])
STEPS = st.integers(0, 12) | st.integers(0, 30)  # a first write makes some 25 calls, a later one some 10
PARTS = st.floats(0, 1)
POWER = st.none() | st.integers(0, 2**32)  # what the power's failure leaves is drawn from it; None: killed only
FILLED = "eager"  # what an older version did not record


def made(trial_id: str, value: int) -> TrialRecord:
    row = {**EMPTY, "trial_id": trial_id, "status": "ok", "steps": value, "executor": FILLED, "schema_version": 2}
    return TrialRecord(row, {"seed": value})


def sealed(body: dict[str, Any]) -> bytes:
    """A record's file, as any version writes it."""
    text = json.dumps(body, sort_keys=True, ensure_ascii=False)
    return json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), **body}, sort_keys=True).encode()


def fill(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "row": {**body["row"], "executor": FILLED}}


class LedgerMachine(RuleBasedStateMachine):
    """`acked`: records that must be read. `maybe`: writes that were cut off: any of them may be read instead.

    `cleared`: a driver has cleared up since the last crash, as each does before it writes; readers come at any time.
    `spoilt`: ids whose file the disk has changed: they must be told as damaged, or set aside, but never be silent.
    """

    def __init__(self) -> None:
        super().__init__()
        self.disk = Disk()
        self.ledger = Ledger(Store(fs.LocalFileSystem(), ROOT, ROOT))
        self.acked: dict[str, TrialRecord] = {}
        self.maybe: dict[str, list[TrialRecord]] = {}
        self.spoilt: set[str] = set()
        self.aside: set[str] = set()  # damaged files that were set aside for good
        self.value, self.cleared = 0, True

    # ---- writing

    @precondition(lambda self: self.cleared)
    @rule(trial_id=IDS)
    def write(self, trial_id: str) -> None:
        record = self.fresh(trial_id)
        with self.on_disk():
            self.ledger.write(record)
        self.acknowledge(record)

    @precondition(lambda self: self.cleared)
    @rule(trial_id=IDS)
    def write_while_others_read(self, trial_id: str) -> None:
        """A reader comes before each call of a write."""
        record = self.fresh(trial_id)
        before = [*self.states(trial_id), record]

        def look(step: int) -> None:
            records, damaged = self.ledger.read()
            found = next((each for each in records if each.trial_id == trial_id), None)
            assert found in before, step
            if trial_id not in self.spoilt:
                assert not any(trial_id in each.name for each in damaged), step

        with self.on_disk(), self.disk.watch(at_step=look):
            self.ledger.write(record)
        self.acknowledge(record)

    @precondition(lambda self: self.cleared)
    @rule(trial_id=IDS, step=STEPS, part=PARTS, power=POWER)
    def crash_while_writing(self, trial_id: str, step: int, part: float, power: int | None) -> None:
        record = self.fresh(trial_id)
        try:
            with self.on_disk(), self.disk.watch(crash=(step, part)):
                self.ledger.write(record)
        except Crash:
            self.maybe.setdefault(trial_id, []).append(record)
        else:
            self.acknowledge(record)
        self.restart(power)

    @precondition(lambda self: self.cleared)
    @rule(trial_id=IDS, step=STEPS)
    def fail_while_writing(self, trial_id: str, step: int) -> None:
        record = self.fresh(trial_id)
        try:
            with self.on_disk(), self.disk.watch(fail=step):
                self.ledger.write(record)
        except (StorageError, OSError):
            self.maybe.setdefault(trial_id, []).append(record)
        else:
            self.acknowledge(record)

    # ---- the next driver

    @rule(power=POWER)
    def lose_power(self, power: int | None) -> None:
        self.restart(power)

    @rule(power=POWER)
    def start_again(self, power: int | None) -> None:
        """What the next driver has read and cleared up after counts as acknowledged: it runs no such trial again."""
        with self.on_disk():
            self.ledger.store.write("lease/000001.json", b"{}")  # which comes first in a run
            records, damaged = self.ledger.read()
            recover(self.ledger, damaged)
            again, none = self.ledger.read()
        assert (again, none) == (records, [])
        self.settle(records)
        self.cleared = True
        assert not any(disk.TEMPORARY.match(name) for name in self.names())
        self.restart(power)

    @rule(step=STEPS, part=PARTS, power=POWER)
    def crash_while_clearing_up(self, step: int, part: float, power: int | None) -> None:
        with self.on_disk():
            self.ledger.store.write("lease/000001.json", b"{}")
            _, damaged = self.ledger.read()
            try:
                with self.disk.watch(crash=(step, part)):
                    recover(self.ledger, damaged)
            except Crash:
                pass
        self.restart(power)

    # ---- other versions and damage

    @precondition(lambda self: self.whole())
    @rule(data=st.data(), place=PARTS, kind=st.sampled_from(["cut", "byte", "value"]))
    def damage(self, data: Any, place: float, kind: str) -> None:
        trial_id = data.draw(st.sampled_from(self.whole()))
        content = self.disk.content(self.name(trial_id))
        at = int(place * (len(content) - 1))
        spoilt = {
            "cut": content[:at],
            "byte": content[:at] + b"\0" + content[at + 1 :],
            "value": content.replace(b'"steps": ', b'"steps": 1'),  # still JSON: the checksum alone tells
        }[kind]
        self.disk.spoil(self.name(trial_id), spoilt)
        self.acked.pop(trial_id)
        self.spoilt.add(trial_id)

    @precondition(lambda self: self.whole())
    @rule(data=st.data())
    def age(self, data: Any) -> None:
        """The file is as an older version wrote it: it is read all the same."""
        trial_id = data.draw(st.sampled_from(self.whole()))
        body = json.loads(self.disk.content(self.name(trial_id)))
        body.pop("sha256")
        body["row"].pop("executor", None)
        body["row"]["schema_version"] = 1
        self.disk.spoil(self.name(trial_id), sealed(body))

    @precondition(lambda self: self.whole())
    @rule(data=st.data())
    def meet_a_newer_version(self, data: Any) -> None:
        trial_id = data.draw(st.sampled_from(self.whole()))
        before = self.disk.content(self.name(trial_id))
        body = json.loads(before)
        del body["sha256"]
        body["row"]["schema_version"] = 99
        self.disk.spoil(self.name(trial_id), sealed(body))
        for attempt in (self.ledger.read, lambda: self.ledger.write(self.fresh(trial_id))):
            with self.on_disk(), pytest.raises(NewerRecordError):
                attempt()
        assert self.disk.content(self.name(trial_id)) == sealed(body)
        self.disk.spoil(self.name(trial_id), before)

    # ---- what must hold

    @invariant()
    def nothing_is_lost_in_silence(self) -> None:
        with self.on_disk():
            records, damaged = self.ledger.read()
            aside = self.ledger.aside()
        found = {each.trial_id: each for each in records}
        named = {each.name for each in damaged}
        for trial_id in ("a" * 16, "b" * 16):
            assert found.get(trial_id) in self.states(trial_id)
            name = f"trials/{trial_id}.json"
            if trial_id not in self.spoilt:
                assert name not in named
            elif trial_id not in found:
                assert name in named or any(each.startswith(name) for each in aside)
        assert self.aside <= set(aside)

    # ---- the model

    def states(self, trial_id: str) -> list[TrialRecord | None]:
        """What a reader may find of a trial."""
        cut_off = self.maybe.get(trial_id, [])
        return [self.acked.get(trial_id), *cut_off]

    def acknowledge(self, record: TrialRecord) -> None:
        self.keep_aside({record.trial_id})
        self.acked[record.trial_id] = record
        self.maybe.pop(record.trial_id, None)
        self.spoilt.discard(record.trial_id)

    def settle(self, records: list[TrialRecord]) -> None:
        for trial_id in ("a" * 16, "b" * 16):
            self.maybe.pop(trial_id, None)
        self.keep_aside(self.spoilt)
        self.acked = {each.trial_id: each for each in records}
        self.spoilt -= set(self.acked)

    def keep_aside(self, ids: set[str]) -> None:
        """Each damaged file among these has been set aside by now, and stays."""
        with self.on_disk():
            self.aside |= set(self.ledger.aside())
        for trial_id in ids & self.spoilt:
            assert any(f"{trial_id}.json" in name for name in self.aside)

    def restart(self, power: int | None) -> None:
        self.disk.restart(None if power is None else random.Random(power))
        self.cleared = False

    def whole(self) -> list[str]:
        """Trials whose file is there for certain."""
        return sorted(trial_id for trial_id in self.acked if trial_id not in self.maybe)

    def fresh(self, trial_id: str) -> TrialRecord:
        self.value += 1
        return made(trial_id, self.value)

    def name(self, trial_id: str) -> str:
        return f"{ROOT}/trials/{trial_id}.json"

    def names(self) -> list[str]:
        return [name for _, _, files in self.disk.walk(ROOT) for name in files]

    @contextmanager
    def on_disk(self) -> Iterator[None]:
        with (
            mock.patch.object(disk, "os", self.disk),
            mock.patch.object(ledger, "SCHEMA_VERSION", 2),
            mock.patch.object(ledger, "UPGRADES", {1: fill}),
        ):
            yield


def sequences(count: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        LedgerMachine,
        settings=settings(
            max_examples=count, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink], database=None,
        ),
    )  # fmt: skip


def test_a_ledger_that_crashes_anywhere_loses_nothing_in_silence() -> None:
    sequences(200)


@pytest.mark.faults
def test_ten_thousand_sequences_of_writes_crashes_and_reads_lose_nothing_in_silence() -> None:
    sequences(10_000)


def test_a_folder_whose_name_could_not_be_flushed_is_made_again() -> None:
    made_disk, content = Disk(), b"content"
    with mock.patch.object(disk, "os", made_disk):
        for step in range(6):  # of mkdir, and of the flush of the folder above
            with made_disk.watch(fail=step):
                try:
                    disk.write_file("/place/run/file", content)
                    break
                except OSError:
                    continue
        disk.write_file("/place/run/file", content)
        made_disk.restart(random.Random(0))
        assert disk.read("/place/run/file") == content
