"""Learning rates: the schedule over the steps of a trial, and what `learning_rate: auto` stands for."""

from __future__ import annotations

import math

from rayscale.errors import InputError

SCHEDULES = ("linear", "cosine", "constant", "constant_with_cooldown", "plateau")
COOLDOWN = 0.2  # the share of the steps, where the study leaves it open


def schedule_factor(schedule: str, step: int, steps: int, warmup: float, cooldown: float | None = None) -> float:
    """What the rate is multiplied by in `step` (from 0) of `steps`.

    It climbs in a straight line over the first `warmup` share of the steps (at least one step, so that no step has rate
    0), then falls to 0 (linear; cosine, Loshchilov & Hutter 2017, arXiv 1608.03983) or stays at 1 (constant; plateau,
    on top of which comes what the validations say, see `watch`), with constant_with_cooldown until the last `cooldown`
    share of the steps, in which it falls as 1 - sqrt (Hägele et al. 2024, arXiv 2405.18392). Raises InputError for an
    unknown schedule.
    """
    if schedule not in SCHEDULES:
        raise InputError(f"unknown schedule '{schedule}'; known: {', '.join(SCHEDULES)}", code="unknown_schedule")
    climbing = max(1, round(warmup * steps))
    if step < climbing:
        return (step + 1) / climbing
    if schedule in ("constant", "plateau"):
        return 1.0
    if schedule == "constant_with_cooldown":
        cooling = max(1, round((COOLDOWN if cooldown is None else cooldown) * steps))
        return 1.0 - math.sqrt(max(0, step - (steps - cooling)) / cooling)
    done = (step - climbing) / max(1, steps - climbing)
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


# `auto`, from scratch: constant / width. Matrices of Adam-trained networks want rates that fall with their width (Yang
# et al. 2022, arXiv 2203.03466). The constants are the best of sweeps in factors of 2 on the built-in text: GPT-2
# ladders of 32 to 128 wide (50,000 to 200,000 tokens, batches of 256 to 2,048 tokens), BERT ladders of 64 and 128
# (1,000 examples, 3 epochs, batches of 32). Larger batches allow larger rates, here up to a factor of 2.
LANGUAGE, LANGUAGE_TOKENS, LANGUAGE_POWER = 0.32, 512, 1 / 3
CLASSES, CLASSES_EXAMPLES, CLASSES_POWER = 0.22, 32, 1 / 2
LARGEST_BATCH_FACTOR = 2.0
# `auto`, pretrained: measured at 384 wide (MiniLM cut to 1, 3 and 6 layers, 400 to 1,000 examples of 77 classes). The
# powers are such that 768 wide with 12 layers and 1,024 with 24 get 4.7e-5 and 1.7e-5, within what is published for
# them (Devlin et al. 2019, arXiv 1810.04805), and small models stay below the limit.
PRETRAINED, PRETRAINED_WIDTH, PRETRAINED_POWER, PRETRAINED_LIMIT = 3e-4, 384, 2, 1e-3
PRETRAINED_LAYERS, PRETRAINED_DEPTH_POWER = 6, 2 / 3
# A new head on a pretrained body learns this much faster (after Howard & Ruder 2018, arXiv 1801.06146), when the rate
# is `auto`. Measured with 6 layers, 400 examples, rate 4e-4: 1.90 instead of 3.69 nats.
HEAD_FACTOR = 10.0


def resolve_rate(
    setting: str | float,
    *,
    task_type: str,
    pretrained: bool,
    width: int,
    layers: int,
    global_batch: int,
    batch_tokens: int,
) -> float:
    """The peak rate: `setting` itself, or for `auto` the rule above.

    `width` is that of the hidden states, `layers` the depth after a cut, `global_batch` in examples, `batch_tokens` the
    mean tokens of a global batch.
    """
    if setting != "auto":
        return float(setting)
    if task_type == "causal-lm":
        batch = (batch_tokens / LANGUAGE_TOKENS) ** LANGUAGE_POWER
    else:
        batch = (global_batch / CLASSES_EXAMPLES) ** CLASSES_POWER
    batch = min(LARGEST_BATCH_FACTOR, batch)
    if pretrained:
        narrow, shallow = PRETRAINED_WIDTH / width, PRETRAINED_LAYERS / layers
        scale = narrow**PRETRAINED_POWER * shallow**PRETRAINED_DEPTH_POWER
        return min(PRETRAINED_LIMIT, PRETRAINED * scale * batch)
    return (LANGUAGE if task_type == "causal-lm" else CLASSES) / width * batch


def resolve_head_factor(setting: str | float, *, task_type: str, pretrained: bool, layers: int) -> float:
    """The head's rate in units of the body's: 1 unless `auto` puts a new head on a pretrained body.

    The fewer layers, the higher the rate of the body (see `resolve_rate`); that of the head stays.
    """
    if setting != "auto" or not pretrained or task_type == "causal-lm":
        return 1.0
    return HEAD_FACTOR * min(1.0, (layers / PRETRAINED_LAYERS) ** PRETRAINED_DEPTH_POWER)
