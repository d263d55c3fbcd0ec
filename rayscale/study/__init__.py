"""The study file as frozen values, every check of it, and the checkpoints that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayscale.system.lazy import lazy

if TYPE_CHECKING:
    from rayscale.study.study import Study, load_study
    from rayscale.study.tasks import KINDS

__all__ = ["KINDS", "Study", "load_study"]

__getattr__ = lazy(__name__, KINDS="tasks", Study="study", load_study="study")
