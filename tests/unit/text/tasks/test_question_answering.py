"""Questions, contexts and answers: what is wrong with rows, windows, which tokens an answer covers, who goes where."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayscale.errors import DataError
from rayscale.study.study import Data, Grid, Ladder, Study, Task
from rayscale.text import folders
from rayscale.text.form import BETWEEN
from rayscale.text.preparation import Here, prepare
from rayscale.text.review.row_counts import token_counts
from rayscale.text.rows import clean
from rayscale.text.rows.assembly import assemble
from rayscale.text.tasks.question_answering import encode, overlap
from rayscale.text.tokens.encode import TokenizerSpec
from rayscale.text.tokens.vocabulary import make_vocabulary

LENGTH = 24
TEXTS = [[f"Who sold number {i} in New York?\n\nMüller sold {i} × unbelievable shoes." for i in range(300)]]
BERT = TokenizerSpec("trained", "bert", 400)


def make_study(train: Path, max_length: int | None = None, **data: Any) -> Study:
    return Study(name="s", task=Task(type="question-answering", max_length=max_length), grid=Grid(examples=(8,)),
                 data=Data(train=str(train), **data), models=(Ladder(family="bert", sizes=("1x32",)),))  # fmt: skip


def row(context: str, question: str, *answers: str) -> dict[str, Any]:
    return {"question": question, "context": context,
            "answers": {"text": list(answers), "answer_start": [context.index(each) for each in answers]}}  # fmt: skip


def as_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(each) + "\n" for each in rows)


def cleaned(study: Study) -> Any:
    tables = [t for s in clean.list_sources(study.data) for t in clean.read_clean(s, study.task, "error")]
    return assemble(tables, study)


def contexts(table: pa.Table) -> set[str]:
    return {text.split(BETWEEN)[1] for text in table["text"].to_pylist()}


def test_no_context_is_in_two_splits(tmp_path: Path) -> None:
    rows = [row(f"In town {c}  lives ann {c}.", f"question {q}?", f"ann {c}") for c in range(80) for q in range(5)]
    (tmp_path / "a.jsonl").write_text(as_lines(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b.parquet")
    one, other = (cleaned(make_study(tmp_path / name, near_duplicates=None)) for name in ("a.jsonl", "b.parquet"))
    assert one.splits["train"].equals(other.splits["train"])
    there = {name: contexts(table) for name, table in one.splits.items()}
    assert sum(map(len, there.values())) == 80 == len(set.union(*there.values()))
    assert all(len(one.splits[name]) == 5 * len(there[name]) for name in there)
    # A test file takes its contexts out of training, whatever is asked of them there.
    (tmp_path / "test.jsonl").write_text(as_lines([row("In town 7 lives ann 7.", "who else?", "ann")]))
    given = cleaned(make_study(tmp_path / "a.jsonl", test=str(tmp_path / "test.jsonl"), near_duplicates=None))
    assert given.manifest["rows"]["dropped"]["in_test"] == 5
    assert "In town 7  lives ann 7." not in contexts(given.splits["train"]) | contexts(given.splits["validation"])


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"text": ["lives"], "answer_start": [3]}, r"a\.jsonl:1: answers: found the answer 'lives', which "
         r"is not at answer_start 3 of the context; there is ' live'; it is at 4 \(characters are counted from 0\)"),
        ({"text": ["dies"], "answer_start": [4]}, "it is not in the context: fix the text"),
        ({"text": ["Ann"], "answer_start": []}, r"a\.jsonl:1: answers: found dict .* two lists of equal length"),
        ({"text": ["Ann"], "answer_start": ["0"]}, "found answer_start 0; give a whole number"),
        ("Ann", "found str Ann; write"),
        (None, r"found nothing \(null\)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_file_line_and_mend(tmp_path: Path, answers: Any, said: str) -> None:
    bad = {"question": "who?", "context": "Ann lives.", "answers": answers}
    (tmp_path / "a.jsonl").write_text(as_lines([bad]))
    with pytest.raises(DataError, match=said):
        prepare(make_study(tmp_path / "a.jsonl"), [BERT], [0], Here())


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_windows_hold_the_context_and_point_at_the_answer(family: str) -> None:
    tokenizer = make_vocabulary(TokenizerSpec("trained", family, 400), TEXTS, "question-answering", LENGTH).tokenizer
    context = "  Müller sold × shoes. " * 9 + "Then Zoë  bought unbelievable numbers. " + "In New York. " * 9
    answer = "Zoë  bought"
    cases = [[[answer, context.index(answer)]], [], [[context[5:], 5]]]
    made = encode(tokenizer, [f"Who sold?{BETWEEN}{context}"] * 3, [json.dumps(case) for case in cases], LENGTH, ())
    lengths, ids = made["windows"].to_pylist()[0], made["input_ids"].to_pylist()[0]
    assert len(lengths) > 3
    assert sum(lengths) == len(ids)
    assert lengths[:-1] == [LENGTH] * (len(lengths) - 1)
    begins, ends = (np.array(made[name].to_pylist()[0]) for name in ("begins", "ends"))
    starts = np.cumsum([0, *lengths])
    windows = [np.flatnonzero(ends[a:b] > begins[a:b]) + a for a, b in itertools.pairwise(starts)]
    for one, other in itertools.pairwise(windows):
        assert (begins[one[-overlap(LENGTH) :]] == begins[other[: overlap(LENGTH)]]).all()
    covered = {place for window in windows for each in window for place in range(begins[each], ends[each])}
    assert {place for place, letter in enumerate(context) if letter.strip()} <= covered
    found = [
        context[begins[start + first] : ends[start + last]]
        for start, first, last in zip(starts, made["first"].to_pylist()[0], made["last"].to_pylist()[0], strict=False)
        if last
    ]
    assert found
    assert {each.strip() for each in found} == {answer}
    assert made["unread"].to_pylist() == [0, 0, 1]  # the third is longer than any window
    assert not any(made["first"].to_pylist()[1] + made["last"].to_pylist()[1] + made["last"].to_pylist()[2])
    long = encode(tokenizer, [f"{'Who sold ' * 30}?{BETWEEN}{context}"], ["[]"], 8, ())  # the least max_length
    assert long["truncated"].to_pylist() == [True]
    assert max(long["windows"].to_pylist()[0]) == 8


def test_answers_that_no_window_holds_are_counted(tmp_path: Path) -> None:
    rows = [row(f"In town {c} lives ann {c}.", "who?", f"ann {c}") for c in range(60)]
    rows.append(row("x " * 90, "all?", "x " * 89 + "x"))
    (tmp_path / "a.jsonl").write_text(as_lines(rows))
    (found,) = prepare(make_study(tmp_path / "a.jsonl", 16, near_duplicates=None), [BERT], [0], Here()).values()
    assert sum(split["unread"] for split in token_counts({"t": found})["t"].values()) == 1
    assert folders.is_whole(found.path)
