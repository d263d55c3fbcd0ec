"""A look at a table's first rows: has it a header, which column is the text, which the label."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayscale.errors import DataError, first_line
from rayscale.study.encoding_names import UTF_8
from rayscale.text.sources.encodings import proposal
from rayscale.text.sources.opening import ending, lines_of, open_text
from rayscale.text.sources.row import byte_in, undecoded

READ_ROWS = 2000
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

#: Names that say what a column holds, likeliest first.
TEXTS = ("text", "sentence", "review", "content", "document", "message", "utterance", "query", "question", "body",
         "文本", "正文", "内容", "內容", "句子", "评论", "評論", "问题", "本文", "テキスト", "문장")  # fmt: skip
LABELS = ("label", "labels", "category", "class", "target", "intent", "sentiment", "topic", "tag",
          "标签", "標籤", "类别", "類別", "分类", "分類", "意图", "意圖", "情感", "ラベル", "라벨")  # fmt: skip

PAIRS = (("text", "text_pair"), ("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"),
         ("question", "sentence"), ("query", "passage"),
         ("前提", "假设"), ("前提", "假設"), ("前提", "仮説"))  # fmt: skip
#: Ends of two names that are alike but for them.
NUMBERS = (("1", "2"), ("１", "２"), ("一", "二"), ("甲", "乙"), ("a", "b"))

#: The same for the columns of other tasks, by the key of the study's task.
OTHERS = {
    "labels": ("labels", "topics", "categories", "classes", "genres", "tags", "label", "标签", "標籤", "类别", "類別"),
    "tokens": ("tokens", "words", "词", "字", "分词"),
    "tags": ("tags", "ner_tags", "labels", "pos_tags", "chunk_tags", "标注", "标签", "標籤"),
    "source": ("source", "src", "input", "document", "article", "text", "question", "en", "原文", "正文", "输入"),
    "target": ("target", "tgt", "output", "summary", "highlights", "answer", "translation", "de", "fr",
               "译文", "摘要", "输出"),
    "question": ("question", "query", "问题", "問題", "質問"),
    "context": ("context", "passage", "paragraph", "document", "上下文", "段落", "原文", "文章", "文脈"),
    "answers": ("answers", "answer", "答案", "回答"),
}  # fmt: skip


@dataclass(frozen=True)
class SampleTable:
    """The first rows of a table by column, all columns of one length. Without a header columns are numbered from 0."""

    columns: dict[str, list[Any]]
    header: bool

    def text(self) -> str:
        """The column of the text: by its name, else the one with the longest strings."""
        lengths = {name: sum(len(v) for v in values if isinstance(v, str)) for name, values in self.columns.items()}
        filled = [name for name, length in lengths.items() if length]
        return _named(TEXTS, filled) or max(lengths, key=lambda name: lengths[name])

    def named(self, key: str) -> str | None:
        """The column that is called as those of a task's key are; None if there is none."""
        return _named(OTHERS[key], list(self.columns))

    def pair(self) -> tuple[str, str] | None:
        """The columns of two texts that belong together, by their names; None if there are none."""
        return next(self._known(PAIRS), None) or self._numbered()

    def _known(self, pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """Those of the pairs of names that are columns, as they are written."""
        written = {name.strip().casefold(): name for name in self.columns}
        return ((written[one], written[other]) for one, other in pairs if one in written and other in written)

    def _numbered(self) -> tuple[str, str] | None:
        """Two columns of text whose names differ in a number at their end alone, where no column is called text."""
        if _named(TEXTS, list(self.columns)):
            return None
        stems = [name[:-1].casefold() for name in self.columns]
        pairs = self._known((f"{stem}{first}", f"{stem}{second}") for stem in stems for first, second in NUMBERS)
        return next(((one, other) for one, other in pairs if self._varied(one) and self._varied(other)), None)

    def _varied(self, name: str) -> bool:
        """Whether a column holds text: strings that are no numbers, more than a few of them different."""
        values = [value for value in self.columns[name] if isinstance(value, str) and value]
        return len({*values}) > len(self.columns[name]) / 4 and not any(map(_is_number, values))

    def label(self, text: str) -> str | None:
        """The column of the classes: by its name, else the one with the fewest values that are no fractions.

        None where none has two values or more, but at most half as many as rows.
        """
        values = {name: {str(value) for value in kinds} for name, kinds in self.columns.items() if name != text}
        rows = max(map(len, self.columns.values()), default=0)
        fitting = {name: len(kinds) for name, kinds in values.items() if 2 <= len(kinds) <= max(2, rows / 2)}
        whole = {name: size for name, size in fitting.items() if not any(map(_is_fraction, values[name]))}
        return _named(LABELS, list(fitting)) or min(whole, key=lambda name: whole[name], default=None)


def read_table(path: Path, encoding: str = UTF_8) -> SampleTable | None:
    """The first rows of a csv, tsv, jsonl or parquet file; None for any other ending.

    Raises DataError: a file without rows, of another format than its ending says, or in another encoding.
    """
    kind = ending(path)
    if kind not in TABLES:
        return None
    if path.stat().st_size == 0:
        raise DataError("the file is empty; write it again from its source", code="empty_file", where=str(path))
    table = _delimited(path, kind, encoding) if kind in (".csv", ".tsv") else _objects(path, kind, encoding)
    texts = (text for name, values in table.columns.items() for text in (name, *values) if isinstance(text, str))
    if odd := next(filter(undecoded, texts), None):
        found = f"found {byte_in(odd)}, which is not {encoding.upper()}"
        raise DataError(f"{found}; {proposal(str(path), encoding, 'give --encoding {}')}", code="bad_encoding",
                        where=str(path))  # fmt: skip
    if not any(table.columns.values()):
        found = f"a header line ({', '.join(table.columns)}) and no rows" if table.columns else "no rows"
        raise DataError(f"the file holds {found}; write it again from its source", code="no_rows", where=str(path))
    return table


def _delimited(path: Path, kind: str, encoding: str) -> SampleTable:
    with open_text(str(path), encoding) as lines:
        if kind == ".csv":
            reader = csv.reader(lines_of(str(path), lines), strict=True)
        else:
            reader = csv.reader(lines_of(str(path), lines), delimiter="\t", quoting=csv.QUOTE_NONE)
        rows: list[list[str]] = []
        while len(rows) <= READ_ROWS:
            try:
                fields = next(reader)
            except StopIteration:
                break
            except csv.Error:
                continue  # reading the whole file will say which row this is
            if fields and (not rows or len(fields) == len(rows[0])):
                rows.append(fields)
    if not rows:
        return SampleTable({}, header=False)
    first, rest = rows[0], rows[1:]
    if is_header(first, rest):
        return SampleTable({name: [row[place] for row in rest] for place, name in enumerate(first)}, header=True)
    return SampleTable({str(place): [row[place] for row in rows] for place in range(len(first))}, header=False)


def is_header(first: list[str], rest: list[list[str]]) -> bool:
    """Whether a table's first row names its columns: no cell is empty, a number, long, there twice, or a value below.

    The numbers 0, 1, 2, ... are names: that is how pandas calls columns without any.
    """
    cells = [cell.strip() for cell in first]
    if cells == [str(number) for number in range(len(cells))]:
        return True
    named = {cell.casefold() for cell in cells} & {*TEXTS, *LABELS}
    if named and not cells[0]:
        cells = cells[1:]  # pandas writes its index as a first column without a name
    if any(not cell or _is_number(cell) or len(cell) > 60 for cell in cells) or len(set(cells)) < len(cells):
        return False
    return bool(named) or not any(row[place] == first[place] for row in rest for place in range(len(first)))


def _objects(path: Path, kind: str, encoding: str) -> SampleTable:
    rows: Iterable[dict[str, Any]]
    try:
        if kind == ".parquet":
            from rayscale.text.sources.parquet import first_rows, plain_columns

            names = plain_columns(str(path))
            rows = first_rows(str(path), names, READ_ROWS)
        else:
            with open_text(str(path), encoding) as lines:
                parsed = (json.loads(line) for line in lines_of(str(path), lines) if line.strip())
                rows = [row for row in itertools.islice(parsed, READ_ROWS) if isinstance(row, dict)]
            names = list(rows[0]) if rows else []
    except (ValueError, OSError, RecursionError) as error:  # damaged parquet is a ValueError, too
        raise DataError(f"cannot be read as {kind[1:]} ({first_line(error)}); write it again from its source",
                        code="bad_data", where=str(path)) from None  # fmt: skip
    return SampleTable({str(name): [row.get(name) for row in rows] for name in names}, header=True)


def _named(known: tuple[str, ...], names: list[str]) -> str | None:
    originals = {name.strip().casefold(): name for name in names}
    return next((originals[name] for name in known if name in originals), None)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_fraction(text: str) -> bool:
    return _is_number(text) and not text.strip().lstrip("+-").isdecimal()
