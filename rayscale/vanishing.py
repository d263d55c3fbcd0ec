"""The laws with an asymptote E, without it: beside them as rivals, since few points cannot tell E from zero."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rayscale import catalogue
from rayscale.laws import Law, Values

SUFFIX = "_without_E"


def without_asymptote(law: Law) -> Law:
    """The law with E = 0 and no parameter for it; its name ends in `_without_E`. The law must have an E."""

    def function(inputs: Values, parameters: Values) -> Any:
        return law.function(inputs, {**parameters, "E": 0.0})

    function.__doc__ = f"{law.name} without its asymptote: {law.function.__doc__}"

    return replace(
        law,
        name=law.name + SUFFIX,
        formula=law.formula.removeprefix("E + "),
        function=function,
        parameters=tuple(each for each in law.parameters if each.name != "E"),
        linear=tuple(name for name in law.linear if name != "E"),
    )


POWER = without_asymptote(catalogue.POWER)
RECTIFIED = without_asymptote(catalogue.RECTIFIED)
SHIFTED = without_asymptote(catalogue.SHIFTED)
BNSL = without_asymptote(catalogue.BNSL)
CHINCHILLA = without_asymptote(catalogue.CHINCHILLA)
MULTIPLICATIVE = without_asymptote(catalogue.MULTIPLICATIVE)
