"""Sizes as people write them: 7B, 350M, 1.2e9 or 1,000,000, in a cell of a table or on the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from rayscale.errors import TableError

FIX = "write a number, or one with K, M, B (or G) or T after it, as in 350M or 7B"
_SIZE = re.compile(r"([+-]?)(\d+|[1-9]\d{0,2}(?:,\d{3})+)?(\.\d*)?(e[+-]?\d+)?\s*([kmbgt]?)", re.IGNORECASE)
_TIMES = {"": "", "k": "e3", "m": "e6", "b": "e9", "g": "e9", "t": "e12"}


def read_size(value: Any) -> float | None:
    """The number in `7B`, `1.2e9` or `1,000,000`, or the number itself; None for anything else."""
    if isinstance(value, bool | np.bool_ | complex):
        return None
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    try:
        if match is None or not match[5]:
            return float(value.replace(",", "") if match else value)
        if match[4]:  # 1.2e3M: a power of ten and a unit are one too many to be meant
            return None
        # As one literal: 0.07 * 1e9 is not the 0.07e9 of a table of numbers.
        return float("".join(filter(None, match.groups()[:3])).replace(",", "") + _TIMES[match[5].lower()])
    except (TypeError, ValueError):
        return None


def with_sizes(table: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """The table with those of the columns that are text as numbers; a missing cell stays missing.

    Raises TableError, with row, column and the fix, for a cell that is no size.
    """
    read = {}
    for column in dict.fromkeys(columns):
        cells = table.get(column)  # a frame where several columns have this name: `numbers` says so
        if not isinstance(cells, pd.Series) or (isinstance(cells.dtype, np.dtype) and cells.dtype.kind != "O"):
            continue
        if any(isinstance(cell, str) for cell in cells):
            missing = cells.isna()
            sizes = [np.nan if lost else read_size(cell) for cell, lost in zip(cells, missing, strict=True)]
            if None in sizes:
                row = sizes.index(None)
                text = f"column '{column}' must hold numbers, but row {row} holds {cells.iloc[row]!r}; {FIX}"
                raise TableError(text, where=column)
            read[column] = np.array(sizes, dtype=float)
    return table.assign(**read) if read else table
