"""What `submit` does with the results of a job that ended, the cluster played by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rayscale.errors import ClusterError, InputError
from rayscale.on_ray import submit as module

STUDY = """
name: toy
task: {type: causal-lm}
data: {train: builtin}
models: [{family: gpt2, sizes: [1x32]}]
grid: {tokens: [30000]}
"""


@dataclass(frozen=True)
class Status:
    name: str

    def is_terminal(self) -> bool:
        return True

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Info:
    message: str
    driver_exit_code: int


class Cluster:
    """Answers as JobSubmissionClient does: the study's job fails, the job that packs its results does not."""

    def __init__(self, run: Path, code: int = 1, log: str = "no trial succeeded") -> None:
        self.run, self.code, self.log = run, code, log
        self.commands: list[str] = []

    def submit_job(self, *, entrypoint: str, runtime_env: dict[str, Any]) -> str:
        self.commands.append(entrypoint)
        return str(len(self.commands) - 1)

    def _packs(self, job: str) -> bool:
        return "rayscale.on_ray.submit" in self.commands[int(job)]

    def get_job_status(self, job: str) -> Status:
        return Status("SUCCEEDED" if self._packs(job) and self.run.exists() else "FAILED")

    def get_job_info(self, job: str) -> Info:
        code = 1 if self._packs(job) else self.code
        return Info(f"it exited with code {code}", code)

    def get_job_logs(self, job: str) -> str:
        return module.pack(self.run) if self._packs(job) else self.log


@pytest.mark.parametrize("begun", [True, False])
def test_results_of_a_failed_job_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    run, out, study = tmp_path / "run", tmp_path / "out", tmp_path / "study.yaml"
    study.write_text(STUDY)
    if begun:
        run.mkdir()
        (run / "plan.json").write_text("{}")
    monkeypatch.setattr(module, "_client", lambda address: Cluster(run))
    said: list[str] = []
    with pytest.raises(ClusterError, match="job 0 ended as FAILED"):
        module.submit(study, "http://head:8265", out, said.append)
    assert "  no trial succeeded" in said
    assert (out / "plan.json").exists() is begun


def test_a_study_that_the_cluster_refuses_is_wrong_input_here_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(STUDY)
    log = "Connecting ...\nrayscale: study.yaml:7: grid.gpus: 64 asked\nstudy.yaml:8: training.epoch: unknown key\n"
    monkeypatch.setattr(module, "_client", lambda address: Cluster(tmp_path / "run", 2, log))
    with pytest.raises(InputError, match=r"(?s)refused on the cluster.* 64 asked.*unknown key$") as refused:
        module.submit(study, "http://head:8265", tmp_path / "out", lambda text: None)
    assert refused.value.exit_code == 2


class Growing:
    """A job whose log is read at moments of our choosing; it ends with the last of them."""

    def __init__(self, *logs: str) -> None:
        self.logs, self.asked = logs, 0

    def get_job_status(self, job: str) -> Any:
        ended = self.asked + 1 == len(self.logs)
        return SimpleNamespace(is_terminal=lambda: ended)

    def get_job_logs(self, job: str) -> str:
        self.asked += 1
        return self.logs[self.asked - 1]


def test_a_line_is_shown_once_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []
    monkeypatch.setattr(module.time, "sleep", paused.append)
    logs = ("", "Starting Ray ...\ntraining: 3 of", *["Starting Ray ...\ntraining: 3 of 30\n\nRep"] * 5)
    said: list[str] = []
    module._follow(Growing(*logs, "Starting Ray ...\ntraining: 3 of 30\n\nReport: there"), "0", said.append)
    assert [line.strip() for line in said] == ["Starting Ray ...", "training: 3 of 30", "", "Report: there"]
    assert paused == [4.0, 2.0, 2.0, 4.0, 8.0, 15.0, 15.0]
