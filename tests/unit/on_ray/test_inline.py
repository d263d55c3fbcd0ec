"""Inline runs, with training played by hand: a trial that raises is a record, and a traceback with --only."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rayscale.cli.verbs import main
from rayscale.errors import InputError, RayscaleError, TrialError
from rayscale.on_ray import driver, run_study
from rayscale.on_ray.session import session
from rayscale.plan.observer import Observer
from rayscale.runs.folder import Run, load
from rayscale.runs.status import read_status
from rayscale.runs.trial import Trial
from tests.unit.study.test_checkpoints import LADDER, checkpoint

LONG = 20  # words
Train = Callable[..., dict[str, Any]]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Train], None]:
    """Let this function train all trials; torch is not imported."""

    def put(train_trial: Train) -> None:
        module = ModuleType("rayscale.nn.training.train")
        module.train_trial = train_trial  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "rayscale.nn.training.train", module)

    return put


def result(trial: Trial) -> dict[str, Any]:
    return {
        "status": "ok", "eval_loss": 1 + trial.seed / 10, "validation_loss": 1.0, "params": 5, "train_seconds": 1.0,
        "eval_seconds": 0.5, "examples": trial.data_requested, "curve": [{"step": 1, "train_loss": 1.0}],
    }  # fmt: skip


@pytest.fixture
def trained(play: Callable[[Train], None]) -> list[str]:
    """The models that were trained, in order. A bert-1x32 trains; a bert-2x64 raises."""
    names: list[str] = []

    def train_trial(trial: Trial, prepared: Any, **more: Any) -> dict[str, Any]:
        names.append(trial.model.name)
        if trial.model.name == "bert-2x64":
            raise TrialError("the weights are gone") if trial.seed == 0 else ValueError("shapes differ")
        return result(trial)

    play(train_trial)
    return names


@pytest.fixture
def inline(study_file: Path) -> Path:
    """A study of one process, one of whose texts is longer than the 32 tokens that are read."""
    text = study_file.read_text().replace("accelerator: cpu", "accelerator: cpu, executor: inline, keep: none")
    study_file.write_text(text.replace("label: label}", "label: label, max_length: 32}"))
    with open(study_file.parent / "rows.csv", "a") as rows:
        rows.write(f"{' '.join(f'cat number {i}' for i in range(LONG))},cat\n")
    return study_file


def test_a_trial_that_raises_is_a_failed_record_and_the_others_go_on(
    inline: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(Observer, "say", lambda _, text: notes.append(text))
    run = run_study(inline, out=str(inline.parent / "run"))
    assert any(re.match(r"bert-512: 1 of \d+ training rows is longer than 32 tokens", note) for note in notes)
    assert isinstance(run, Run)
    trials = run.trials
    assert len(trials) == len(trained) == 8
    assert set(trials.status[trials.model == "bert-1x32"]) == {"ok"}
    failed = trials[trials.model == "bert-2x64"]
    assert set(failed.status) == {"failed"}
    assert set(failed.error) == {"the weights are gone", "ValueError: shapes differ"}
    assert (failed.device_seconds >= 0).all()
    for trial_id in failed.trial_id:
        assert "Traceback" in run.store.read(f"logs/{trial_id}.log").decode()
    assert (read_status(run)["ok"], read_status(run)["failed"]) == (4, 4)

    # As with every executor: what failed is left as it is, and run again only when asked.
    trained.clear()
    run_study(inline, out=str(inline.parent / "run"))
    assert trained == []
    run_study(inline, out=str(inline.parent / "run"), retry_failed=True)
    assert trained == ["bert-2x64"] * 4


def test_texts_longer_than_a_checkpoint_reads_are_refused_before_the_first_trial(
    inline: Path, trained: list[str]
) -> None:
    folder = checkpoint(inline.parent / "small")
    inline.write_text(inline.read_text().replace(LADDER, "{pretrained: small}"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 31}))
    reason = "the longest text has 32 tokens, .*small reads 31; set it to 31 or less"
    with pytest.raises(InputError, match=rf"study.yaml:2: task.max_length: {reason}"):
        run_study(inline, out=str(inline.parent / "run"))
    assert trained == []
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 32}))
    assert run_study(inline, out=str(inline.parent / "other"))
    assert set(trained) == {"small"}


def test_with_only_the_exception_passes_and_leaves_no_record(inline: Path, trained: list[str]) -> None:
    run = run_study(inline, out=str(inline.parent / "run"))
    assert run is not None
    failed = run.trials[run.trials.status == "failed"]
    for message, kind in (("the weights are gone", TrialError), ("shapes differ", ValueError)):
        trial_id = failed.trial_id[failed.error.str.contains(message)].iloc[0]
        other = inline.parent / f"only-{kind.__name__}"
        with pytest.raises(kind, match=message):
            run_study(inline, out=str(other), only=trial_id)
        assert load(other).records == []


def test_the_command_line_prints_the_traceback_of_the_one_trial(
    inline: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_study(inline, out=str(inline.parent / "run"))
    assert run is not None
    trial_id = run.trials.trial_id[run.trials.error == "the weights are gone"].iloc[0]
    words = ["rayscale", "run", str(inline), "--out", str(inline.parent / "other"), "--yes", "--only", trial_id]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr().err
    assert ended.value.code == 1
    assert "Traceback" in shown
    assert "in train_trial" in shown
    assert shown.rstrip().endswith("rayscale: the weights are gone")

    monkeypatch.setattr(sys, "argv", [*words[:-1], "no-such-trial"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_an_unknown_executor_is_refused_before_anything_is_read() -> None:
    with pytest.raises(InputError, match="found 'foo'; use one of: lanes, isolated, inline"):
        run_study("nowhere.yaml", executor="foo")
    assert not RayscaleError("x").show_traceback


def test_small_text_is_prepared_here_without_ray(
    inline: Path, play: Callable[[Train], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: dict[str, int] = {}
    monkeypatch.setenv("RAYSCALE_CACHE", str(inline.parent / "cache"))

    def train_trial(trial: Trial, prepared: Any, **more: Any) -> dict[str, Any]:
        rows[trial.trial_id] = len(prepared.split("train").lengths)
        return result(trial)

    def connect(*given: Any, **more: Any) -> Any:
        raise RuntimeError("Ray is started")

    play(train_trial)
    monkeypatch.setattr(session, "connect", connect)
    run = run_study(inline, out=str(inline.parent / "run"))
    assert run is not None
    assert set(run.trials["status"]) == {"ok"}
    assert len(rows) == 8
    assert min(rows.values()) > 50
    assert repr(run) == f"<Run {run.folder}: 8 trials recorded>"
    monkeypatch.setenv("RAYSCALE_CACHE", str(inline.parent / "empty"))
    monkeypatch.setattr(driver, "SMALL_BYTES", 1000)
    with pytest.raises(RuntimeError, match="Ray is started"):
        run_study(inline, out=str(inline.parent / "other"))


def test_an_inline_run_does_not_even_import_ray() -> None:
    code = (
        "import sys, rayscale.on_ray.driver, rayscale.on_ray.inline\n"
        "import rayscale.on_ray.data.prepare, rayscale.on_ray.data.parcels\n"
        "assert 'ray' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
