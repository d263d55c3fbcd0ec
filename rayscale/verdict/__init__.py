"""What the trials say: gains of more data, models and GPUs, targets, costs, recommendation and comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayscale.system.lazy import lazy

if TYPE_CHECKING:
    from rayscale.verdict.claim import test_claim
    from rayscale.verdict.comparison import compare
    from rayscale.verdict.prediction import predict
    from rayscale.verdict.recommendation import recommend
    from rayscale.verdict.table_fit import fit_source
    from rayscale.verdict.verdict import conclude

__all__ = ["compare", "conclude", "fit_source", "predict", "recommend", "test_claim"]

__getattr__ = lazy(
    __name__,
    compare="comparison",
    conclude="verdict",
    fit_source="table_fit",
    predict="prediction",
    recommend="recommendation",
    test_claim="claim",
)
