"""The command line: exit codes, one JSON object on stdout, and what it must not import."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rayscale.plan.draft import draft_plan
from rayscale.runs.ledger import Ledger, make_record
from rayscale.study.study import load_study
from rayscale.system.machine import nvidia_gpus, this_machine
from rayscale.system.storage import Store
from tests.unit import made_study
from tests.unit.conftest import STUDY

PLANTED = "chinchilla:A=20,B=30,E=0.8,alpha=0.3,beta=0.35"


def rayscale(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rayscale", *arguments], cwd=cwd, capture_output=True, text=True, timeout=300,
        env={**os.environ, "COLUMNS": "100"},
    )  # fmt: skip


def answer(*arguments: str, cwd: Path, code: int = 0) -> dict[str, Any]:
    done = rayscale(*arguments, "--json", cwd=cwd)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)  # one object and nothing else


def test_plan_imports_neither_torch_nor_ray(study_file: Path) -> None:
    code = (
        "import sys; sys.argv = ['rayscale', 'plan', 'study.yaml']\n"
        "from rayscale.cli.verbs import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "heavy = {'torch', 'ray', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=study_file.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_locale_of_ascii_reads_names_and_texts_of_any_script(study_file: Path) -> None:
    (study_file.parent / "rows.csv").rename(study_file.parent / "文本.csv")
    text = study_file.read_text(encoding="utf-8").replace("rows.csv", "文本.csv")
    (study_file.parent / "研究.yaml").write_text(text, encoding="utf-8")
    env = {**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    env.pop("PYTHONIOENCODING", None)
    told = [sys.executable, "-m", "rayscale", "plan", "研究.yaml"]
    done = subprocess.run(told, cwd=study_file.parent, capture_output=True, env=env)
    assert done.returncode == 0, done.stderr
    assert "bert-1x32" in done.stdout.decode("ascii")
    (study_file.parent / "文本.csv").unlink()
    done = subprocess.run(told, cwd=study_file.parent, capture_output=True, env=env)
    assert done.returncode == 2
    assert "\\u6587\\u672c.csv" in done.stderr.decode("ascii")


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "rayscale", "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"rayscale {importlib.metadata.version('rayscale')}\n")


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['rayscale', '--help']\n"
        "from rayscale.cli.verbs import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'pandas', 'scipy', 'numpy', 'pydantic', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "submit" in done.stdout


def test_a_study_from_init_to_predict_with_json_on_every_verb(study_file: Path) -> None:
    home = study_file.parent
    made = answer("init", "--data", "rows.csv", "--out", "mine.yaml", cwd=home)
    assert made == {"study": "mine.yaml", "task": "sequence-classification", "text": "text", "label": "label"}
    again = answer("init", "--data", "rows.csv", "--out", "mine.yaml", cwd=home, code=2)
    assert "exists" in again["error"]["message"]
    plan = answer("plan", "study.yaml", cwd=home)
    assert plan["total"]["trials"] == len(plan["trials"]) == 8
    assert set(plan["trials"][0]) >= {
        "trial_id", "model", "params", "data_requested", "gpus", "seed", "seconds", "gpu_seconds", "peak_memory_bytes",
        "basis",
    }  # fmt: skip
    assert set(plan) >= {"trials", "cut", "total", "lint"}
    run = answer("run", "study.yaml", "--simulate", PLANTED, "--yes", "--out", "run", cwd=home)
    assert (run["done"], run["failed"], run["waiting"]) == (8, 0, 0)
    assert run["verdict"]["sentences"]
    seen = answer("status", "run", cwd=home)
    assert set(seen) >= {"done", "failed", "running", "waiting", "eta_seconds", "gpu_hours", "last_error"}
    told = answer("predict", "run", "--params", "2e5", "--data", "200", cwd=home)
    assert told["low"] < told["predicted"] < told["high"]
    assert told["extrapolation"] > 1
    assert Path(answer("report", "run", cwd=home)["report"]).is_file()
    assert {each["name"] for each in answer("plugins", cwd=home)["plugins"]} >= {"chinchilla", "csv"}
    real = answer("run", "study.yaml", "--out", "run", "--yes", cwd=home, code=2)
    assert "simulated" in real["error"]["message"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epochs: 1", "epoch: 1", "study.yaml:8: training.epoch: unknown key; did you mean 'epochs'?"),
        ("label: label", "label: lable", "study.yaml:2: task.label: "),
        ("label: label", "label: text", "study.yaml:2: task.label: column 'text' has"),
        ("rows.csv", "row.csv", "study.yaml:4: data.train: no such file"),
        ("gpus: [1]", "gpus: [64]", "study.yaml:7: grid.gpus: asks for 64 GPUs"),
        ("[20, 40, 80]", "[20, 40, 8000]", "study.yaml:7: grid.examples: asks for 8000 examples"),
        ("examples: [20, 40, 80]", "examples: []", "study.yaml:7: grid.examples: found []; give at least one"),
        ("accelerator: cpu", "accelerator: gpu", "study.yaml:9: run.accelerator"),
    ],
)
def test_wrong_studies_are_refused_in_one_message_before_ray_starts(
    study_file: Path, old: str, new: str, said: str
) -> None:
    if "accelerator" in new and nvidia_gpus():
        pytest.skip("this machine has a GPU")
    study_file.write_text(STUDY.replace(old, new))
    done = rayscale("run", "study.yaml", "--yes", cwd=study_file.parent)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (study_file.parent / "runs" / "toy" / "plan.json").exists()
    error = answer("run", "study.yaml", "--yes", cwd=study_file.parent, code=2)["error"]
    assert set(error) == {"code", "message", "where"}


def test_a_table_from_fit_to_predict_with_one_json_object_each(tmp_path: Path) -> None:
    table = "\n".join(f"{n},{d},{2 + 300 * n**-0.4 + 900 * d**-0.4}" for n in (1e6, 1e7, 1e8) for d in (1e7, 1e8, 1e9))
    (tmp_path / "runs.csv").write_text(f"N,D,loss\n{table}\n")
    columns = ("--law", "chinchilla", "--params", "N", "--data", "D", "--target", "loss", "--bootstrap", "20")
    held = ("--holdout", "D >= 1e9", "--predictions", "held.csv")
    fit = answer("fit", "runs.csv", *columns, "--out", "fit.json", cwd=tmp_path)
    assert fit["outcome"] in ("converged", "flat", "at_bound")
    assert "draws" not in fit["estimate"]
    assert len(answer("fit", "runs.csv", *columns, "--draws", cwd=tmp_path)["estimate"]["draws"]) == 20
    told = answer("predict", "fit.json", "--params", "10M", "--data", "1e8", cwd=tmp_path)
    assert told["predicted"] == pytest.approx(2 + 300 * 1e7**-0.4 + 900 * 1e8**-0.4, rel=1e-3)
    plain = rayscale("fit", "runs.csv", *columns, *held, cwd=tmp_path)
    assert plain.returncode == 0, plain.stderr
    assert "Held out: 3 rows" in plain.stdout
    assert (tmp_path / "held.csv").read_text().startswith("N,D,loss,predicted,low,high,mean_low,mean_high")
    refused = answer("fit", "runs.csv", *columns, "--where", "N < 1e7", cwd=tmp_path, code=2)
    assert (refused["outcome"], refused["error"]["code"]) == ("not_identifiable", "not_identifiable")
    wrong = answer("fit", "runs.csv", *columns, "--where", "n > 1", cwd=tmp_path, code=2)
    assert wrong["error"]["where"] == "runs.csv: --where"


def test_recommend_and_compare_read_run_folders(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 1)):
        made_study.write_run(tmp_path / name, made_study.trials(seed, models=("tiny", "base")))
    asked = ("recommend", "one", "--target", "f1_macro>=0.85", "--law", "logit_chinchilla")
    found = answer(*asked, "--budget", "20gpuh", cwd=tmp_path)
    assert set(found) >= {"predicted", "low", "high", "extrapolation", "allocation", "gpu_hours", "probability"}
    assert found["low"] < found["predicted"] < found["high"]
    assert rayscale(*asked, cwd=tmp_path).stdout.startswith("Cheapest for f1_macro")
    wrong = answer("recommend", "one", "--target", "f1>0.9", cwd=tmp_path, code=2)
    assert "did you mean 'f1_macro'" in wrong["error"]["message"]
    assert answer("compare", "one", "two", cwd=tmp_path)["pairs"] == 30
    assert "over 30 pairs" in rayscale("compare", "one", "two", cwd=tmp_path).stdout


def finished(study_file: Path, *statuses: str) -> Path:
    """A run folder in which every trial has a record already, the first ones of these statuses."""
    store = Store.open(study_file.parent / "run")
    plan = draft_plan(load_study(study_file), this_machine("cpu"), store)
    for number, each in enumerate(plan.trials):
        status = statuses[number] if number < len(statuses) else statuses[-1]
        loss = 1 + number / 10 if status == "ok" else None
        Ledger(store).write(
            make_record(
                each.trial, status=status, params=each.params, eval_loss=loss, examples=each.trial.data_requested,
                error=None if status == "ok" else "the training loss is nan", ended_at="2026-01-01",
            )
        )  # fmt: skip
    return study_file.parent / "run"


def test_a_run_in_which_no_trial_is_ok_exits_1(study_file: Path) -> None:
    finished(study_file, "diverged", "failed", "diverged")
    asked = ("run", "study.yaml", "--out", "run", "--yes")
    plain = rayscale(*asked, cwd=study_file.parent)
    assert plain.returncode == 1
    assert "Of 8 trials 1 failed, 7 diverged; the last error: the training loss is nan" in plain.stdout
    error = answer(*asked, cwd=study_file.parent, code=1)["error"]
    assert error["code"] == "no_trial_ok"
    assert "no trial succeeded (1 failed, 7 diverged)" in error["message"]


def test_a_run_in_which_one_trial_is_ok_exits_0_and_says_how_many_diverged(study_file: Path) -> None:
    finished(study_file, "ok", "diverged")
    seen = answer("run", "study.yaml", "--out", "run", "--yes", cwd=study_file.parent)
    assert (seen["done"], seen["ok"], seen["diverged"], seen["failed"]) == (8, 1, 7, 0)
    plain = rayscale("status", "run", cwd=study_file.parent)
    assert "8 of 8 trials done (7 of them diverged), 0 failed" in plain.stdout


def test_broken_run_folders_are_refused_with_the_file(study_file: Path) -> None:
    folder = finished(study_file, "ok")
    home = study_file.parent
    assert rayscale("run", "study.yaml", "--out", "run", "--yes", cwd=home).returncode == 0
    for content in ("[]", "{", '{"fits": [1], "verdict": {}}'):
        (folder / "fit.json").write_text(content)
        for source in ("run", "run/fit.json"):
            error = answer("predict", source, "--params", "1e5", "--data", "100", cwd=home, code=2)["error"]
            assert "fit" in error["message"]
    (folder / "plan.json").write_text("{}")
    for verb in ("report", "status"):
        assert "plan.json: it lacks study" in answer(verb, "run", cwd=home, code=2)["error"]["message"]
    (folder / "plan.json").unlink()
    assert "plan.json: no such file" in answer("report", "run", cwd=home, code=2)["error"]["message"]


@pytest.mark.parametrize(
    "more",
    [("--only", "0123456789abcdef"), ("--executor", "inline"), ("--address", "auto"), ("--retry-failed",)],
)
def test_options_without_effect_beside_simulate_are_refused(study_file: Path, more: tuple[str, ...]) -> None:
    error = answer("run", "study.yaml", "--simulate", PLANTED, *more, cwd=study_file.parent, code=2)["error"]
    assert error["where"] == more[0]
    assert "leave one of them out" in error["message"]


def test_draws_without_json_are_refused(tmp_path: Path) -> None:
    done = rayscale("fit", "runs.csv", "--law", "auto", "--draws", cwd=tmp_path)
    assert done.returncode == 2
    assert "add --json" in done.stderr


def test_an_unknown_executor_is_refused(study_file: Path) -> None:
    error = answer("run", "study.yaml", "--executor", "foo", cwd=study_file.parent, code=2)["error"]
    assert error["message"] == "--executor: found 'foo'; use one of: lanes, isolated, inline"


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    assert answer("plan", cwd=tmp_path, code=2)["error"]["code"] == "usage"
    assert answer("bogus", cwd=tmp_path, code=2)["error"]["code"] == "usage"
    assert "no such file" in answer("plan", "none.yaml", cwd=tmp_path, code=2)["error"]["message"]
    assert "not a run folder" in answer("status", str(tmp_path), cwd=tmp_path, code=2)["error"]["message"]
