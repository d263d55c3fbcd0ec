"""What `submit` does with the results of a job that ended, the cluster played by hand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rayscale.errors import ClusterError, InputError
from rayscale.on_ray import submission as module
from rayscale.study.study import load_study

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
        self.jobs: list[Any] = []

    def submit_job(
        self, *, entrypoint: str, runtime_env: dict[str, Any], metadata: dict[str, str] | None = None,
        submission_id: str | None = None,
    ) -> str:  # fmt: skip
        self.commands.append(entrypoint)
        return str(len(self.commands) - 1)

    def list_jobs(self) -> list[Any]:
        return self.jobs

    def _packs(self, job: str) -> bool:
        return "rayscale.on_ray.submission" in self.commands[int(job)]

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
    log = "rayscale: /t/sent/study.yaml:7: grid.gpus: 64 asked\n/t/sent/study.yaml:8: training.epoch: no\n"
    cluster = Cluster(tmp_path / "run", 2, log)
    monkeypatch.setattr(module, "_client", lambda address: cluster)
    with pytest.raises(InputError) as refused:
        module.submit(study, "http://head:8265", tmp_path / "out", lambda text: None)
    assert refused.value.exit_code == 2
    assert refused.value.message == (
        f"refused on the cluster: {study}:7: grid.gpus: 64 asked\n{study}:8: training.epoch: no"
    )
    assert len(cluster.commands) == 1  # nothing is fetched of a run that never began


def test_a_job_that_runs_the_study_already_is_followed_and_another_version_of_it_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(STUDY)
    files, place = module.gather(study), module.remote_place(load_study(study))
    asked = module.Submission(study, "http://head:8265", files, place, ("--retry-failed",))
    running = SimpleNamespace(submission_id="0", metadata=asked.metadata, status=SimpleNamespace(is_terminal=bool))
    cluster = Cluster(tmp_path / "run")
    cluster.jobs, cluster.commands = [running], ["the study"]
    monkeypatch.setattr(module, "_client", lambda address: cluster)
    with pytest.raises(InputError, match=r"job 0 runs .* with another version of the study, its files or the options"):
        module.submit(study, "http://head:8265", tmp_path / "out", lambda text: None)
    said: list[str] = []
    with pytest.raises(ClusterError, match="job 0 ended as FAILED"):
        module.submit(study, "http://head:8265", tmp_path / "out", said.append, options=["--retry-failed"])
    assert said[0] == "Job 0 runs this study already; its log follows."
    other = tmp_path / "other.yaml"
    other.write_text(STUDY.replace("toy", "other"))
    with pytest.raises(InputError, match="job 0 runs already, and not this study"):
        module.submit(other, "http://head:8265", tmp_path / "out", said.append, name="0")


def test_the_folder_there_tells_studies_of_one_name_apart_and_keeps_one_that_grows(tmp_path: Path) -> None:
    rows, study = tmp_path / "rows.csv", tmp_path / "study.yaml"
    rows.write_text("text,label\na,b\n")
    text = STUDY.replace("causal-lm", "sequence-classification").replace("builtin", "rows.csv")
    text = text.replace("family: gpt2", "family: bert").replace("tokens: [30000]", "examples: [10]")
    places = []
    for content, data in [(text, "a,b"), (text.replace("[10]", "[10, 20]"), "a,b"), (text, "c,d")]:
        study.write_text(content)
        rows.write_text(f"text,label\n{data}\n")
        places.append(module.remote_place(load_study(study)))
    assert places[0] == places[1] != places[2]
    for storage, place in {
        "/mnt/r": "/mnt/r/toy",
        "s3://b/r/": "s3://b/r/toy",
        "~/mine": "mine/toy",
        "~/": "toy",
    }.items():
        study.write_text(f"{text}run: {{storage: '{storage}'}}\n")
        assert module.remote_place(load_study(study)) == place


def test_paths_of_results_there_become_those_here(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(STUDY)
    asked = module.Submission(study, "http://h:1", module.gather(study), "rayscale-runs/toy-01234567")
    here = partial(asked.translate, out=Path("runs/toy"))
    assert here("Report: /home/ray/rayscale-runs/toy-01234567/report.html") == "Report: runs/toy/report.html"
    assert here("in /home/ray/rayscale-runs/toy-01234567.") == "in runs/toy."
    assert here("/home/ray/rayscale-runs/toy-01234567890") == "/home/ray/rayscale-runs/toy-01234567890"


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
