"""The one-file HTML report (`write_report`) and what the terminal shows (`report.terminal`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rayscale.report.page import write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
    # The page needs matplotlib, seconds to import; the terminal's views in the same package do not.
    if name == "write_report":
        from rayscale.report.page import write_report

        return write_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
