import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayscale.errors import DataError, InputError
from rayscale.text.review import row_counts
from rayscale.text.review.survey import survey
from rayscale.text.rows import assembly, clean


def cleaned(study):
    sources = clean.list_sources(study.data)
    return assembly.assemble(
        [t for s in sources for t in clean.read_clean(s, study.task, study.data.on_bad_row)], study
    )


def texts(result):
    return {name: set(table["text"].to_pylist()) for name, table in result.splits.items()}


def test_rows_are_kept_once_counted_and_ordered_by_key(tmp_path, make_study):
    train = tmp_path / "train.csv"
    rows = [("alpha beta", "x"), ("alpha  beta", "y"), ("leaked", "x"), ("also here", "x")]
    rows += [(f"text {i}", "xy"[i % 2]) for i in range(100)]
    train.write_text("text,label\n" + "".join(f"{a},{b}\n" for a, b in rows))
    test = tmp_path / "test.csv"
    test.write_text("text,label\nleaked,x\nother,y\n leaked ,x\n")
    result = cleaned(make_study(train, test=test, validation_fraction=0.2))
    assert result.manifest["rows"]["read"] == 107
    assert result.manifest["rows"]["dropped"] == {
        "bad_row": 0, "empty": 0, "duplicate": 2, "in_validation": 0, "in_test": 1,
            "near_validation": 0, "near_test": 0,
    }  # fmt: skip
    assert result.manifest["rows"]["conflicting_labels"] == 1
    assert texts(result)["test"] == {"leaked", "other"}
    assert sum(len(t) for t in result.splits.values()) == 104
    for table in result.splits.values():
        assert table["key"].to_pylist() == sorted(table["key"].to_pylist())


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 5))
def test_the_cut_and_order_of_tables_changes_nothing(tmp_path_factory, make_study, random, size):
    path = tmp_path_factory.mktemp("clean") / "a.csv"
    path.write_text("text,label\n" + "".join(f"text {i % 30},{i % 3}\n" for i in range(60)))
    study = make_study(path, validation_fraction=0.2, test_fraction=0.2)
    (source,) = clean.list_sources(study.data)
    whole = pa.concat_tables(clean.read_clean(source, study.task, "error"))
    parts = [whole.slice(first, size) for first in range(0, len(whole), size)]
    random.shuffle(parts)
    one, other = assembly.assemble([whole], study), assembly.assemble(parts, study)
    assert one.manifest == other.manifest
    assert all(one.splits[name].equals(other.splits[name]) for name in one.splits)


def test_splits_do_not_depend_on_how_rows_are_spread_over_files(tmp_path, make_study, pets):
    lines = pets.read_text().splitlines(keepends=True)
    for number, part in enumerate((lines[300:], lines[1:150], lines[150:300])):
        (tmp_path / f"part-{number}.csv").write_text(
            "text,label\n" + "".join(line for line in part if line[:4] != "text")
        )
    assert texts(cleaned(make_study(pets))) == texts(cleaned(make_study(tmp_path / "part-*.csv")))


def test_labels_are_sorted_by_number_and_those_absent_from_training_are_told(tmp_path, make_study):
    train, test = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    train.write_text("".join(json.dumps({"text": f"t {i}", "label": i % 11}) + "\n" for i in range(200)))
    test.write_text('{"text": "t 3", "label": 3}\n' + '{"text": "new", "label": 42}\n{"text": "more", "label": 42}\n')
    study = make_study(train, test=test)
    manifest = cleaned(study).manifest
    assert manifest["labels"] == [str(i) for i in range(11)] + ["42"]
    assert manifest["labels_not_in_training"] == ["42"]
    assert row_counts.place_labels(row_counts.row_counts(manifest), study.data)["places_of_these"] == [f"{test}:2"]


def test_bad_rows_stop_or_are_counted_and_listed(tmp_path, make_study):
    path = tmp_path / "a.csv"
    rows = "".join(f"text {i},{i % 2}\n" for i in range(100))
    path.write_bytes(b"text,label\ngood,1\n,1\nno label,\nbad \xff,0\n" + rows.encode())
    with pytest.raises(DataError) as error:
        cleaned(make_study(path))
    assert error.value.where == f"{path}:3: text"
    assert "on_bad_row: skip" in str(error.value)
    result = cleaned(make_study(path, on_bad_row="skip"))
    assert [row.split(": found")[0] for row in result.bad_rows] == [
        f"{path}:3: text", f"{path}:4: label", f"{path}:5: text"
    ]  # fmt: skip
    assert result.manifest["rows"]["dropped"]["bad_row"] == 3
    assert result.manifest["rows"]["read"] == 104


