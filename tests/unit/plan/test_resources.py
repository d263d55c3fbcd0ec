"""Trials that share a GPU against its memory: what the plan and the doctor say, and the count that fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rayscale.cli import doctor
from rayscale.plan.plan import Plan, make_plan
from rayscale.plan.resources import CONTEXT_BYTES, crowd
from rayscale.study.study import load_study
from rayscale.system import machine
from rayscale.system.machine import Machine
from tests.unit.plan.test_plan import SUPPLY, edited

NAME = "a GPU of the test"


@pytest.fixture
def plan(study_file: Path) -> Plan:
    """That of four trials to a GPU of unknown memory."""
    shared = edited(study_file, "{accelerator: cpu}", "{accelerator: gpu, trials_per_gpu: 4}")
    return make_plan(load_study(shared), Machine("cuda", 4, NAME, "a cluster", 4), SUPPLY)


@pytest.mark.parametrize(
    ("room", "mend"),
    [
        (4.0, None),
        (3.99, "write run.trials_per_gpu: 3"),
        (1.0, "write run.trials_per_gpu: 1"),
        (0.99, "write run.trials_per_gpu: 1, and training.gradient_checkpointing: true, smaller models or lora"),
    ],
)
def test_a_plan_says_how_many_fit_the_memory_of_the_gpu(plan: Plan, room: float, mend: str | None) -> None:
    assert "little_gpu_memory" not in dict(plan.lint), "nothing is known of the memory"
    peak = max(each.peak_memory_bytes for each in plan.trials) + CONTEXT_BYTES
    memory = -int(-room * peak // 1)
    told = dict(make_plan(plan.study, replace(plan.machine, gpu_bytes=memory), SUPPLY).lint)
    if mend is None:
        assert "little_gpu_memory" not in told
    else:
        found, _, written = told["little_gpu_memory"].partition(": ")
        assert written.startswith(mend)
        needed, there = 4 * peak / 1e9, memory / 1e9
        assert found == (f"4 trials that share a GPU take up to {needed:.1f} GB by estimate, {NAME} has {there:.1f} GB")


def test_what_is_on_a_gpu_at_once_is_counted_and_no_more(plan: Plan) -> None:
    small = replace(plan.machine, gpu_bytes=10**9)
    assert crowd(plan.trials, replace(small, device="cpu")) is None
    assert crowd([], small) is None
    lone = crowd(plan.trials[:1], small)
    assert lone is not None
    assert lone[0].startswith("a trial takes up to ")


def test_the_doctor_finds_it_too(study_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edited(study_file, "{accelerator: cpu}", "{accelerator: gpu, trials_per_gpu: 4}")
    for memory, level in ((10**9, "warn"), (10**12, "ok")):
        there = Machine("cuda", 4, NAME, "a cluster", 4, memory)
        monkeypatch.setattr(doctor, "this_machine", lambda *wanted, there=there: there)
        found = {each.name: each for each in doctor._plan_and_storage(load_study(study_file), None)}
        assert found["GPU memory"].level == level
        assert found["GPU memory"].mend == ("write run.trials_per_gpu: 1" if level == "warn" else "")


@pytest.mark.parametrize(
    ("visible", "smallest"), [(None, 16_384), ("1", 81_559), ("1,0", 16_384), ("GPU-1f", 16_384), ("", 16_384)]
)
def test_the_memory_is_that_of_the_smallest_gpu_that_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, smallest: int
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.gpu_bytes() is None, "no driver"
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\n[ \"$1\" = --query-gpu=memory.total ] && printf '16384\\n81559\\n[N/A]\\n'\n")
    driver.chmod(0o755)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.gpu_bytes() == smallest * 2**20
