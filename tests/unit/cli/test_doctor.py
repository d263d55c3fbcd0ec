"""The doctor: every finding that can be made, from what it is made, and the command line's answer."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rayscale.cli.doctor import as_lines
from rayscale.system import doctor, doctor_devices
from rayscale.system.doctor import Finding
from rayscale.system.doctor_devices import Probe
from tests.unit.conftest import STUDY

LEAST = {"python": "3.11", "ray": "2.60", "torch": "2.6"}


def of(findings: Any) -> dict[str, tuple[str, str]]:
    """Level and text by name; what is not well has a mend."""
    found = [findings] if isinstance(findings, Finding) else list(findings)
    assert all(bool(each.mend) == (each.level != "ok") for each in found)
    return {each.name: (each.level, each.found) for each in found}


def test_versions_are_held_against_those_that_the_package_asks_for() -> None:
    found = of(doctor.judge_versions(LEAST, {"python": "3.12.1", "ray": "2.9.3", "torch": None}))
    assert found == {
        "versions": ("ok", "python 3.12.1"),
        "ray": ("fail", "2.9.3; 2.60 or later is needed"),
        "torch": ("fail", "not installed"),
    }
    assert doctor.numbers("2.13.0+cpu") == doctor.numbers("2.13") < doctor.numbers("2.100")
    least = doctor.wanted()
    declared = re.search(r"dependencies = \[(.*?)\]\n", Path("pyproject.toml").read_text(), flags=re.S)
    assert declared is not None
    assert set(least) - {"python"} == {name.lower() for name in re.findall(r'"([\w-]+)[\[>]', declared[1])}
    assert least["python"] == "3.11"


@pytest.mark.parametrize(
    ("cuda", "gpus", "driver", "level"),
    [
        (None, 0, None, "ok"), (None, 2, "570.1", "fail"), ("12.8", 0, None, "ok"), ("12.8", 1, "570.86.10", "ok"),
        ("12.8", 1, "520.61.05", "fail"), ("13.0", 1, "575.1", "fail"), ("14.0", 1, "1.0", "ok"),
        ("12.8", 1, None, "ok"),
    ],
)  # fmt: skip
def test_torch_must_suit_gpus_and_driver(cuda: str | None, gpus: int, driver: str | None, level: str) -> None:
    assert of(doctor.judge_torch(cuda, gpus, driver))["torch build"][0] == level


def test_the_build_of_torch_is_read_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('broken')")
    version = tmp_path / "torch" / "version.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    for line, cuda in (("cuda: Optional[str] = '12.8'", "12.8"), ("cuda = '11.8'", "11.8"), ("cuda = None", None)):
        version.write_text(f"debug = False\n{line}\nhip: Optional[str] = None\n")
        assert doctor.cuda_of_torch() == cuda


@pytest.mark.parametrize(
    ("environment", "name", "level"),
    [
        ({}, "threads", "ok"), ({"OMP_NUM_THREADS": "1"}, "threads", "ok"),
        ({"OMP_NUM_THREADS": "8"}, "threads", "warn"),
        ({"PYTHONDONTWRITEBYTECODE": "1"}, "compiled imports", "warn"),
        ({"RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA": "1"}, "data that runs code", "fail"),
        ({"RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR": "true"}, "data that runs code", "fail"),
    ],
)  # fmt: skip
def test_settings_of_the_environment(environment: dict[str, str], name: str, level: str) -> None:
    found = of(doctor.judge_settings(environment, 4))
    assert found[name][0] == level
    assert "RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR" not in str(of(doctor.judge_settings({}, 4)))


@pytest.mark.parametrize(
    ("wall", "drift", "level"),
    [(1.8e9, 0.0, "ok"), (1.8e9, -86400.0, "warn"), (0.0, 0.0, "fail"), (1e30, 0.0, "fail"), (8e9, 0.0, "fail")],
)
def test_a_clock_must_be_sane_and_steady(wall: float, drift: float, level: str) -> None:
    assert of(doctor.judge_clock(wall, drift, "UTC"))["clock"][0] == level


@pytest.mark.parametrize(
    ("environment", "mode", "level"),
    [
        ({}, None, "ok"), ({}, 0o600, "ok"), ({}, 0o644, "warn"), ({"RAY_AUTH_MODE": "disabled"}, 0o600, "warn"),
        ({"RAY_AUTH_MODE": "token"}, None, "fail"), ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "x"}, None, "ok"),
    ],
)  # fmt: skip
def test_token_auth(environment: dict[str, str], mode: int | None, level: str) -> None:
    assert of(doctor.judge_token(environment, mode))["auth"][0] == level


def test_a_token_whose_file_others_may_read_is_a_token_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "token"
    environment = {"RAY_AUTH_TOKEN_PATH": str(path)}
    assert not doctor.has_token_auth(environment)
    path.write_text("x")
    path.chmod(0o644)
    assert doctor.find_token(environment).level == "warn"
    assert doctor.has_token_auth(environment)
    assert not doctor.has_token_auth({**environment, "RAY_AUTH_MODE": "disabled"})


def test_ports_of_ray_open_to_others_need_a_token() -> None:
    assert of(doctor.judge_listening([22, 8265], token=False))["listening"][0] == "fail"
    assert of(doctor.judge_listening([22, 8265], token=True))["listening"][0] == "ok"
    assert "no port of Ray" in of(doctor.judge_listening([22], token=False))["listening"][1]


def test_ports_that_listen_on_loopback_are_not_open() -> None:
    head = "  sl  local_address rem_address   st\n"
    listens, connected = "00000000:0000 0A\n", "00000000:0000 01\n"
    four = head + f"0: 0100007F:2049 {listens}1: 00000000:18EB {listens}2: 00000000:1F90 {connected}"
    six = head + f"0: 00000000000000000000000001000000:2711 {listens}1: {'0' * 32}:2712 {listens}"
    mapped = head + f"0: 0000000000000000FFFF00000100007F:2713 {listens}"
    assert doctor.open_ports([four, six, mapped]) == [0x18EB, 0x2712]
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        one.listen()
        other.bind(("0.0.0.0", 0))
        other.listen()
        assert one.getsockname()[1] not in doctor.open_ports()
        assert other.getsockname()[1] in doctor.open_ports()


@pytest.mark.parametrize(
    ("missing", "offline", "reachable", "level"),
    [
        ([], True, False, "ok"),
        (["a/b"], True, True, "fail"),
        (["a/b"], False, False, "fail"),
        (["a"], False, True, "ok"),
    ],
)
def test_checkpoints_of_the_hub(missing: list[str], offline: bool, reachable: bool, level: str) -> None:
    assert of(doctor.judge_hub(missing, offline, "https://hub", reachable))["hub"][0] == level


def test_a_port_that_nobody_serves_is_not_reached() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert not doctor.reaches(f"http://127.0.0.1:{closed.getsockname()[1]}")
        closed.listen()
        assert doctor.reaches(f"http://127.0.0.1:{closed.getsockname()[1]}")


def test_devices() -> None:
    assert of(doctor_devices.judge_gpus(["A", "A"], None, True))["GPUs"] == ("ok", "2 (A)")
    assert of(doctor_devices.judge_gpus(["A"], "", True))["GPUs"][0] == "warn"
    assert of(doctor_devices.judge_gpus([], None, True))["GPUs"][0] == "fail"
    assert of(doctor_devices.judge_gpus([], None, False))["GPUs"][0] == "ok"
    small = of(doctor_devices.judge_memory(2e9, 64e6))
    assert (small["memory"][0], small["shared memory"][0]) == ("warn", "warn")
    assert {level for level, _ in of(doctor_devices.judge_memory(64e9, 30e9)).values()} == {"ok"}
    assert of(doctor_devices.judge_files(1024))["open files"][0] == "warn"


def test_a_probe_leaves_nothing_and_says_why_it_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor_devices.probe(tmp_path).error is None
    assert doctor_devices.probe(tmp_path / "none").error == "No such file or directory"
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert doctor_devices.probe(tmp_path).error == "No space left on device"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("done", "level"),
    [(Probe(0.01, 0), "ok"), (Probe(2.0, 0), "warn"), (Probe(0.01, -3600), "warn"), (Probe(0.1, 0, "full"), "fail")],
)
def test_storage_is_judged_by_its_probe(done: Probe, level: str) -> None:
    assert of(doctor_devices.judge_probe("storage", "/runs", done))["storage"][0] == level


def test_the_filesystem_is_that_of_the_nearest_mount() -> None:
    mounts = "a / ext4 rw 0 0\nb /data nfs4 rw 0 0\nc /data/fast\\040disk xfs rw 0 0\nd /dev/shm tmpfs rw 0 0\n"
    for place, kind in (("/home", "ext4"), ("/data/x", "nfs4"), ("/data/fast disk/y", "xfs"), ("/database", "ext4")):
        assert doctor_devices.filesystem_of(Path(place), mounts) == kind
    assert doctor_devices.filesystem_of(Path("/x"), "") == "unknown"
    levels = [doctor_devices.judge_filesystem("s", "/x", kind).level for kind in ("ext4", "tmpfs", "nfs4", "unknown")]
    assert levels == ["ok", "warn", "warn", "ok"]


@pytest.mark.parametrize(
    ("free", "needed", "level"),
    [(5e9, None, "ok"), (5e8, None, "warn"), (5e9, 1e9, "ok"), (5e9, 4e9, "warn"), (5e9, 6e9, "fail")],
)
def test_room_is_held_against_the_plan(free: float, needed: float | None, level: str) -> None:
    assert of(doctor_devices.judge_room("disk", "/runs", free, needed))["disk"][0] == level


def test_a_place_that_is_no_storage_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert of(doctor_devices.examine_storage("bogus://x"))["storage"][0] == "fail"
    assert of(doctor_devices.examine_storage(str(tmp_path / "not" / "yet")))["storage"][0] == "ok"
    assert of(doctor_devices.examine_storage(f"file://{tmp_path}/bucket"))["storage"][0] == "ok"
    assert {path.name for path in tmp_path.iterdir()} <= {"file", "bucket"}


def test_findings_hold_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "s3cr3t-value")
    told = Finding("x", "fail", "token s3cr3t-value", "use https://me:pw@host")
    assert told.to_json() == {"name": "x", "level": "fail", "found": "token ***", "mend": "use https://***@host"}
    assert as_lines([told]) == [
        "fail x: token ***", "     fix: use https://***@host", "1 finding: 1 fail, 0 warn."
    ]  # fmt: skip


def ask(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from rayscale.cli.verbs import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'ray', 'transformers'} & set(sys.modules)"
    )
    return subprocess.run(
        [sys.executable, "-c", code, "doctor", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip


def test_the_command_line_tells_findings_and_plan_and_leaves_no_file(study_file: Path) -> None:
    before = sorted(study_file.parent.rglob("*"))
    done = ask("study.yaml", "--json", cwd=study_file.parent)
    told = json.loads(done.stdout)
    assert set(told) == {"findings", "ok"}
    failed = [each for each in told["findings"] if each["level"] == "fail"]
    assert told["ok"] is (not failed)
    assert done.returncode == (1 if failed else 0), done.stderr
    assert all(set(each) == {"name", "level", "found", "mend"} for each in told["findings"])
    names = {each["name"]: each for each in told["findings"]}
    assert names["plan"]["found"] == "8 trials of toy fit this machine"
    assert "the plan takes" in names["disk"]["found"]
    assert {"versions", "torch build", "GPUs", "cores", "memory", "clock", "auth", "listening", "storage", "cache",
            "storage filesystem", "threads", "temporary files"} <= set(names)  # fmt: skip
    assert sorted(study_file.parent.rglob("*")) == before


def test_what_fails_is_exit_code_1_with_its_mend(study_file: Path) -> None:
    study_file.write_text(STUDY.replace("gpus: [1]", "gpus: [4096]"))
    done = ask("study.yaml", cwd=study_file.parent)
    assert done.returncode == 1, done.stdout
    assert "fail plan: study.yaml:7: grid.gpus: asks for 4096 GPUs a trial" in done.stdout
    assert "     fix: correct this" in done.stdout
    assert done.stderr.startswith("rayscale: ")
    wrong = ask("none.yaml", "--json", cwd=study_file.parent)
    assert wrong.returncode == 2
    assert "no such file" in json.loads(wrong.stdout)["error"]["message"]
