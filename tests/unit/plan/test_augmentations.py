"""Augmentations that make little or nothing: their cells are cut, said and counted before anything is trained."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rayscale.errors import InputError, StudyError
from rayscale.on_ray import driver, run_study
from rayscale.plan.draft import draft_plan
from rayscale.plan.observer import Observer
from rayscale.report.notes import row_notes
from rayscale.report.rebuild import rebuild_report
from rayscale.runs.folder import load
from rayscale.runs.status import read_status
from rayscale.study.study import load_study
from rayscale.system.machine import Machine
from rayscale.system.storage import Store
from rayscale.text.preparation import Here, prepare
from rayscale.text.tokens.encode import spec_of

STUDY = """\
name: toy
task: {{type: sequence-classification, text: text, label: label, max_length: 32}}
data:
  train: rows.csv
  augment:
{augment}
models:
  - {{family: bert, sizes: [1x32], vocabulary: 400}}
grid: {{examples: [8, 120], gpus: {gpus}, seeds: 2}}
training: {{epochs: 1, global_batch: 16}}
run: {{accelerator: cpu, executor: inline, keep: none}}
"""
NOTHING = "{name: nothing, synonyms: {source: nothing.csv}}"
FEW = "{name: few, synonyms: {source: few.csv}, copies: 2}"
SWAP = "{name: moved, swap: {share: 0.3}}"
UNCHANGED = r"nothing made no child \(of \d+ copies: \d+ unchanged\)"
MACHINE = Machine("cpu", 4, "a processor", "this machine")


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A study of Chinese text with these augmentations."""
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "cache"))
    signs, kinds = "甲乙丙丁戊己庚辛壬癸子丑寅卯辰巳午未申酉", (("太慢", "慢"), ("很快到了", "快"))
    rows = [(f"第{signs[i % 20]}{signs[i // 20]}号包裹{kinds[i % 2][0]}", kinds[i % 2][1]) for i in range(200)]
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    (tmp_path / "nothing.csv").write_text("word,synonym\n量子,光子\n")
    (tmp_path / "few.csv").write_text("word,synonym\n甲乙,一二\n丙丁,三四\n")

    def make(*augment: str, gpus: str = "[1]") -> Path:
        lines = "\n".join(f"    - {entry}" for entry in augment)
        path = tmp_path / "study.yaml"
        path.write_text(STUDY.format(augment=lines, gpus=gpus))
        return path

    return make


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """(augmentation, examples, those that were trained on), in order; the text is prepared in this process."""
    seen: list[tuple[str, int, int]] = []

    def train_trial(trial: Any, prepared: Any, **more: Any) -> dict[str, Any]:
        rows = len(prepared.subset("examples", trial.data_requested, trial.seed))
        seen.append((trial.augment, trial.data_requested, rows))
        return {"status": "ok", "eval_loss": 1.0, "validation_loss": 1.0, "params": 5, "train_seconds": 1.0,
                "eval_seconds": 0.5, "examples": rows}  # fmt: skip

    module = ModuleType("rayscale.nn.training.train")
    module.train_trial = train_trial  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rayscale.nn.training.train", module)

    monkeypatch.setattr(driver, "rebuild_report", partial(rebuild_report, bootstrap=20))
    return seen


