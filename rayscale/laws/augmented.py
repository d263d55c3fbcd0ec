"""Laws of data that was augmented: each copy of an example counts as `w` real examples, a multiplier on D.

D (1 + w copies) where copies help; D / (1 - w copies) where they harm, the same to first order, and positive whatever
the number of copies. In the laws `_by_size` the worth falls or rises with the data: w + s log D.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rayscale.laws import catalogue
from rayscale.laws.law import Law, Parameter, Values


def worth(data: Any, parameters: Values) -> Any:
    """What a copy is worth in real examples at a data size: w, plus s log D where the law has an s."""
    slope = parameters.get("s")
    return parameters["w"] if slope is None else parameters["w"] + slope * np.log(data)


def effective(inputs: Values, parameters: Values) -> Any:
    """How many real examples would do as well as `data` of them with `copies` augmented copies of each."""
    gained = worth(inputs["data"], parameters) * inputs["copies"]
    helps = np.real(gained) > 0
    return inputs["data"] * np.where(helps, 1 + np.where(helps, gained, 0), 1 / (1 - np.where(helps, 0, gained)))


def power(inputs: Values, parameters: Values) -> Any:
    """E + B / D_eff^beta, in the target's unit."""
    return parameters["E"] + parameters["B"] * np.exp(-parameters["beta"] * np.log(effective(inputs, parameters)))


def chinchilla(inputs: Values, parameters: Values) -> Any:
    """E + A / N^alpha + B / D_eff^beta, in the target's unit."""
    by_params = parameters["A"] * np.exp(-parameters["alpha"] * np.log(inputs["params"]))
    return power(inputs, parameters) + by_params


_EFFECTIVE = "data * (1 + {w} * copies)"
# A copy worth more than a few examples, or one that costs as many, is no augmentation that anybody would keep.
_WORTH = Parameter("w", "exponent", -5.0, 10.0, (-0.3, 0.0, 0.3, 1.0))
_SLOPE = Parameter("s", "exponent", -3.0, 3.0, (-0.2, 0.0, 0.2))
_WORTH_BY_SIZE = Parameter("w", "exponent", -5.0, 10.0, (-0.3, 0.0, 0.3, 1.0), (("data", "-s"),))
_SOURCE = "a multiplier on D, as of repeated data in Muennighoff et al. 2023, arXiv 2305.16264"
_UNITS = "; copies: augmented ones of each example; w: real examples a copy is worth"


def _law(name: str, base: Law, function: Any, worth_of: tuple[Parameter, ...], w: str) -> Law:
    return Law(
        name,
        base.formula.replace("data", f"({_EFFECTIVE.format(w=w)})"),
        function,
        (*base.parameters, *worth_of),
        (*base.inputs, "copies"),
        base.target,
        _SOURCE,
        linear=base.linear,
        zero=("copies",),
        unscaled=("copies",),
        units=base.units + _UNITS,
    )


POWER = _law("augmented_power", catalogue.POWER, power, (_WORTH,), "w")
CHINCHILLA = _law("augmented_chinchilla", catalogue.CHINCHILLA, chinchilla, (_WORTH,), "w")
_BY_SIZE = "(w + s * log(data))"
POWER_BY_SIZE = _law("augmented_power_by_size", catalogue.POWER, power, (_WORTH_BY_SIZE, _SLOPE), _BY_SIZE)
CHINCHILLA_BY_SIZE = _law(
    "augmented_chinchilla_by_size", catalogue.CHINCHILLA, chinchilla, (_WORTH_BY_SIZE, _SLOPE), _BY_SIZE
)
