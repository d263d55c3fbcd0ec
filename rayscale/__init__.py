"""rayscale: what more data, a larger model or more GPUs would bring to a fine-tune, measured.

Everything here is pure: no torch, no Ray. Training is `from rayscale.on_ray import run_study`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayscale.system.lazy import lazy

if TYPE_CHECKING:
    from rayscale.errors import InputError, RayscaleError
    from rayscale.laws.fit import fit_law
    from rayscale.laws.simulation import simulate
    from rayscale.runs.folder import Run, load
    from rayscale.study.study import Study, load_study
    from rayscale.verdict.claim import test_claim
    from rayscale.verdict.comparison import compare
    from rayscale.verdict.recommendation import recommend

__all__ = [
    "InputError",
    "RayscaleError",
    "Run",
    "Study",
    "compare",
    "fit_law",
    "load",
    "load_study",
    "recommend",
    "simulate",
    "test_claim",
]

__getattr__ = lazy(
    __name__, InputError="errors", RayscaleError="errors", Run="runs.folder", Study="study.study",
    compare="verdict.comparison", fit_law="laws.fit", load="runs.folder", load_study="study.study",
    recommend="verdict.recommendation", simulate="laws.simulation", test_claim="verdict.claim",
)  # fmt: skip


def __dir__() -> list[str]:
    return __all__
