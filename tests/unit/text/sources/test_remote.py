"""Text that lies elsewhere: copied once, copied again when it changed, named when it cannot be reached."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from rayscale.errors import DataError, StudyError
from rayscale.study.study import load_study
from rayscale.text import folders
from rayscale.text.error_places import naming_fields
from rayscale.text.preparation import Here, prepare
from rayscale.text.rows import clean
from rayscale.text.tokens.encode import TokenizerSpec

STUDY = """\
name: toy
task: {type: sequence-classification}
data: {train: "ADDRESS", test_fraction: 0.2, validation_fraction: 0.2}
models: [{family: bert, sizes: [1x32], vocabulary: 400}]
grid: {examples: [20]}
"""
ROWS = [f'{{"text": "row number {i} about {i * i} pets", "label": "{"cat" if i % 2 else "dog"}"}}\n' for i in range(90)]
BERT = TokenizerSpec("trained", "bert", 400)


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "cache"))


def study_of(folder: Path, address: str):
    (folder / "study.yaml").write_text(STUDY.replace("ADDRESS", address))
    return load_study(folder / "study.yaml")


@pytest.mark.parametrize("address", ["memory://bucket/*.jsonl", "memory://bucket", "memory://bucket/**/*.jsonl"])
def test_an_address_prepares_the_rows_of_the_files_it_names(tmp_path: Path, address: str) -> None:
    system = fsspec.filesystem("memory")
    (tmp_path / "here").mkdir()
    for number in range(3):
        content = "".join(ROWS[number::3])
        (tmp_path / "here" / f"{number}.jsonl").write_text(content)
        system.pipe(f"/bucket/{number}.jsonl", content.encode())
    system.pipe("/bucket/README.md", b"no rows")
    try:
        here = prepare(study_of(tmp_path, str(tmp_path / "here")), [BERT], [0], Here())[BERT.name]
        study = study_of(tmp_path, address)
        assert (
            prepare(study, [BERT], [0], Here())[BERT.name].path == here.path
        )  # the same content: nothing is done twice
        copies = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "sources").rglob("*.jsonl")}
        assert sorted(path.name for path in copies) == ["0.jsonl", "1.jsonl", "2.jsonl"]
        before = clean.fingerprint(study)
        assert {path: path.stat().st_mtime_ns for path in copies} == copies
        system.pipe("/bucket/1.jsonl", b"".join(line.encode() for line in ROWS[1::3]) + ROWS[0].encode())
        assert clean.fingerprint(study) != before
        assert not folders.is_whole(folders.clean_folder(study))
    finally:
        system.rm("/bucket", recursive=True)


def test_a_file_address_is_read_through_pyarrow_or_fsspec_alike(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(ROWS))
    (found,) = clean.list_sources(study_of(tmp_path, f"file://{tmp_path}/rows.jsonl").data)
    assert Path(found.path).read_bytes() == (tmp_path / "rows.jsonl").read_bytes()
    assert found.format == "jsonl"


def test_how_far_a_copy_is_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(ROWS))
    monkeypatch.setattr("rayscale.text.workers.EVERY_SECONDS", 0.0)
    monkeypatch.setattr("rayscale.text.sources.remote._CHUNK_BYTES", 1000)
    clean.list_sources(study_of(tmp_path, f"file://{tmp_path}/rows.jsonl").data)
    said = capsys.readouterr()
    size = (tmp_path / "rows.jsonl").stat().st_size
    assert f"rows.jsonl: 1,000 of {size:,} bytes" in said.err
    assert not said.out


@pytest.mark.parametrize(
    ("address", "code", "said"),
    [
        ("memory://nothing/*.csv", "missing_file", "no such file"),
        ("hf://datasets/nobody/nothing/rows.csv", "unreachable_storage", "hf storage cannot be read"),
        ("s3://no-such-bucket-of-ours/rows.csv", "unreachable_storage", "s3 storage cannot be read"),
    ],
)
def test_what_cannot_be_reached_is_named_with_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, code: str, said: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    study = study_of(tmp_path, address)
    with pytest.raises(DataError) as error, naming_fields(study):
        clean.list_sources(study.data)
    assert error.value.code == code
    assert error.value.where == f"{tmp_path}/study.yaml:3: data.train"
    assert said in str(error.value)
    assert address in str(error.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s4://bucket/a.csv", "found 's4://bucket/a.csv'; text is read from files, or from abfs://"),
        ("https://host/a.csv", "or from abfs://"),
        ("s3://key:secretsecret@bucket/a.csv", "put credentials in the environment"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_with_the_study(tmp_path: Path, address: str, said: str) -> None:
    with pytest.raises(StudyError, match=said) as error:
        study_of(tmp_path, address)
    assert "study.yaml:3: data.train" in str(error.value)
    assert "secretsecret" not in str(error.value)
