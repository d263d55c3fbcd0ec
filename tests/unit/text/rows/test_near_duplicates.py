import random
from functools import cache

import numpy as np
import pyarrow as pa
import pytest

from rayscale.text import folders, prepared
from rayscale.text.preparation import Here, prepare
from rayscale.text.rows import leaks as apart
from rayscale.text.rows import near_duplicates
from rayscale.text.rows.assembly import assemble
from rayscale.text.rows.clean import list_sources, read_clean
from rayscale.text.split import SPLITS
from rayscale.text.tokens.encode import TokenizerSpec

VOCABULARY = [f"{a}{b}{c}" for a in ("ka", "lo", "mi", "tru") for b in ("da", "fe", "gi", "nu") for c in "bdkmrst"]
SPEC = TokenizerSpec("trained", family="bert", vocabulary=400)


@cache
def shingles(text):
    letters = " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
    letters = f"    {letters}    "
    return frozenset(letters[place : place + 5] for place in range(len(letters) - 4))


def closest(text, others):
    own = shingles(text)
    return max(len(own & other) / len(own | other) for other in map(shingles, others))


def sentence(random, least=8, most=60):
    return " ".join(random.choice(VOCABULARY) for _ in range(random.randint(least, most)))


def changed(text, random):
    """As people change a text: case, signs, a letter, one word of twenty, one more at the end."""
    words = text.split()
    kind = random.randrange(6)
    if kind == 0:
        return f"{text.capitalize()}!"
    if kind == 1:
        return ", ".join(words)
    if kind == 2:
        return text.upper()
    place = random.randrange(len(words))
    if kind == 3:
        words[place] = words[place][:-1] + "x"
    elif kind == 4:
        words = [*words, "indeed"]
    else:
        for _ in range(max(1, len(words) // 20)):
            words[random.randrange(len(words))] = random.choice(VOCABULARY)
    return " ".join(words)


@pytest.mark.row
@pytest.mark.parametrize(("seed", "augmented"), [(1, False), (2, True), (3, True)])
def test_row_12_nothing_planted_crosses_the_split(tmp_path, make_study, seed, augmented):
    """Exact copies and children never; of the near-duplicates, by exact similarity, 95 in a hundred are found."""
    draw = random.Random(seed)
    held = list(dict.fromkeys(sentence(draw) for _ in range(150)))
    own = list(dict.fromkeys(sentence(draw) for _ in range(150)))
    copies = [f"  {text.replace(' ', '  ')} " for text in draw.sample(held, 40)]
    nearly = [changed(text, draw) for text in draw.choices(held, k=200)]
    rows = [*own, *copies, *nearly]
    draw.shuffle(rows)
    for name, texts in (("train", rows), ("test", held)):
        lines = [f'"{text}",{"xy"[place % 2]}\n' for place, text in enumerate(texts)]
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "".join(lines))
    augment = ["none", {"name": "swapped", "swap": {"share": 0.1}}] if augmented else ["none"]
    study = make_study(tmp_path / "train.csv", test=tmp_path / "test.csv", validation_fraction=0.1, augment=augment)
    made = list(prepare(study, [SPEC], [0], Here()).values())[-1]
    texts = {name: prepared.read_table(made.path.parent / f"{name}.arrow")["text"].to_pylist() for name in SPLITS}
    guarded = {*texts["test"], *texts["validation"]}
    keys = {name: made.split(name).keys for name in SPLITS}
    assert not np.isin(keys["train"], np.concatenate([keys["test"], keys["validation"]])).any()
    assert not set(texts["train"]) & guarded
    children = [path / "train.arrow" for path in made.path.parent.glob("augment-*")]
    born = {text for path in children for text in prepared.read_table(path)["text"].to_pylist()}
    assert bool(born) == augmented
    assert not born & guarded

    planted = {text for text in map(" ".join, map(str.split, nearly)) if text not in guarded}
    near_ones = {text for text in planted if closest(text, guarded) >= 0.8}
    assert len(near_ones) > 100
    assert len(near_ones & set(texts["train"])) <= 0.05 * len(near_ones)
    innocent = set(own) - guarded
    assert {text for text in innocent if closest(text, guarded) < 0.7} <= {*texts["train"]}
    counted = folders.read_manifest(made.path.parent)["rows"]
    assert counted["read"] == sum(counted[name] for name in SPLITS) + sum(counted["dropped"].values())


def test_blocks_and_their_order_change_nothing():
    draw = random.Random(4)
    held = [sentence(draw) for _ in range(300)]
    asked = (
        [changed(text, draw) for text in held] + [sentence(draw, 1, 3) for _ in range(50)] + ["", "!", "né", "漢字仮名"]
    )
    sketches = near_duplicates.sketch(held, np.zeros(300), 0.8)
    whole = near_duplicates.nearest(asked, sketches)
    single = [near_duplicates.nearest([text], sketches) for text in reversed(asked)][::-1]
    assert whole.others.tolist() == [one.others[0] for one in single]
    assert whole.similarities.tolist() == [one.similarities[0] for one in single]
    assert (whole.others[:300] >= 0).mean() > 0.6


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [("Where is my card?", "where is my CARD", True), ("When will my card arrive?", "When will my pin arrive?", False),
     ("cool", "cool ?", True), ("good", "bad", False), ("!!!", "!!!", True), ("!!!", "???", False),
     ("text number 12", "text number 123", False), ("", "", True), ("cool", "cools", False)],
)  # fmt: skip
def test_short_texts_are_compared_exactly(one, other, alike):
    found = near_duplicates.nearest([one], near_duplicates.sketch([other], np.zeros(1), 0.8))
    assert (found.others[0] == 0) == alike
    if alike:
        assert found.similarities[0] == closest(one, [other])


