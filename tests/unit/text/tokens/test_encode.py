"""Long texts are encoded by their beginnings: never another token than those of the whole text."""

from __future__ import annotations

import random

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from rayscale.text.tokens import encode as encoding
from rayscale.text.tokens.encode import encode

WORDS = ["pets", "İstanbul", "e\u0301te\u0301", "\u0301", "don't", "x" * 150, "[SEP]", "[sep]", "日本語", "10,000.5",
         "Σας", "a", "😀", "\u200d", "--", "\x07", "naïve", "unaffordable", "[MASK]!"]  # fmt: skip


def texts(seed: int, number: int = 700) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.choice([0, 1, 5, 30, 120]))) for _ in range(number)]


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(texts(0), trainers.WordPieceTrainer(vocab_size=300, special_tokens=special))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return tokenizer


def bytes_of(use_regex: bool = True) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([level])
    tokenizer.train_from_iterator(texts(0), trainers.BpeTrainer(vocab_size=600, initial_alphabet=level.alphabet()))
    tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True, rstrip=True)])
    return tokenizer


def across_spaces() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    tokenizer.train_from_iterator(["a b " * 50], trainers.BpeTrainer(vocab_size=60))
    return tokenizer


def with_a_phrase() -> Tokenizer:
    tokenizer = word_piece()
    tokenizer.add_tokens(["pets pets"])
    return tokenizer


@pytest.mark.parametrize("make", [word_piece, bytes_of])
@pytest.mark.parametrize("length", [3, 12, 64])
def test_beginnings_give_the_tokens_of_the_whole_text(make, length):
    tokenizer, rows = make(), texts(1)
    assert encoding.stops_at_spaces(tokenizer)
    found = encode(tokenizer, rows, length)
    tokenizer.enable_truncation(length)
    whole = tokenizer.encode_batch(rows)
    truncated = found["truncated"].to_pylist()
    assert found["input_ids"].to_pylist() == [encoding.ids for encoding in whole]
    assert truncated == [bool(encoding.overflowing) for encoding in whole]
    assert 0 < sum(truncated) < len(rows)


def test_a_text_is_read_no_further_than_needed(monkeypatch):
    tokenizer = word_piece()
    tokenizer.enable_truncation(8)
    asked: list[str] = []

    class Watched:
        def encode_batch_fast(self, batch):
            asked.extend(batch)
            return tokenizer.encode_batch_fast(batch)

    encode_batch = encoding._Beginnings(Watched(), 8)
    encode_batch(["pets " * 100] * 64)
    asked.clear()
    encode_batch(["pets " * 10_000, "a " * 4])
    assert len(asked[0]) < 100
    assert asked[1:] == ["a " * 4]


@pytest.mark.parametrize("make", [across_spaces, with_a_phrase, lambda: bytes_of(use_regex=False)])
def test_tokenizers_whose_tokens_reach_across_spaces_read_whole_texts(make):
    tokenizer = make()
    assert not encoding.stops_at_spaces(tokenizer)
    tokenizer.enable_truncation(8)
    assert encoding.encoder(tokenizer) == tokenizer.encode_batch_fast
