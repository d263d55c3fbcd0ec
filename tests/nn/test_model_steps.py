"""Back-translation and contextual substitution on checkpoints made on the spot, whose right answers are known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_checkpoints import PAIRS, make_marian, make_masked, sentences

from rayscale.errors import InputError
from rayscale.nn.augment import batches as nn_rows
from rayscale.study.augment_key import read
from rayscale.study.augmenters import Example
from rayscale.text.augment.chain import Chain, fingerprint
from rayscale.text.normalise import keys_of

pytest.importorskip("sentencepiece", reason="the tokenizer of Marian needs the extra `augment`")
MEANING = {word: number for number, pair in enumerate(PAIRS) for word in pair[:2]}


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("marian")
    return make_marian(folder / "en-de", "en", "de"), make_marian(folder / "de-en", "de", "en")


@pytest.fixture(scope="module")
def masked(tmp_path_factory) -> Path:
    return make_masked(tmp_path_factory.mktemp("masked") / "bert")


def translated(pair, texts, copy=0, **settings) -> list[str]:
    entry = {"name": "bt", "back_translation": {"there": str(pair[0]), "back": str(pair[1]), **settings}}
    return [row.text for row in Chain(read(entry).located()).rows(texts, keys_of(texts), copy)]


def test_back_translation_keeps_the_meaning_and_changes_the_words(pair):
    texts = sentences(60, 5)
    made = translated(pair, texts)
    same = [[MEANING[a] == MEANING[b] for a, b in zip(text.split(), child.split(), strict=False)]
            for text, child in zip(texts, made, strict=True) if len(text.split()) == len(child.split())]  # fmt: skip
    assert len(same) > 50
    assert np.mean(np.concatenate(same)) > 0.9
    assert sum(text != child for text, child in zip(texts, made, strict=True)) > 40


def test_copies_differ_when_sampled_and_agree_by_beam(pair):
    texts = sentences(40, 6)
    assert translated(pair, texts) == translated(pair, texts)
    assert np.mean([a == b for a, b in zip(translated(pair, texts), translated(pair, texts, 1), strict=True)]) < 0.4
    assert translated(pair, texts, 0, search="beam") == translated(pair, texts, 1, search="beam")


def test_a_row_draws_the_same_whatever_its_batch(pair, masked, monkeypatch):
    texts = sentences(30, 7)
    context = [f"the {text.split()[0]} is on the table" for text in texts]
    chain = Chain(read({"name": "c", "contextual": {"model": str(masked), "share": 0.3}}).located())
    whole = translated(pair, texts), [row.text for row in chain.rows(context, keys_of(context), 0)]
    monkeypatch.setitem(nn_rows.BATCH_TOKENS, "cpu", 1)
    alone = translated(pair, texts[::-1]), [row.text for row in chain.rows(context[::-1], keys_of(context[::-1]), 0)]
    assert whole == (alone[0][::-1], alone[1][::-1])


def test_contextual_words_fit_their_place_and_keep_case(masked):
    texts = ["we saw a House there", "the film is on the table"] * 10
    entry = {"name": "c", "contextual": {"model": str(masked), "share": 0.01, "top_k": 4}}
    step = Chain(read(entry).located())
    children = [row for copy in range(4) for row in step.rows(texts, keys_of(texts), copy)]
    nouns = {"movie", "film", "house", "home", "man", "fellow"}
    changed = [(text, child.text) for text, child in zip(texts * 4, children, strict=True)]
    assert all(text != child for text, child in changed)
    new = {child.split()[1] for text, child in changed if text.startswith("the") and child.split()[1] != "film"}
    assert new <= nouns
    assert len(new) >= 2
    assert all(child.split()[3][0].isupper() == text.split()[3][0].isupper() for text, child in changed
               if text.startswith("we"))  # fmt: skip


def test_texts_too_long_or_about_the_mask_itself_stay(masked, pair):
    step = Chain(read({"name": "c", "contextual": {"model": str(masked)}}).located())
    texts = ["movie " * 60, "the [MASK] movie"]
    assert [row.text for row in step.rows(texts, keys_of(texts), 0)] == texts
    assert translated(pair, ["movie " * 80]) == ["movie " * 80]


def test_a_pair_whose_languages_do_not_meet_is_refused_by_name(pair, tmp_path):
    other = tmp_path / "fr-en"
    shutil.copytree(pair[1], other)
    config = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps({**config, "source_lang": "fr"}))
    with pytest.raises(InputError, match=r"en-de translates en to de, fr-en fr to en: the languages do not meet"):
        translated((pair[0], other), ["x"])
    with pytest.raises(InputError, match="translates de to en"):
        translated((pair[0], pair[0]), ["x"])


def test_other_checkpoints_are_refused_by_name(masked, pair):
    with pytest.raises(InputError, match="bert is a bert; back_translation takes marian"):
        translated((masked, pair[1]), ["x"])
    with pytest.raises(InputError, match=r"no tokenizer\.json|predicts no masked words"):
        read({"name": "c", "contextual": {"model": str(pair[0])}}).located()


def test_the_fingerprint_is_that_of_the_weights(masked, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(masked, moved)

    def mark(folder: Path) -> str:
        return fingerprint(read({"name": "c", "contextual": {"model": str(folder)}}).located())

    assert mark(masked) == mark(moved)
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**config, "note": 1}))
    assert mark(masked) != mark(moved)


def test_draws_follow_the_scores():
    import torch

    scores = torch.log(torch.tensor([[0.5, 0.3, 0.2]])).repeat(4000, 1)
    drawn = nn_rows.draw(scores, np.arange(4000, dtype=np.uint64), 3, 3)
    shares = np.bincount(drawn.numpy(), minlength=3) / 4000
    assert np.abs(shares - [0.5, 0.3, 0.2]).max() < 0.03
    assert Example("x", 1).seed == 1


def test_in_text_without_spaces_characters_are_drawn_anew_in_their_script(tmp_path):
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    specials, signs = (
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        list("我的快递很慢退款了，。！のがをでบาท배송이حالة"),
    )
    words = [*specials, *dict.fromkeys(signs), "phone", "check", "google", "배송", "##慢", "الشحنة", "الطرد"]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]",
                                   mask_token="[MASK]", model_max_length=64)  # fmt: skip
    fast.save_pretrained(tmp_path)
    torch.manual_seed(0)
    BertForMaskedLM(BertConfig(vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                               intermediate_size=16)).save_pretrained(tmp_path)  # fmt: skip
    texts = ["我的快递很慢，退款！check 一下", "のがでのを。", "لم تصل الشحنة بعد", "the phone is here"]
    entry = {"name": "c", "contextual": {"model": str(tmp_path), "share": 0.4}, "segmenter": "characters"}
    children = [row.text for row in Chain(read(entry).located()).rows(texts, keys_of(texts), 0)]
    kinds = [["han" if "\u4e00" <= sign <= "\u9fff" else "kana" if "\u3041" <= sign <= "\u30ff" else sign
              for sign in text] for text in (texts[0], children[0], texts[1], children[1])]  # fmt: skip
    assert kinds[0][:10] == kinds[1][:10]
    assert kinds[2] == kinds[3]
    assert children[1] != texts[1]
    assert children[2] != texts[2]
    pairs = list(zip(texts[2].split(), children[2].split(), strict=True))
    assert all(new == old or new in ("الشحنة", "الطرد") for old, new in pairs)
    assert set(children[3].split()) <= {*texts[3].split(), "check", "google"}
