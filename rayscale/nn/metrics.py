"""The metrics of a task, from the confusion matrix of all ranks and the loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

CLASSIFICATION = ("accuracy", "precision_macro", "recall_macro", "f1_micro", "f1_macro", "f1_weighted")
LARGEST_EXPONENT = 700.0


def classification_metrics(confusion: np.ndarray) -> dict[str, float]:
    """Accuracy and averaged scores of a confusion matrix: rows the true labels, columns the predicted, counts.

    As scikit-learn defines them with zero_division=0: a class without predictions has precision 0, a class without rows
    recall 0, the macro average is over the classes seen as either; micro averages of single-label tasks equal accuracy.
    Raises ValueError if the matrix is empty.
    """
    confusion = np.asarray(confusion, dtype=np.float64)
    total = confusion.sum()
    if not total:
        raise ValueError("a confusion matrix without rows has no metrics")
    right, true, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    precision = np.divide(right, predicted, out=np.zeros_like(right), where=predicted > 0)
    recall = np.divide(right, true, out=np.zeros_like(right), where=true > 0)
    # 2 right / (true + predicted) is the harmonic mean of the two, and defined where either is.
    f1 = np.divide(2 * right, true + predicted, out=np.zeros_like(right), where=true + predicted > 0)
    seen = (true + predicted) > 0
    accuracy = float(right.sum() / total)
    return {
        "accuracy": accuracy,
        "precision_macro": float(precision[seen].mean()),
        "recall_macro": float(recall[seen].mean()),
        "f1_micro": accuracy,
        "f1_macro": float(f1[seen].mean()),
        "f1_weighted": float((f1 * true).sum() / total),
    }


def task_metrics(task_type: str, loss: float | None, confusion: np.ndarray | None) -> dict[str, Any]:
    """The metric columns of the trial table from the test loss; null where the task has no such metric."""
    metrics: dict[str, Any] = dict.fromkeys((*CLASSIFICATION, "exact_match", "bleu", "chrf", "perplexity"))
    if confusion is not None:
        metrics |= classification_metrics(confusion)
    if task_type == "causal-lm" and loss is not None and loss < LARGEST_EXPONENT:
        metrics["perplexity"] = math.exp(loss)
    return metrics
