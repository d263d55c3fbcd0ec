"""Tables read from files: what comes back, and where a fault is said to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rayscale.errors import TableError
from rayscale.verdict.table_files import Table, check_columns, check_query, read_table, write_table

ROWS = pd.DataFrame({"N": [1e6, 2e6, 4e6], "split": ["a", "b", "b"], "loss": [3.5, 3.25, np.nan]})


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"runs{suffix}"
    if suffix == ".parquet":
        ROWS.to_parquet(path)
    elif suffix == ".jsonl":
        ROWS.to_json(path, orient="records", lines=True)
    else:
        ROWS.to_csv(path, index=False, sep="," if suffix == ".csv" else "\t")
    pd.testing.assert_frame_equal(read_table(path).rows, ROWS, check_dtype=False)


def test_semicolons_of_spreadsheets_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_bytes(b"\xef\xbb\xbf" + b"N;loss\n1;2.5\n")
    assert read_table(path).rows.to_dict("list") == {"N": [1], "loss": [2.5]}


@pytest.mark.parametrize(
    ("name", "content", "where", "said"),
    [
        ("a.csv", b"", "a.csv", "empty"),
        ("a.csv", b"N,loss\n", "a.csv", "no rows"),
        ("a.csv", b"N,loss\n1,2\n1,2,3\n", "a.csv:3", "3 fields where the header has 2"),
        ("a.csv", b'N,loss\n"x\ny",2\n1\n', "a.csv:4", "1 fields"),
        ("a.csv", b'N,loss\n1,"2\n', "a.csv:2", "quotes"),
        ("a.csv", b"N,N\n1,2\n", "a.csv:1", "2 columns are called 'N'"),
        ("a.csv", b"N,loss\n1,2\n\xff,3\n", "a.csv:3", "UTF-8"),
        ("a.csv", b"\xff\xfeN\0", "a.csv:1", "UTF-16"),
        ("a.csv", b"PK\0\0", "a.csv:1", "NUL"),
        ("a.jsonl", b'{"N": 1}\n{"N": \n', "a.jsonl:2", "not JSON"),
        ("a.jsonl", b"[1]\n", "a.jsonl:1", "type list"),
        ("a.parquet", b"PAR1 no more", "a.parquet", "damaged"),
        ("a.xlsx", b"PK", "a.xlsx", "save the table as one of .csv"),
        ("a", b"N\n1\n", "/a", "without suffix"),
    ],
)
def test_a_fault_is_named_by_file_and_line(tmp_path: Path, name: str, content: bytes, where: str, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match=said) as caught:
        read_table(tmp_path / name)
    assert str(caught.value.where).endswith(where)


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("N\n1\n")
    with pytest.raises(TableError, match=r"did you mean 'runs.csv'"):
        read_table(tmp_path / "run.csv")
    with pytest.raises(TableError, match="folder"):
        read_table(tmp_path)


@pytest.mark.parametrize(
    ("value", "mend"),
    [("92%", "without the % sign"), ("1,200", "thousands"), ("abc", "leave the field empty")],
)
def test_text_in_a_column_of_numbers_is_named_by_line_and_value(tmp_path: Path, value: str, mend: str) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(f'N,loss\n"1\n",2\n2,\n3,"{value}"\n')
    with pytest.raises(TableError, match=mend) as caught:
        check_columns(read_table(path), {"--params": None, "--target": "loss"})
    assert caught.value.where == f"{path}:5"  # the first row takes two lines, and a missing value is no fault
    assert repr(value) in caught.value.message


def test_columns_that_cannot_hold_sizes_are_refused() -> None:
    table = Table(ROWS.assign(yes=[True, False, True], day=pd.Timestamp("2026-01-01")), "runs.parquet")
    check_columns(table, {"--params": "N", "--target": "loss"})
    for column, said in (("los", "did you mean 'loss'"), ("yes", "yes/no"), ("day", "dates"), ("split", "found 'a'")):
        with pytest.raises(TableError, match=said):
            check_columns(table, {"--target": column})
    assert table.place(2) == "runs.parquet: row 2"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("N = 1", "write '=='"),
        ("los > 1", "no column 'los'; did you mean 'loss'"),
        ("N >", "invalid syntax"),
        ("N", "true or false"),
        ("N > 'a'", "query such as"),
        ("1 == 1", "true or false"),
        ("@N > 1", "query such as"),
    ],
)
def test_a_wrong_query_names_the_option_and_the_mend(query: str, said: str) -> None:
    with pytest.raises(TableError, match=said) as caught:
        check_query(Table(ROWS, "runs.csv"), query, "--where")
    assert caught.value.where == "runs.csv: --where"


@pytest.mark.parametrize("query", [None, "N > 1e6 and split == 'b'", "~(N > 1)", "loss.isna()", "N >= 1 or N <= 2"])
def test_right_queries_pass(query: str | None) -> None:
    check_query(Table(ROWS, "runs.csv"), query, "--where")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_written_table_comes_back_and_leaves_nothing_beside_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    write_table(ROWS, path)
    pd.testing.assert_frame_equal(read_table(path).rows, ROWS)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"\.csv or \.parquet"):
        write_table(ROWS, tmp_path / "out.xls")
    with pytest.raises(TableError, match="folder does not exist"):
        write_table(ROWS, tmp_path / "none" / "out.csv")
