"""From facts to words and pictures: the HTML page, the terminal's text, and fit.json rebuilt from the ledger.

`page` is the report, `figures` are its pictures, `terminal` is what commands print.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rayscale.system.lazy import lazy

if TYPE_CHECKING:
    from rayscale.report.page.page import write_report
    from rayscale.report.rebuild import rebuild_report

__all__ = ["rebuild_report", "write_report"]

__getattr__ = lazy(__name__, rebuild_report="rebuild", write_report="page.page")
