"""What a crash, a full disk and other versions do to a run's files: rows 21, 26, 27, 29 and 30 of the fault matrix."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rayscale.errors import InputError, StorageError
from rayscale.runs import ledger
from rayscale.runs.events import log_event
from rayscale.runs.folder import load
from rayscale.runs.ledger import Ledger, NewerRecordError, TrialRecord
from rayscale.system import disk
from rayscale.system.storage import Store
from tests.unit.crashing import Crash, Disk

PLANTED = "chinchilla:A=20,B=30,E=0.8,alpha=0.3,beta=0.35"


def record(trial_id: str = "a" * 16, **row: Any) -> TrialRecord:
    empty = dict.fromkeys(ledger.COLUMNS)
    return TrialRecord(
        {**empty, "trial_id": trial_id, "status": "ok", "schema_version": ledger.SCHEMA_VERSION, **row}, {"seed": 0}
    )


def rewritten(file: Path, change: Any) -> None:
    """Change the body of a record's file, checksum included, as another version would write it."""
    body = json.loads(file.read_text())
    body.pop("sha256")
    change(body)
    text = json.dumps(body, sort_keys=True, ensure_ascii=False)
    file.write_text(json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), **body}, sort_keys=True, indent=1))


# ---- records


@pytest.mark.row
def test_row_27_a_record_cut_at_every_byte_is_lost_alone_and_said(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    kept = Ledger(store)
    good, cut = record("b" * 16, eval_loss=1.5), record("c" * 16, error="naïve")
    for each in (good, cut):
        kept.write(each)
    file = tmp_path / "trials" / f"{'c' * 16}.json"
    content = file.read_bytes()
    for length in range(len(content)):
        file.write_bytes(content[:length])
        records, damaged = kept.read()
        assert records == [good], length
        assert [each.name for each in damaged] == [f"trials/{'c' * 16}.json"], length
    kept.write(cut)  # the cut file is kept beside the whole one
    assert kept.read() == ([good, cut], [])
    assert len(kept.aside()) == 1


def test_a_record_under_the_name_of_another_trial_is_damaged(tmp_path: Path) -> None:
    kept = Ledger(Store.open(tmp_path))
    kept.write(record("b" * 16))
    shutil.copy(tmp_path / "trials" / f"{'b' * 16}.json", tmp_path / "trials" / f"{'d' * 16}.json")
    records, damaged = kept.read()
    assert [each.trial_id for each in records] == ["b" * 16]
    assert "another trial" in damaged[0].reason


def test_a_record_of_an_older_version_is_read_with_what_came_later_filled_in(tmp_path: Path, monkeypatch: Any) -> None:
    kept = Ledger(Store.open(tmp_path))
    kept.write(record(eval_loss=1.5, exact_match=None))

    def age(body: dict[str, Any]) -> None:
        del body["row"]["exact_match"]

    rewritten(tmp_path / "trials" / f"{'a' * 16}.json", age)

    def fill(body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "row": {**body["row"], "exact_match": 0.25}}

    now = ledger.SCHEMA_VERSION
    monkeypatch.setattr(ledger, "SCHEMA_VERSION", now + 1)
    monkeypatch.setattr(ledger, "UPGRADES", {**ledger.UPGRADES, now: fill})
    found, damaged = kept.read()
    assert not damaged
    row = found[0].row
    assert (row["exact_match"], row["eval_loss"], row["schema_version"]) == (0.25, 1.5, now + 1)


@pytest.mark.parametrize(
    ("device", "attempts", "charged", "share"),
    [("cpu", 1, 10.0, 1.0), ("cuda", 1, 10.0, 1.0), ("cuda", 1, 3.34, 1 / 3), ("cuda", 2, 5.0, None)],
)
def test_of_older_records_the_share_of_a_gpu_is_told_by_what_was_charged(
    tmp_path: Path, device: str, attempts: int, charged: float, share: float | None
) -> None:
    times = {f"{what}_at": f"2026-11-26T01:00:{second}.000+00:00" for what, second in (("started", 10), ("ended", 20))}
    kept = Ledger(Store.open(tmp_path))
    kept.write(record(device=device, gpus=1, attempts=attempts, device_seconds=charged, **times))

    def age(body: dict[str, Any]) -> None:
        del body["row"]["share"]
        body["row"]["schema_version"] = 3

    rewritten(tmp_path / "trials" / f"{'a' * 16}.json", age)
    ((found,), damaged) = kept.read()
    assert not damaged
    assert (found.row["share"], found.row["schema_version"]) == (share, ledger.SCHEMA_VERSION)


def test_older_records_do_not_say_by_which_rules_metrics_were_counted(tmp_path: Path) -> None:
    kept = Ledger(Store.open(tmp_path))
    kept.write(record(bleu=12.5, metric_signature="BLEU|tok:zh"))
    ((now,), _) = kept.read()
    assert now.row["metric_signature"] == "BLEU|tok:zh"

    def age(body: dict[str, Any]) -> None:
        del body["row"]["metric_signature"]
        body["row"]["schema_version"] = 4

    rewritten(tmp_path / "trials" / f"{'a' * 16}.json", age)
    ((found,), damaged) = kept.read()
    assert not damaged
    assert (found.row["bleu"], found.row["metric_signature"]) == (12.5, None)


def test_a_record_of_a_newer_version_is_refused_and_never_overwritten(tmp_path: Path) -> None:
    kept = Ledger(Store.open(tmp_path))
    kept.write(record())
    file = tmp_path / "trials" / f"{'a' * 16}.json"
    rewritten(file, lambda body: body["row"].update(schema_version=99))
    content = file.read_bytes()
    for attempt in (kept.read, lambda: kept.write(record())):
        with pytest.raises(NewerRecordError, match=r"written by a newer rayscale .*; update rayscale") as caught:
            attempt()
        assert caught.value.exit_code == 2
    assert file.read_bytes() == content


def test_a_line_cut_off_by_a_crash_joins_no_other(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.write("plan.json", b"{}")
    log_event(store, {"event": "run_ended"})
    with open(tmp_path / "events.jsonl", "ab") as file:
        file.write(b'{"at": "2026-01-01", "ev')
    log_event(store, {"event": "trial_started", "trial_id": "a"})
    assert [each["event"] for each in load(tmp_path).events] == ["run_ended", "trial_started"]


# ---- the disk


@pytest.mark.row
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: apt-get install strace")
def test_row_30_a_write_is_flushed_before_it_is_named_and_its_folder_after(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    code = "import sys; from rayscale.system import disk; disk.write_file(sys.argv[1], b'content')"
    calls = "openat,mkdir,write,fsync,fdatasync,rename,renameat,renameat2,close"
    traced = subprocess.run(
        ["strace", "-f", "-y", "-o", str(log), "-e", f"trace={calls}", sys.executable, "-c", code,
         str(tmp_path / "new" / "file")],
        capture_output=True, text=True,
    )  # fmt: skip
    if "ptrace" in traced.stderr and traced.returncode:
        pytest.skip(f"strace may not trace here: {traced.stderr.strip()}")
    assert traced.returncode == 0, traced.stderr
    ours = [line.split(maxsplit=1)[1] for line in log.read_text().splitlines() if str(tmp_path) in line]

    def place(start: str, *parts: str) -> int:
        found = [n for n, line in enumerate(ours) if line.startswith(start) and all(part in line for part in parts)]
        assert found, (start, parts, ours)
        return found[0]

    folder, temporary = str(tmp_path / "new"), str(tmp_path / "new" / ".file.")
    order = [
        place("mkdir(", folder),
        place("fsync(", f"<{tmp_path}>"),
        place("write(", temporary, "content"),
        place("fsync(", temporary),
        place("rename", temporary, f'{folder}/file"'),
        place("fsync(", f"<{folder}>"),
    ]
    assert order == sorted(order)


@pytest.mark.row
@pytest.mark.parametrize("power", [None, 1, 2, 3])
def test_row_30_a_folder_is_whole_or_not_there_whenever_its_writer_ends(power: int | None, monkeypatch: Any) -> None:
    def write(content: bytes, replaces: bool) -> None:
        def fill(folder: Path) -> None:
            for name in ("a", "b"):
                disk.append(f"{folder}/{name}", content)  # not flushed: that is what is tested

        disk.write_folder("/place/folder", fill, lambda _: not replaces)

    def contents(made: Disk) -> list[bytes]:
        if not stat.S_ISDIR(disk._mode("/place/folder")):
            return []
        return [made.content(f"/place/folder/{name}") for name in ("a", "b")]

    for before, replaces, allowed in (
        (None, True, ([], [b"new"] * 2)),
        (b"old", True, ([b"old"] * 2, [], [b"new"] * 2)),
        (b"old", False, ([b"old"] * 2,)),
    ):
        ended, step = False, 0
        while not ended:
            made = Disk()
            monkeypatch.setattr(disk, "os", made)
            monkeypatch.setattr(disk, "shutil", made)
            if before:
                write(before, True)
            try:
                with made.watch(crash=(step, 0.5)):
                    write(b"new", replaces)
                ended = True
            except Crash:
                step += 1
            made.restart(None if power is None else random.Random(power))
            assert contents(made) in allowed, (before, replaces, step)
            assert not ended or contents(made) == allowed[-1]
        assert step > 10


@pytest.mark.row
def test_row_30_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: Any) -> None:
    path = str(tmp_path / "file")
    disk.write_file(path, b"before")
    for call in ("fsync", "replace", "write"):
        with monkeypatch.context() as broken:
            broken.setattr(os, call, lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(OSError, match="No space"):
                disk.write_file(path, b"after")
        assert disk.read(path) == b"before"
        assert os.listdir(tmp_path) == ["file"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A disk of 400 kB."""
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(place)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.row
def test_row_26_a_full_disk_is_a_clean_stop_that_can_be_resumed(study_file: Path, small_disk: Path) -> None:
    run, filler = small_disk / "run", small_disk / "filler"
    filler.write_bytes(b"x" * 360_000)
    full = command(study_file, run)
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    assert "No space left on device; make room there, then run the same command again" in full.stderr
    assert str(run) in full.stderr
    before = Ledger(Store.open(run)).read()
    assert not before[1]
    filler.unlink()
    again = command(study_file, run)
    # What else a run writes may not fit either; every record does, and those that stood are as they were.
    assert again.returncode in (0, 1), again.stderr
    after = {each.trial_id: each for each in Ledger(Store.open(run)).read()[0]}
    assert len(after) == 8
    assert all(after[each.trial_id] == each for each in before[0])


@pytest.mark.row
def test_row_29_a_folder_that_cannot_be_written_is_refused_before_any_work(study_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    refused = command(study_file, tmp_path / "file" / "run")
    assert refused.returncode == 2
    assert "cannot be written: Not a directory; make it a folder that you can write" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.row
def test_row_29_a_read_only_disk_is_refused_before_any_work(study_file: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused = command(study_file, small_disk / "run")
    assert refused.returncode == 2
    assert "cannot be written: Read-only file system; make it a folder that you can write" in refused.stderr


def test_what_the_storage_says_becomes_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written") as caught:
        Store.open(tmp_path / "file").write("a/b", b"")
    assert caught.value.exit_code == 1
    with pytest.raises(InputError, match="cannot be written"):
        Store.open(tmp_path / "file").check_writable()


# ---- the driver


def command(study: Path, run: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments(study, run), cwd=study.parent, capture_output=True, text=True, timeout=240)


def arguments(study: Path, run: Path) -> list[str]:
    return [sys.executable, "-m", "rayscale", "run", str(study), "--simulate", PLANTED, "--yes", "--out", str(run)]


@pytest.mark.faults
def test_row_21_a_killed_driver_loses_and_repeats_nothing(study_file: Path, tmp_path: Path) -> None:
    clean, run = tmp_path / "clean", tmp_path / "run"
    assert command(study_file, clean).returncode == 0
    # Slowed down, so that the kills fall between and within the writes of the eight records.
    code = (
        "import sys; from pathlib import Path; from rayscale.cli.terminal import Terminal\n"
        "from rayscale.plan.simulated_run import run_simulated\n"
        "terminal = Terminal(json=False, yes=True)\n"
        "run_simulated(sys.argv[1], sys.argv[2], out=sys.argv[3], observer=terminal, seconds_a_trial=0.05)"
    )
    chance, kills = random.Random(7), 0
    for _ in range(4):
        driver = subprocess.Popen([sys.executable, "-c", code, str(study_file), PLANTED, str(run)],
                                  cwd=study_file.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        until = time.monotonic() + 120
        goal = len(list((run / "trials").glob("*.json"))) + 1
        while len(list((run / "trials").glob("*.json"))) < goal and driver.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.06))
        driver.send_signal(signal.SIGKILL)
        driver.communicate()
        kills += driver.returncode == -signal.SIGKILL
    assert kills >= 3
    assert command(study_file, run).returncode == 0
    finished = Counter(each["trial_id"] for each in load(run).events if each["event"] == "trial_finished")
    started = Counter(each["trial_id"] for each in load(run).events if each["event"] == "trial_started")
    assert len(load(run).records) == 8
    # A trial whose record is durable is never begun again; only the last event of a killed driver may be missing.
    assert max(finished.values()) == 1
    assert sum(started.values()) <= 8 + kills
    timeless = ["host", "started_at", "ended_at"]
    pd.testing.assert_frame_equal(load(run).trials.drop(columns=timeless), load(clean).trials.drop(columns=timeless))
    assert not list(run.rglob(".*.*"))  # no unfinished write is left
