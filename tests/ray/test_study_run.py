"""A whole study on a local Ray: records, resume, Tune's own result, failures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ray.tune import ExperimentAnalysis
from safetensors.numpy import save_file

import rayscale as rs
from rayscale.on_ray import run_study
from rayscale.on_ray.session.session import Session
from rayscale.runs.ledger import COLUMNS
from rayscale.runs.status import read_status
from rayscale.study.study import load_study
from rayscale.system.machine import physical_cores
from rayscale.text.preparation import Here, prepare
from rayscale.text.tokens.encode import TokenizerSpec
from tests.ray.conftest import STUDY, write_study

SPEC = TokenizerSpec("trained", "bert", 400)
pytestmark = pytest.mark.skipif(physical_cores() < 2, reason="the study wants two worker slots")


def test_a_study_runs_to_a_report_resumes_and_is_read_by_tune_and_pandas(tmp_path: Path) -> None:
    study, out = write_study(tmp_path), tmp_path / "run"
    run = run_study(study, out=str(out))
    assert run is not None
    trials = run.trials
    assert list(trials.columns) == list(COLUMNS)
    assert set(trials.status) == {"ok"}
    assert len(trials) == 12
    assert trials.exclusive[trials.gpus == 2].all()
    assert trials.eval_loss.notna().all()
    assert trials.f1_macro.between(0, 1).all()
    pd.testing.assert_frame_equal(pd.read_parquet(out / "trials.parquet"), trials)
    assert json.loads((out / "fit.json").read_text())["verdict"]["sentences"]
    assert "<html" in (out / "report.html").read_text()
    assert len(run.curves(trials.trial_id[0])) > 0
    assert read_status(run)["done"] == 12

    analysis = ExperimentAnalysis(str(out / "tune"))
    frame = analysis.dataframe()
    assert set(frame["config/rayscale_trial_id"]) == set(trials.trial_id)
    by_id = trials.set_index("trial_id").eval_loss
    assert all(by_id[row["rayscale_trial_id"]] == row["eval_loss"] for _, row in frame.iterrows())
    points = {config["rayscale_trial_id"]: len(analysis.trial_dataframes[folder])
              for folder, config in analysis.get_all_configs().items()}  # fmt: skip
    assert points == {name: len(run.curves(name)) + 1 for name in trials.trial_id}

    # Deleted records are the only ones run again, with the same numbers where rows come from Ray's object store
    # instead of a memory map; Tune's folder holds all cells afterwards.
    lost = trials.trial_id[(trials.model == "bert-1x32") & trials.data_requested.isin([40, 160])]
    assert set(trials.gpus[lost.index]) == {1, 2}
    for trial_id in lost:
        (out / "trials" / f"{trial_id}.json").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in (out / "trials").iterdir()}
    study.write_text(study.read_text().replace("train: rows.csv", "train: rows.csv, reader: stream"))
    again = run_study(study, out=str(out))
    assert again is not None
    after = {path.name: path.stat().st_mtime_ns for path in (out / "trials").iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {f"{trial_id}.json" for trial_id in lost}
    same = ["trial_id", "gpus", "status", "steps", "train_loss", "validation_loss", "eval_loss", "accuracy", "tokens"]
    pd.testing.assert_frame_equal(again.trials[same], trials[same])
    assert again.trials.attempts.max() == 1
    assert len(ExperimentAnalysis(str(out / "tune")).dataframe()) == 12
    kept = [path.name for path in (out / "models").iterdir()]
    assert len(kept) == 1

    loaded = rs.load(out)
    assert loaded.trials.validation_loss.min() == loaded.trials.set_index("trial_id").validation_loss[kept[0]]


def test_a_trial_that_raises_is_a_failed_record_and_the_others_go_on(
    tmp_path: Path, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "cache"))
    # A checkpoint without most of its weights: that cell fails, the ladder goes on.
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text(json.dumps({
        "model_type": "bert", "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 1,
        "intermediate_size": 64, "vocab_size": 400, "max_position_embeddings": 64,
    }))  # fmt: skip
    save_file({"bert.embeddings.word_embeddings.weight": np.zeros((400, 16), np.float32)}, broken / "model.safetensors")
    study = write_study(tmp_path, STUDY.replace("gpus: [1, 2]", "gpus: [1]").replace("[40, 80, 160]", "[40, 80]"))
    tokenizer = prepare(load_study(study), [SPEC], [0], Here())[SPEC.name].tokenizer_folder
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (broken / name).write_bytes((tokenizer / name).read_bytes())
    text = study.read_text().replace("models:\n", f"models:\n  - {{pretrained: {broken}}}\n")
    study.write_text(text)
    run = run_study(study, out=str(tmp_path / "run"))
    assert run is not None
    trials = run.trials
    assert set(trials.status[trials.model == "broken"]) == {"failed"}
    assert set(trials.status[trials.model != "broken"]) == {"ok"}
    assert trials.error[trials.model == "broken"].str.contains("lacks .* weights").all()
    for trial_id in trials.trial_id[trials.status == "failed"]:
        assert "Traceback" in (tmp_path / "run" / "logs" / f"{trial_id}.log").read_text()

    # A resume over failed records goes on too, and leaves them as they are; --retry-failed alone runs them again.
    (tmp_path / "run" / "trials" / f"{trials.trial_id[trials.status == 'ok'].iloc[0]}.json").unlink()
    again = run_study(study, out=str(tmp_path / "run"))
    assert again is not None
    pd.testing.assert_series_equal(again.trials.status, trials.status)
    failed = trials.status == "failed"
    pd.testing.assert_series_equal(again.trials.ended_at[failed], trials.ended_at[failed])
    assert (trials.device_seconds[failed] > 0).all()
