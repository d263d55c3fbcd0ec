"""Text in other encodings than UTF-8: guessed by name, read when it is named, never without a word."""

import gzip
import json
from pathlib import Path

import pytest

from rayscale.errors import DataError, StudyError
from rayscale.study.study import Data, Task, load_study
from rayscale.text.review.encoding_faults import find_trouble, written_as
from rayscale.text.review.survey import survey
from rayscale.text.rows import clean, pieces
from rayscale.text.rows.assembly import _check_splits
from rayscale.text.sources import readers
from rayscale.text.sources.columns import read_table
from rayscale.text.sources.encodings import guess, proposal
from rayscale.text.sources.readers import read_conll
from rayscale.text.sources.row import Row, UnusableError, checked_text

TEXTS = {
    "gb18030": "昨天在店里买的鞋子坏了，请给我退款。物流太慢了，我很不满意！这个应用怎么不能登录？",
    "big5": "昨天在店裡買的鞋子壞了，請給我退款。物流太慢了，我很不滿意！這個應用程式怎麼不能登入？",
    "shift_jis": "昨日、駅前の店で買った靴が壊れてしまいました。返金をお願いします。アプリにログインできません。",
    "euc_jp": "昨日、駅前の店で買った靴が壊れてしまいました。返金をお願いします。アプリにログインできません。",
    "euc_kr": "어제 가게에서 산 신발이 망가졌습니다. 환불을 부탁드립니다. 앱에 로그인할 수 없습니다.",
    "windows-1252": "Où est mon colis? Le café était dégoûtant. Größe und Qualität – schön. ¿Dónde está el niño?",
    "windows-1250": "Paczka przyszła za późno. Chcę zwrotu pieniędzy. Buty są większe niż oczekiwano.",
    "windows-1251": "Посылка пришла слишком поздно. Верните мне деньги. Приложение не работает.",
    "koi8-r": "Посылка пришла слишком поздно. Верните мне деньги. Приложение не работает.",
    "windows-1253": "Το δέμα ήρθε πολύ αργά. Θέλω τα χρήματά μου πίσω.",
    "windows-1256": "وصل الطرد متأخرا جدا. أريد استرداد أموالي. الحذاء أكبر من المتوقع.",
    "cp874": "พัสดุมาช้าเกินไป ฉันต้องการเงินคืน รองเท้าใหญ่กว่าที่คาดไว้",
}


@pytest.mark.parametrize("name", TEXTS)
def test_an_encoding_is_guessed_from_a_row_and_from_many(name: str) -> None:
    rows = [part.strip() for part in TEXTS[name].replace("。", ".").replace("！", ".").split(".") if part.strip()]
    for text in (rows[0], TEXTS[name], TEXTS[name] * 2000):
        content = f"text,label\n{text},good\n".encode(name)
        first, *others = guess(content)
        assert content.decode(first.name) == content.decode(name)
        assert not others


@pytest.mark.parametrize(
    ("content", "name"),
    [("good text\nmore".encode("utf-16"), "utf-16"), ("good text\nmore".encode("utf-16-le"), "utf-16-le"),
     ("good text\nmore".encode("utf-16-be"), "utf-16-be"), (b"plain", None), (b"", None),
     ("naïve 漢字 кошка".encode(), None), (bytes(range(128, 256)) * 9, None)],
)  # fmt: skip
def test_wide_text_is_known_and_what_is_right_or_no_text_is_not_guessed(content: bytes, name: str | None) -> None:
    assert [each.name for each in guess(content)] == ([name] if name else [])


def test_a_proposal_tells_damage_from_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(f"text\n{TEXTS['gb18030']}\n".encode("gb18030"))
    assert "gb18030 (Chinese): write data: {encoding: gb18030}" in proposal(str(path))
    assert "--encoding gb18030" in proposal(str(path), write="give --encoding {}")
    path.write_bytes(f"text\n{TEXTS['gb18030']}\n".encode() * 9 + b"\xc4\n")
    assert "damaged" in proposal(str(path))
    assert "leave data.encoding out" in proposal(str(path), "big5")


def _written(path: Path, content: str, encoding: str) -> str:
    packed = gzip.compress if path.suffix == ".gz" else bytes
    path.write_bytes(packed(content.encode(encoding)))
    return str(path)


