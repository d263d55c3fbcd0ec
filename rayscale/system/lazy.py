"""Names of a package, each imported at its first use: `rayscale --help` does not wait for pandas, scipy or torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy(package: str, **home: str) -> Callable[[str], Any]:
    """A `__getattr__` for a package: each name with the module below the package that defines it."""

    def find(name: str) -> Any:
        if name in home:
            return getattr(import_module(f"{package}.{home[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
