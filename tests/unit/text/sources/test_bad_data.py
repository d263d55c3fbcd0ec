"""Text that is missing, broken, packed beyond measure or made to run code: an error that names it, never a crash."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayscale.errors import DataError, InputError
from rayscale.plan.draft import draft_plan, run_store
from rayscale.plan.plan import Plan
from rayscale.runs.ledger import Ledger, make_record
from rayscale.study.study import load_study
from rayscale.system.machine import Machine
from rayscale.text import prepared
from rayscale.text.augment.children import name_of
from rayscale.text.preparation import Here, prepare
from rayscale.text.rows import clean
from rayscale.text.rows.assembly import Assembly
from rayscale.text.sources import columns
from rayscale.text.sources.parquet import read_parquet
from rayscale.text.tokens.encode import TokenizerSpec

STUDY = """\
name: toy
task: {type: sequence-classification}
data:
  train: FILE
models: [{family: bert, sizes: [1x32], vocabulary: 400}]
grid: {examples: [20]}
run: {accelerator: cpu}
"""
MACHINE = Machine("cpu", 2, "a processor", "this machine")
ROWS = [f'{{"text": "row number {i} about pets", "label": "{"cat" if i % 2 else "dog"}"}}' for i in range(200)]

pytestmark = pytest.mark.row


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "cache"))


def plan(folder: Path, name: str, **data: object) -> Plan:
    path = folder / "study.yaml"
    more = "".join(f"\n  {key}: {value}" for key, value in data.items())
    path.write_text(STUDY.replace("FILE", name + more))
    study = load_study(path)
    return draft_plan(study, MACHINE, run_store(study, str(folder / "run")))


def refusal(folder: Path, name: str, **data: object) -> str:
    with pytest.raises(InputError) as caught:
        plan(folder, name, **data)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{folder}/", "")


def packed_parquet(path: Path, texts: pa.Array, **options: object) -> None:
    pq.write_table(pa.table({"text": texts, "label": pa.array(["a", "b"] * (len(texts) // 2), pa.string())}),
                   path, **options)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.jsonl", None, "no such file: none.jsonl"),
        ("none-*.jsonl", None, "no such file: none-*.jsonl"),
        ("empty.csv", b"", "empty.csv: the file is empty"),
        ("blank.jsonl", b"\n\n  \n", "blank.jsonl: the file holds no rows"),
        ("header.csv", b"text,label\n", "header.csv: the file holds no rows"),
        ("zero.parquet", "zero rows", "zero.parquet: the file holds no rows"),
        ("empty.csv.gz", gzip.compress(b"", mtime=0), "empty.csv.gz: the file holds no rows"),
    ],
)
def test_row_8_missing_empty_and_rowless_files_are_named(
    tmp_path: Path, name: str, content: bytes | str | None, said: str
) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content:
        packed_parquet(tmp_path / name, pa.array([], pa.string()))
    message = refusal(tmp_path, name)
    assert message.startswith("study.yaml:4: data.train: ")
    assert said in message


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"text,label\nfine,x\nb\xe9te,y\n", "a.csv:3: text: found byte 0xe9, which is not UTF-8"),
        ("a.csv", b'text,label\n"two\nli\xffnes",y\n', "a.csv:3: text: found byte 0xff"),
        ("a.csv.gz", gzip.compress(b"text,label\nfine,x\nb\xe9te,y\n", mtime=0), "a.csv.gz:3: text: found byte 0xe9"),
        ("a.tsv", b"text\tlabel\nfine\tl\xe4bel\n", "a.tsv:2: label: found byte 0xe4"),
        ("a.jsonl", b'{"text": "fine", "label": "x"}\n{"text": "b\xe9"}\n', "a.jsonl:2: found byte 0xe9"),
        ("a.jsonl", b'{"text": "fine", "label": "x"}\n{"text": "open\n', "a.jsonl:2: found invalid JSON"),
        ("a.jsonl", b'{"text": "fine", "label": "x"}\n{"text": NaN, "label": "x"}\n', "a.jsonl:2: text: found float"),
        (
            "a.jsonl",
            "\n".join([*ROWS, '{"text": "other", "label": 3}']).encode(),
            "a.jsonl:201: label: found the whole number 3, and a string in line 1",
        ),
        ("a.csv", "text,label\nfine,x\n".encode("utf-16"), "a.csv:1: found UTF-16"),
        ("a.csv", b"PK\x03\x04rest", "a.csv: packed with zip; unpack it first"),
    ],
)
def test_row_9_bad_bytes_and_bad_json_are_named_by_file_and_line(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path, name)
    assert message.startswith("study.yaml:4: data.train: ")
    assert said in message


def test_row_9_skipped_rows_are_counted_and_listed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes("\n".join([ROWS[0], "{", *ROWS[1:], "[]"]).encode() + b'\n{"text": "\xff"}\n')
    drafted = plan(tmp_path, "a.jsonl", on_bad_row="skip")
    assert drafted.supply.counts["dropped"]["bad_row"] == 3
    assert drafted.supply.counts["read"] == 203
    spec = TokenizerSpec("trained", "bert", 400)
    made = prepare(load_study(tmp_path / "study.yaml"), [spec], [0], Here())[spec.name]
    listed = (made.path.parent / "bad_rows.txt").read_text().splitlines()
    assert [line.split(": found")[0].rsplit("/", 1)[1] for line in listed] == [
        "a.jsonl:2",
        "a.jsonl:202",
        "a.jsonl:203",
    ]


#: Reads damaged copies of a file, and says how many gave rows, how many an error that names them, and what else.
READER = """\
import random, sys
from pathlib import Path
from rayscale.errors import DataError
from rayscale.text.sources import columns
from rayscale.text.sources.parquet import read_parquet
whole, seed, number = Path(sys.argv[1]).read_bytes(), int(sys.argv[2]), int(sys.argv[3])
rng, damaged, counts = random.Random(seed), Path(sys.argv[1] + ".damaged.parquet"), [0, 0]
for turn in range(number):
    content = bytearray(whole)
    if turn % 4 == 0:
        content = content[: rng.randrange(len(content))]
    else:  # the footer decides most, and is a small part of the file
        low = len(content) * (turn % 2) * 3 // 4
        for place in (rng.randrange(low, len(content)) for _ in range(rng.choice((1, 1, 8)))):
            content[place] = rng.choice((content[place] ^ 1 << rng.randrange(8), rng.randrange(256), 255))
    damaged.write_bytes(content)
    try:
        for row in read_parquet(str(damaged), ("text", "label")): pass
        counts[0] += 1
    except DataError as error:
        assert str(damaged) in str(error), error
        counts[1] += 1
    try: columns.read_table(damaged)
    except DataError as error: assert str(damaged) in str(error), error
