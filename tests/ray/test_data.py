"""Text prepared by Ray Data is, byte for byte, what one process prepares, however the work is cut."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from tokenizers import Tokenizer

from rayscale.errors import DataError, InputError
from rayscale.on_ray.data import prepare as on_ray_data
from rayscale.on_ray.data.prepare import RayWorkers, prepare
from rayscale.on_ray.session.session import connect
from rayscale.study.study import Data, Grid, Ladder, Study, Task
from rayscale.text import folders, prepared, shards
from rayscale.text import preparation as steps
from rayscale.text.tokens import token_files
from rayscale.text.tokens.encode import TokenizerSpec

BERT = TokenizerSpec("trained", "bert", 512)
GPT2 = TokenizerSpec("trained", "gpt2", 512)


@pytest.fixture(scope="module")
def local_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One local Ray for this file, with a token of its own."""
    with pytest.MonkeyPatch.context() as patch:
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:
            token = tmp_path_factory.mktemp("token") / "auth_token"
            token.write_text(secrets.token_hex(32))
            patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        with connect("local", "cpu", 60):
            yield


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Three CSV files with duplicates and near-duplicates within and between them."""
    for part in range(3):
        words = [hashlib.sha256(f"{part} {i}".encode()).hexdigest() for i in range(200)]
        rows = [f"part {part} says {words[i]},{i % 3}\n" for i in range(200)]
        rows += [f"told again and again {i},{i % 3}\n" for i in range(50)]
        (tmp_path / f"part-{part}.csv").write_text("text,label\n" + "".join(rows))
    return tmp_path / "part-*.csv"


def make_study(train: object, task: str = "sequence-classification", **data: object) -> Study:
    lm = task == "causal-lm"
    return Study(
        name="study",
        task=Task(type=task, max_length=16),
        data=Data(train=str(train), **data),
        models=(Ladder(family="gpt2" if lm else "bert", sizes=("1x64",)),),
        grid=Grid(tokens=(1000,)) if lm else Grid(examples=(100,)),
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Recut(RayWorkers):
    """Ray's workers, given the same rows in another number of tables, last first."""

    def __init__(self, tables: int) -> None:
        self.tables = tables

    def transform(self, function, tables):
        rows = pa.concat_tables(list(tables))
        size = -(-len(rows) // self.tables)
        return super().transform(function, [rows.slice(first, size) for first in range(0, len(rows), size)][::-1])


@pytest.mark.parametrize(("task", "spec"), [("sequence-classification", BERT), ("causal-lm", GPT2)])
def test_one_block_four_blocks_and_no_ray_give_the_same_files(local_ray, texts, tmp_path, monkeypatch, task, spec):
    study = make_study(texts, task)
    folders = []
    for name, workers in [("here", steps.Here()), ("ray", RayWorkers()), ("one", Recut(1)), ("four", Recut(4))]:
        monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / name))
        folders.append(contents(steps.prepare(study, [spec], [0, 1], workers)[spec.name].path.parent))
    assert folders[0].keys() >= {"manifest.json", "train.arrow"}
    assert all(folder == folders[0] for folder in folders[1:])


def test_a_second_call_does_and_says_nothing_and_needs_no_ray(local_ray, texts, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "cache"))
    said: list[str] = []
    first = prepare(make_study(texts), [BERT], [0], said.append)
    assert said
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(on_ray_data, "RayWorkers", None)
    monkeypatch.setattr(steps, "prepare_rows", None)
    monkeypatch.setattr(steps, "_tokenise", None)
    said.clear()
    assert prepare(make_study(texts), [BERT], [0], said.append) == first
    assert said == []


def test_errors_of_the_text_arrive_as_they_were_raised(local_ray, texts, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "part-1.csv").write_bytes(b"text,label\nfine,1\nbad \xff,1\n")
    with pytest.raises(DataError) as error:
        prepare(make_study(texts), [BERT], [0])
    assert error.value.where == f"{tmp_path / 'part-1.csv'}:3: text"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="no such folder, and the hub did not give it"):
        prepare(make_study(texts), [TokenizerSpec("pretrained", path="nobody/no-such-model-here")], [0])


def test_packages_are_harvested_in_their_order(local_ray):
    def harvest(package: str) -> list[str]:
        return [f"{package} {number}" for number in range(3000 if package == "b" else 3)]

    packages = ["b", "a", "c"]
    assert steps.map_packages(RayWorkers(), harvest, packages) == [harvest(package) for package in packages]


def test_transformers_loads_the_tokenizers_that_were_trained(local_ray, texts, tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "cache"))
    for task, spec in (("sequence-classification", BERT), ("sequence-classification", GPT2), ("causal-lm", GPT2)):
        made = prepare(make_study(texts, task), [spec], [0])[spec.name]
        loaded = transformers.AutoTokenizer.from_pretrained(made.tokenizer_folder)
        own = Tokenizer.from_file(str(made.tokenizer_folder / "tokenizer.json"))
        text = "part 1 of the story, line 7"
        assert loaded(text)["input_ids"] == own.encode(text).ids
        assert loaded.model_max_length == 16
        assert loaded.pad_token_id == made.token_ids["pad"]
        assert loaded.eos_token_id == made.token_ids.get("eos")


def test_blocks_are_small_enough_to_spread(local_ray, texts, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shards, "BATCH_ROWS", 100)
    cleaned = prepare(make_study(texts), [BERT], [0])[BERT.name].path.parent
    blocks, starts = token_files.blocks_of(cleaned)
    assert max(len(block) for block in blocks) <= 100
    counts = folders.read_manifest(cleaned)["rows"]
    assert sum(len(block) for block in blocks) == starts[-1] == sum(counts[name] for name in prepared.SPLITS)
