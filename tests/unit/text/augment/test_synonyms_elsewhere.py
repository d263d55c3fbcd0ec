"""Synonyms in scripts without spaces or capitals: from a table of one's own, or from a wordnet of the language."""

from __future__ import annotations

import pytest

from rayscale.errors import DataError
from rayscale.study.augment_key import CHARACTERS
from rayscale.study.augmenters import Example
from rayscale.text.augment import segments
from rayscale.text.augment.multilingual import read_senses, synonyms
from rayscale.text.augment.synonyms import SYNONYMS, SynonymSettings

TABLE = "word,synonym\n快递,快件\n快递员,送货人\n包裹,邮包\nT恤,短袖\niPhone,苹果手机\n"
TAB = """\
# Chinese Open Wordnet\tcmn\thttp://example.org\twordnet
00000001-n\tcmn:lemma\t包裹
00000001-n\tcmn:lemma\t邮包
00000002-a\tcmn:lemma\t美丽+的
00000002-a\tcmn:lemma\t漂亮+的
00000002-a\tcmn:def\t0\t使人喜欢的样子
00000003-n\tcmn:lemma\t包
00000003-n\tcmn:lemma\t袋
00000004-a\tcmn:lemma\t悲惨的，痛苦的
00000004-a\tcmn:lemma\t难过
"""
LMF = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE LexicalResource SYSTEM "http://globalwordnet.github.io/schemas/WN-LMF-1.1.dtd">
<LexicalResource xmlns:dc="https://globalwordnet.github.io/schemas/dc/">
 <Lexicon id="cmn" label="made" language="cmn-Hans" email="a@b.c" license="wordnet" version="1">
  <LexicalEntry id="e1"><Lemma writtenForm="包裹" partOfSpeech="n"/><Sense id="s1" synset="one"/></LexicalEntry>
  <LexicalEntry id="e2"><Lemma writtenForm="邮包" partOfSpeech="n"/><Sense id="s2" synset="one"/></LexicalEntry>
 </Lexicon>
</LexicalResource>
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(TABLE, encoding="utf-8")
    return path


def replaced(source, text, share=1.0, segmenter=CHARACTERS):
    step = SYNONYMS.make(SYNONYMS.locate(SynonymSettings(source=str(source), share=share)))
    return step([Example(text, 11, segmenter=segmenter)])[0].text


@pytest.mark.parametrize(
    ("text", "child"),
    [
        ("我的快递还没到，包裹呢？", "我的快件还没到，邮包呢？"),
        ("快递员很辛苦", "送货人很辛苦"),  # the longest word
        ("买了3件T恤和iPhone 15", "买了3件短袖和iPhone 15"),  # a name stays, as in English
        ("没有这些词", "没有这些词"),
    ],
)
def test_words_of_several_characters_are_found_in_text_without_spaces(table, text, child):
    assert replaced(table, text) == child


def test_with_a_segmenter_a_word_is_not_found_within_another(tmp_path, monkeypatch):
    (tmp_path / "own.csv").write_text("word,synonym\n中国,华夏\n国家,国度\n", encoding="utf-8")
    assert replaced(tmp_path / "own.csv", "发展中国家") == "发展华夏家"
    monkeypatch.setattr(segments, "_jieba", lambda: lambda run: ["发展", "中", "国家"])
    assert replaced(tmp_path / "own.csv", "发展中国家", segmenter="jieba") == "发展中国度"


def test_the_share_is_that_of_words_and_one_is_replaced_at_least(table):
    text = "快递和包裹和快递和包裹"
    assert replaced(table, text, 0.01) in {text[:n] + text[n:].replace(a, b, 1) for n in (0, 3, 6, 9)
                                           for a, b in (("快递", "快件"), ("包裹", "邮包"))}  # fmt: skip
    assert replaced(table, text, 0.3).count("快件") + replaced(table, text, 0.3).count("邮包") == 2


@pytest.mark.parametrize(
    ("row", "text", "child"),
    [
        ("荷物,小包", "荷物がまだ届いていません", "小包がまだ届いていません"),
        ("レストラン,食堂", "新しいレストランで食べた", "新しい食堂で食べた"),
        ("สินค้า,ของ", "สินค้าส่งเร็ว", "ของส่งเร็ว"),
        ("배송,배달", "배송 확인해 주세요", "배달 확인해 주세요"),
        ("배송이,배달이", "배송이 늦어요.", "배달이 늦어요."),
        ("الشحنة,الطرد", "لم تصل الشحنة بعد،", "لم تصل الطرد بعد،"),
        ("पार्सल,डिब्बा", "मेरा पार्सल नहीं मिला", "मेरा डिब्बा नहीं मिला"),
        ("חבילה,משלוח", "איפה חבילה שלי", "איפה משלוח שלי"),
    ],
)
def test_scripts_without_capitals(tmp_path, row, text, child):
    (tmp_path / "own.csv").write_text(f"word,synonym\n{row}\n", encoding="utf-8")
    assert replaced(tmp_path / "own.csv", text) == child


@pytest.mark.parametrize(("name", "content"), [("wn-data-cmn.tab", TAB), ("omw-cmn.xml", LMF)])
def test_a_wordnet_of_the_language(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert replaced(tmp_path / name, "我的包裹很美丽") == "我的邮包很美丽"
    assert replaced(tmp_path / name, "我的包很重") == "我的包很重"  # one character means too much
    assert SYNONYMS.contents(SynonymSettings(source=str(tmp_path / name)))


def test_of_a_wordnet_senses_are_read_without_its_signs_and_phrases(tmp_path):
    (tmp_path / "cmn.tab").write_text(TAB, encoding="utf-8")
    assert read_senses(tmp_path / "cmn.tab") == [("包裹", "邮包"), ("美丽的", "漂亮的"), ("难过",)]
    assert replaced(tmp_path / "cmn.tab", "美丽的花") == "漂亮的花"


def test_a_synonym_shares_much_of_what_both_words_mean():
    # A sixth of what `many` means is too little to replace it, and to let it replace another.
    found = synonyms([("many", "one"), *[("many",)] * 5, ("one", "two")])
    assert set(found) == {"one", "two"}
    assert set(found["one"]) == {"two"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("00000001-n\tcmn:lemma\t包裹\n", "no two words of one sense"),
        ("00000001-n\tcmn:lemma\t包裹\nbroken\n", r":2: found 'broken'; a row is synset, lemma and word"),
        ("<LexicalResource><Lexicon>", "is damaged"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><LexicalResource/>', "declares the entity 'x'"),
    ],
)
def test_a_broken_wordnet_is_named(tmp_path, content, said):
    (tmp_path / "wn.tab").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        SYNONYMS.locate(SynonymSettings(source=str(tmp_path / "wn.tab")))


def test_a_source_that_is_not_there_says_where_wordnets_of_other_languages_are(tmp_path):
    with pytest.raises(DataError, match=r"Open Multilingual Wordnet \(omwn\.org: wn-data-cmn\.tab"):
        SYNONYMS.locate(SynonymSettings(source=str(tmp_path / "none.tab")))
