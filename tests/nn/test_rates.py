"""Schedules and the rate that `auto` stands for."""

from __future__ import annotations

import pytest

from rayscale.errors import InputError
from rayscale.plan.learning_rates import resolve_adapter_rate, resolve_head_factor, resolve_rate, schedule_factor


def factors(schedule: str, steps: int = 20, warmup: float = 0.2) -> list[float]:
    return [schedule_factor(schedule, step, steps, warmup, 0.2) for step in range(steps)]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_shape(schedule: str) -> None:
    values = factors(schedule)
    assert values[:4] == [0.25, 0.5, 0.75, 1.0]
    assert max(values) == 1.0
    assert min(values) > 0, "no step may be wasted"
    assert values[4:] == sorted(values[4:], reverse=True)


def test_ends() -> None:
    assert factors("linear")[-1] == pytest.approx(1 / 16)
    assert factors("cosine")[12] == pytest.approx(0.5)
    assert factors("constant")[-1] == 1.0


def test_constant_with_cooldown() -> None:
    values = [schedule_factor("constant_with_cooldown", step, 20, 0.2, 0.25) for step in range(20)]
    assert values[:4] == [0.25, 0.5, 0.75, 1.0]
    assert values[4:16] == [1.0] * 12
    assert values[15:] == sorted(values[15:], reverse=True)
    assert values[-1] == pytest.approx(1 - 0.8**0.5)
    assert factors("constant_with_cooldown")[16:] != [1.0] * 4, "a fifth, by default"


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.9])
def test_a_single_step_has_the_full_rate(warmup: float) -> None:
    assert schedule_factor("linear", 0, 1, warmup, 0.2) == 1.0


def test_unknown_schedule() -> None:
    with pytest.raises(InputError, match="linear, cosine, constant"):
        schedule_factor("zigzag", 0, 1, 0.1, 0.2)


def auto(**change: object) -> float:
    settings = {
        "task_type": "causal-lm",
        "pretrained": False,
        "width": 64,
        "layers": 6,
        "global_batch": 8,
        "batch_tokens": 512,
        "steps": 100,
    }
    return resolve_rate("auto", **(settings | change))  # type: ignore[arg-type]


def test_given_rate_is_taken() -> None:
    assert auto(width=64) != 1e-3
    given = {"task_type": "causal-lm", "pretrained": False, "width": 64, "layers": 6, "global_batch": 8}
    assert resolve_rate(1e-3, **given, batch_tokens=512, steps=100) == 1e-3  # type: ignore[arg-type]


def test_auto_is_one_formula_from_scratch() -> None:
    assert auto(width=60) == pytest.approx(0.01)
    language, rows = auto(), auto(task_type="sequence-classification", global_batch=32)
    assert rows == pytest.approx(language / 4), "a batch of 32 targets, not of 512"
    assert auto(steps=800) == pytest.approx(language / 2)
    assert auto(steps=1) == auto(steps=40) > language
    pretrained = {"task_type": "sequence-classification", "pretrained": True, "width": 384, "global_batch": 32}
    assert auto(**pretrained, steps=800) == auto(**pretrained, steps=100) == pytest.approx(3e-4)


@pytest.mark.parametrize("task_type", ["causal-lm", "sequence-classification"])
@pytest.mark.parametrize("pretrained", [False, True])
def test_auto_falls_with_width(task_type: str, pretrained: bool) -> None:
    rates = [auto(task_type=task_type, pretrained=pretrained, width=width) for width in (64, 128, 768)]
    assert rates == sorted(rates, reverse=True)
    assert auto(task_type=task_type, pretrained=True) <= auto(task_type=task_type, pretrained=False)


def test_auto_rises_with_the_batch_up_to_a_limit() -> None:
    rates = [auto(global_batch=tokens // 64, batch_tokens=tokens) for tokens in (256, 512, 4096, 1 << 20)]
    assert rates[0] < rates[1] < rates[2] == rates[3]


def head(setting: str | float, task_type: str = "sequence-classification", *, pretrained: bool, layers: int) -> float:
    return resolve_head_factor(setting, task_type=task_type, pretrained=pretrained, layers=layers)


def test_only_a_new_head_on_a_pretrained_body_learns_faster() -> None:
    assert head("auto", pretrained=True, layers=6) > 1
    assert head("auto", pretrained=False, layers=6) == 1
    assert head("auto", "causal-lm", pretrained=True, layers=6) == 1
    assert head(1e-4, pretrained=True, layers=6) == 1


def test_adapters_learn_ten_times_faster_than_all_weights_up_to_a_limit() -> None:
    assert resolve_adapter_rate("auto", 2e-5) == pytest.approx(2e-4)
    assert resolve_adapter_rate("auto", 1e-3) == resolve_adapter_rate("auto", 5e-4) < 2e-3
    assert resolve_adapter_rate(3e-3, 3e-3) == 3e-3


def test_a_cut_body_learns_faster_and_its_head_no_faster() -> None:
    def body(layers: int) -> float:
        return auto(task_type="sequence-classification", pretrained=True, width=384, global_batch=32, layers=layers)

    assert body(1) > body(3) > body(6) > body(12)
    assert body(2) * head("auto", pretrained=True, layers=2) == pytest.approx(
        body(6) * head("auto", pretrained=True, layers=6)
    )
