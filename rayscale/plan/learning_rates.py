"""Learning rates: the schedule over the steps of a trial, and what `learning_rate: auto` stands for."""

from __future__ import annotations

import math

from rayscale.errors import InputError

SCHEDULES = ("linear", "cosine", "constant", "constant_with_cooldown", "plateau")


def schedule_factor(schedule: str, step: int, steps: int, warmup: float, cooldown: float) -> float:
    """What the rate is multiplied by in `step` (from 0) of `steps`.

    It climbs in a straight line over the first `warmup` share of the steps (at least one step, so that no step has rate
    0), then falls to 0 (linear; cosine, Loshchilov & Hutter 2017, arXiv 1608.03983) or stays at 1 (constant; plateau,
    on top of which comes what validations say: EarlyStopping), with constant_with_cooldown until the last `cooldown`
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
        cooling = max(1, round(cooldown * steps))
        return 1.0 - math.sqrt(max(0, step - (steps - cooling)) / cooling)
    done = (step - climbing) / max(1, steps - climbing)
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


# `auto`, from scratch, the same for all shapes:
#     SCRATCH / width x (targets of a batch / 512)^(1/2) x (100 / steps)^(1/3)
# Matrices of Adam-trained networks want rates that fall with their width (Yang et al. 2022, arXiv 2203.03466); a batch
# of more targets has less noise (Malladi et al. 2022, arXiv 2205.10287); the longer the training, the lower the rate
# that is best for it (Bjorck et al. 2024, arXiv 2409.19913: the power 0.32). A classifier has one target a row, a
# language model one a token, and so a classifier's rate is lower. SCRATCH is fitted to sweeps in factors of 2 at 48 and
# 96 wide: GPT-2 shapes on the built-in text (20,480 to 327,680 tokens, 40 to 640 steps), BERT shapes on SST-2 and on
# the built-in text (900 to 4,000 rows, 87 to 375 steps). docs/LOG.md has what `auto` loses on other sizes.
SCRATCH, SCRATCH_TARGETS, SCRATCH_STEPS, STEPS_POWER = 0.6, 512, 100, 1 / 3
FEWEST_STEPS = 40  # none fewer were measured
# Targets of the batches that were measured, and how much larger or smaller ones may change the rate.
LANGUAGE_TARGETS, OTHER_TARGETS = 512, 32
LARGEST_BATCH_FACTOR = 2.0
# `auto`, pretrained: measured at 384 wide (MiniLM cut to 1, 3 and 6 layers, 400 to 1,000 examples of 77 classes). The
# powers are such that 768 wide with 12 layers and 1,024 with 24 get 4.7e-5 and 1.7e-5, within what is published for
# them (Devlin et al. 2019, arXiv 1810.04805), and small models stay below the limit.
PRETRAINED, PRETRAINED_WIDTH, PRETRAINED_POWER, PRETRAINED_LIMIT = 3e-4, 384, 2, 1e-3
PRETRAINED_LAYERS, PRETRAINED_DEPTH_POWER = 6, 2 / 3
# A new head on a pretrained body learns this much faster (after Howard & Ruder 2018, arXiv 1801.06146), when the rate
# is `auto`. Measured with 6 layers, 400 examples, rate 4e-4: 1.90 instead of 3.69 nats.
HEAD_FACTOR = 10.0
# Adapters want about ten times the rate of all weights, whatever the rank, at an alpha of 32 (Schulman et al. 2025,
# "LoRA Without Regret", on models of 2,048 wide and more). That is too much where all weights already learn fast: two
# and six layers of MiniLM did best at 1.3e-3 to 2.2e-3, and two learnt nothing at 4.4e-3 (docs/LOG.md).
LORA_FACTOR, LORA_LIMIT = 10.0, 1.5e-3


def resolve_rate(
    setting: str | float,
    *,
    task_type: str,
    pretrained: bool,
    width: int,
    layers: int,
    global_batch: int,
    batch_tokens: int,
    steps: int,
) -> float:
    """The peak rate: `setting` itself, or for `auto` the rule above.

    `width` is that of the hidden states, `layers` the depth after a cut, `global_batch` in examples, `batch_tokens` the
    mean tokens of a global batch, `steps` those of the whole trial. Rows count as one target each but for causal-lm:
    the labels or the words of one row are less than as many independent ones. The steps change no pretrained rate,
    which is bounded by what must not be unlearnt.
    """
    if setting != "auto":
        return float(setting)
    language = task_type == "causal-lm"
    measured = LANGUAGE_TARGETS if language else OTHER_TARGETS
    batch = min(LARGEST_BATCH_FACTOR, math.sqrt((batch_tokens if language else global_batch) / measured))
    if pretrained:
        narrow, shallow = PRETRAINED_WIDTH / width, PRETRAINED_LAYERS / layers
        scale = narrow**PRETRAINED_POWER * shallow**PRETRAINED_DEPTH_POWER
        return min(PRETRAINED_LIMIT, PRETRAINED * scale * batch)
    short = (SCRATCH_STEPS / max(steps, FEWEST_STEPS)) ** STEPS_POWER
    return SCRATCH / width * math.sqrt(measured / SCRATCH_TARGETS) * batch * short


def resolve_adapter_rate(setting: str | float, body_rate: float) -> float:
    """The peak rate of adapters where all weights would learn at `body_rate`: `setting` itself, or the rule for
    `auto`."""
    return min(LORA_LIMIT, LORA_FACTOR * body_rate) if setting == "auto" else float(setting)


def resolve_head_factor(setting: str | float, *, task_type: str, pretrained: bool, layers: int) -> float:
    """The head's rate in units of the body's: 1 unless `auto` puts a new head on a pretrained body.

    The fewer layers, the higher the rate of the body (see `resolve_rate`); that of the head stays.
    """
    if setting != "auto" or not pretrained or task_type == "causal-lm":
        return 1.0
    return HEAD_FACTOR * min(1.0, (layers / PRETRAINED_LAYERS) ** PRETRAINED_DEPTH_POWER)
