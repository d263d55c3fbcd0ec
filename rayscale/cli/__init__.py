"""The command line: one function a verb, the terminal's view of a run, and the doctor.

Heavy imports are made inside a verb: `rayscale --help` must not wait for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayscale.system.lazy import lazy

if TYPE_CHECKING:
    from rayscale.cli.verbs import main

__all__ = ["main"]

__getattr__ = lazy(__name__, main="verbs")
