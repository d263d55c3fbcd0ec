"""Targets and budgets as the command line writes them: a target (`f1_macro>=0.92`) and a budget (`20gpuh`, `50usd`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from rayscale.errors import InputError, nearest
from rayscale.study.metrics import FRACTIONS, LOWER_IS_BETTER, PERCENTS, QUALITIES

_TARGET = re.compile(r"\s*([^<>=!\s]+)\s*(>=|<=|>|<|==|=|≥|≤)\s*(\S+)\s*")
_BUDGET = re.compile(r"\s*([0-9.]+(?:[eE][+-]?\d+)?)\s*([A-Za-z-]+)\s*")
_HOURS = frozenset({"gpuh", "gpu-h", "gpuhours", "gpu-hours", "gpuhour", "gpu-hour"})


@dataclass(frozen=True)
class Goal:
    """A metric and the value it should reach; whether that is from above follows from the metric."""

    metric: str
    reach: float

    @property
    def lower(self) -> bool:
        """Whether less is better."""
        return self.metric in LOWER_IS_BETTER

    def __str__(self) -> str:
        return f"{self.metric}{'<=' if self.lower else '>='}{self.reach:g}"


@dataclass(frozen=True)
class Spending:
    """An amount of GPU-hours or of money (`unit` gpuh, or a currency of three capitals)."""

    amount: float
    unit: str

    def __str__(self) -> str:
        return f"{self.amount:g} {'GPU-hours' if self.unit == 'gpuh' else self.unit}"


def parse_target(text: str, measured: Sequence[str]) -> Goal:
    """The target in `METRIC>=VALUE` (`<=` for losses); raises InputError that says what is wrong and how to write it.

    `measured` are the metrics that the runs have: a target on another one is refused.
    """
    example = "'f1_macro>=0.92' or 'eval_loss<=1.5'"
    match = _TARGET.fullmatch(text)
    if match is None:
        raise InputError(f"found '{text}'; write METRIC>=VALUE, as in {example}", where="--target")
    metric, sign, value = match.groups()
    if metric not in QUALITIES:
        longer = [name for name in measured if name.startswith(metric)]
        hint = f"; did you mean '{longer[0]}'?" if longer else nearest(metric, [*measured, *QUALITIES])
        raise InputError(f"'{metric}' is not a measure of quality{hint} (measured here: {_listed(measured)})",
                         where="--target")  # fmt: skip
    if metric not in measured:
        raise InputError(f"no run has measured {metric} (measured here: {_listed(measured)})", where="--target")
    lower = metric in LOWER_IS_BETTER
    try:
        reach = float(value.removesuffix("%"))
    except ValueError:
        raise InputError(f"'{value}' in '{text}' is not a number; write METRIC>=VALUE, as in {example}",
                         where="--target") from None  # fmt: skip
    better = "<=" if lower else ">="
    if sign in ("=", "==") or (sign in (">=", ">", "≥")) == lower:
        kind = "lower" if lower else "higher"
        raise InputError(f"found '{sign}', and {kind} is better for {metric}; write '{metric}{better}{reach:g}'",
                         where="--target")  # fmt: skip
    if metric in FRACTIONS and (value.endswith("%") or not 0 < reach < 1):
        if 1 < reach <= 100:
            raise InputError(f"{metric} is a fraction, found {value}; write '{metric}{better}{reach / 100:g}'",
                             where="--target")  # fmt: skip
        raise InputError(f"{metric} lies between 0 and 1, found {value}", where="--target")
    least = 1.0 if metric == "perplexity" else 0.0
    most = 100.0 if metric in PERCENTS else float("inf")
    if value.endswith("%") or not isfinite(reach) or not least < reach < most:
        span = f"between {least:g} and {most:g}" if isfinite(most) else f"a plain number above {least:g}"
        raise InputError(f"{metric} is {span}, found {value}", where="--target")
    return Goal(metric, reach)


def parse_budget(text: str, price_gpu_hour: float | None, currency: str) -> Spending:
    """The budget in `20gpuh` or `50usd`; raises InputError for another unit, and for money without a price."""
    match = _BUDGET.fullmatch(text)
    unit = match.group(2).lower() if match else ""
    try:
        amount = float(match.group(1)) if match else float("nan")
    except ValueError:
        amount = float("nan")
    if not isfinite(amount) or amount <= 0 or (unit not in _HOURS and not re.fullmatch("[a-z]{3}", unit)):
        raise InputError(f"found '{text}'; write GPU-hours as 20gpuh or money as 50usd", where="--budget")
    if unit in _HOURS:
        return Spending(amount, "gpuh")
    if price_gpu_hour is None:
        message = f"'{text}' needs the price of a GPU-hour: add `prices: {{gpu_hour: ...}}` to the study, or use gpuh"
        raise InputError(message, where="--budget")
    if unit.upper() != currency:
        raise InputError(f"found '{text}', and the study's prices are in {currency}", where="--budget")
    return Spending(amount, currency)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"
