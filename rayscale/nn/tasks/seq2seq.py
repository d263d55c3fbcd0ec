"""Text to text: cross entropy of the target's tokens; BLEU, chrF and exact matches of what is written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from torch import nn
from torch.nn.functional import cross_entropy

from rayscale.nn.models.objectives import IGNORED, Inputs, Objective, Score, bare
from rayscale.nn.tasks.rows import pad_lists
from rayscale.plan.parameters import training_flops
from rayscale.text.tasks.seq2seq import bleu_tokenizer

if TYPE_CHECKING:
    from rayscale.nn.models.size import Size
    from rayscale.nn.ranks import Group
    from rayscale.text.prepared import Prepared, Split


def targets(split: Split) -> np.ndarray:
    """Every token of the target, the one that ends it included."""
    return split.lists["targets"].lengths


def extra(split: Split, rows: np.ndarray, width: int) -> dict[str, np.ndarray]:
    """`targets` (rows, longest target)."""
    wanted = split.lists["targets"]
    return {"targets": pad_lists(wanted, rows, int(wanted.lengths[rows].max()), IGNORED)}


def losses(model: nn.Module, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """(summed loss, logits (rows, longest target, vocabulary))."""
    wanted = inputs.extra["targets"]
    prepare = getattr(bare(model), "prepare_decoder_input_ids_from_labels", None)
    # Some shift their labels within, and then make a loss of their own of them.
    decoded = {"labels": wanted} if prepare is None else {"decoder_input_ids": prepare(labels=wanted.clone())}
    logits = model(input_ids=inputs.ids, attention_mask=inputs.mask, **decoded, use_cache=False).logits.float()
    return cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum"), logits


def flops(size: Size, split: Split, rows: np.ndarray) -> float:
    """One pass over these rows: sources through the encoder, targets through the decoder.

    Attention of the decoder to the source is counted as pairs of target and source tokens.
    """
    sources, written = split.lengths[rows].astype(np.int64), targets(split)[rows].astype(np.int64)
    encoder = size.token_params - size.decoder_params
    pairs = int((written**2 + written * sources).sum())
    read = training_flops(encoder, 0, size.layers, size.width, int(sources.sum()), int((sources**2).sum()), 0)
    return read + training_flops(size.decoder_params, 0, size.layers, size.width, int(written.sum()), pairs, 0)


def writing(prepared: Prepared) -> dict[str, Any]:
    """Greedily, up to the length of the longest target of the training rows."""
    return {"do_sample": False, "num_beams": 1, "max_new_tokens": int(targets(prepared.split("train")).max())}


class _Written:
    """What the model writes beside the references."""

    def __init__(self, prepared: Prepared, split: Split) -> None:
        self._tokenizer = Tokenizer.from_file(str(prepared.tokenizer_folder / "tokenizer.json"))
        self._writing = writing(prepared)
        self._references = split.texts["reference"]
        self._pairs: list[tuple[str, str]] = []

    def add(self, model: nn.Module, inputs: Inputs, outputs: torch.Tensor, rows: np.ndarray) -> None:
        mask = torch.ones_like(inputs.ids) if inputs.mask is None else inputs.mask
        written = bare(model).generate(input_ids=inputs.ids, attention_mask=mask, **self._writing, use_cache=True)
        texts = self._tokenizer.decode_batch(written.tolist(), skip_special_tokens=True)
        references = (self._references[int(row)].as_py() for row in rows)
        self._pairs += [(" ".join(text.split()), reference) for text, reference in zip(texts, references, strict=True)]

    def finish(self, group: Group, loss: float) -> Score:
        from sacrebleu.metrics import BLEU, CHRF  # `draft` has seen that it is there

        parts = group.gather(json.dumps(self._pairs).encode())
        texts, references = zip(*(pair for part in parts for pair in json.loads(part)), strict=True)
        exact = [text == reference for text, reference in zip(texts, references, strict=True)]
        scorers = BLEU(tokenize=bleu_tokenizer(references)), CHRF()
        # Rounding makes 100.00000000000004 of a perfect score.
        bleu, chrf = (min(100.0, float(scorer.corpus_score(texts, [references]).score)) for scorer in scorers)
        names = zip(("BLEU", "chrF2"), scorers, strict=True)
        signature = " ".join(f"{name}|{scorer.get_signature()}" for name, scorer in names)
        return Score({"exact_match": float(np.mean(exact)), "bleu": bleu, "chrf": chrf}, signature=signature)


OBJECTIVE = Objective(
    transformers.AutoModelForSeq2SeqLM, targets, losses, _Written, extra=extra, flops=flops, writing=writing
)
