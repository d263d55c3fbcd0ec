"""What each tokenizer makes of a study's text: tokens, the share that is cut off, how well its vocabulary covers it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rayscale.errors import DataError
from rayscale.study.checkpoints import read_tokenizer
from rayscale.study.study import Study
from rayscale.system.doctor import Finding
from rayscale.text.form import find_form
from rayscale.text.prepared import Prepared
from rayscale.text.review.survey import Survey
from rayscale.text.scripts import share_unspaced, worth_in_letters
from rayscale.text.tokens.encode import TokenizerSpec, letters_per_token, tokenizer_folder
from rayscale.text.tokens.token_files import training_texts
from rayscale.text.tokens.vocabulary import make_vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENISED = 512  # texts that a tokenizer is tried on
MOST_LETTERS = 20_000  # of each of these
LITTLE_TEXT = 200_000  # bytes that a tokenizer is trained on in less than a second
MANY_CUT = 0.05
MANY_UNKNOWN = 0.01
MANY_UNSEEN = 0.05
FEW_LETTERS_A_PIECE = 2.0  # a Chinese sign counts as three
FEW_UNSPACED = 0.2
PREFIX = "tokens of "
_BYTE_PIECE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
LOOKED_AT = 20_000  # texts that are read for signs of wrong encoding


def of_tokenizers(
    study: Study, survey: Survey, specs: Sequence[TokenizerSpec], prepared: Mapping[str, Prepared]
) -> Iterator[Finding]:
    """How each tokenizer takes the training texts: tokens, share cut off, how well its vocabulary covers them."""
    form = find_form(study.task.type)
    texts = {
        name: [" ".join(form.texts(text))[:MOST_LETTERS] for text in some_texts(survey, name, TOKENISED)]
        for name in survey.splits
    }
    limit = None if form.packed or study.task.kind.windowed else study.task.length
    for spec in dict.fromkeys(specs):
        ready = prepared.get(spec.name)
        try:
            folder = ready.tokenizer_folder if ready else tokenizer_folder(spec) if spec.kind == "pretrained" else None
        except DataError:
            folder = None  # of the hub, not fetched yet
        if folder is not None:
            yield _measured(spec, read_tokenizer(folder)[0], texts, limit, ready)
        elif (trained := _trained(spec, survey, study)) is not None:
            yield _measured(spec, trained, texts, limit, None)
        else:
            yield _expected(spec, texts["train"], limit)


def _trained(spec: TokenizerSpec, survey: Survey, study: Study) -> Tokenizer | None:
    """The tokenizer that preparing will train, where there is so little text that this takes no time; else None."""
    if spec.kind != "trained" or not survey.exact or survey.bytes["train"] > LITTLE_TEXT:
        return None
    try:
        return make_vocabulary(
            spec, training_texts(survey.splits["train"], study.task.type), study.task.type, study.task.length
        ).tokenizer
    except DataError:  # too small a vocabulary: preparing tells it
        return None


def _expected(spec: TokenizerSpec, texts: Sequence[str], limit: int | None) -> Finding:
    """A tokenizer that is not there yet, by the length of the texts: a guess, right for running text."""
    letters = np.array([len(text) for text in texts]) * worth_in_letters(texts)
    lengths = letters / letters_per_token(spec.vocabulary or 30_000)
    text = f"about {np.median(lengths):,.0f} tokens per text (median), estimated from its length"
    if limit is None:
        return Finding(f"{PREFIX}{spec.name}", "ok", text)
    cut = float((lengths + 2 > limit).mean())
    fix = f"raise task.max_length to about {_round_up(np.quantile(lengths, 0.99) + 2)}" if cut > MANY_CUT else ""
    text += f"; about {cut:.2g} of the texts exceed {limit} tokens and will be cut"
    return Finding(f"{PREFIX}{spec.name}", "warn" if fix else "ok", text, fix)


def _measured(
    spec: TokenizerSpec, tokenizer: Tokenizer, texts: Mapping[str, Sequence[str]], limit: int | None,
    ready: Prepared | None,
) -> Finding:  # fmt: skip
    """What a tokenizer makes of the `texts` of each split; lengths are those of the training texts."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids = {
        name: [encoding.ids for encoding in tokenizer.encode_batch_fast(list(some), add_special_tokens=False)]
        for name, some in texts.items()
    }
    train = texts["train"]
    lengths = np.array([len(encoding) for encoding in ids["train"]])
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    a_piece = sum(characters_of(train)) / max(1, lengths.sum())
    letters = sum(map(len, train)) * worth_in_letters(train) / max(1, lengths.sum())
    text = f"{np.median(lengths):,.0f} tokens per text (median), "
    if share_unspaced(train) < FEW_UNSPACED:  # a word has no end to see, otherwise
        text += f"{lengths.sum() / max(1, sum(len(text.split()) for text in train)):.2f} per word, "
    text += f"{a_piece:.2g} {'character' if f'{a_piece:.2g}' == '1' else 'characters'} each"
    named = {number for name in ("[UNK]", "<unk>") if (number := tokenizer.token_to_id(name)) is not None}
    fallback = {number for piece, number in tokenizer.get_vocab().items() if _BYTE_PIECE.fullmatch(piece)}
    strange = unseen = 0.0
    for what, chosen in (("unknown", named), *([("single bytes", fallback)] if fallback else [])):
        shares = {name: _share(some, chosen) for name, some in ids.items() if some}
        strange, unseen = strange + shares["train"], unseen + max(shares.values())
        listed = ", ".join(f"{share:.2g} of {name}" for name, share in shares.items())
        text += f"; {what}: {listed}" if any(shares.values()) else f"; none {what}"
    fixes = []
    if limit is not None:
        whole = ready.manifest["splits"]["train"] if ready else {}
        cut = float(whole.get("truncated_share", (lengths + special > limit).mean()))
        text += f"; {cut:.2g} of the texts exceed {limit} tokens and {'are' if ready else 'will be'} cut"
        if cut > MANY_CUT:
            fixes.append(f"raise task.max_length to about {_round_up(np.quantile(lengths, 0.99) + special)}")
    if strange > MANY_UNKNOWN or letters < FEW_LETTERS_A_PIECE:
        fixes.append("its vocabulary does not suit this text: use a checkpoint of this language and field, or models "
                     "from scratch with a larger vocabulary")  # fmt: skip
    elif unseen > MANY_UNSEEN:
        fixes.append(
            "held-out texts have characters that the training texts lack: check that both have the same source"
        )
    return Finding(f"{PREFIX}{spec.name}", "warn" if fixes else "ok", text, "; ".join(fixes))


def characters_of(texts: Sequence[str]) -> list[int]:
    """Characters of each text; where words have no spaces, the ones between tokens or words do not count."""
    if share_unspaced(texts[:LOOKED_AT]) < FEW_UNSPACED:
        return [len(text) for text in texts]
    return [sum(map(len, text.split())) for text in texts]


def some_texts(survey: Survey, split: str, most: int) -> list[str]:
    return survey.splits[split]["text"].slice(0, most).to_pylist()


def _share(texts: Sequence[Sequence[int]], chosen: set[int]) -> float:
    """Share of the pieces of these texts that are among the chosen ones."""
    return sum(number in chosen for ids in texts for number in ids) / max(1, sum(map(len, texts)))


def _round_up(length: float) -> int:
    return 32 * math.ceil(length / 32)
