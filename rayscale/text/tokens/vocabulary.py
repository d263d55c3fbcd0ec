"""Tokenizers: train one on the training split, or take a checkpoint's; write the folder AutoTokenizer loads.

Training is deterministic: the same texts in the same order give the same file, byte for byte.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayscale.errors import DataError
from rayscale.study.checkpoints import NAMES, read_tokenizer, size_of, special_ids
from rayscale.text.tokens import wordpiece
from rayscale.text.tokens.encode import TokenizerSpec, tokenizer_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: Characters a tokenizer is trained on at most: rows lie in the order of their hash, so the first are a fair sample.
TRAINING_CHARACTERS = 50_000_000

_GPT2 = {
    "bos_token": "<|endoftext|>",
    "eos_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "pad_token": "<|pad|>",
}
_T5 = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer, its `tokenizer_config.json` and what a model needs to know.

    `size` is the number of embedding rows: the requested vocabulary, or the checkpoint's; `entries` those in use.
    """

    tokenizer: Tokenizer
    config: dict[str, Any]
    size: int
    entries: int
    origin: Path | None  # the checkpoint's folder

    def token_ids(self) -> dict[str, int]:
        """See `special_ids`."""
        return special_ids(self.tokenizer, self.config)

    def write(self, folder: Path) -> None:
        """Fill a folder that `transformers.AutoTokenizer.from_pretrained` loads."""
        folder.mkdir(parents=True)
        if self.origin is not None:
            for name in NAMES:
                shutil.copyfile(self.origin / name, folder / name)
            return
        (folder / "tokenizer.json").write_text(self.tokenizer.to_str(), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(self.config, indent=1), encoding="utf-8")


def make_vocabulary(spec: TokenizerSpec, texts: Iterable[list[str]], task: str, max_length: int) -> Vocabulary:
    """Train on `texts` (batches of the training split) or load the checkpoint's tokenizer.

    Raises DataError: no tokenizer.json, a damaged one, too small a vocabulary, a BERT shape for causal-lm.
    """
    if spec.kind == "pretrained":
        folder = tokenizer_folder(spec)
        tokenizer, config = read_tokenizer(folder)
        entries = tokenizer.get_vocab_size(with_added_tokens=True)
        return Vocabulary(tokenizer, config, size_of(tokenizer), entries, folder)
    if spec.family == "bert" and task == "causal-lm":
        raise DataError("a BERT shape reads both ways and cannot be a causal-lm; use family: gpt2", code="wrong_family")
    size = int(spec.vocabulary or 0)
    if spec.family == "bert":
        tokenizer, tokens = wordpiece.train(list(texts), size), wordpiece.ROLES
    else:
        tokenizer, tokens = _train_bpe(list(texts), size, task, _T5 if spec.family == "t5" else _GPT2)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
        **tokens,
    }
    return Vocabulary(tokenizer, config, size, tokenizer.get_vocab_size(with_added_tokens=True), None)


def _train_bpe(texts: list[list[str]], size: int, task: str, roles: dict[str, str]) -> tuple[Tokenizer, dict[str, str]]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    specials = list(dict.fromkeys(roles.values()))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if (least := len(specials) + len(alphabet)) > size:
        text = f"a vocabulary of {size} cannot hold all bytes; ask for {least} or more"
        raise DataError(text, code="small_vocabulary")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        special_tokens=specials,
        initial_alphabet=alphabet,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if task != "causal-lm":
        # GPT-2 classifies from the last token: a token that always ends the text gives it one place to look at.
        end = roles["eos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {end}", pair=f"$A {end} $B:1 {end}:1", special_tokens=[(end, tokenizer.token_to_id(end))]
        )
    return tokenizer, roles
