"""Which devices count, and which addresses and builds of torch are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rayscale.errors import InputError, StudyError
from rayscale.plan.plan import make_plan
from rayscale.study.study import load_study
from rayscale.system import machine
from rayscale.system.machine import Machine, check_address, this_machine
from tests.unit.plan.test_plan import SUPPLY


@pytest.mark.parametrize(("visible", "slots"), [(None, 2), ("", 0), ("-1", 0), ("1", 1), ("0,1", 2)])
def test_an_empty_list_of_visible_gpus_means_none(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, slots: int
) -> None:
    monkeypatch.setattr(machine, "nvidia_gpus", lambda: ["a GPU", "a GPU"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = this_machine()
    assert (found.device, found.slots) == ("cuda", slots) if slots else found.device == "cpu"


def test_gpus_with_a_torch_for_cpus_alone_are_refused(monkeypatch: pytest.MonkeyPatch, study_file: Path) -> None:
    study = load_study(study_file)
    gpus = Machine("cuda", 2, "a GPU", "this machine")
    monkeypatch.setattr(machine, "version", lambda name: "2.13.0+cpu")
    with pytest.raises(StudyError, match=r"run.accelerator: this machine has 2 GPUs .*torch 2.13.0\+cpu .*; install"):
        make_plan(study, gpus, SUPPLY)
    make_plan(study, replace(gpus, origin="the cluster at 10.0.0.1:6379"), SUPPLY)
    monkeypatch.setattr(machine, "version", lambda name: "2.13.0+cu130")
    make_plan(study, gpus, SUPPLY)


def test_what_is_no_address_is_wrong_input() -> None:
    for address in ("local", "auto", "10.0.0.1:6379", "head.lan:6379", "[::1]:6379", "ray://head:10001"):
        check_address(address)
    for address in ("nonsense", "http://head:8265", "head:", "a b:1", ""):
        with pytest.raises(InputError, match="give local, auto or HOST:PORT"):
            check_address(address)
