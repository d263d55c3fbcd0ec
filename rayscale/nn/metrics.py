"""Scores of classes from counts, as scikit-learn defines them with zero_division=0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

#: Columns of the trial table that say how good a model is, beside its losses.
METRICS = ("accuracy", "precision_macro", "recall_macro", "f1_micro", "f1_macro", "f1_weighted", "exact_match",
           "f1_words", "bleu", "chrf", "perplexity", "bits_per_token", "bits_per_character")  # fmt: skip


def classification_metrics(confusion: np.ndarray) -> dict[str, float]:
    """Accuracy and averaged scores of a confusion matrix: rows the true labels, columns the predicted, counts.

    A class without predictions has precision 0, a class without rows recall 0; the macro average is over the classes
    seen as either; micro averages of single-label tasks equal accuracy. Raises ValueError if the matrix is empty.
    """
    confusion = np.asarray(confusion, dtype=np.float64)
    total = confusion.sum()
    if not total:
        raise ValueError("a confusion matrix without rows has no metrics")
    right, true, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return {"accuracy": float(right.sum() / total), **averages(right, predicted, true)}


def averages(
    right: np.ndarray, predicted: np.ndarray, true: np.ndarray, *, all_classes: bool = False
) -> dict[str, float]:
    """precision_macro, recall_macro, f1_micro, f1_macro and f1_weighted of classes (classes,).

    For each class: how often it was predicted and true, predicted, true. Classes without any count are left out, or
    with `all_classes` are 0 in the macro average; with no true one at all f1_weighted is 0.
    """
    occurring = (predicted + true > 0) | all_classes
    right, predicted, true = right[occurring], predicted[occurring], true[occurring]
    precision, recall, f1 = scores(right, predicted, true)
    both, support = float(true.sum() + predicted.sum()), float(true.sum())
    return {
        "precision_macro": float(precision.mean()) if len(right) else 0.0,
        "recall_macro": float(recall.mean()) if len(right) else 0.0,
        "f1_micro": float(2 * right.sum() / both) if both else 0.0,
        "f1_macro": float(f1.mean()) if len(right) else 0.0,
        "f1_weighted": float((f1 * true).sum() / support) if support else 0.0,
    }


def scores(right: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(precision, recall, F1) of each class; 0 where there is nothing to divide by."""
    right, predicted, true = (np.asarray(counts, dtype=np.float64) for counts in (right, predicted, true))
    # 2 right / (true + predicted) is the harmonic mean of the two, and defined where either is.
    parts = ((right, predicted), (right, true), (2 * right, true + predicted))
    precision, recall, f1 = (np.divide(a, b, out=np.zeros_like(a), where=b > 0) for a, b in parts)
    return precision, recall, f1


def class_table(
    labels: Sequence[str], right: np.ndarray, predicted: np.ndarray, true: np.ndarray, *, all_classes: bool = False
) -> tuple[dict[str, Any], ...]:
    """A row for each class: label, precision, recall, f1, support (true ones), average (False).

    Then one for each average (True): micro, macro and weighted, over the classes seen as true or predicted, or over
    `all_classes`. Counts as in `averages`.
    """
    counts = [np.asarray(column, dtype=np.float64) for column in (right, predicted, true)]
    occurring = (counts[1] + counts[2] > 0) | all_classes
    by_class, support = np.stack(scores(*counts)), counts[2]
    rows = [(label, by_class[:, number], support[number], False) for number, label in enumerate(labels)]
    micro = np.stack(scores(*(column.sum(keepdims=True) for column in counts)))[:, 0]
    macro = by_class[:, occurring].mean(1) if occurring.any() else np.zeros(3)
    weighted = (by_class * support).sum(1) / max(1.0, support.sum())
    rows += [(name, value, support.sum(), True) for name, value in
             (("micro", micro), ("macro", macro), ("weighted", weighted))]  # fmt: skip
    return tuple(
        {"label": label, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(n), "average": mean}
        for label, (p, r, f), n, mean in rows
    )
