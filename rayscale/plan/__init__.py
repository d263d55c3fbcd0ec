"""From a study to its plan: cells, what each costs, what is feasible, and which learning rates are tried.

A plan needs neither torch nor Ray: parameters are counted from configurations and file headers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayscale.system.lazy import lazy

if TYPE_CHECKING:
    from rayscale.plan.draft import draft_plan
    from rayscale.plan.plan import Plan, make_plan
    from rayscale.plan.simulated_run import run_simulated
    from rayscale.plan.starter import write_starter

__all__ = ["Plan", "draft_plan", "make_plan", "run_simulated", "write_starter"]

__getattr__ = lazy(
    __name__, Plan="plan", draft_plan="draft", make_plan="plan", run_simulated="simulated_run", write_starter="starter"
)
