"""Laws of data that was augmented: each copy of an example counts as `w` real examples, a multiplier on D.

D (1 + w copies) where copies help; D / (1 - w copies) where they harm, the same to first order, and positive whatever
the number of copies. In the laws `_by_size` the worth falls or rises with the data: w + s log D.
"""

from __future__ import annotations

from dataclasses import replace
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


# A copy worth more than a few examples, or one that costs as many, is no augmentation that anybody would keep.
_WORTH = Parameter("w", "exponent", -5.0, 10.0, (-0.3, 0.0, 0.3, 1.0))
_SLOPE = Parameter("s", "exponent", -3.0, 3.0, (-0.2, 0.0, 0.2))


def _augmented(base: Law, by_size: bool = False) -> Law:
    """The law `base` of the effective data; `by_size`: the worth of a copy depends on the data."""

    def function(inputs: Values, parameters: Values) -> Any:
        return base.function({**inputs, "data": effective(inputs, parameters)}, parameters)

    function.__doc__ = f"{base.name} of the effective data, in the target's unit."
    copy = "(w + s * log(data))" if by_size else "w"
    return replace(
        base,
        name=f"augmented_{base.name}" + ("_by_size" if by_size else ""),
        formula=base.formula.replace("data", f"(data * (1 + {copy} * copies))"),
        function=function,
        parameters=(*base.parameters, *((replace(_WORTH, unit=(("data", "-s"),)), _SLOPE) if by_size else (_WORTH,))),
        inputs=(*base.inputs, "copies"),
        source="a multiplier on D, as of repeated data in Muennighoff et al. 2023, arXiv 2305.16264",
        zero=("copies",),
        unscaled=("copies",),
        units=base.units + "; copies: augmented ones of each example; w: real examples a copy is worth",
    )


POWER = _augmented(catalogue.POWER)
CHINCHILLA = _augmented(catalogue.CHINCHILLA)
POWER_BY_SIZE = _augmented(catalogue.POWER, by_size=True)
CHINCHILLA_BY_SIZE = _augmented(catalogue.CHINCHILLA, by_size=True)
