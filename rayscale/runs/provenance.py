"""Where and when something ran, and with which versions: the provenance of a record."""

from __future__ import annotations

import json
import socket
from datetime import datetime
from typing import Any

from rayscale.system.machine import installed


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
    names = ("python", "rayscale", "ray", "torch", "transformers", "tokenizers", "numpy", "pyarrow", "peft")
    return json.dumps({name: version or "not installed" for name, version in installed(names).items()})
