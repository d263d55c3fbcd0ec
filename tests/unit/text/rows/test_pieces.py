"""Text larger than memory: cut into pieces, read once, put together in the order of its keys."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rayscale.errors import DataError
from rayscale.study.study import Data, Grid, Ladder, Study, Task
from rayscale.text import folders
from rayscale.text.preparation import Here, prepare
from rayscale.text.rows import pieces
from rayscale.text.rows.clean import list_sources
from rayscale.text.sources import digests
from rayscale.text.sources.readers import read_jsonl
from rayscale.text.tokens.encode import TokenizerSpec

BERT = TokenizerSpec("trained", "bert", 400)


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "cache"))


def write(folder: Path, lines: int = 400) -> Path:
    path = folder / "rows.jsonl"
    found = [json.dumps({"text": f"row {i % 370} says é and {i * i}", "label": "xyz"[i % 3]}) for i in range(lines)]
    found[7] = "\n" + found[7]  # an empty line, and the others are counted on
    path.write_text("\ufeff" + "\n".join(found))
    return path


def contents_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("size", [1, 7, 64, 1000, 10**6])
def test_every_line_is_in_one_span_with_its_number(tmp_path, monkeypatch, make_study, size):
    path = write(tmp_path, 60)
    whole = list(read_jsonl(str(path), ("text", "label")))
    monkeypatch.setattr(digests, "BLOCK_BYTES", size)
    cut = pieces.cut(list_sources(make_study(path).data))
    found = [row for piece in cut for row in read_jsonl(str(path), ("text", "label"), *(piece.span or ()))]
    assert found == whole
    assert [row.line for row in whole] == [line for line in range(1, 62) if line != 8]


def test_a_bad_row_of_a_later_piece_is_named_by_its_line(tmp_path, monkeypatch, make_study):
    path = write(tmp_path)
    path.write_text(path.read_text() + '\n{"text": "no label"}\n{"text": 3, "label": "x"}\n')
    monkeypatch.setattr(digests, "BLOCK_BYTES", 512)
    with pytest.raises(DataError) as error:
        prepare(make_study(path), [BERT], [0], Here())
    assert error.value.where == f"{path}:402: label"
    assert not list((tmp_path / "cache" / "prepared").glob("*-pieces-*"))
    made = prepare(make_study(path, on_bad_row="skip"), [BERT], [0], Here())[BERT.name]
    listed = (made.path.parent / "bad_rows.txt").read_text().splitlines()
    assert [line.split(": found")[0] for line in listed] == [f"{path}:402: label", f"{path}:403: text"]
    assert made.manifest["rows"]["dropped"]["bad_row"] == 2


def test_the_cut_into_pieces_runs_and_buckets_changes_no_byte(tmp_path, monkeypatch, make_study):
    path, folders = write(tmp_path), []
    for name, block, run in (("whole", 1 << 25, 1 << 25), ("small", 900, 1 << 25), ("least", 300, 500)):
        monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / name))
        monkeypatch.setattr(digests, "BLOCK_BYTES", block)
        monkeypatch.setattr(pieces, "RUN_BYTES", run)
        monkeypatch.setattr("rayscale.text.rows.clean.BATCH_ROWS", run // 50)
        made = prepare(make_study(path, near_duplicates=0.6), [BERT], [0, 1], Here())[BERT.name]
        folders.append(contents_of(made.path.parent))
    assert folders[0] == folders[1] == folders[2]
    assert made.manifest["rows"]["dropped"]["near_test"] > 0


DRIVER = """
import os, signal, sys
from pathlib import Path
from rayscale.text.sources import digests
from rayscale.text.preparation import Here, prepare
from tests.unit.text.rows.test_pieces import BERT, study_of
digests.BLOCK_BYTES = 900
class Killed(Here):
    def read(self, function, items): return self.some("read", super().read(function, items))
    def transform(self, function, tables): return self.some("transform", super().transform(function, tables))
    def some(self, step, tables):
        for number, table in enumerate(tables):
            if [step, str(number)] == sys.argv[2:]:
                os.kill(os.getpid(), signal.SIGKILL)
            yield table
