"""The whole preparation in one process, the folders it leaves and subsets cut from them."""

import json

import numpy as np
import pytest

from rayscale.errors import DataError
from rayscale.text import preparation as steps
from rayscale.text.folders import clean_folder
from rayscale.text.preparation import Here, prepare
from rayscale.text.prepared import Prepared, find_tokens
from rayscale.text.review.survey import survey
from rayscale.text.tokens.encode import TokenizerSpec

BERT = TokenizerSpec("trained", "bert", 400)
GPT2 = TokenizerSpec("trained", "gpt2", 400)


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\n\n".join(f"document {i}\nabout the number {i * 7} and some more words" for i in range(300)))
    return path


def test_rows_labels_and_tokens_agree_with_the_text(pets, make_study):
    study = make_study(pets, max_length=16)
    made = prepare(study, [BERT], [0], Here())[BERT.name]
    train = made.split("train")
    assert made.labels == ["cat", "dog"]
    assert (made.task_type, made.vocab_size) == ("sequence-classification", 400)
    assert train.values.dtype == np.int32
    assert train.starts.dtype == train.lengths.dtype == np.int64
    assert not train.values.flags.writeable
    assert (np.diff(train.keys.astype(object)) > 0).all()
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(made.tokenizer_folder / "tokenizer.json"))
    for row, label in zip(train.rows(range(20)), train.labels, strict=False):
        assert made.labels[label] in tokenizer.decode(row.tolist()).split()
    counts = made.manifest["splits"]
    assert counts["train"]["rows"] == len(train) == made.manifest["rows"]["train"]
    assert counts["train"]["tokens"] == train.lengths.sum()


def test_truncated_texts_are_counted(pets, make_study):
    made = prepare(make_study(pets, max_length=8), [BERT], [0], Here())[BERT.name]
    counts = made.manifest["splits"]["train"]
    assert counts["longest"] == 8
    assert counts["truncated_share"] == pytest.approx(counts["truncated_rows"] / counts["rows"], abs=1e-6)
    assert counts["truncated_rows"] > 0


def test_windows_have_the_asked_length(words, make_study):
    made = prepare(make_study(words, task="causal-lm", max_length=16), [GPT2], [0], Here())[GPT2.name]
    train = made.split("train")
    assert train.labels is None
    assert set(train.lengths) == {16}
    assert len(np.unique(train.keys)) == len(train)
    assert made.manifest["splits"]["train"]["documents"] == made.manifest["rows"]["train"]


def test_subsets_are_nested_within_a_seed_and_differ_between_seeds(pets, words, make_study):
    made = prepare(make_study(pets), [BERT], [0, 1], Here())[BERT.name]
    small, large = (set(made.subset("examples", n, 0)) for n in (50, 200))
    assert small < large
    assert len(small) == 50
    assert set(made.subset("examples", 50, 1)) != small
    windows = prepare(make_study(words, task="causal-lm", max_length=16), [GPT2], [0], Here())[GPT2.name]
    assert len(windows.subset("tokens", 1000, 0)) == 62
    for axis, requested in (("tokens", 15), ("tokens", 10**9)):
        with pytest.raises(DataError, match=r"there are \d+"):
            windows.subset(axis, requested, 0)
    with pytest.raises(DataError, match="1000000 training examples asked"):
        made.subset("examples", 10**6, 0)
    with pytest.raises(DataError, match="seed 7"):
        made.subset("examples", 10, 7)


def test_a_second_call_does_nothing_and_new_seeds_only_add_an_index(pets, make_study, monkeypatch):
    study = make_study(pets)
    assert find_tokens(clean_folder(study), BERT, study.task.length, [0]) is None
    made = prepare(study, [BERT], [0], Here())[BERT.name]
    before = {path: path.stat().st_mtime_ns for path in made.path.rglob("*") if path.is_file()}
    monkeypatch.setattr(steps, "_tokenise", None)
    monkeypatch.setattr(steps, "prepare_rows", None)
    said = []
    assert prepare(study, [BERT], [0], None, said.append)[BERT.name] == made  # no worker is asked for anything
    assert said == []
    assert find_tokens(clean_folder(study), BERT, study.task.length, [0, 3]) is None
    prepare(study, [BERT], [0, 3], Here())
    assert find_tokens(clean_folder(study), BERT, study.task.length, [0, 3]) == made
    after = {path: path.stat().st_mtime_ns for path in made.path.rglob("*") if path.is_file()}
    assert set(after) - set(before) == {made.path / "index" / "seed-3.npy"}
    assert all(after[path] == stamp for path, stamp in before.items())