def test_cells_without_a_child_are_said_and_not_trained(
    write: Any, trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(Observer, "say", lambda _, text: said.append(f"{len(trained)} {text}"))
    path, out = write(NOTHING, "none", FEW, SWAP), str(tmp_path / "run")
    run = run_study(path, out=out)
    assert run is not None
    assert sorted((name, size) for name, size, _ in trained) == [
        ("few", 120), *[("moved", 8)] * 2, *[("moved", 120)] * 2, *[("none", 8)] * 2, *[("none", 120)] * 2
    ]  # fmt: skip
    assert all(rows == size for name, size, rows in trained if name == "none")
    assert all(rows > size for name, size, rows in trained if name != "none")
    assert all(text.startswith("0 ") for text in said if "not run" in text or "copies" in text)
    assert any(text.startswith("0 4 cells are not run: nothing made no child (of ") for text in said)
    assert any("0 few: " in text and "its cells are nearly plain ones" in text for text in said)
    plan, now = run.plan, read_status(run)
    assert len(plan["trials"]) == len(trained) == now["done"] == len(run.trials)
    assert len(plan["cut"]) + len(plan["trials"]) == 16
    assert (now["failed"], now["waiting"], now["cut"]) == (0, 0, plan["cut"])
    assert {cut["cell"].rpartition(" ")[2] for cut in plan["cut"]} == {"nothing", "few"}
    assert any(cut["reason"].startswith("few made no child of these 8 rows (") for cut in plan["cut"])
    assert set(plan["data"]["children"]) == {"nothing", "few", "moved"}
    assert any("copies of" in note and "0 kept; dropped: " in note for note in row_notes(plan["data"]))
    report = run.store.read("report.html").decode()
    assert "bert-1x32, 120 examples, 1 GPU, seed 1, augment nothing: nothing made no child (of " in report

    # Run again: nothing is left to train, and the plan is the same.
    trained.clear()
    again = run_study(path, out=out)
    assert again is not None
    assert trained == []
    assert again.plan["cut"] == plan["cut"]
    assert [row["trial_id"] for row in again.plan["trials"]] == [row["trial_id"] for row in plan["trials"]]
    assert read_status(load(out))["cut"] == plan["cut"]


def test_where_no_augmentation_makes_anything_nothing_is_trained(write: Any, trained: Any, tmp_path: Path) -> None:
    for _ in range(2):  # when the children are made, and when that is known
        with pytest.raises(StudyError, match=rf"leaves no trial: {UNCHANGED}") as error:
            run_study(write(NOTHING), out=str(tmp_path / "run"))
        assert (error.value.code, error.value.where) == ("no_children", f"{tmp_path}/study.yaml:5: data.augment")
    assert trained == []


def test_a_single_trial_that_has_no_child_is_refused(write: Any, trained: Any, tmp_path: Path) -> None:
    path = write("none", NOTHING)
    plan = draft_plan(load_study(path), MACHINE, Store.open(tmp_path / "run"))
    chosen = next(each.trial.trial_id for each in plan.trials if each.trial.augment == "nothing")
    with pytest.raises(InputError, match=rf"{chosen} is not run: {UNCHANGED}"):
        run_study(path, out=str(tmp_path / "run"), only=chosen)


def test_the_plan_tells_before_anything_is_prepared(write: Any, tmp_path: Path) -> None:
    plan = draft_plan(load_study(write("none", NOTHING, SWAP)), MACHINE, Store.open(tmp_path / "run"))
    told = dict(plan.lint)
    assert told["few_children"].startswith("nothing changes 0 of the first ")
    assert told["segmenter"].startswith("nothing, moved: where text has no spaces, ")
    assert len(plan.trials) == 12


def never(rows: Any) -> list[Any]:
    """A plugin that must not run."""
    raise AssertionError("a plan ran code of a plugin")


def test_a_plan_runs_no_code_of_plugins(write: Any, tmp_path: Path) -> None:
    study = load_study(write("none", f'{{name: own, "{__name__}:never": {{}}}}'))
    assert "few_children" not in dict(draft_plan(study, MACHINE, Store.open(tmp_path / "run")).lint)


def test_pairs_that_speed_is_read_from_are_those_of_cells_that_run(write: Any, tmp_path: Path) -> None:
    study = load_study(write(NOTHING, "none", gpus="[1, 2]"))
    store = Store.open(tmp_path / "run")
    before = draft_plan(study, MACHINE, store)
    assert {each.trial.augment for each in before.trials if each.alone} == {"nothing"}
    prepare(study, [spec_of(before.trials[0].trial.model)], [0, 1], Here())
    after = draft_plan(study, MACHINE, store)
    assert {each.trial.augment for each in after.trials if each.alone} == {"none"}
    assert len(after.trials) == len(after.cut) == 8
    assert [each for each in after.lint if each[0] == "few_children"] == []
