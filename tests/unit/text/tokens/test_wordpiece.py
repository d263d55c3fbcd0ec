"""Tokenizers trained here on text of any script: what they know, and that English ones stay what they were."""

import hashlib
import json
import os
import random
import subprocess
import sys
import unicodedata

import pytest

from rayscale.text.tokens.encode import TokenizerSpec
from rayscale.text.tokens.vocabulary import make_vocabulary
from rayscale.text.tokens.wordpiece import entries_for
from tests.made_languages import HAN, MADE


def trained(texts, size):
    return make_vocabulary(TokenizerSpec("trained", "bert", size), [texts], "sequence-classification", 64).tokenizer


def made(name, rows, seed=7):
    draw = random.Random(seed)
    return [MADE[name][0](draw)["text"] for _ in range(rows)]


def unknown(tokenizer, texts):
    pieces = [piece for text in texts for piece in tokenizer.encode(text, add_special_tokens=False).tokens]
    return pieces.count("[UNK]") / len(pieces)


def english(rows):
    """English words with rare signs: more of them than an alphabet holds, and fewer than it has to cover."""
    draw = random.Random(3)
    text = "the card was lost near a small café while Zoë paid £20 — naïve, isn't it? (see §4: 50% off!)"
    words = text.split()
    rare = [chr(0x2200 + place) for place in range(120)]
    return [
        " ".join(draw.choices(words, k=12)) + (f" {rare[row // 40]}" if row % 40 == 0 else "") for row in range(rows)
    ]


@pytest.mark.parametrize(
    ("size", "digest"),
    [(400, "d14778ebee49de5e"), (2048, "9309cf189cad2373"), (3000, "9309cf189cad2373")],
)
def test_an_english_text_gives_the_tokenizer_that_it_gave(size, digest):
    content = json.loads(trained(english(4000), size).to_str())
    told = json.dumps([content[key] for key in ("normalizer", "pre_tokenizer", "model")], sort_keys=True)
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == digest


def test_a_chinese_alphabet_covers_the_text_and_has_no_pieces_that_continue():
    texts = made("工单", 1500)
    tokenizer = trained(texts, 2048)
    assert unknown(tokenizer, texts) < 0.001
    assert not [piece for piece in tokenizer.get_vocab() if piece.startswith("##") and piece[2] in HAN]


def test_where_there_is_no_room_for_all_characters_the_commonest_stay():
    tokenizer = trained(made("工单", 1500), 512)
    known = set(tokenizer.get_vocab())
    assert len(known) == 512
    assert {"请", "问", "的", "。"} <= known


@pytest.mark.parametrize("name", ["日本語", "ไทย", "한국어", "हिन्दी", "العربية"])
def test_marks_stay_and_every_character_is_known(name):
    texts = made(name, 600)
    tokenizer = trained(texts, 2048)
    assert unknown(tokenizer, texts) < 0.002
    for text in texts[:50]:
        pieces = tokenizer.encode(text, add_special_tokens=False).tokens
        assert "".join(piece.removeprefix("##") for piece in pieces if piece != "[UNK]") in (
            "".join(text.split()),
        ) or ("[UNK]" in pieces)


def test_text_of_other_forms_is_read_alike():
    tokenizer = trained(made("日本語", 600), 2048)
    text = "がぎで。"
    assert tokenizer.encode(unicodedata.normalize("NFD", text)).ids == tokenizer.encode(text).ids


def test_a_text_without_spaces_is_no_single_word():
    tokenizer = trained(made("ไทย", 600), 1024)
    assert unknown(tokenizer, ["".join(made("ไทย", 20))]) < 0.01


def test_training_on_chinese_gives_the_same_file_in_every_process():
    script = (
        "import sys\nfrom tests.unit.text.tokens.test_wordpiece import made, trained\n"
        "sys.stdout.write(trained(made('工单', 300) + made('日本語', 300) + made('한국어', 300), 3000).to_str())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "utf-8"}
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, env=environment).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert runs[0].decode() == trained(made("工单", 300) + made("日本語", 300) + made("한국어", 300), 3000).to_str()


def test_the_entries_that_a_text_takes_are_those_that_know_it():
    from collections import Counter

    texts = made("工单", 800)
    size = entries_for(Counter("".join(texts)))
    assert unknown(trained(texts, size), texts) < 0.001
    assert unknown(trained(texts, size // 2), texts) > 0.01