@pytest.mark.parametrize("encoding", ["gb18030", "big5", "utf-16", "utf-16-le", "utf-8"])
def test_every_format_of_text_is_read_in_its_encoding(tmp_path: Path, encoding: str) -> None:
    texts = [f"好 {place} 店" for place in range(3000)]  # characters lie across the ends of what is read at once
    rows = [(text, "是") for text in texts]
    csv = _written(tmp_path / "a.csv.gz", "text,label\n" + "".join(f"{a},{b}\n" for a, b in rows), encoding)
    tsv = _written(tmp_path / "a.tsv", "text\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in rows), encoding)
    told = [json.dumps({"text": a, "label": b}, ensure_ascii=False) for a, b in rows]
    jsonl = _written(tmp_path / "a.jsonl", "\n".join(told), encoding)
    for path, read in ((csv, readers.read_csv), (tsv, readers.read_tsv), (jsonl, readers.read_jsonl)):
        assert [row.values for row in read(path, ("text", "label"), encoding=encoding)] == rows
    txt = _written(tmp_path / "a.txt", "\n\n".join(texts), encoding)
    assert [row.values[0].strip() for row in readers.read_txt(txt, ("text",), encoding)] == texts
    conll = _written(tmp_path / "a.conll", "店 O\n里 B\n\n好 O\n", encoding)
    assert list(read_conll(conll, ("tokens", "tags"), encoding)) == [
        Row(1, (["店", "里"], ["O", "B"])), Row(4, (["好"], ["O"])),
    ]  # fmt: skip


def test_a_mark_at_the_beginning_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    for encoding in ("gb18030", "utf-16-le"):
        path = _written(tmp_path / "a.csv", "\ufefftext,label\n好,x\n", encoding)
        assert list(readers.read_csv(path, ("text", "label"), encoding)) == [Row(2, ("好", "x"))]


def _source(path: Path, kind: str, encoding: str) -> clean.SourceFile:
    return clean.SourceFile("train", 0, str(path), kind, encoding)


def _problems(tmp_path: Path, content: bytes, encoding: str) -> list[str]:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    study = load_study(_study(tmp_path, "a.csv", encoding))
    (table,) = clean.read_clean(_source(path, "csv", encoding), study.task, "skip")
    return [each for each in table["problem"].to_pylist() if each]


def test_bytes_of_another_encoding_are_named_by_line_with_the_likely_one(tmp_path: Path) -> None:
    content = f'text,label\n"fine\n{TEXTS["gb18030"]}",x\n'.encode("gb18030")
    (problem,) = _problems(tmp_path, content, "utf-8")
    told = json.loads(problem)
    assert told["where"].endswith("a.csv:3: text")
    assert "which is not UTF-8; the file looks like gb18030" in told["message"]
    (problem,) = _problems(tmp_path, b"text,label\n\xff,x\n", "gb18030")
    assert "0xff, which is not GB18030" in json.loads(problem)["message"]
    path = _written(tmp_path / "b.csv", "文本,标签\n店里的鞋子坏了,是\n", "gb18030")
    with pytest.raises(DataError, match=r"in the first line, which is not UTF-8; the file looks like gb18030"):
        list(readers.read_csv(path, ("文本", "标签")))


def _study(tmp_path: Path, data: str, encoding: str | None) -> Path:
    path = tmp_path / "study.yaml"
    named = f", encoding: {encoding}" if encoding else ""
    path.write_text(f"""
name: encoded
task: {{type: sequence-classification}}
data: {{train: {data}{named}}}
models: [{{family: bert, sizes: [1x32]}}]
grid: {{examples: [10]}}
""", encoding="utf-8")  # fmt: skip
    return path


def test_the_text_names_the_data_not_the_bytes_or_the_spelling(tmp_path: Path) -> None:
    content = "text,label\n" + "".join(f"第{place}双鞋子坏了,{'是' if place % 3 else '否'}\n" for place in range(60))
    marks = {}
    for name in ("gb18030", "GBK", "utf-16", None, "utf-8"):
        _written(tmp_path / f"{name}.csv", content, name or "utf-8")
        marks[name] = clean.fingerprint(load_study(_study(tmp_path, f"{name}.csv", name)))
    assert len(set(marks.values())) == 1
    found = survey(load_study(_study(tmp_path, "gb18030.csv", "gb18030")))
    assert found.labels == ("否", "是")
    wrong = clean.fingerprint(load_study(_study(tmp_path, "gb18030.csv", "latin-1")))
    assert wrong != marks["gb18030"]


@pytest.mark.parametrize("name", ["gb18031", "rot13", "utf-7", "cp037", "unicode_escape"])
def test_what_is_no_encoding_of_text_is_refused_with_the_usual_ones(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.csv").write_text("text,label\n", encoding="utf-8")
    with pytest.raises(StudyError, match=r"data\.encoding: found .*no encoding of text.*gb18030"):
        load_study(_study(tmp_path, "a.csv", name))


def test_an_encoding_without_text_to_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="has no effect on parquet"):
        clean.list_sources(Data(train=str(tmp_path / "a.parquet"), encoding="gb18030"))


def test_parts_of_a_large_file_are_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayscale.text.sources.digests.BLOCK_BYTES", 97)
    told = [json.dumps({"text": f"第{place}双鞋子", "label": "是"}, ensure_ascii=False) for place in range(40)]
    source = _source(Path(_written(tmp_path / "a.jsonl", "\n".join(told), "gb18030")), "jsonl", "gb18030")
    cut = pieces.cut([source])
    assert len(cut) > 10
    rows = [row for piece in cut for row in source.rows(("text",), piece.span)]
    assert rows == [Row(place + 1, (f"第{place}双鞋子",)) for place in range(40)]
    wide = _source(Path(_written(tmp_path / "b.jsonl", "\n".join(told), "utf-16")), "jsonl", "utf-16")
    assert [piece.span for piece in pieces.cut([wide])] == [None]


def test_init_asks_for_the_encoding(tmp_path: Path) -> None:
    path = Path(_written(tmp_path / "a.csv", f"text,label\n{TEXTS['big5']},x\n", "big5"))
    with pytest.raises(DataError, match=r"looks like big5 .*give --encoding big5"):
        read_table(path)
    table = read_table(path, "big5")
    assert table is not None
    assert table.columns["label"] == ["x"]


@pytest.mark.parametrize("name", ["gb18030", "big5", "shift_jis", "euc_kr", "windows-1251", "koi8-r", "utf-8"])
@pytest.mark.parametrize("used", ["latin-1", "windows-1252"])
def test_what_was_read_as_western_is_found(name: str, used: str) -> None:
    text = TEXTS.get(name, TEXTS["gb18030"])
    garbled = "".join(bytes([b]).decode(used, "ignore") or chr(b) for b in text.encode(name))
    assert written_as(" ".join(garbled.split())) == f"{name} read as windows-1252"


def test_utf8_that_was_read_as_an_asian_encoding_is_found() -> None:
    assert written_as(TEXTS["gb18030"].encode().decode("gb18030", "replace")) == "utf-8 read as gb18030"
    assert written_as(TEXTS["shift_jis"].encode().decode("cp932", "replace")) == "utf-8 read as cp932"
    kinds = [sign.kind for sign in find_trouble(["手持两把锟斤拷", "h\0e\0l\0l\0o\0"])]
    assert kinds == ["replacement characters read as GBK", "zeros of UTF-16"]


@pytest.mark.parametrize("text", [*TEXTS.values(), "« CAFÉ » À É»", "5 °C ± 2 µm", "ÄÖÜ", "£5 – €7"])
def test_right_text_of_any_language_shows_no_sign(text: str) -> None:
    assert find_trouble([text]) == []


def test_a_row_of_half_a_character_needs_its_other_half() -> None:
    with pytest.raises(UnusableError) as error:
        checked_text("a\ud83d", Row(3, ("a\ud83d",)), "text")
    bad = error.value.bad
    assert (bad.line, bad.undecoded) == (3, False)
    assert "half a character" in bad.found


def test_short_right_text_is_not_taken_for_text_read_in_an_encoding_that_lacks_its_characters() -> None:
    assert written_as("我心天很错现心发。390") is None


def test_a_mark_of_utf8_before_text_of_another_encoding_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "文本,标签\n天气很好,好\n天气很坏,坏\n".encode("gbk"))
    table = read_table(path, "gb18030")
    assert table is not None
    assert list(table.columns) == ["文本", "标签"]


def test_a_file_whose_rows_all_are_in_another_encoding_is_not_told_to_give_more_text() -> None:
    with pytest.raises(DataError, match=r"remove data\.on_bad_row: skip"):
        _check_splits({"train": 0, "validation": 0, "test": 0}, {"bad_row": 400}, None, Task(type="multi-label"))
