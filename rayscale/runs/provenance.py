"""Where and when something ran, and with which versions: the provenance of a record."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import socket
from datetime import datetime
from typing import Any


def provenance(started: datetime, ended: datetime, gpus: float) -> dict[str, Any]:
    """Host, times (UTC) and device-seconds (wall seconds x GPUs) of what ran on this host from start to end."""
    return {
        "host": socket.gethostname(),
        "started_at": started.isoformat(timespec="milliseconds"),
        "ended_at": ended.isoformat(timespec="milliseconds"),
        "device_seconds": (ended - started).total_seconds() * gpus,
    }


def versions() -> str:
    """Versions of what changes numbers, as JSON."""
    names = ("rayscale", "ray", "torch", "transformers", "tokenizers", "numpy", "pyarrow", "peft")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return json.dumps(found)
