"""The only room that imports Ray: the driver of a run, its lanes, its data and its session.

    from rayscale.on_ray import run_study
    run = run_study("study.yaml")

`lanes` keep worker groups up between trials, `data` prepares text as Ray Data plans, `session` starts Ray or joins it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayscale.system.lazy import lazy

if TYPE_CHECKING:
    from rayscale.on_ray.driver import run_study
    from rayscale.on_ray.submission import submit

__all__ = ["run_study", "submit"]

__getattr__ = lazy(__name__, run_study="driver", submit="submission")
