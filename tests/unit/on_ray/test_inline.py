"""Inline runs, with training played by hand: a trial that raises is a record, and a traceback with --only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from rayscale.cli.verbs import main
from rayscale.errors import InputError, RayscaleError, TrialError
from rayscale.on_ray import driver as study_run
from rayscale.on_ray import run_study
from rayscale.plan.observer import Silent
from rayscale.runs.folder import Run, load
from rayscale.runs.status import read_status
from rayscale.study.study import load_study
from tests.unit.study.test_checkpoints import LADDER, checkpoint


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that were trained, in order. A bert-1x32 trains; a bert-2x64 raises."""
    seen: list[str] = []

    def train_trial(trial: Any, prepared: Any, **more: Any) -> dict[str, Any]:
        seen.append(trial.model.name)
        if trial.model.name == "bert-2x64":
            raise TrialError("the weights are gone") if trial.seed == 0 else ValueError("shapes differ")
        return {
            "status": "ok", "eval_loss": 1 + trial.seed / 10, "validation_loss": 1.0, "params": 5, "train_seconds": 1.0,
            "eval_seconds": 0.5, "examples": trial.data_requested, "curve": [{"step": 1, "train_loss": 1.0}],
        }  # fmt: skip

    module = ModuleType("rayscale.nn.training.train")
    module.train_trial = train_trial  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rayscale.nn.training.train", module)

    def prepare_here(driver: Any) -> bool:
        splits = {"train": {"rows": 109, "longest": 32, "truncated_rows": 1}, "test": {"rows": 9, "longest": 20}}
        manifest = {"max_length": 32, "splits": splits}
        text = SimpleNamespace(subset=lambda *asked: range(asked[1]), path=Path("nowhere"), manifest=manifest)
        driver.prepared = {study_run.spec_of(p.trial.model).name: text for p in driver.pending}
        return True

    monkeypatch.setattr(study_run._Driver, "prepare_here", prepare_here)
    monkeypatch.setattr("rayscale.plan.draft.write_plan", lambda *given: None, raising=False)
    monkeypatch.setattr(study_run, "write_plan", lambda *given: None, raising=False)
    return seen


@pytest.fixture
def inline(study_file: Path) -> Path:
    text = study_file.read_text().replace("accelerator: cpu", "accelerator: cpu, executor: inline, keep: none")
    study_file.write_text(text)
    return study_file


def test_a_trial_that_raises_is_a_failed_record_and_the_others_go_on(
    inline: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Silent, "say", lambda _, text: said.append(text))
    run = run_study(inline, out=str(inline.parent / "run"))
    assert "bert-512: 1 of 109 training rows is longer than 32 tokens and cut." in said
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
    for positions, said in (
        (31, "the longest text has 32 tokens, .*small reads 31; set task.max_length to 31"),
        (32, ""),
    ):
        (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": positions}))
        if said:
            with pytest.raises(InputError, match=rf"study.yaml:2: task.max_length: {said}"):
                run_study(inline, out=str(inline.parent / "run"))
            assert trained == []
        else:
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
    told = capsys.readouterr().err
    assert ended.value.code == 1
    assert "Traceback" in told
    assert "in train_trial" in told
    assert told.rstrip().endswith("rayscale: the weights are gone")

    monkeypatch.setattr(sys, "argv", [*words[:-1], "no-such-trial"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_an_unknown_executor_is_refused_before_anything_is_read() -> None:
    with pytest.raises(InputError, match="found 'foo'; use one of: lanes, isolated, inline"):
        run_study("nowhere.yaml", executor="foo")
    assert not RayscaleError("x").show_traceback


def test_small_text_is_prepared_here_without_ray(inline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: dict[str, int] = {}
    monkeypatch.setenv("RAYSCALE_CACHE", str(inline.parent / "cache"))

    def train_trial(trial: Any, prepared: Any, **how: Any) -> dict[str, Any]:
        rows[trial.trial_id] = len(prepared.split("train").lengths)
        return {"status": "ok", "eval_loss": 1.0, "validation_loss": 1.0, "params": 5, "train_seconds": 1.0,
                "eval_seconds": 0.5, "examples": trial.data_requested, "curve": []}  # fmt: skip

    module = ModuleType("rayscale.nn.training.train")
    module.train_trial = train_trial  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rayscale.nn.training.train", module)
    monkeypatch.setattr(study_run._Driver, "connect", lambda *given: pytest.fail("Ray was started"))
    run = run_study(inline, out=str(inline.parent / "run"))
    assert run is not None
    assert set(run.trials["status"]) == {"ok"}
    assert len(rows) == 8
    assert min(rows.values()) > 50
    assert repr(run) == f"<Run {run.folder}: 8 trials recorded>"
    study = load_study(inline)
    assert study_run._is_small(study)
    monkeypatch.setattr(study_run, "SMALL_BYTES", 1000)
    assert not study_run._is_small(study)


def test_an_inline_run_does_not_even_import_ray() -> None:
    code = (
        "import sys, rayscale.on_ray.driver, rayscale.on_ray.inline\n"
        "import rayscale.on_ray.data.prepare, rayscale.on_ray.data.parcels\n"
        "assert 'ray' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
