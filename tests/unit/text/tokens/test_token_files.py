"""Tokenizers, encoding and packing."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayscale.errors import DataError
from rayscale.text.tokens.encode import Packer, TokenizerSpec, encode, fingerprint
from rayscale.text.tokens.vocabulary import make_vocabulary

BERT = TokenizerSpec("trained", "bert", 400)
GPT2 = TokenizerSpec("trained", "gpt2", 400)
TEXTS = [[f"The quick brown fox number {i} jumps over the lazy dog, naïvely × {i * i}" for i in range(300)]]


@pytest.mark.parametrize("spec", [BERT, GPT2])
def test_training_gives_the_same_file_in_every_process(spec):
    # Hash seeds differ between processes: the trainers' own order would, too (huggingface/tokenizers#1794).
    script = (
        "import sys\n"
        "from rayscale.text.tokens.encode import TokenizerSpec\n"
        "from rayscale.text.tokens.vocabulary import make_vocabulary\n"
        f"v = make_vocabulary({spec!r}, {TEXTS!r}, 'sequence-classification', 32)\n"
        "sys.stdout.write(v.tokenizer.to_str())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    runs = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
            for _ in range(2)]  # fmt: skip
    assert runs[0].stdout == runs[1].stdout
    assert runs[0].stdout == make_vocabulary(spec, TEXTS, "sequence-classification", 32).tokenizer.to_str()


def test_the_bert_shape_frames_texts_and_knows_every_frequent_character():
    made = make_vocabulary(BERT, TEXTS, "sequence-classification", 32)
    ids = made.token_ids()
    encoded = encode(made.tokenizer, ["The fox!", "", "##o fox " * 50], 10)
    rows = encoded["input_ids"].to_pylist()
    assert [(row[0], row[-1]) for row in rows] == [(ids["cls"], ids["sep"])] * 3
    assert rows[1] == [ids["cls"], ids["sep"]]
    assert len(rows[2]) == 10
    assert encoded["truncated"].to_pylist() == [False, False, True]
    assert made.tokenizer.encode("naïvely × dog").tokens.count("[UNK]") == 0
    assert made.size == 400
    assert made.entries <= 400


def test_the_gpt2_shape_ends_a_text_to_classify_and_reads_all_bytes():
    made = make_vocabulary(GPT2, TEXTS, "sequence-classification", 32)
    encoded = encode(made.tokenizer, ["fox \U0001f98a " * 40], 8)
    assert encoded["input_ids"].to_pylist()[0][-1] == made.token_ids()["eos"] != made.token_ids()["pad"]
    plain = make_vocabulary(GPT2, TEXTS, "causal-lm", 32)
    text = "fox \U0001f98a\nnew line"
    (ids,) = encode(plain.tokenizer, [text], None)["input_ids"].to_pylist()
    assert plain.tokenizer.decode(ids) == text


def test_little_text_gives_fewer_entries_than_asked():
    made = make_vocabulary(
        TokenizerSpec("trained", "bert", 5000), [["a few words only"]], "sequence-classification", 32
    )
    assert made.entries < made.size == 5000


@pytest.mark.parametrize("spec", [TokenizerSpec("trained", "bert", 30), TokenizerSpec("trained", "gpt2", 200)])
def test_a_vocabulary_too_small_for_the_characters_says_how_many_it_takes(spec):
    with pytest.raises(DataError, match="or more"):
        make_vocabulary(spec, TEXTS, "sequence-classification", 32)


def test_a_bert_shape_is_no_language_model():
    with pytest.raises(DataError, match="family: gpt2"):
        make_vocabulary(BERT, TEXTS, "causal-lm", 32)


def test_a_checkpoint_keeps_its_tokenizer_and_a_broken_one_is_named(tmp_path):
    made = make_vocabulary(BERT, TEXTS, "sequence-classification", 32)
    made.write(tmp_path / "checkpoint")
    spec = TokenizerSpec("pretrained", path=str(tmp_path / "checkpoint"))
    loaded = make_vocabulary(spec, [], "sequence-classification", 32)
    assert loaded.tokenizer.to_str() == made.tokenizer.to_str()
    assert loaded.token_ids() == made.token_ids()
    before = fingerprint(spec, 32)
    assert fingerprint(spec, 64) != before
    loaded.write(tmp_path / "copy")
    assert fingerprint(TokenizerSpec("pretrained", path=str(tmp_path / "copy")), 32) == before
    (tmp_path / "checkpoint" / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        make_vocabulary(spec, [], "sequence-classification", 32)
    (tmp_path / "checkpoint" / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"no tokenizer\.json"):
        fingerprint(spec, 32)
    with pytest.raises(DataError, match="no such folder"):
        fingerprint(TokenizerSpec("pretrained", path=str(tmp_path / "nowhere")), 32)


def test_names_differ_between_tokenizers():
    specs = [BERT, GPT2, TokenizerSpec("pretrained", path="/a/model"), TokenizerSpec("pretrained", path="/b/model")]
    assert len({spec.name for spec in specs}) == 4
    assert TokenizerSpec("pretrained", path="/a/model", digest="0123456789abcdef").name == "model@01234567"


@given(st.lists(st.lists(st.integers(1, 99), max_size=30), min_size=1, max_size=20), st.integers(1, 16))
def test_windows_hold_the_documents_in_order_and_count_the_rest(documents, window):
    offsets = np.cumsum([0, *map(len, documents)])
    values = np.array([t for d in documents for t in d], dtype=np.int32)
    keys = np.arange(len(documents), dtype=np.uint64)
    packer = Packer(window, end=0)
    windows, window_keys = packer.add(values, offsets, keys)
    joined = [token for document in documents for token in [*document, 0]]
    whole = len(joined) // window * window
    assert windows.tolist() == joined[:whole]
    assert packer.left == len(joined) - whole
    assert len(np.unique(window_keys)) == len(window_keys) == whole // window


def test_the_config_names_special_tokens_and_length(tmp_path):
    make_vocabulary(BERT, TEXTS, "sequence-classification", 77).write(tmp_path / "t")
    config = json.loads((tmp_path / "t" / "tokenizer_config.json").read_text())
    assert (config["model_max_length"], config["pad_token"]) == (77, "[PAD]")
