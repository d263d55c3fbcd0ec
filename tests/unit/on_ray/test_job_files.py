"""What travels with a submitted study, where it lies there, and how lines of the log come back."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from rayscale.on_ray import job_files
from rayscale.on_ray.job_files import STAGED, gather
from rayscale.study.study import load_study

STUDY = """\
# which tickets
name: 工单
task: {type: sequence-classification}
data:
  train: "rows/*.csv"   # all of them
  test: other/a.csv
  augment:
    - none
    - {name: own, synonyms: {source: table.tsv}}
models:
  - {pretrained: nets/bert/final}
  - {pretrained: nets/bert/final, lora: {rank: 2}}
grid: {examples: [10, 20, 40], gpus: [1]}
training: {learning_rate: {transfer: before}}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    home = tmp_path / "my home"
    for name, text in {
        "rows/a.csv": "text,label\nx,y\n", "rows/b.csv": "text,label\nz,y\n", "other/a.csv": "text,label\nq,y\n",
        "table.tsv": "big\tlarge\n", "nets/bert/final/config.json": "{}", "nets/bert/final/model.safetensors": "w",
        "nets/bert/final/training.log": "no", "nets/bert/final/.git/objects": "no", "before/plan.json": "{}",
        "before/trials/1.json": "{}", "before/models/1/model.safetensors": "large",
    }.items():  # fmt: skip
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    file = home / "study.yaml"
    file.write_text(STUDY.replace("工单", "tickets"), encoding="utf-8")
    return file


def test_the_study_there_differs_in_paths_alone_and_loads(study: Path, tmp_path: Path) -> None:
    sent = gather(study)
    sent.write(tmp_path / "there")
    there = tmp_path / "there" / STAGED / "study.yaml"
    lines, own = there.read_text().splitlines(), study.read_text().splitlines()
    changed = [number for number, (a, b) in enumerate(zip(lines, own, strict=True)) if a != b]
    assert changed == [4, 5, 8, 10, 11, 13]
    assert lines[4].endswith("  # all of them")
    loaded = load_study(there)
    assert [Path(model.pretrained).name for model in loaded.models] == ["bert", "bert"]  # as tables call it
    assert Path(loaded.data.test).read_text() == "text,label\nq,y\n"
    assert sorted(file.name for file in Path(loaded.data.train).parent.iterdir()) == ["000000-a.csv", "000001-b.csv"]
    names = set(sent.files)
    assert not [name for name in names if "log" in name or ".git" in name or "models/" in name]
    assert sum(name.endswith("model.safetensors") for name in names) == 1  # named twice, sent once


def test_lines_of_the_log_speak_of_the_users_files(study: Path) -> None:
    sent = gather(study)
    csv = next(name for name in sent.files if name.endswith("000001-b.csv"))
    line = f"rayscale: /tmp/ray/session_1/_ray_pkg_0/{STAGED}/study.yaml:6: data.train: /tmp/x/{STAGED}/{csv}:2: bad"
    assert sent.translate(line) == f"rayscale: {study}:6: data.train: {study.parent}/rows/b.csv:2: bad"
    assert sent.translate("nothing of ours") == "nothing of ours"


def test_the_digest_follows_content_and_not_place(study: Path, tmp_path: Path) -> None:
    before = gather(study).digest
    moved = tmp_path / "moved"
    study.parent.rename(moved)
    assert gather(moved / "study.yaml").digest == before
    (moved / "rows" / "b.csv").write_text("text,label\nother,y\n")
    assert gather(moved / "study.yaml").digest != before


def test_parts_make_up_one_archive(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_files, "PART_BYTES", 100)
    parts = [part.read_bytes() for part in gather(study).parts(tmp_path)]
    assert len(parts) > 2
    assert all(len(part) == 100 for part in parts[:-1])
    assert not (tmp_path / "part").exists()
    with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as archive:
        archive.extractall(tmp_path / "there")  # made a moment ago
    assert load_study(tmp_path / "there" / STAGED / "study.yaml").name == "tickets"


def test_merged_and_aliased_nodes_are_found(study: Path, tmp_path: Path) -> None:
    text = study.read_text().replace("other/a.csv", "&one other/a.csv\n  validation: *one")
    text = text.replace("  - {pretrained: nets/bert/final}\n", "  - &net {pretrained: nets/bert/final}\n")
    study.write_text(text.replace("{pretrained: nets/bert/final, lora", "{<<: *net, lora"))
    sent = gather(study)
    sent.write(tmp_path / "there")
    loaded = load_study(tmp_path / "there" / STAGED / "study.yaml")
    assert loaded.data.test == loaded.data.validation
    assert {Path(model.pretrained) for model in loaded.models} == {
        (tmp_path / "there" / STAGED).resolve() / "3" / "bert"
    }
