"""The values that a study's keys take: numbers with their bounds, text, and the frozen model of a section."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, Strict

# Bounds far beyond any study, so that no product of these overflows what a table or a file can hold.
Count = Annotated[int, Strict(), Field(ge=1, le=1_000_000)]
Amount = Annotated[int, Strict(), Field(ge=1, le=10**15)]
Share = Annotated[float, Strict(), Field(ge=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Strict(), Field(gt=0, le=1e12, allow_inf_nan=False)]
Text = Annotated[str, Strict(), Field(min_length=1)]


class Part(BaseModel):
    """A section of a study file: frozen, and a key that it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
