"""Whose a run's folder is, and places in which there can be none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rayscale.errors import InputError
from rayscale.system.storage import Store


def rights(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.row
def test_row_49_a_folder_made_here_is_its_owners_alone_and_so_is_all_in_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    former = os.umask(0o022)
    try:
        store = Store.open(tmp_path / "runs" / "mine")
        store.check_writable()
        store.write("trials/a.json", b"{}")
        store.append("events.jsonl", b"{}\n")
        theirs = tmp_path / "shared"
        theirs.mkdir()
        Store.open(theirs).check_writable()
        Store.open(theirs).write("trials/a.json", b"{}")
    finally:
        os.umask(former)
    mine = tmp_path / "runs" / "mine"
    assert rights(mine) == rights(mine / "trials") == 0o700
    assert rights(mine / "trials" / "a.json") == rights(mine / "events.jsonl") == 0o600
    # Whoever wants others to read a run makes its folder before.
    assert rights(tmp_path / "runs") == rights(theirs) == rights(theirs / "trials") == 0o755
    assert rights(theirs / "trials" / "a.json") == 0o644


@pytest.mark.row
def test_row_29_where_no_folder_can_be_is_told_in_one_message(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("/nowhere/at/all")
    (tmp_path / "file").touch()
    for place, what in (
        (Path("/proc/x"), "nothing can be made in /proc"),
        (Path("/proc/x/y"), "nothing can be made in /proc"),
        (tmp_path / "dangling", "is a link to /nowhere/at/all, which is not there"),
        (tmp_path / "dangling" / "run", "is a link to /nowhere/at/all, which is not there"),
        (tmp_path / "file", "is no folder"),
        (tmp_path / "file" / "run", "Not a directory"),
    ):
        with pytest.raises(InputError, match=what) as told:
            Store.open(place).check_writable()
        assert (told.value.exit_code, told.value.code) == (2, "storage_not_writable")
        assert "give another one with --out" in told.value.message
