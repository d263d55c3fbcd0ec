"""Measures of quality by name: which way is better, and on what scale each is."""

from __future__ import annotations

BITS = frozenset({"bits_per_token", "bits_per_character"})  # the loss times a constant of the tokenizer
LOWER_IS_BETTER = frozenset({"eval_loss", "validation_loss", "train_loss", "perplexity", *BITS})
FRACTIONS = frozenset({"accuracy", "precision_macro", "recall_macro", "f1_micro", "f1_macro", "f1_weighted",
                       "exact_match", "f1_words"})  # fmt: skip
PERCENTS = frozenset({"bleu", "chrf"})  # sacrebleu's scale, 0 to 100
QUALITIES = (*sorted(LOWER_IS_BETTER), *sorted(FRACTIONS), *sorted(PERCENTS))
