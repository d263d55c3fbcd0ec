"""This machine: devices, disk, storage, signals, secrets and plug-ins. It knows nothing of studies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayscale.system.lazy import lazy

if TYPE_CHECKING:
    from rayscale.system.machine import Machine
    from rayscale.system.redaction import redact
    from rayscale.system.registry import resolve
    from rayscale.system.storage import Store

__all__ = ["Machine", "Store", "redact", "resolve"]

__getattr__ = lazy(__name__, Machine="machine", Store="storage", redact="redaction", resolve="registry")
