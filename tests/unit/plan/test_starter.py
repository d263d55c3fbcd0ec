"""`init`: what it writes for a user's file is what `plan` accepts."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from rayscale.errors import InputError
from rayscale.plan.draft import draft_plan
from rayscale.plan.plan import model_specs
from rayscale.plan.starter import write_starter
from rayscale.study.study import Study, load_study
from rayscale.system.machine import Machine
from rayscale.system.storage import Store
from rayscale.text.preparation import Here, prepare
from rayscale.text.sources.columns import SampleTable, is_header
from rayscale.text.tokens.encode import spec_of
from tests import made_languages

MACHINE = Machine("cpu", 2, "x", "this machine")
SENTENCES = [f"the {'cat' if i % 2 else 'dog'} number {i} runs home" for i in range(400)]
LABELS = ["cat" if i % 2 else "dog" for i in range(400)]


def started(path: Path, content: str, task: str | None = None) -> Study:
    """The study that init writes for a file with this content; `plan` has accepted it."""
    path.write_text(content)
    out = path.with_name("study.yaml")
    write_starter(task, path, out)
    study = load_study(out)
    assert draft_plan(study, MACHINE, Store.open(path.with_name("run"))).trials
    return study


def csv_of(header: str, *columns: list) -> str:
    return header + "".join(",".join(map(str, row)) + "\n" for row in zip(*columns, strict=True))


def test_a_file_without_a_header_is_read_by_column_numbers(tmp_path: Path) -> None:
    rows = "".join(f"{text}\t{int(label == 'cat')}\n" for text, label in zip(SENTENCES, LABELS, strict=True))
    task = started(tmp_path / "rows.tsv", rows).task
    assert (task.text, task.label) == ("0", "1")


def test_words_as_labels_show_that_there_is_no_header(tmp_path: Path) -> None:
    task = started(tmp_path / "rows.csv", csv_of("", LABELS, SENTENCES)).task
    assert (task.text, task.label) == ("1", "0")


@pytest.mark.parametrize(
    ("first", "rest", "named"),
    [
        (["text", "label"], [["good", "1"]], True),
        (["", "text", "label"], [["0", "good", "1"]], True),
        (["0", "1"], [["good", "1"]], True),
        (["a film", "1"], [["good", "1"]], False),
        (["a film", "pos"], [["good", "pos"]], False),
        (["a film", "pos"], [["good", "neg"]], True),
        (["x" * 80, "pos"], [["good", "neg"]], False),
        (["text", "label"], [["text", "label"]], True),
    ],
)
def test_headers_are_told_from_rows(first: list[str], rest: list[list[str]], named: bool) -> None:
    assert is_header(first, rest) is named


def test_the_label_is_found_by_its_name_and_ids_and_scores_are_none(tmp_path: Path) -> None:
    ids, scores = list(range(400)), [0.5 if i % 3 else 1.5 for i in range(400)]
    kinds = [f"kind {i % 5}" for i in range(400)]
    table = csv_of("id,text,label,score\n", ids, SENTENCES, kinds, scores)
    assert started(tmp_path / "rows.csv", table).task.label == "label"
    (tmp_path / "study.yaml").unlink()
    table = csv_of("id,said,group,score\n", ids, SENTENCES, kinds, scores)
    task = started(tmp_path / "rows.csv", table).task
    assert (task.text, task.label) == ("said", "group")


def test_sizes_count_rows_that_are_left_not_lines(tmp_path: Path) -> None:
    quoted = [f'"{text},\n\n\nand on"' for text in SENTENCES[:100]]
    study = started(tmp_path / "rows.csv", csv_of("text,label\n", quoted * 3, LABELS[:100] * 3))
    assert 60 <= study.grid.sizes[-1] <= 100
    assert study.grid.sizes[-1] == 8 * study.grid.sizes[0]


def test_a_few_rows_and_a_little_text_are_enough(tmp_path: Path) -> None:
    study = started(tmp_path / "rows.csv", csv_of("text,label\n", SENTENCES[:40], LABELS[:40]))
    assert study.grid.sizes == (4, 8, 16, 32)
    (tmp_path / "study.yaml").unlink()
    study = started(tmp_path / "text.txt", "\n\n".join(SENTENCES[:300]))
    assert study.grid.sizes[-1] < 5000


def test_objects_and_their_columns(tmp_path: Path) -> None:
    rows = [{"id": i, "content": text, "sentiment": i % 2, "score": i / 7} for i, text in enumerate(SENTENCES)]
    task = started(tmp_path / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows)).task
    assert (task.text, task.label) == ("content", "sentiment")


def test_bad_rows_are_passed_over_and_said(tmp_path: Path) -> None:
    study = started(tmp_path / "rows.csv", csv_of("text,label\n", SENTENCES, LABELS) + "one,two,three\n")
    assert study.data.on_bad_row == "skip"
    assert "rows.csv:402: found 3 fields" in (tmp_path / "study.yaml").read_text()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text,label\n", "a header line (text, label) and no rows"),
        ("", "the file is empty"),
        (csv_of("text,label\n", SENTENCES[:3], LABELS[:3]), "rows.csv"),
        (csv_of("text,number\n", SENTENCES, list(range(400))), "no column other than 'text' that could be a label"),
    ],
)
def test_files_that_serve_no_study_are_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        write_starter(None, path, tmp_path / "study.yaml")
    assert said in str(caught.value) or "split is empty" in str(caught.value)
    assert not (tmp_path / "study.yaml").exists()


def test_the_built_in_corpus_serves_both_tasks(tmp_path: Path) -> None:
    for task in ("sequence-classification", "causal-lm"):
        write_starter(task, None, tmp_path / f"{task}.yaml")
        assert load_study(tmp_path / f"{task}.yaml").task.type == task


@pytest.mark.parametrize("names", ["句子一 句子二", "文本1 文本2", "Text_A Text_B", "前提 假设", "sentence1 sentence2"])
def test_two_texts_are_found_by_their_names(names: str) -> None:
    first, second = names.split()
    rows = [f"文{place}" for place in range(40)]
    table = SampleTable({"标签": ["甲", "乙"] * 20, first: rows, second: rows[::-1]}, header=True)
    assert table.pair() == (first, second)


def test_numbered_columns_beside_a_text_or_without_one_are_no_pair() -> None:
    rows, numbers = [f"文{place}" for place in range(40)], [str(place) for place in range(40)]
    assert SampleTable({"文本": rows, "备注1": rows, "备注2": rows}, header=True).pair() is None
    assert SampleTable({"x1": numbers, "x2": numbers, "words": rows}, header=True).pair() is None


def test_a_label_is_found_by_its_chinese_name_where_another_column_has_fewer_values() -> None:
    table = SampleTable({"来源": ["网页", "手机"] * 20, "文本": ["文"] * 40, "标签": [*"甲乙丙丁"] * 10}, header=True)
    assert table.label(table.text()) == "标签"


def test_tokens_are_asked_for_as_there_are_in_any_language(tmp_path: Path) -> None:
    draw = random.Random(5)
    pages = {made_languages.page(draw)["text"] for _ in range(1500)}
    study = started(tmp_path / "pages.jsonl", "".join(json.dumps({"text": page}) + "\n" for page in sorted(pages)),
                    "causal-lm")  # fmt: skip
    specs = {spec_of(model).name: spec_of(model) for model in model_specs(study)}
    (prepared,) = prepare(study, list(specs.values()), [0], Here()).values()
    there = int(prepared.split("train").lengths.sum())
    assert 0.6 * there < max(study.grid.sizes) <= there


@pytest.mark.parametrize("name", ["", "klingon"])
def test_what_is_no_encoding_is_refused_before_the_text_is_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' is not a text encoding"):
        write_starter(None, tmp_path / "rows.csv", tmp_path / "study.yaml", name)
