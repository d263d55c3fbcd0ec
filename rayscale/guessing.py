"""The loss of guessing: what a model scores that has learnt nothing of its input."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping


def entropy(counts: Iterable[float]) -> float:
    """Entropy in nats of the shares of these counts: no guess that ignores the text has a lower mean loss."""
    seen = [count for count in counts if count > 0]
    return -sum(count / sum(seen) * math.log(count / sum(seen)) for count in seen)


def guessing_loss(
    task_type: str, vocabularies: Mapping[str, int | None], labels: int, of_labels: float | None
) -> dict[str, float]:
    """Test loss of guessing, in nats, by model; empty for a task where nobody has said what guessing is.

    sequence-classification: `of_labels`, the entropy of the test labels' shares, or ln of the number of `labels` where
    the shares are unknown; causal-lm: ln of the model's vocabulary (`vocabularies`, by model).
    """
    if task_type == "causal-lm":
        return {model: math.log(size) for model, size in vocabularies.items() if size}
    if task_type == "sequence-classification" and (of_labels is not None or labels > 1):
        return dict.fromkeys(vocabularies, math.log(labels) if of_labels is None else of_labels)
    return {}
