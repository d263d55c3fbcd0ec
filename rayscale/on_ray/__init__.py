"""The roof: the only place that imports Ray. `run_study` trains a study; the import states the cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rayscale.on_ray.study_run import run_study

__all__ = ["run_study"]


def __getattr__(name: str) -> Any:
    if name == "run_study":
        from rayscale.on_ray.study_run import run_study

        return run_study
    raise AttributeError(f"module 'rayscale.on_ray' has no attribute '{name}'")
