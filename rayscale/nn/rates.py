"""Learning rates: the schedule over the steps of a trial, and what `learning_rate: auto` stands for."""

from __future__ import annotations

import math

from rayscale.errors import InputError

SCHEDULES = ("linear", "cosine", "constant")


def schedule_factor(schedule: str, step: int, steps: int, warmup: float) -> float:
    """What the rate is multiplied by in `step` (from 0) of `steps`.

    It climbs in a straight line over the first `warmup` share of the steps (at least one step, so that no step has rate
    0), then falls to 0 (linear; cosine, Loshchilov & Hutter 2017, arXiv 1608.03983) or stays at 1 (constant).
    Raises InputError for an unknown schedule.
    """
    if schedule not in SCHEDULES:
        raise InputError(f"unknown schedule '{schedule}'; known: {', '.join(SCHEDULES)}", code="unknown_schedule")
    climbing = max(1, round(warmup * steps))
    if step < climbing:
        return (step + 1) / climbing
    if schedule == "constant":
        return 1.0
    done = (step - climbing) / max(1, steps - climbing)
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


# Best of a sweep in factors of 2 (docs/LOG.md): GPT-2 ladders 32, 64 and 128 wide at 512 tokens a batch, and 64 and 128
# wide at 256 and 2,048 tokens a batch, one pass over 50,000 to 200,000 tokens of the built-in text.
LANGUAGE_RATE_TIMES_WIDTH = 0.32
LANGUAGE_BATCH_TOKENS, LANGUAGE_BATCH_POWER, LANGUAGE_BATCH_FACTOR = 512, 1 / 3, 2.0

HEAD_FACTOR = 10.0


def resolve_rate(
    setting: str | float,
    *,
    task_type: str,
    pretrained: bool,
    width: int,
    global_batch: int,
    batch_tokens: int,
) -> float:
    """x"""
    if setting != "auto":
        return float(setting)
    if task_type == "causal-lm":
        batch = min(LANGUAGE_BATCH_FACTOR, (batch_tokens / LANGUAGE_BATCH_TOKENS) ** LANGUAGE_BATCH_POWER)
        return LANGUAGE_RATE_TIMES_WIDTH / width * batch
    return 0.001
