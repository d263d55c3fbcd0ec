"""The key `laws` of a study file: auto, a law's name, a list of names, or the user's own laws as formulas."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Strict, Tag, ValidationInfo, field_validator

from rayscale.errors import InputError
from rayscale.laws.formula import find_law, find_user_law, read_formula
from rayscale.study.values import Part

FIX = "write auto, a law's name, a list of names, or my_law: {formula: E + B * data ** -beta}"


@contextmanager
def _refusing() -> Iterator[None]:
    """An InputError that rises within is a ValueError, which pydantic reports with its place."""
    try:
        yield
    except InputError as error:
        raise ValueError(str(error)) from None


def _law(value: str) -> str:
    with _refusing():
        find_law(value)
    return value


def _law_key(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w{0,63}", value):
        raise ValueError("the name of a law is letters, digits and _, and does not begin with a digit")
    with _refusing():
        find_user_law(value, {"formula": "E * data"})
    return value


class UserLaw(Part):
    """The user's own law: a formula over params, data, unique, compute, gpus, loss and its parameters, such as
    `E + B * data ** -beta`. `bounds` are parameter -> [low, high] in the units of the study; equal ones fix it."""

    formula: Annotated[str, Strict(), Field(min_length=1)]
    bounds: dict[str, tuple[Annotated[float, Strict()], Annotated[float, Strict()]]] | None = None

    @field_validator("formula")
    @classmethod
    def _read(cls, value: str) -> str:
        with _refusing():
            read_formula(value)
        return value

    @field_validator("bounds")
    @classmethod
    def _bound(cls, value: dict[str, tuple[float, float]] | None, info: ValidationInfo) -> Any:
        if "formula" in info.data:
            with _refusing():
                read_formula(info.data["formula"], bounds=value)
        return value


def _laws_kind(value: Any) -> str:
    return "formulas" if isinstance(value, dict) else "name" if isinstance(value, str) else "names"


def _law_or_auto(value: str) -> str:
    return value if value == "auto" else _law(value)


LawName = Annotated[str, Strict(), AfterValidator(_law)]
Laws = Annotated[
    Annotated[str, Strict(), AfterValidator(_law_or_auto), Tag("name")]
    | Annotated[tuple[LawName, ...], Field(min_length=1), Tag("names")]
    | Annotated[dict[Annotated[str, AfterValidator(_law_key)], UserLaw], Field(min_length=1), Tag("formulas")],
    Discriminator(_laws_kind),
]
