"""Tiny Marian and BERT checkpoints, made on the spot: translators that learnt a dictionary by heart, and a BERT that
learnt which words stand beside which."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

#: English words in pairs of the same meaning, and the one German word for both.
PAIRS = [("good", "fine", "gut"), ("movie", "film", "kino"), ("house", "home", "haus"), ("big", "large", "gross"),
         ("fast", "quick", "schnell"), ("man", "fellow", "mann"), ("sees", "spots", "sieht"),
         ("likes", "loves", "mag")]  # fmt: skip
ENGLISH = [word for one, other, _ in PAIRS for word in (one, other)]


def sentences(count: int, seed: int = 0, longest: int = 6) -> list[str]:
    """Rows of English words."""
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(ENGLISH, draw.integers(2, longest + 1))) for _ in range(count)]


def make_marian(folder: Path, source: str, target: str, *, steps: int = 500) -> Path:
    """A Marian checkpoint en→de or de→en; from German it takes either English word by chance."""
    import sentencepiece
    from transformers import MarianConfig, MarianMTModel

    folder.mkdir(parents=True)
    german = {word: de for one, other, de in PAIRS for word in (one, other)}
    words = sorted({*german, *german.values()})
    lines = [" ".join(np.random.default_rng(i).permutation(words)) for i in range(20)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(folder / "source"), model_type="word",
        vocab_size=len(words) + 3, minloglevel=2,
    )  # fmt: skip
    (folder / "source.model").rename(folder / "source.spm")
    (folder / "source.vocab").unlink()
    (folder / "target.spm").write_bytes((folder / "source.spm").read_bytes())
    vocabulary = {"</s>": 0, "<unk>": 1, **{f"▁{word}": 2 + i for i, word in enumerate(words)}}
    vocabulary["<pad>"] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"source_lang": source, "target_lang": target, "tokenizer_class": "MarianTokenizer"})
    )
    pad = vocabulary["<pad>"]
    torch.manual_seed(0)
    model = MarianMTModel(
        MarianConfig(
            vocab_size=len(vocabulary), d_model=48, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=96, decoder_ffn_dim=96, max_position_embeddings=64,
            pad_token_id=pad, eos_token_id=0, decoder_start_token_id=pad, forced_eos_token_id=None, dropout=0.0,
            scale_embedding=True,
        )
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    draw = np.random.default_rng(1)
    for step in range(steps):
        rows = [draw.choice(ENGLISH, draw.integers(2, 7)) for _ in range(48)]
        pairs = [(row, [german[word] for word in row]) for row in rows]
        given, wanted = zip(*[(a, b) if source == "en" else (b, a) for a, b in pairs], strict=True)
        inputs, labels = (_padded([[vocabulary[f"▁{w}"] for w in row] + [0] for row in side], fill)
                          for side, fill in ((given, pad), (wanted, -100)))  # fmt: skip
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1.0, (step + 1) / 30) * (1 - step / steps)
        loss = model(input_ids=inputs, attention_mask=(inputs != pad).long(), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def make_masked(folder: Path, *, steps: int = 120) -> Path:
    """A BERT for masked words: words come in pairs of the same meaning, and both stand in the same places."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    frames = ["the {} is on the table", "we saw a {} there"]
    around = ["the", "is", "on", "table", "we", "saw", "a", "there"]
    vocabulary = {word: i for i, word in enumerate([*specials, *around, *ENGLISH])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=32,
    )  # fmt: skip
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    model = BertForMaskedLM(
        BertConfig(vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                   intermediate_size=64, max_position_embeddings=32, hidden_dropout_prob=0.0)
    )  # fmt: skip
    optimizer, draw = torch.optim.Adam(model.parameters(), lr=5e-3), np.random.default_rng(2)
    nouns = ["movie", "film", "house", "home", "man", "fellow"]
    for _ in range(steps):
        texts = [frames[draw.integers(2)].format(draw.choice(nouns)) for _ in range(32)]
        ids = fast(texts, padding=True, return_tensors="pt")
        labels = torch.full_like(ids["input_ids"], -100)
        for row, text in enumerate(texts):
            place = 2 if text.startswith("the") else 4
            labels[row, place] = ids["input_ids"][row, place]
            ids["input_ids"][row, place] = 4
        model(**ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def _padded(rows: list[list[int]], fill: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])