print(*counts)
"""


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zstd", "use_dictionary": False, "write_page_checksum": True},
        {"compression": "gzip", "data_page_version": "2.0", "row_group_size": 64},
    ],
)
def test_row_10_damaged_parquet_is_an_error_that_names_it_and_never_a_crash(tmp_path: Path, options: dict) -> None:
    path = tmp_path / "a.parquet"
    packed_parquet(path, pa.array([f"some text {i}, and then {i * i}" for i in range(400)]), **options)
    done = subprocess.run(
        [sys.executable, "-c", READER, str(path), "7", "200"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    read, refused = map(int, done.stdout.split())
    assert read + refused == 200
    assert refused >= 50  # those cut short, at least


class Harmful:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.makedirs, (str(self.target), 0o777, True)


def test_row_10_a_column_of_pickles_is_refused_unread(tmp_path: Path) -> None:
    """The extension type of Ray that unpickles what it reads is registered wherever Ray Data is imported."""
    arrow = pytest.importorskip("ray.data._internal.object_extensions.arrow")
    kind = arrow.ArrowPythonObjectType()
    with contextlib.suppress(pa.ArrowKeyError):  # it is registered already
        pa.register_extension_type(kind)
    stored = pa.array([pickle.dumps(Harmful(tmp_path / "harm"))] * 2, pa.large_binary())
    table = pa.table({"text": pa.ExtensionArray.from_storage(kind, stored), "label": ["a", "b"]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert "'text' is of type ray.data.arrow_pickled_object" in refusal(tmp_path, "a.parquet")
    assert "text" not in columns.read_table(tmp_path / "a.parquet").columns
    assert not (tmp_path / "harm").exists()
    pq.read_table(tmp_path / "a.parquet")["text"].to_pylist()
    assert (tmp_path / "harm").exists()  # the file does harm where it is read as others read it


def bombs() -> dict[str, object]:
    """Files that are small packed and huge unpacked, by name: how each is written."""
    megabyte = b"all of this is one more line of the same text,x\n" * 20_000

    def csv(path: Path) -> None:  # gzip files one after the other are one gzip file
        path.write_bytes(gzip.compress(b"text,label\n") + gzip.compress(megabyte) * 2_000)

    def endless(path: Path) -> None:
        path.write_bytes(gzip.compress(b'{"text": "') + gzip.compress(b"a" * 1_000_000) * 2_000)

    def repeated(path: Path) -> None:  # one value of a megabyte, a million times
        numbers = pa.array([0, 1], pa.int32()).take(pa.array([0, 1] * 200_000))
        packed_parquet(path, pa.DictionaryArray.from_arrays(numbers, pa.array(["a" * 1_000_000, "b" * 1_000_000])))

    def zeros(path: Path) -> None:  # texts of a megabyte, 3000 of them
        texts = [str(i) + "0" * 1_000_000 for i in range(100)]
        table = pa.table({"text": texts, "label": ["a", "b"] * 50})
        with pq.ParquetWriter(path, table.schema, compression="zstd", use_dictionary=False) as writer:
            for _ in range(30):
                writer.write_table(table)

    return {"a.csv.gz": csv, "a.jsonl.gz": endless, "a.txt.gz": endless, "a.parquet": repeated, "b.parquet": zeros}


@pytest.mark.parametrize("name", list(bombs()))
def test_row_11_a_decompression_bomb_is_refused_in_little_memory(tmp_path: Path, name: str) -> None:
    write = bombs()[name]
    write(tmp_path / name)
    assert (tmp_path / name).stat().st_size < 6_000_000
    text = STUDY.replace("FILE", f"{name}\n  max_text_gigabytes: 0.05")
    if ".txt" in name:
        text = text.replace("sequence-classification", "causal-lm").replace("bert", "gpt2")
        text = text.replace("examples", "tokens")
    (tmp_path / "study.yaml").write_text(text)
    code = (
        "import atexit, sys; sys.argv = ['rayscale', 'plan', 'study.yaml', '--json']\n"
        "peak = lambda: print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr)\n"
        "atexit.register(peak)\n"
        "from rayscale.cli.verbs import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["message"].startswith("study.yaml:4: data.train: ")
    if error["code"] == "too_much_text":
        assert "0.05 GB are allowed" in error["message"]
        assert "raise data.max_text_gigabytes" in error["message"]
    else:
        assert error["code"] == "row_too_long"
        assert f"{name}:1: a line of more than 33,554,432 characters" in error["message"]
    assert int(done.stderr.split()[-1]) < 700_000  # kB, of which the imports take a third; unpacked it is gigabytes


def test_row_11_what_fits_the_limit_is_read_and_many_files_share_it(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"part-{number}.jsonl").write_text("\n".join(ROWS[number::4]) + "\n")
    assert plan(tmp_path, "'part-*.jsonl'", max_text_gigabytes=0.001).trials
    message = refusal(tmp_path, "'part-*.jsonl'", max_text_gigabytes=0.00001)
    assert message.startswith("study.yaml:4: data.train: ")
    assert "1e-05 GB are allowed" in message
    assert clean.most_bytes(load_study(tmp_path / "study.yaml").data) == 10_000


def test_row_12_duplicates_across_the_split_are_found_and_kept_out(tmp_path: Path) -> None:
    rng, lines = random.Random(3), [line for line in ROWS for _ in range(3)]
    rng.shuffle(lines)
    respelt = [line.replace("row number", " row  number ") for line in lines]
    (tmp_path / "a.jsonl").write_text("\n".join(lines + respelt) + "\n")
    spec = TokenizerSpec("trained", "bert", 400)
    plan(tmp_path, "a.jsonl", test_fraction=0.3)
    alone = prepare(load_study(tmp_path / "study.yaml"), [spec], [0], Here())[spec.name]
    keys = {name: set(alone.split(name).keys.tolist()) for name in prepared.SPLITS}
    assert not keys["train"] & keys["test"] | keys["train"] & keys["validation"] | keys["test"] & keys["validation"]
    nearly = alone.manifest["rows"]["dropped"]["near_test"] + alone.manifest["rows"]["dropped"]["near_validation"]
    assert nearly <= 2  # row number 11 and row number 111
    assert sum(map(len, keys.values())) == len(ROWS) - nearly
    assert alone.manifest["rows"]["dropped"]["duplicate"] == 5 * len(ROWS)
    # A test file of the user's own, half of it from the training file, and one row twice.
    mine = [line.replace("pets", "cattle") for line in ROWS[:20]] + respelt[:20] + respelt[:1]
    (tmp_path / "mine.jsonl").write_text("\n".join(mine) + "\n")
    drafted = plan(tmp_path, "a.jsonl", test="mine.jsonl")
    counts, held = drafted.supply.counts, len(set(respelt[:20]))
    assert counts["test"] == 20 + held
    nearly = counts["dropped"]["near_test"] + counts["dropped"]["near_validation"]
    assert counts["train"] + counts["validation"] == len(ROWS) - held - nearly
    assert counts["dropped"]["in_test"] == 6 * held


def test_row_12_augmented_copies_of_training_rows_are_kept_out_of_the_test_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(ROWS) + "\n")
    spec, augment = TokenizerSpec("trained", "bert", 400), "[none, {name: cut, delete: {share: 0.3}, copies: 2}]"
    name = name_of(spec.name, "cut")
    plan(tmp_path, "a.jsonl", augment=augment, test_fraction=0.2)
    first = prepare(load_study(tmp_path / "study.yaml"), [spec], [0], Here())[name]
    children = first.split("train").keys[len(ROWS) - 100 :]
    folder = next(path for path in first.path.parent.glob("augment-*") if path.is_dir())
    texts = prepared.read_table(folder / "train.arrow")["text"].to_pylist()
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps({"text": t, "label": "cat"}) + "\n" for t in texts))
    plan(tmp_path, "a.jsonl", augment=augment, test="mine.jsonl")
    second = prepare(load_study(tmp_path / "study.yaml"), [spec], [0], Here())[name]
    assert not set(second.split("train").keys.tolist()) & set(second.split("test").keys.tolist())
    assert len(second.split("test")) == len(set(texts)) > 50
    assert second.manifest["augmentation"]["rows"]["dropped"]["in_test"] > 50
    assert len(children)


def test_row_13_data_that_changed_between_runs_is_said_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(ROWS) + "\n")
    first = plan(tmp_path, "a.jsonl")
    ledger = Ledger(run_store(first.study, str(tmp_path / "run")))
    for planned in first.trials:
        ledger.write(make_record(planned.trial, status="ok", eval_loss=1.0, ended_at="2026-01-02T03:04:05"))
    assert "data_changed" not in dict(plan(tmp_path, "a.jsonl").lint)
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write('{"text": "one more", "label": "cat"}\n')
    second = plan(tmp_path, "a.jsonl")
    assert second.supply.fingerprint != first.supply.fingerprint
    assert dict(second.lint)["data_changed"] == (
        "the data (its files, columns or split) changed since the last run of 2026-01-02: 1 trials of the former data "
        "stay in trials/ and are not counted, 1 cells are new"
    )
    for planned in second.trials:
        ledger.write(make_record(planned.trial, status="ok", eval_loss=1.0))
    assert "data_changed" not in dict(plan(tmp_path, "a.jsonl").lint)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(ROWS) + "\n")
    plan(tmp_path, "a.jsonl")
    study, spec = load_study(tmp_path / "study.yaml"), TokenizerSpec("trained", "bert", 400)
    whole = Assembly.settle

    def late(*arguments: int) -> None:
        (tmp_path / "a.jsonl").write_text("\n".join(ROWS[:150]) + "\n")
        whole(*arguments)

    monkeypatch.setattr(Assembly, "settle", late)
    with pytest.raises(DataError, match="changed while it was read"):
        prepare(study, [spec], [0], Here())


def test_parquet_of_dictionaries_numbers_and_nulls_is_read_as_written(tmp_path: Path) -> None:
    texts = pa.array(["one", None, "two", "one"])
    table = pa.table({"text": texts.dictionary_encode(), "label": pa.array([1, 2, None, 1], pa.int8()), "plain": texts})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    found = [row.values for row in read_parquet(str(tmp_path / "a.parquet"), ("text", "label", "plain"))]
    assert found == [("one", 1, "one"), (None, 2, None), ("two", None, "two"), ("one", 1, "one")]
