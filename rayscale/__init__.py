"""rayscale: what more data, a larger model or more GPUs would bring to a fine-tune, measured.

Everything here is pure: no torch, no Ray. Training is `from rayscale.on_ray import run_study`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rayscale.compare import compare
    from rayscale.errors import InputError, RayscaleError
    from rayscale.fit import fit_law
    from rayscale.recommend import recommend
    from rayscale.run_folder import Run, load
    from rayscale.simulate import simulate
    from rayscale.study import Study, load_study

__all__ = [
    "InputError",
    "RayscaleError",
    "Run",
    "Study",
    "compare",
    "fit_law",
    "load",
    "load_study",
    "recommend",
    "simulate",
]

_HOME = {
    "InputError": "errors",
    "RayscaleError": "errors",
    "Run": "run_folder",
    "Study": "study",
    "compare": "compare",
    "fit_law": "fit",
    "load": "run_folder",
    "load_study": "study",
    "recommend": "recommend",
    "simulate": "simulate",
}


def __getattr__(name: str) -> Any:
    # Imported at first use: `rayscale --help` must not wait for pandas and scipy.
    if name in _HOME:
        return getattr(import_module(f"rayscale.{_HOME[name]}"), name)
    raise AttributeError(f"module 'rayscale' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """This package: a function and its file share a name, and `rayscale.simulate` is the function, imported or not."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing a submodule binds it to its package, over the function of that name.
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
