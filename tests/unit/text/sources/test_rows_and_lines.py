"""Between the lines of a file and its rows nothing vanishes: what one bad row takes with it is said."""

from pathlib import Path

import pytest

from rayscale.errors import DataError
from rayscale.report.notes import row_notes
from rayscale.study.study import load_study
from rayscale.text.review.diagnosis import _labels, _rows
from rayscale.text.review.survey import survey
from rayscale.text.sources import readers
from rayscale.text.sources.readers import read_conll
from rayscale.text.sources.row import BadRow, Row

STUDY = """
name: lines
task: {type: sequence-classification}
data: {train: rows.csv, on_bad_row: skip}
models: [{family: bert, sizes: [1x32]}]
grid: {examples: [10]}
"""


def _read(tmp_path: Path, content: str, read=readers.read_csv, name: str = "rows.csv", columns=("text", "label")):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8", newline="")
    return list(read(str(path), columns))


def _surveyed(tmp_path: Path, content: str):
    (tmp_path / "rows.csv").write_text(content, encoding="utf-8", newline="")
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    return survey(load_study(tmp_path / "study.yaml"))


def _rows_of(number: int, start: int = 0) -> str:
    return "".join(f"text number {place},{'pos' if place % 2 else 'neg'}\n" for place in range(start, start + number))


def test_a_quote_that_is_not_closed_tells_how_many_lines_it_takes(tmp_path: Path) -> None:
    content = "text,label\n" + _rows_of(50) + '"stray quote,pos\n' + _rows_of(349, 50)
    (bad,) = (row for row in _read(tmp_path, content) if isinstance(row, BadRow))
    assert (bad.line, bad.lines) == (52, 350)
    assert "a row of 350 lines that does not parse" in bad.found
    found = _surveyed(tmp_path, content)
    assert (found.counts["read"], found.counts["dropped"]["bad_row"], found.counts["bad_row_lines"]) == (51, 1, 350)
    said, *_ = _rows(found)
    assert said.level == "warn"
    assert "1 unusable (350 lines)" in said.found
    assert "first at rows.csv:52" in said.mend
    assert "The rows that cannot be used take 350 lines of their files with them." in row_notes(found.counts)


@pytest.mark.parametrize("lines", [1, 2, 30])
def test_a_quote_that_closes_by_chance_is_no_row(tmp_path: Path, lines: int) -> None:
    content = (
        "text,label\n"
        + _rows_of(9)
        + '"stray,pos\n'
        + _rows_of(lines - 1, 20)
        + 'a screen of 5",neg\n'
        + _rows_of(2, 9)
    )
    found = _read(tmp_path, content)
    (bad,) = (row for row in found if isinstance(row, BadRow))
    assert (bad.line, bad.lines) == (11, lines + 1)
    assert "look like rows" in bad.found
    assert sum(isinstance(row, Row) for row in found) == 11
    assert len(found) - 1 + bad.lines == content.count("\n") - 1  # every line but the header's


@pytest.mark.parametrize(
    "text",
    ["Dear all,\nplease, help\nbye", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj", "one, two\nthree, pos",
     'he said ""yes"",\nand left',
     "roses are red,\nviolets are blue,\nsugar is sweet"],
)  # fmt: skip
def test_a_text_of_several_lines_stays_a_row(tmp_path: Path, text: str) -> None:
    found = _read(tmp_path, "text,label\n" + _rows_of(6) + f'"{text}",pos\n')
    assert found[-1] == Row(8, (text.replace('""', '"'), "pos"))


def test_no_verse_is_taken_for_rows_where_there_is_one_column(tmp_path: Path) -> None:
    verse = "\n".join(f"line {place}" for place in range(20))
    (row,) = _read(tmp_path, f'text\n"{verse}"\n', columns=("text",))
    assert row.values == (verse,)


def test_a_header_that_comes_again_is_no_row(tmp_path: Path) -> None:
    content = "text,label\na,x\ntext,label\nb,y\n\ufefftext,label\nc,x\n"  # files put one after the other
    found = _read(tmp_path, content)
    assert [row.line for row in found if isinstance(row, BadRow)] == [3, 5]
    assert [row.values[0] for row in found if isinstance(row, Row)] == ["a", "b", "c"]


def test_line_ends_of_every_kind_give_the_same_rows(tmp_path: Path) -> None:
    for end in ("\n", "\r\n", "\r"):
        assert len(_read(tmp_path, f"text,label{end}a,x{end}{end}b,y{end}")) == 2
        assert len(_read(tmp_path, f"a{end}b{end}{end}c{end}", readers.read_txt, "a.txt", ("text",))) == 2
        assert len(_read(tmp_path, f"a O{end}b O{end}{end}c O{end}", read_conll, "a.conll")) == 2


def test_what_json_takes_for_one_line_is_counted(tmp_path: Path) -> None:
    row = '{"text": "a", "label": "x"}'
    for content, lines, word in (
        ("\r".join([row] * 7), 7, "end with CR alone"),
        ("[" + ",".join([row] * 5) + "]", 5, "a JSON list of 5"),
    ):
        (bad,) = _read(tmp_path, content, readers.read_jsonl, "a.jsonl")
        assert bad.lines == lines
        assert word in bad.found


def test_conll_counts_the_lines_of_a_bad_sentence_and_refuses_a_file_without_blank_lines(tmp_path: Path) -> None:
    good, bad = _read(tmp_path, "a O\n\nb O\nc\nd O\n", read_conll, "a.conll")
    assert good == Row(1, (["a"], ["O"]))
    assert (bad.line, bad.lines) == (4, 3)
    with pytest.raises(DataError, match="one sentence of 1,200 tokens; put a blank line after each"):
        _read(tmp_path, "a O\n" * 1200, read_conll, "b.conll")
    assert len(_read(tmp_path, "a O\n" * 1200 + "\nb O\n", read_conll, "c.conll")) == 2


def test_labels_that_look_alike_are_told_with_their_rows(tmp_path: Path) -> None:
    written = ["pos", "Pos", " pos", "ｐｏｓ", "pos\u200b", "neg"]
    content = "text,label\n" + "".join(f"text number {place},{written[place % 6]}\n" for place in range(240))
    found = _surveyed(tmp_path, content)
    (said,) = _labels(found, "sequence-classification")
    assert said.level == "warn"
    for name in ("'Pos'", "'pos'", "'pos\\u200b'", "'ｐｏｓ'"):
        assert f"{name} (" in said.found
    assert "' pos' (40 rows) as 'pos'" in said.found
    assert "'neg' (" not in said.found.partition("alike but")[2]


def test_what_is_skipped_counts_by_its_own_version(tmp_path: Path) -> None:
    from rayscale.text.rows import clean

    (tmp_path / "rows.csv").write_text("text,label\na,x\n", encoding="utf-8")
    marks = set()
    for given in (STUDY, STUDY.replace("skip", "error"), STUDY.replace(", on_bad_row: skip", "")):
        (tmp_path / "study.yaml").write_text(given, encoding="utf-8")
        marks.add(clean.fingerprint(load_study(tmp_path / "study.yaml")))
    assert len(marks) == 2
