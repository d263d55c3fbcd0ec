"""A run that trains: neither what a trial writes nor what it says when it fails holds a secret."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rayscale.nn.training import train
from rayscale.on_ray import run_study
from rayscale.study.study import load_study
from rayscale.text.preparation import Here, prepare
from rayscale.text.tokens.encode import TokenizerSpec
from tests.unit.conftest import STUDY
from tests.unit.system.test_redaction import CANARY, SECRETS, Sandbox, leaks


@pytest.mark.row
def test_a_run_of_this_process_keeps_the_secrets_of_a_trial_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that trains, and one whose exception quotes the environment: record, log, events, report and status."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    Sandbox(tmp_path)
    study_file = tmp_path / "work" / "study.yaml"
    study_file.write_text(
        STUDY.replace("accelerator: cpu", "accelerator: cpu, executor: inline")
        .replace("[20, 40, 80]", "[40]")
        .replace(", seeds: {20: 2}", "")
        .replace("1x32, 2x64", "1x32, 1x64")
    )
    home = study_file.parent
    study = load_study(study_file)
    prepare(study, [TokenizerSpec("trained", "bert", 512)], [0], Here())
    whole = train.train_trial

    def quoting(trial: object, *arguments: object, **more: object) -> object:
        if "1x64" in trial.model.name:
            told = ", ".join(f"{name}={os.environ[name]}" for name in SECRETS)
            raise RuntimeError(f"cannot reach https://me:{CANARY}@host/x?token={CANARY}: {told}")
        return whole(trial, *arguments, **more)

    monkeypatch.setattr(train, "train_trial", quoting)
    run = run_study(study_file, out=str(home / "run"))
    assert run is not None
    assert sorted(run.trials["status"]) == ["failed", "ok"]
    (error,) = run.trials["error"].dropna()
    assert error.startswith("RuntimeError: cannot reach https://***@host/x?token=*** HF_TOKEN=***, AWS")
    assert {path.name for path in (home / "run").iterdir()} >= {"curves", "logs", "models", "trials", "report.html"}
    assert leaks(home / "run") == []
    records = [json.loads(path.read_text()) for path in (home / "run" / "trials").iterdir()]
    kept = ["numpy", "peft", "pyarrow", "python", "ray", "rayscale", "tokenizers", "torch", "transformers"]
    assert {tuple(sorted(json.loads(record["row"]["versions"]))) for record in records} == {tuple(kept)}
