"""Which tokenizer BLEU takes, and that sacrebleu's default is wrong where there are no spaces."""

from __future__ import annotations

import pytest

from rayscale.text.tasks.seq2seq import bleu_tokenizer


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("the cat sat", {"13a"}),
        ("Кошка сидит", {"13a"}),
        ("今天天气很好。", {"zh"}),
        ("我用 iPhone 打电话给你的朋友", {"zh"}),
        ("今日は天気がいい。", {"char", "ja-mecab"}),
        ("오늘은 날씨가 좋다.", {"char", "ko-mecab"}),
        ("วันนี้อากาศดี", {"char"}),
        ("", {"13a"}),
    ],
)
def test_the_script_of_the_references_decides(text: str, names: set[str]) -> None:
    assert bleu_tokenizer([text]) in names


def test_what_is_the_same_scores_100() -> None:
    metrics = pytest.importorskip("sacrebleu.metrics")
    texts = ["你好", "天气很好", "今天下雨了吗"]
    assert metrics.BLEU(tokenize=bleu_tokenizer(texts)).corpus_score(texts, [texts]).score == pytest.approx(100)
