import contextlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayscale.errors import DataError
from rayscale.text.sources import readers
from rayscale.text.sources.parquet import read_parquet
from rayscale.text.sources.row import BadRow, Row, UnusableError, checked_label, checked_text


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_csv_reads_quoted_fields_with_commas_quotes_and_line_breaks(tmp_path):
    path = write(tmp_path, "a.csv", '\ufefflabel,text\r\nx,"one, ""two""\nthree"\r\n\r\ny,four\r\n')
    assert list(readers.read_csv(path, ("text", "label"))) == [
        Row(2, ('one, "two"\nthree', "x")),
        Row(5, ("four", "y")),
    ]


@given(st.lists(st.tuples(st.text(), st.text(min_size=1)), min_size=1))
def test_csv_returns_what_the_csv_module_wrote(tmp_path_factory, rows):
    import csv

    def plain(text):
        return text.encode("utf-8", "ignore").decode().replace("\r", "\n")

    rows = [(plain(a), plain(b)) for a, b in rows]
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    assert [row.values for row in readers.read_csv(str(path), ("text", "label"))] == rows


def test_tsv_takes_quotes_as_text_and_column_numbers_without_header(tmp_path):
    path = write(tmp_path, "a.tsv", 'he said "no\t0\nyes "\t1\n')
    assert [row.values for row in readers.read_tsv(path, ("0", "1"))] == [('he said "no', "0"), ('yes "', "1")]
    named = write(tmp_path, "b.tsv", "0\t1\na\tb\n")  # pandas writes such headers for unnamed columns
    assert [row.values for row in readers.read_tsv(named, ("0", "1"))] == [("a", "b")]


def test_bad_rows_name_their_line_and_reading_goes_on(tmp_path):
    path = write(tmp_path, "a.csv", 'text,label\na,x,extra\n"b"c,x\nd,y\n"open,z\n')
    found = list(readers.read_csv(path, ("text", "label")))
    assert [(type(row), row.line) for row in found] == [(BadRow, 2), (BadRow, 3), (Row, 4), (BadRow, 5)]
    assert "3 fields" in found[0].found


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (("txt", "label"), ["a.csv:1", "txt", "did you mean 'text'", "'text', 'label'", 'text: "0"']),
        (("0", "7"), ["no column 7", "2 columns"]),
    ],
)
def test_a_missing_column_is_named_with_those_there_are(tmp_path, columns, words):
    path = write(tmp_path, "a.csv", "text,label\na,x\n")
    with pytest.raises(DataError) as error:
        list(readers.read_csv(path, columns))
    assert all(word in str(error.value) for word in words)
    assert error.value.code == "missing_column"


def test_two_columns_of_one_name_and_utf16_are_refused(tmp_path):
    with pytest.raises(DataError, match="2 columns are called 'text'"):
        list(readers.read_csv(write(tmp_path, "a.csv", "text,text,label\na,b,c\n"), ("text", "label")))
    with pytest.raises(DataError, match="UTF-16"):
        list(readers.read_csv(write(tmp_path, "b.csv", "text,label\n".encode("utf-16")), ("text", "label")))


def test_jsonl_names_each_bad_line(tmp_path):
    good = json.dumps({"text": "a", "label": 3, "more": None})
    lines = [good, "", "{", '{"text": "b"}', "[1]", "[" * 100_000, good]
    path = write(tmp_path, "a.jsonl", "\n".join(lines).encode() + b'\n{"text": "\xe9"}\n')
    found = list(readers.read_jsonl(path, ("text", "label")))
    assert [(type(row), row.line) for row in found] == [
        (Row, 1), (BadRow, 3), (BadRow, 4), (BadRow, 5), (BadRow, 6), (Row, 7), (BadRow, 8)
    ]  # fmt: skip
    assert found[2].column == "label"
    assert "0xe9" in found[-1].found
    with pytest.raises(DataError, match="did you mean 'label'"):
        list(readers.read_jsonl(path, ("text", "labels")))


def test_a_key_that_is_twice_in_an_object_is_no_row(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": 1, "text": "c"}\n')
    _, bad = readers.read_jsonl(path, ("text", "label"))
    assert (bad.line, bad.column) == (2, "text")
    assert "twice" in bad.found


def parquet(tmp_path, **columns):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_rows_and_missing_column(tmp_path):
    path = str(parquet(tmp_path, text=["a", None], label=[1, 2]))
    assert list(read_parquet(path, ("text", "label"))) == [Row(1, ("a", 1)), Row(2, (None, 2))]
    with pytest.raises(DataError, match=r"no column 'body' \(found: 'text', 'label'\)"):
        list(read_parquet(path, ("body", "label")))


def test_damaged_parquet_is_an_error_or_other_rows_never_a_crash(tmp_path):
    path = parquet(tmp_path, text=[f"some text {i}" for i in range(500)], label=[i % 3 for i in range(500)])
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a\.parquet"):
            list(read_parquet(str(path), ("text", "label")))
    for place in range(0, len(whole), 13):
        flipped = bytearray(whole)
        flipped[place] ^= 0x55
        path.write_bytes(flipped)
        with contextlib.suppress(DataError):
            assert all(isinstance(row, Row) for row in read_parquet(str(path), ("text", "label")))


def test_txt_documents_are_separated_by_blank_lines_and_have_no_labels(tmp_path):
    path = write(tmp_path, "a.txt", "\n\none\ntwo\n \n\nthree")
    assert list(readers.read_txt(path, ("text",))) == [Row(3, ("one\ntwo\n",)), Row(7, ("three",))]
    with pytest.raises(DataError, match="no labels"):
        list(readers.read_txt(path, ("text", "label")))


def test_bytes_that_are_no_utf8_are_named_with_the_line_inside_the_row(tmp_path):
    path = write(tmp_path, "a.csv", b'text,label\n"one\ntw\xe9",x\n')
    (row,) = readers.read_csv(path, ("text", "label"))
    with pytest.raises(UnusableError) as error:
        checked_text(row.values[0], row, "text")
    bad = error.value.bad
    assert (bad.line, bad.column) == (3, "text")
    assert "0xe9" in bad.found
    assert bad.undecoded


@pytest.mark.parametrize(
    ("value", "label"),
    [(" a  b ", "a b"), (3, "3"), (True, "true")],
)
def test_labels_are_strings_whole_numbers_or_booleans(value, label):
    assert checked_label(value, Row(7, (value,)), "label") == label


@pytest.mark.parametrize("value", [1.0, None, "", " ", "\ud800", []])
def test_other_values_are_no_labels(value):
    with pytest.raises(UnusableError) as error:
        checked_label(value, Row(7, (value,)), "label")
    assert error.value.bad.line == 7


@pytest.mark.parametrize("value", ["0.0", "1.5", "-2.25", "1e-3", ".5", "3.0E+2", 1.0, float("nan"), None])
def test_a_fraction_is_no_label(value):
    with pytest.raises(UnusableError) as error:
        checked_label(value, Row(7, ("text", value)), "label")
    assert (error.value.bad.line, error.value.bad.column) == (7, "label")
    assert "whole number" in error.value.bad.fix


@pytest.mark.parametrize("value", ["v1.0", "1.0.0", "10", "-1", "1,5", "3.", "n.a.", "e5", 3, True])
def test_names_and_whole_numbers_are_labels(value):
    assert checked_label(value, Row(7, ("text", value)), "label") == str(value).lower()
