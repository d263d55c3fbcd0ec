"""Where sizes lie on the axes of a table: at their logs; a count that may be 0, as copies may, at that of one more."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np

from rayscale.laws.law import Array, find_registered
from rayscale.system.registry import entries


@cache
def offset(role: str) -> float:
    """What is added to a size before its log is taken: 1 for a count in a unit of its own that may be 0, else 0."""
    laws = [find_registered(entry.name) for entry in entries("rayscale.laws")]
    return float(any(role in law.zero and role in law.unscaled for law in laws))


def may_be_zero(roles: Iterable[str]) -> tuple[str, ...]:
    """Those of the roles in which a blend of laws takes sizes of 0; a law of one size takes none."""
    several = [*roles]
    return tuple(role for role in several if offset(role)) if len(several) > 1 else ()


def place_of(role: str, sizes: Any) -> Array:
    """The places of sizes on their axis, of the shape of `sizes`."""
    return np.asarray(np.log(np.maximum(sizes + offset(role), 1e-300)))


def size_of(role: str, places: Array) -> Array:
    """The sizes at these places."""
    return np.asarray(np.exp(places) - offset(role))
