"""Test losses of a tiny trial of every family and objective: what the golden record holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from made import Made, make_classification, make_language, make_pairs, make_tagged, make_topics, make_trial

from rayscale.nn.training.train import train_trial
from rayscale.runs.trial import ModelSpec, Trial

T5 = ModelSpec("t5-1x16", "family", "t5", 1, 16, 40)
GPT2 = ModelSpec("gpt2-1x16", "family", "gpt2", 1, 16, 40)
CASES: dict[str, tuple[Trial, Callable[[Path], Made]]] = {
    "bert sequence-classification": (make_trial(), make_classification),
    "bert token-classification": (make_trial("token-classification"), make_tagged),
    "bert multi-label": (make_trial("multi-label"), make_topics),
    "gpt2 causal-lm": (make_trial("causal-lm"), make_language),
    "gpt2 causal-lm, ragged": (make_trial("causal-lm"), lambda folder: make_language(folder, ragged=True)),
    "gpt2 sequence-classification": (make_trial(model=GPT2), make_classification),
    "t5 seq2seq": (make_trial("seq2seq", model=T5), make_pairs),
}


def losses(folder: Path) -> dict[str, float]:
    """The test loss of each case."""
    return {name: _loss(trial, make(folder / name)) for name, (trial, make) in CASES.items()}


def _loss(trial: Trial, made: Made) -> float:
    return float(train_trial(trial, made)["eval_loss"])
