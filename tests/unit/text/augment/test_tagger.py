"""Tokens and tags: CoNLL files and rows with lists, what is wrong with them, which word piece carries a tag."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayscale.errors import DataError
from rayscale.study.study import Data, Grid, Ladder, Study, Task
from rayscale.text import folders, prepared
from rayscale.text.form import find_form
from rayscale.text.preparation import Here, prepare
from rayscale.text.review.row_counts import token_counts
from rayscale.text.rows import clean
from rayscale.text.rows.assembly import assemble
from rayscale.text.tokens.encode import TokenizerSpec
from rayscale.text.tokens.vocabulary import make_vocabulary

TEXTS = [[f"Müller number {i} sells {i * i} × unbelievable shoes in New York" for i in range(300)]]
SPECS = {family: TokenizerSpec("trained", family, 400) for family in ("bert", "gpt2")}


def make_study(train: Path, max_length: int | None = None, **data: str) -> Study:
    return Study(name="s", task=Task(type="token-classification", max_length=max_length), grid=Grid(examples=(8,)),
                 data=Data(train=str(train), **data), models=(Ladder(family="bert", sizes=("1x32",)),))  # fmt: skip


def sentences(number: int) -> list[tuple[list[str], list[str]]]:
    return [(["Anna", f"{i}", "lives", "in", "New", "York"], ["B-PER", "O", "O", "O", "B-LOC", "I-LOC"])
            for i in range(number)]  # fmt: skip


def as_conll(rows: list[tuple[list[str], list[str]]]) -> str:
    lines = ("\n".join(f"{token} NN {tag}" for token, tag in zip(*row, strict=True)) for row in rows)
    return "-DOCSTART- -X- O\n\n" + "\n\n".join(lines) + "\n"


def test_conll_and_lists_give_the_same_rows(tmp_path: Path) -> None:
    rows = sentences(60)
    (tmp_path / "a.conll").write_text(as_conll(rows))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"tokens": a, "tags": b}) + "\n" for a, b in rows))
    pq.write_table(pa.table({"tokens": [a for a, _ in rows], "tags": [b for _, b in rows]}), tmp_path / "c.parquet")
    (tmp_path / "d.csv").write_text("tokens,tags\n" + "".join(f"{' '.join(a)},{' '.join(b)}\n" for a, b in rows))
    found = []
    for name in ("a.conll", "b.jsonl", "c.parquet", "d.csv"):
        study = make_study(tmp_path / name)
        tables = [t for s in clean.list_sources(study.data) for t in clean.read_clean(s, study.task, "error")]
        found.append(assemble(tables, study))
    assert all(each.manifest == found[0].manifest for each in found)
    assert all(each.splits["train"].equals(found[0].splits["train"]) for each in found)
    assert found[0].manifest["labels"] == ["B-LOC", "B-PER", "I-LOC", "O"]
    assert sum(found[0].manifest["rows"][name] for name in prepared.SPLITS) == 60


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.conll",
            "EU B-ORG\nrejects\n\n",
            r"a\.conll:2: found 'rejects', which is not a token with a tag; give each",
        ),
        ("b.jsonl", '{"tokens": ["a", "b"], "tags": ["O"]}\n', r"b\.jsonl:1: tags: found 1 tags for 2 tokens; give"),
        ("b.jsonl", '{"tokens": ["a"], "tags": [3]}\n', r"b\.jsonl:1: tags: found the number 3 .* names such as B-PER"),
        ("b.jsonl", '{"tokens": ["a", " "], "tags": ["O", "O"]}\n', r"b\.jsonl:1: tokens: found an empty string"),
        ("b.jsonl", '{"tokens": 3, "tags": ["O"]}\n', r"b\.jsonl:1: tokens: found int 3; give a list of strings"),
    ],
)
def test_what_is_wrong_is_named_by_file_line_and_mend(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=said):
        prepare(make_study(tmp_path / name), [SPECS["bert"]], [0], Here())


@pytest.mark.parametrize("family", SPECS)
def test_the_first_piece_of_a_token_carries_its_tag(family: str) -> None:
    tokenizer = make_vocabulary(SPECS[family], TEXTS, "token-classification", 64).tokenizer
    words = ["Müller", "sells", "unbelievable", "×", "shoes"]
    tags = ("A", "B", "C", "D", "E")
    form = find_form("token-classification")
    made = form.encode(tokenizer, ["\n".join(words)], ["\n".join(tags)], 64, tags)
    (ids,), (targets,) = made["input_ids"].to_pylist(), made["targets"].to_pylist()
    assert len(ids) == len(targets) > len(words)
    assert [target for target in targets if target >= 0] == [0, 1, 2, 3, 4]
    plain = tokenizer.encode(" ".join(words))
    assert ids == plain.ids
    for target, (start, end) in zip(targets, plain.offsets, strict=True):
        if target >= 0:  # the piece stands at the beginning of its word
            assert " ".join(words)[start:end].strip() == words[target][: len(" ".join(words)[start:end].strip())]
    short = form.encode(tokenizer, ["\n".join(words)], ["\n".join(tags)], 5, tags)
    assert short["truncated"].to_pylist() == [True]
    assert short["unread"].to_pylist()[0] == 5 - sum(t >= 0 for t in short["targets"].to_pylist()[0]) > 0


def test_what_was_cut_is_counted_and_the_split_reads_back(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(as_conll([*sentences(60), (["x"] * 30, ["O"] * 30)]))
    (found,) = prepare(make_study(tmp_path / "a.conll", max_length=16), [SPECS["bert"]], [0], Here()).values()
    split = found.split("train")
    tags = split.lists["targets"]
    assert (tags.lengths == split.lengths).all()
    counts = token_counts({"t": found})["t"]
    lost = {name: (split["truncated_rows"], split["unread"]) for name, split in counts.items()}
    assert sum(rows for rows, _ in lost.values()) == 1
    assert sum(unread for _, unread in lost.values()) == 30 - 14
    assert folders.is_whole(found.path)