def test_several_tokenizers_share_one_cleaning(pets, make_study, monkeypatch):
    calls = []
    prepare_rows = steps.prepare_rows
    monkeypatch.setattr(steps, "prepare_rows", lambda *a: calls.append(1) or prepare_rows(*a))
    made = prepare(make_study(pets), [BERT, TokenizerSpec("trained", "bert", 500)], [0], Here())
    assert len(calls) == 1
    assert len({each.path.parent for each in made.values()}) == 1
    assert (made["bert-400"].split("train").keys == made["bert-500"].split("train").keys).all()


def test_a_folder_that_was_cut_short_is_made_again(pets, make_study):
    study = make_study(pets)
    made = prepare(study, [BERT], [0], Here())[BERT.name]
    whole = (made.path / "train.arrow").read_bytes()
    (made.path / "train.arrow").write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"train\.arrow cut short"):
        Prepared.open(made.path)
    assert find_tokens(clean_folder(study), BERT, study.task.length, [0]) is None
    prepare(study, [BERT], [0], Here())
    assert (made.path / "train.arrow").read_bytes() == whole
    assert [path.name for path in made.path.parent.iterdir() if path.name.startswith(".")] == []


def test_nothing_is_published_when_preparing_fails(pets, make_study):
    study = make_study(pets)
    with pytest.raises(DataError):
        prepare(study, [TokenizerSpec("trained", "bert", 20)], [0], Here())
    folder = clean_folder(study)
    assert [path.name for path in folder.iterdir() if "tokens" in path.name] == []


def test_a_file_that_changes_while_it_is_read_is_refused(pets, make_study):
    class Slow(Here):
        def read(self, function, items):
            yield from super().read(function, items)
            pets.write_text(pets.read_text() + "late,cat\n")

    with pytest.raises(DataError, match="changed while"):
        prepare(make_study(pets), [BERT], [0], Slow())


def test_folders_hold_neither_paths_nor_times(pets, make_study, tmp_path, monkeypatch):
    def contents(made):
        return {p.relative_to(made.path): p.read_bytes() for p in made.path.rglob("*") if p.is_file()}

    one = contents(prepare(make_study(pets), [BERT], [0], Here())[BERT.name])
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "another cache"))
    moved = tmp_path / "moved.csv"
    moved.write_bytes(pets.read_bytes())
    assert contents(prepare(make_study(moved), [BERT], [0], Here())[BERT.name]) == one


def test_skipped_rows_are_listed_beside_the_clean_rows(pets, make_study):
    pets.write_text(pets.read_text() + ",cat\n")
    study = make_study(pets, on_bad_row="skip")
    made = prepare(study, [BERT], [0], Here())[BERT.name]
    assert made.manifest["rows"]["dropped"]["bad_row"] == 1
    assert f"{pets}:402: text" in (clean_folder(study) / "bad_rows.txt").read_text()
    assert survey(study).counts["dropped"]["bad_row"] == 1


def test_a_checkpoints_own_limit_shortens_texts(pets, make_study):
    source = prepare(make_study(pets, max_length=16), [BERT], [0], Here())[BERT.name].tokenizer_folder
    config = json.loads((source / "tokenizer_config.json").read_text())
    assert config["model_max_length"] == 16
    spec = TokenizerSpec("pretrained", path=str(source))
    made = prepare(make_study(pets, max_length=128), [spec], [0], Here())[spec.name]
    assert made.manifest["max_length"] == 16


def test_a_language_model_needs_one_window_in_every_split(words, make_study):
    with pytest.raises(DataError, match="less than one window of 60000"):
        prepare(make_study(words, task="causal-lm", max_length=60000), [GPT2], [0], Here())
