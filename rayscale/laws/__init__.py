"""Scaling laws as values, and fits of them to any table: no study is needed.

    from rayscale.laws import fit_law
    fit = fit_law(table, "chinchilla")

`fitting` is the machinery of one fit, `auto` weighs laws against each other, `simulation` draws tables from a law.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayscale.system.lazy import lazy

if TYPE_CHECKING:
    from rayscale.laws.fit import fit_law
    from rayscale.laws.fitting.result import Fit
    from rayscale.laws.formula import find_law
    from rayscale.laws.law import Law
    from rayscale.laws.simulation import simulate

__all__ = ["Fit", "Law", "find_law", "fit_law", "simulate"]

__getattr__ = lazy(__name__, Fit="fitting.result", Law="law", find_law="formula", fit_law="fit", simulate="simulation")
