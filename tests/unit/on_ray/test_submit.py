"""What `submit` does with the results of a job that ended, the cluster played by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rayscale.errors import ClusterError
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
    message: str = "it exited with code 1"


class Cluster:
    """Answers as JobSubmissionClient does: the study's job fails, the job that packs its results does not."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.commands: list[str] = []

    def submit_job(self, *, entrypoint: str, runtime_env: dict[str, Any]) -> str:
        self.commands.append(entrypoint)
        return str(len(self.commands) - 1)

    def _packs(self, job: str) -> bool:
        return "rayscale.on_ray.submit" in self.commands[int(job)]

    def get_job_status(self, job: str) -> Status:
        return Status("SUCCEEDED" if self._packs(job) and self.run.exists() else "FAILED")

    def get_job_info(self, job: str) -> Info:
        return Info()

    def get_job_logs(self, job: str) -> str:
        return module.pack(self.run) if self._packs(job) else "no trial succeeded"


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