def test_the_first_bad_row_in_file_order_is_reported(tmp_path, make_study):
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("text,label\nfine,1\n,1\n")
    study = make_study(tmp_path / "*.csv")
    tables = [t for s in clean.list_sources(study.data) for t in clean.read_clean(s, study.task, "error")]
    with pytest.raises(DataError, match=r"a\.csv:3"):
        assembly.assemble(tables[::-1], study)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.csv", None, "no such file"),
        ("empty.csv", b"", "the file is empty"),
        ("header.csv", b"text,label\n", "no rows"),
        ("strange.xls", b"x", "data.format"),
        ("one.csv", b"text,label\n" + b"".join(b"t %d,x\n" % i for i in range(99)), "only one label, 'x'"),
        ("few.csv", b"text,label\na,x\nb,y\n", "split is empty"),
        ("bad.parquet", b"PAR1 nonsense", "damaged"),
        ("bad.jsonl", b"{'text': 1}\n", "bad.jsonl:1"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path, make_study, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        cleaned(make_study(tmp_path / name))
    assert words in str(error.value)
    assert error.value.exit_code == 2


def test_a_folder_stands_for_its_files_and_an_unknown_format_is_refused(tmp_path, make_study, pets):
    (tmp_path / ".hidden" / "none").mkdir(parents=True)
    for name in ("b.jsonl", "part/a.csv.gz", ".hidden/c.csv", "_old.csv", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text,label\n")
    found = [Path(source.path).relative_to(tmp_path) for source in clean.list_sources(make_study(tmp_path).data)]
    assert list(map(str, found)) == ["b.jsonl", "part/a.csv.gz", "pets.csv"]
    with pytest.raises(DataError, match="a folder without files that end in"):
        clean.list_sources(make_study(tmp_path / ".hidden" / "none").data)
    with pytest.raises(InputError, match="did you mean 'csv'"):
        clean.list_sources(make_study(pets, format="csvv").data)


def test_empty_documents_of_a_language_model_are_dropped_and_counted(tmp_path, make_study):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in ["", " ", *(f"doc {i}\n line" for i in range(60))]))
    result = cleaned(make_study(path, task="causal-lm"))
    assert result.manifest["rows"]["dropped"]["empty"] == 2
    assert "doc 1\nline" in set().union(*texts(result).values())


def test_the_fingerprint_follows_content_and_settings(tmp_path, make_study, pets):
    first = clean.fingerprint(make_study(pets))
    moved = tmp_path / "elsewhere.csv"
    moved.write_bytes(pets.read_bytes())
    assert clean.fingerprint(make_study(moved)) == first
    assert clean.fingerprint(make_study(pets, test_fraction=0.2)) != first
    assert clean.fingerprint(make_study(pets, max_length=16)) == first
    moved.write_bytes(pets.read_bytes() + b"one more,cat\n")
    assert clean.fingerprint(make_study(moved)) != first


def test_the_survey_counts_exactly_and_estimates_large_files(pets, make_study, monkeypatch):
    study = make_study(pets)
    exact = survey(study)
    manifest = cleaned(study).manifest
    assert (exact.rows_train, exact.labels, exact.exact) == (manifest["rows"]["train"], ("cat", "dog"), True)
    assert exact.characters_train == manifest["characters"]["train"]
    monkeypatch.setattr("rayscale.text.review.survey.EXACT_BYTES", 1000)
    monkeypatch.setattr("rayscale.text.review.survey.SAMPLE_ROWS", 100)
    monkeypatch.setattr("rayscale.text.rows.clean.BATCH_ROWS", 100)
    estimate = survey(study)
    assert not estimate.exact
    assert estimate.rows_train == pytest.approx(exact.rows_train, rel=0.1)


def test_real_files_lose_no_row(shared_data, make_study):
    text = shared_data / "text"
    bank = survey(make_study(text / "banking77_train.csv", test=text / "banking77_test.csv", label="category"))
    assert len(bank.labels) == 77
    used = bank.rows_train + bank.rows_validation + bank.rows_test
    assert used + sum(bank.counts["dropped"].values()) == bank.counts["read"] == 10003 + 3080
    sst = survey(make_study(text / "sst2_train.tsv", test=text / "sst2_dev.tsv", text="0", label="1"))
    assert sst.labels == ("0", "1")
    assert sst.rows_train + sst.rows_validation + sst.rows_test + sum(sst.counts["dropped"].values()) == 6920 + 872
    with pytest.raises(DataError, match="no header line"):
        survey(make_study(text / "sst2_train.tsv"))
