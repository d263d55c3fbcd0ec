"""What is otherwise for a while: attributes that have another value, a collector of garbage that does not run."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def overridden(owner: Any, **values: Any) -> Iterator[None]:
    """Within, these attributes of an object or a module have these values; afterwards those of before."""
    before = {name: getattr(owner, name) for name in values}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


@contextmanager
def no_garbage_collected() -> Iterator[None]:
    """Within, Python's collector of cycles does not run."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
