"""Targets and budgets as the command line writes them: a target (`f1_macro>=0.92`) and a budget (`20gpuh`, `50usd`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from rayscale.errors import InputError, nearest
from rayscale.study.metrics import FRACTIONS, LOWER_IS_BETTER, PERCENTS, QUALITIES

_TARGET = re.compile(r"\s*([^<>=!\s]+)\s*(>=|<=|>|<|==|=|≥|≤)\s*(\S+)\s*")
_BUDGET = re.compile(r"\s*((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z-]+)\s*")
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
    example = "write METRIC>=VALUE, as in 'f1_macro>=0.92' or 'eval_loss<=1.5'"
    have = f"(measured here: {', '.join(measured) or 'nothing'})"
    if (match := _TARGET.fullmatch(text)) is None:
        raise _wrong_target(f"found '{text}'; {example}")
    metric, sign, value = match.groups()
    if metric not in QUALITIES:
        longer = [name for name in measured if name.startswith(metric)]
        hint = f"; did you mean '{longer[0]}'?" if longer else nearest(metric, [*measured, *QUALITIES])
        raise _wrong_target(f"'{metric}' is not a measure of quality{hint} {have}")
    if metric not in measured:
        raise _wrong_target(f"no run has measured {metric} {have}")
    try:
        reach = float(value.removesuffix("%"))
    except ValueError:
        raise _wrong_target(f"'{value}' in '{text}' is not a number; {example}") from None
    goal = Goal(metric, reach)
    if sign in ("=", "==") or (sign in (">=", ">", "≥")) == goal.lower:
        kind = "lower" if goal.lower else "higher"
        raise _wrong_target(f"found '{sign}', and {kind} is better for {metric}; write '{goal}'")
    percent = value.endswith("%")
    if metric in FRACTIONS and (percent or not 0 < reach < 1):
        if 1 < reach <= 100:
            raise _wrong_target(f"{metric} is a fraction, found {value}; write '{Goal(metric, reach / 100)}'")
        raise _wrong_target(f"{metric} lies between 0 and 1, found {value}")
    least = 1.0 if metric == "perplexity" else 0.0
    most = 100.0 if metric in PERCENTS else float("inf")
    if percent or not isfinite(reach) or not least < reach < most:
        span = f"between {least:g} and {most:g}" if isfinite(most) else f"a plain number above {least:g}"
        raise _wrong_target(f"{metric} is {span}, found {value}")
    return goal


def _wrong_target(message: str) -> InputError:
    return InputError(message, where="--target")


def parse_budget(text: str, price_gpu_hour: float | None, currency: str) -> Spending:
    """The budget in `20gpuh` or `50usd`; raises InputError for another unit, and for money without a price."""
    match = _BUDGET.fullmatch(text)
    amount, unit = (float(match[1]), match[2].lower()) if match else (0.0, "")
    in_hours = unit in _HOURS
    fault = ""
    if not isfinite(amount) or amount <= 0 or not (in_hours or re.fullmatch("[a-z]{3}", unit)):
        fault = f"found '{text}'; write GPU-hours as 20gpuh or money as 50usd"
    elif not in_hours and price_gpu_hour is None:
        fault = f"'{text}' needs the price of a GPU-hour: add `prices: {{gpu_hour: ...}}` to the study, or use gpuh"
    elif not in_hours and unit.upper() != currency:
        fault = f"found '{text}', and the study's prices are in {currency}"
    if fault:
        raise InputError(fault, where="--budget")
    return Spending(amount, "gpuh" if in_hours else currency)
