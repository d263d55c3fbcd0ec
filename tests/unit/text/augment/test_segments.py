"""Words where there are no spaces: by characters or by a segmenter, joined back as the text was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayscale.errors import InputError
from rayscale.study.augment_key import AUTO, CHARACTERS, SPACES, read
from rayscale.study.augmenters import Example
from rayscale.text.augment import segments
from rayscale.text.augment.chain import Chain, fingerprint
from rayscale.text.augment.segments import cut, settle
from rayscale.text.augment.shuffle import DELETE, SWAP, ShuffleSettings
from rayscale.text.normalise import keys_of, normalise

CHINESE = "我的iPhone 15坏了，请帮忙check一下 Google Maps！"
WORDS = ["我", "的", "iPhone", "15", "坏", "了", "请", "帮忙", "check", "一下", "Google", "Maps"]
JAPANESE = "荷物がまだ届いていません。"
THAI = "ขอบคุณมากค่ะ"
KOREAN = "배송이 아직 도착하지 않았습니다."
ARABIC = "لم تصل الشحنة بعد، يرجى التحقق."


def anew(rows):
    """A plugin that makes rows of its own."""
    return [Example(row.text, row.seed) for row in rows]


def segmenters(rows):
    """A plugin whose children name the segmenter."""
    return [row.saying(str(row.segmenter)) for row in rows]


@pytest.fixture
def jieba(monkeypatch):
    """A segmenter of Chinese that knows three words."""

    def split(run):
        while run:
            length = 2 if run[:2] in ("帮忙", "一下", "快递") else 3 if run[:3] == "快递员" else 1
            yield run[:length]
            run = run[length:]

    monkeypatch.setattr(segments, "_jieba", lambda: split)
    monkeypatch.setattr(segments, "find_spec", lambda name: name == "jieba" or None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CHINESE, [*"我的", "iPhone", "15", *"坏了请帮忙", "check", *"一下", "Google", "Maps"]),
        ("他说：“don't，3.5元 a,b”", ["他", "说", "don't", "3.5", "元", "a,b"]),
        (JAPANESE, list(JAPANESE[:-1])),
        (THAI, ["ข", "อ", "บ", "คุ", "ณ", "มา", "ก", "ค่ะ"]),
        ("เก็บเงิน", ["เก็", "บ", "เงิ", "น"]),  # a vowel stands before its consonant
        ("ខ្ញុំចង់", ["ខ្ញុំ", "ច", "ង់"]),  # a consonant below the other
        ("ပစ္စည်း", ["ပ", "စ္စ", "ည်း"]),
        (KOREAN, KOREAN.split()),
        (ARABIC, ARABIC.split()),
        ("plain words, here", ["plain", "words,", "here"]),
        ("", []),
    ],
)
def test_words_by_characters(text, words):
    assert list(cut(text, CHARACTERS).words) == words
    assert list(cut(text, None).words) == text.split()


def test_words_by_a_segmenter(jieba):
    assert list(cut(CHINESE, "jieba").words) == WORDS
    assert list(cut(JAPANESE, "jieba").words) == list(JAPANESE[:-1])  # not its language


TEXTS = st.lists(
    st.sampled_from(["快递", "很慢", "，", "。", " ", "GPU", "3.5", "が", "ไม่", "“", "!", "don't"]), max_size=12
)


@given(TEXTS, st.data())
def test_words_move_and_go_but_nothing_else_changes(parts, data):
    text = normalise("".join(parts))
    found = cut(text, CHARACTERS)
    places = range(len(found.words))
    assert found.moved(places) == text == found.without([])
    order = data.draw(st.permutations(places))
    swapped = found.moved(order)
    assert plain(swapped) == plain("".join(found.words[place] for place in order))
    assert [sign for sign in swapped if sign in "，。“"] == [sign for sign in text if sign in "，。“"]
    lost = data.draw(st.sets(st.sampled_from(places))) if places else set()
    kept = [word for place, word in enumerate(found.words) if place not in lost]
    fewer = normalise(found.without(lost))
    assert plain(fewer) == plain("".join(kept))


def plain(text):
    """The letters alone."""
    return [letter for letter in text if letter not in "，。“! "]


def test_the_share_is_that_of_characters():
    text = "为什么满意度显示处理麻烦尽快看一下吧"
    child = SWAP.make(ShuffleSettings(share=0.2))([Example(text, 5, segmenter=CHARACTERS)])[0].text
    assert sum(a != b for a, b in zip(child, text, strict=True)) == 4
    assert len(DELETE.make(ShuffleSettings(share=0.5))([Example(text, 5, segmenter=CHARACTERS)])[0].text) == 9


def test_no_space_is_added_but_where_words_of_spaced_scripts_would_run_together():
    found = cut("我用Google地图App", CHARACTERS)
    assert found.words == ("我", "用", "Google", "地", "图", "App")
    assert found.without([3, 4]) == "我用Google App"
    assert found.moved([0, 1, 2, 5, 4, 3]) == "我用Google App图地"
    assert cut("你，我，他", CHARACTERS).without([1]) == "你，他"
    assert cut("打开 Google Maps 吧", CHARACTERS).without([2]) == "打开 Maps 吧"


@pytest.mark.parametrize("text", ["为什么满意度显示处理，麻烦尽快看一下！", JAPANESE, THAI, "ຂອບໃຈຫຼາຍໆ", "ខ្ញុំចង់ទិញ"])
@pytest.mark.parametrize("step", ["swap", "delete"])
def test_a_text_without_spaces_has_children(text, step):
    chain = Chain(read({"name": "x", step: {"share": 0.3}, "segmenter": CHARACTERS}))
    child = chain.rows([text], keys_of([text]), 0)[0].text
    assert child != text
    assert " " not in child
    assert set(child) <= set(text)


def test_a_step_that_makes_rows_of_its_own_hides_the_segmenter_from_no_other():
    chain = Chain(read({"name": "x", f"{__name__}:anew": {}, f"{__name__}:segmenters": {}, "segmenter": CHARACTERS}))
    assert [row.text for row in chain.rows([CHINESE], keys_of([CHINESE]), 0)] == [CHARACTERS]


def test_auto_is_what_the_text_asks_for_and_what_is_there(jieba, monkeypatch):
    assert settle(AUTO, ["plain text", "naïve café"]) == SPACES
    assert settle(AUTO, [CHINESE]) == "jieba"
    assert settle(AUTO, [JAPANESE]) == settle(AUTO, [KOREAN]) == settle(AUTO, [ARABIC]) == CHARACTERS
    assert settle(SPACES, [CHINESE]) == SPACES
    monkeypatch.setattr(segments, "find_spec", lambda name: True)
    assert settle(AUTO, [CHINESE, JAPANESE]) == "jieba+budoux"
    assert settle(AUTO, [THAI]) == "budoux"
    monkeypatch.setattr(segments, "find_spec", lambda name: None)
    assert settle(AUTO, [CHINESE]) == CHARACTERS
    # One Chinese word among many English ones makes no Chinese text.
    assert settle(AUTO, ["plain English text of many letters"] * 20 + ["快递"]) == SPACES


def test_a_segmenter_that_is_not_there_names_its_extra(monkeypatch):
    monkeypatch.setattr(segments, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"jieba is not installed; pip install 'rayscale\[segment\]'") as error:
        Chain(read({"name": "x", "swap": {}, "segmenter": "jieba"}))
    assert error.value.code == "missing_package"
    with pytest.raises(InputError, match=r"segmenter: found 'jeiba'; use one of: auto, characters, jieba"):
        read({"name": "x", "swap": {}, "segmenter": "jeiba"})


def test_ids_tell_how_words_were_found(jieba):
    marks = [fingerprint(read({"name": "x", "swap": {}, "segmenter": way}))
             for way in (AUTO, SPACES, CHARACTERS, "jieba", "budoux+jieba")]  # fmt: skip
    assert marks[0] == marks[1]
    assert len(set(marks[1:])) == 4
    entry = read({"name": "x", "swap": {}, "segmenter": "budoux+jieba"}).entry()
    assert read(entry).segmenter == entry["segmenter"] == "jieba+budoux"


@pytest.mark.parametrize(("package", "text"), [("jieba", CHINESE), ("budoux", JAPANESE), ("budoux", THAI)])
def test_the_real_segmenters_where_they_are_installed(package, text, tmp_path, monkeypatch):
    pytest.importorskip(package)
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path))
    words = cut(text, package).words
    assert "".join(words) == "".join(cut(text, CHARACTERS).words)
    assert len(words) < len(cut(text, CHARACTERS).words)
