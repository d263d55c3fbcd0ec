"""Scaling laws as values: what a law says, in which parameters, and where a fit may look for them.

A law's function works on numpy arrays of any broadcastable shape and must be analytic in its parameters (no abs; a
comparison or a minimum only through `.real`): fits take its derivatives by a complex step, so a law never carries a
hand-written gradient. The laws that ship are in `rayscale.laws.catalogue`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rayscale.system.registry import resolve

Array = NDArray[np.float64]
Values = Mapping[str, Any]  # name -> array (or number)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a law.

    kind "coefficient": positive, fitted as its logarithm; its bounds and starts are multiples of the median target.
    kind "positive": positive, fitted as its logarithm; its bounds and starts are plain numbers.
    kind "exponent": a plain number without a unit.

    The bounds and starts of the first two hold where every input is at its geometric mean, so they mean the same in
    any unit. `unit` says which powers of the inputs the parameter carries, as (role, exponent); the exponent is a
    number, another parameter's name ("-" before it if negative) or a function of the parameters: A of A * N ** -alpha
    carries (("params", "alpha"),), D0 of (D + D0) ** -beta carries (("data", 1.0),).
    """

    name: str
    kind: str
    low: float
    high: float
    starts: tuple[float, ...]
    unit: tuple[tuple[str, str | float | Callable[[Values], Any]], ...] = ()


@dataclass(frozen=True)
class Frame:
    """The parameters in which a law is looked for, where those of its formula lie along endless ridges.

    There is one for each of the formula's, under its name and of the kind, bounds and starts that `Law.parameters`
    says. `function(inputs, fitted)` is the law in these, at inputs divided by their geometric means, whose logarithms
    are inputs too (`data_centre`; 0 where they are not given). `natural(fitted, centre)` are the formula's, in the
    table's units; `centre`: role -> log of the geometric mean.
    """

    function: Callable[[Values, Values], Any]
    natural: Callable[[Values, Mapping[str, float]], dict[str, Any]]


@dataclass(frozen=True)
class Law:
    """A scaling law: `function(inputs, parameters)` gives the target, both arguments keyed by name, in natural units.

    `inputs` are roles: "params" (model parameters N), "data" (examples or tokens D), "unique" (distinct ones among
    them), "copies" (augmented ones of each example), "compute" (C, FLOP), "gpus" (workers G), "loss". `target` is the
    quantity the law was made for; a fit may name any positive column.

    `linear`: the parameters in which the law is linear once the others are given; a fit solves these for its starts.
    `link`: the scale on which residuals are counted, "log", or "logit" for a metric between 0 and 1.
    `zero`: inputs that may be 0. `unscaled`: inputs that are a count with a unit of its own (1 of them means
    something, as 1 GPU does): they are not divided by their geometric mean. `units`: unit of target and inputs, words.
    `result`: for a law that is fitted in a way of its own (isoflop), the class of its fit, a subclass of Fit with a
    class method `fit`, which `fit_law` calls. `frame`: the parameters in which it is fitted, if these are others.
    `enough`: how many different sizes of every input, and how many configurations, a table must have before `auto`
    weighs the law.
    """

    name: str
    formula: str
    function: Callable[[Values, Values], Any]
    parameters: tuple[Parameter, ...]
    inputs: tuple[str, ...]
    target: str
    source: str
    linear: tuple[str, ...] = ()
    link: str = "log"
    zero: tuple[str, ...] = ()
    unscaled: tuple[str, ...] = ()
    units: str = ""
    result: Any = None
    frame: Frame | None = None
    enough: tuple[int, int] = (0, 0)

    @property
    def fitted(self) -> Callable[[Values, Values], Any]:
        """The law in the parameters in which it is fitted."""
        return self.frame.function if self.frame else self.function

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The parameters' names, in the order of every parameter vector."""
        return tuple(parameter.name for parameter in self.parameters)


def find_registered(law: str | Law) -> Law:
    """The law itself, or the one registered under that name; raises InputError naming those there are."""
    return law if isinstance(law, Law) else resolve("rayscale.laws", law)
