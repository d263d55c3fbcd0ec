"""Metrics held against hand computation and scikit-learn's definitions."""

from __future__ import annotations

import numpy as np
import pytest

from rayscale.nn.metrics import averages, class_table, classification_metrics


def test_by_hand() -> None:
    # Two classes: 3 of 4 rows of the first right, 1 of 2 of the second.
    metrics = classification_metrics(np.array([[3, 1], [1, 1]]))
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["precision_macro"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert metrics["recall_macro"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert metrics["f1_macro"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert metrics["f1_weighted"] == pytest.approx((4 * 3 / 4 + 2 * 1 / 2) / 6)
    assert metrics["f1_micro"] == metrics["accuracy"]


# scikit-learn 1.9.1, zero_division=0, on np.random.default_rng(seed): 30 labels below 4, then 30 predictions below 6.
SCIKIT_LEARN = {
    0: {
        "accuracy": 0.166666666667,
        "precision_macro": 0.140476190476,
        "recall_macro": 0.090277777778,
        "f1_micro": 0.166666666667,
        "f1_macro": 0.106837606838,
        "f1_weighted": 0.205128205128,
    },
    1: {
        "accuracy": 0.1,
        "precision_macro": 0.088888888889,
        "recall_macro": 0.078703703704,
        "f1_micro": 0.1,
        "f1_macro": 0.081481481481,
        "f1_weighted": 0.10962962963,
    },
}


@pytest.mark.parametrize("seed", SCIKIT_LEARN)
def test_as_scikit_learn(seed: int) -> None:
    draw = np.random.default_rng(seed)
    true, predicted = draw.integers(0, 4, 30), draw.integers(0, 6, 30)  # classes 4 and 5 are only predicted, 6 unseen
    confusion = np.zeros((7, 7))
    np.add.at(confusion, (true, predicted), 1)
    assert classification_metrics(confusion) == pytest.approx(SCIKIT_LEARN[seed], abs=1e-11)


def test_no_rows() -> None:
    with pytest.raises(ValueError, match="without rows"):
        classification_metrics(np.zeros((2, 2)))


def test_several_labels_as_scikit_learn() -> None:
    draw = np.random.default_rng(3)
    true = draw.random((50, 5)) < 0.3
    said = np.where(draw.random((50, 5)) < 0.75, true, ~true)
    true[:, 4] = said[:, 4] = False  # a class that nobody has, which scikit-learn counts as 0 in the macro average
    counts = [(true & said).sum(0), said.sum(0), true.sum(0)]
    found = averages(*counts, all_classes=True)
    # scikit-learn 1.9.1, precision_recall_fscore_support(..., zero_division=0)
    assert found["f1_micro"] == pytest.approx(0.6456692913385826, abs=1e-12)
    assert found["f1_macro"] == pytest.approx(0.5135548467127415, abs=1e-12)
    assert found["f1_weighted"] == pytest.approx(0.6490481488044841, abs=1e-12)
    *classes, micro, macro, weighted = class_table("abcde", *counts, all_classes=True)
    assert [row["support"] for row in classes] == [15, 15, 14, 10, 0]
    assert [row["f1"] for row in classes] == pytest.approx([0.63157895, 0.65, 0.74074074, 0.54545455, 0], abs=1e-8)
    assert (micro["precision"], micro["recall"]) == pytest.approx((0.5616438356164384, 0.7592592592592593), abs=1e-12)
    assert (macro["precision"], macro["recall"]) == pytest.approx((0.4621939799331104, 0.5961904761904762), abs=1e-12)
    assert (weighted["precision"], weighted["f1"]) == pytest.approx((0.5813947726991205, 0.6490481488044841), abs=1e-12)
    assert [row["label"] for row in (micro, macro, weighted)] == ["micro", "macro", "weighted"]