def test_a_leak_is_dropped_counted_and_named_by_file_and_line(tmp_path, make_study):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    rows = [f"a sentence about the number {number} and what it does" for number in range(2, 40)]
    train.write_text('text,label\n"two\nlines",x\nThe quick brown fox jumps over the dog!,x\n'
                     + "".join(f"{row},{'xy'[len(row) % 2]}\n" for row in rows))  # fmt: skip
    test.write_text("text,label\nsome other text entirely,y\nthe quick brown fox jumps over the dog,x\n")
    study = make_study(train, test=test, validation_fraction=0.2)
    tables = [table for source in list_sources(study.data) for table in read_clean(source, study.task, "error")]
    cleaned = assemble(tables, study)
    assert cleaned.manifest["rows"]["dropped"]["near_test"] == 1
    assert f"{train}:4: 1.00 like {test}:3 (test)" in cleaned.near_duplicates
    kept = assemble(tables, study.model_copy(update={"data": study.data.model_copy(update={"near_duplicates": None})}))
    assert kept.manifest["rows"]["train"] > cleaned.manifest["rows"]["train"]
    assert kept.near_duplicates == ()


def test_only_training_rows_are_dropped():
    split = np.array([2, 1, 0], dtype=np.int8)
    texts = ["the very same words here", "The very same words here.", "THE VERY SAME WORDS HERE"]
    rows = pa.table({"key": np.arange(3, dtype=np.uint64), "order": np.arange(3), "text": texts})
    without, leaks = apart.keep_apart(rows, split, 0.8)
    assert without.tolist() == [-1, 1, 0]
    assert apart.count(leaks) == {"near_validation": 0, "near_test": 1}


def test_ascii_letters_are_those_of_any_text():
    draw = random.Random(0)
    signs = [chr(n) for n in range(128)]
    for _ in range(300):
        text = "".join(draw.choices(signs, k=draw.randrange(40)))
        wide = near_duplicates._letters(f"{text} é")
        assert near_duplicates._letters(text).strip("\0") == wide.strip("\0")[
            :-1
        ].rstrip() or not near_duplicates._WORDS.search(text)
    assert (
        near_duplicates._letters(" ?! ") == f"{near_duplicates._EDGE} ?! {near_duplicates._EDGE}"
    )  # signs alone are compared as they are


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (
            "昨天在中山路买的手机壳，快递一直提示破损，麻烦看一下",
            "昨天在中山路买的手机套，快递一直提示破损，麻烦看一下！",
            1,
        ),
        ("昨天在中山路买的手机壳，快递一直提示破损", "前天在人民路买的充电器，发票一直没有寄来", 0),
        ("好的", "好人", 0),
        ("東京タワーの近くにあるカフェで飲みました", "東京タワーの近くにあるカフェで飲みました。", 1),
        ("東京タワーの近くにあるカフェで飲みました", "京都の近くにあるホテルで泊まりました", 0),
        ("กินข้าวที่ร้านอาหารใกล้บ้านกับเพื่อน", "กินข้าวที่ร้านอาหารใกล้บ้านกับเพื่อน!", 1),
        ("क्या कीमत है", "की कमत हो", 0),  # other vowels, the same consonants
        ("서울에서 부산까지 가는 기차표를 예매했습니다", "서울에서 부산까지 가는 기차표를 예약했습니다", 1),
    ],
)
def test_a_sign_of_other_scripts_counts_as_the_letters_that_it_stands_for(one, other, alike):
    found = near_duplicates.nearest([one], near_duplicates.sketch([other], np.zeros(1), 0.8))
    assert (found.others[0] == 0) == bool(alike)