prepare(study_of(Path(sys.argv[1])), [BERT], [0], Killed())
"""


def kill_at(path: Path, step: str, number: int) -> None:
    """Prepare in a process that is killed when it has so many tables of a step."""
    done = subprocess.run([sys.executable, "-c", DRIVER, str(path), step, str(number)], capture_output=True, text=True,
                          timeout=120, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr


def study_of(path: Path) -> Study:
    return Study(
        name="study",
        task=Task(type="sequence-classification"),
        data=Data(train=str(path), near_duplicates=None),
        models=(Ladder(family="bert", sizes=("1x64",)),),
        grid=Grid(examples=(100,)),
    )


def killed_at(tmp_path, monkeypatch, step, number):
    """The file that was being prepared in the cache below `killed`, which is used now; and what a whole run makes."""
    path = write(tmp_path)
    monkeypatch.setattr(digests, "BLOCK_BYTES", 900)
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "clean"))
    clean = contents_of(prepare(study_of(path), [BERT], [0], Here())[BERT.name].path.parent)
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "killed"))
    kill_at(path, step, number)
    return path, clean


def test_a_preparation_that_was_killed_while_reading_goes_on_with_what_is_left(tmp_path, monkeypatch):
    path, clean = killed_at(tmp_path, monkeypatch, "read", 5)
    asked: list[int] = []

    class Counting(Here):
        def read(self, function, items):
            asked.extend(piece.number for piece in items)
            return super().read(function, items)

    said: list[str] = []
    made = prepare(study_of(path), [BERT], [0], Counting(), said.append)[BERT.name]
    total = len(pieces.cut(list_sources(study_of(path).data)))
    assert asked == list(range(6, total))  # the sixth was done, though nobody was told
    assert total > 12
    assert f"(6 of {total} pieces were read)" in said[0]
    assert contents_of(made.path.parent) == clean
    assert not list((tmp_path / "killed" / "prepared").glob("*-pieces-*"))


def test_a_preparation_that_was_killed_while_tokenising_goes_on_with_what_is_left(tmp_path, monkeypatch):
    path, clean = killed_at(tmp_path, monkeypatch, "transform", 2)
    parts = sorted((tmp_path / "killed").rglob("*-parts/*.arrow"))
    assert len(parts) == 2
    assert not list((tmp_path / "killed").rglob("tokens-*/manifest.json"))
    asked: list[int] = []

    class Counting(Here):
        def read(self, function, items):
            raise AssertionError("the text was read again")

        def transform(self, function, tables):
            asked.extend(table["row"][0].as_py() for table in tables)
            return super().transform(function, tables)

    made = prepare(study_of(path), [BERT], [0], Counting())[BERT.name]
    rows = made.manifest["rows"]
    assert asked == [rows["train"] + rows["validation"]]  # of three blocks, one for each split, the last
    assert contents_of(made.path.parent) == clean
    assert not list((tmp_path / "killed").rglob("*-parts"))


def test_a_file_is_known_again_until_it_changes(tmp_path, monkeypatch):
    path = write(tmp_path)
    monkeypatch.setattr(digests, "REMEMBERED_BYTES", 1)
    monkeypatch.setattr(digests, "SETTLED_SECONDS", -1.0)
    first, stamp = digests.look(str(path)), path.stat()
    reads: list[str] = []
    real = digests._read
    monkeypatch.setattr(digests, "_read", lambda file: reads.append(file) or real(file))
    assert digests.look(str(path)) == first
    assert not reads
    path.write_text(path.read_text().replace("says", "said"))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # of the same size and time: the system's own time tells
    assert digests.look(str(path)).digest != first.digest
    assert reads


def test_two_runs_do_not_prepare_the_same_text_at_once(tmp_path, make_study):
    path, said, inside = write(tmp_path), list[str](), threading.Event()

    class Slow(Here):
        def read(self, function, items):
            if not inside.is_set():
                inside.set()
                second.start()
                second.join(1.0)
                assert second.is_alive()
            return super().read(function, items)

    study = make_study(path)
    second = threading.Thread(target=lambda: prepare(study, [BERT], [0], Here(), said.append))
    prepare(study, [BERT], [0], Slow())
    second.join()
    assert said == ["waiting for another run that prepares this text"]
    assert folders.is_whole(folders.clean_folder(study))
