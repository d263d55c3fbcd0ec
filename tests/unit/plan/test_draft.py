"""What a plan gathers: every row accounted for, fields named, what is prepared already."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from rayscale.errors import InputError
from rayscale.plan.draft import draft_plan, write_plan
from rayscale.report.notes import row_notes
from rayscale.runs.folder import Run
from rayscale.study.study import load_study
from rayscale.system.machine import Machine
from rayscale.system.storage import Store
from rayscale.text.preparation import Here, prepare
from rayscale.text.tokens.encode import spec_of

MACHINE = Machine("cpu", 2, "a processor", "this machine")
DROPPED = {
    "bad_row": 1, "empty": 0, "duplicate": 2, "in_validation": 0, "in_test": 0, "near_validation": 1, "near_test": 0,
}  # fmt: skip


@pytest.fixture
def untidy(study_file: Path) -> Path:
    """The small study with a row of three fields, a duplicate, and a duplicate with another label."""
    with (study_file.parent / "rows.csv").open("a") as file:
        file.write("one,two,three\nrow number 7 about cats,cat\nrow number 8 about dogs,cat\n")
    study_file.write_text(study_file.read_text().replace("train: rows.csv", "train: rows.csv\n  on_bad_row: skip"))
    return study_file


def test_every_row_is_accounted_for_in_the_plan_and_after_preparing(untidy: Path) -> None:
    study, store = load_study(untidy), Store.open(untidy.parent / "run")
    plan = draft_plan(study, MACHINE, store)
    data = plan.to_json()["data"]
    assert data["read"] == 203 == data["train"] + data["validation"] + data["test"] + sum(data["dropped"].values())
    assert (data["dropped"], data["conflicting_labels"], data["tokens"]) == (DROPPED, 1, None)

    prepared = prepare(study, [spec_of(plan.trials[0].trial.model)], [0, 1], Here())
    write_plan(store, plan, prepared)
    told = Run(store).plan["data"]
    assert {**told, "tokens": None} == data
    (splits,) = told["tokens"].values()
    assert splits["train"]["rows"] == data["train"]
    assert splits["train"]["truncated_share"] == 0
    assert store.read("bad_rows.txt").decode().count("rows.csv:202: found 3 fields") == 1
    (near,) = store.read("near_duplicates.txt").decode().splitlines()
    assert re.fullmatch(r".*rows.csv:\d+: 0.8\d like .*rows.csv:\d+ \(validation\)", near)  # numbers such as 11 and 111
    assert draft_plan(study, MACHINE, store).to_json()["data"] == told  # read back, nothing is counted again

    notes = "\n".join(row_notes(told))
    assert "203 read = " in notes.replace("\u202f", " ").replace("\xa0", " ")
    assert "4 dropped (1 cannot be used, 2 duplicates, 1 nearly in validation)" in notes.replace("\u202f", " ").replace(
        "\xa0", " "
    )
    assert "1 dropped duplicate had another label" in notes


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("label: label", "label: lable", r"study.yaml:2: task.label: .*rows.csv:1: lable: no column 'lable'; did you"),
        ("text: text", "text: txt", r"study.yaml:2: task.text: .*rows.csv:1: txt: no column 'txt'"),
        (
            "train: rows.csv",
            "train: rows.csv\n  format: xlsx",
            r"study.yaml:5: data.format: 'xlsx' is not registered",
        ),
        ("train: rows.csv", "train: .", r"study.yaml:4: data.train: .*/empty.csv: the file is empty"),
        ("train: rows.csv", "train: empty.csv", r"study.yaml:4: data.train: .*empty.csv: the file is empty"),
        (
            "train: rows.csv",
            "train: rows.csv\n  test: odd.csv",
            r"study.yaml:5: data.test: .*odd.csv:2: found 1 fields",
        ),
        ("train: rows.csv", "train: one.csv", r"study.yaml:2: task.label: only one label, 'cat'"),
    ],
)
def test_what_is_wrong_with_the_text_names_the_field_of_the_study(
    study_file: Path, old: str, new: str, said: str
) -> None:
    folder = study_file.parent
    (folder / "empty.csv").write_text("")
    (folder / "odd.csv").write_text("text,label\nalone\n")
    (folder / "one.csv").write_text("text,label\n" + "".join(f"row {i},cat\n" for i in range(90)))
    study_file.write_text(study_file.read_text().replace(old, new))
    with pytest.raises(InputError, match=said) as caught:
        draft_plan(load_study(study_file), MACHINE, Store.open(folder / "run"))
    assert str(caught.value).count("study.yaml") == 1


def test_tokens_are_estimated_from_the_text_then_counted(study_file: Path) -> None:
    text = "name: toy\ntask: {type: causal-lm, max_length: 16}\ndata: {train: rows.csv}\n"
    text += "models: [{family: gpt2, sizes: [1x32], vocabulary: 512}]\ngrid: {tokens: [100, TOP]}\n"
    store = Store.open(study_file.parent / "run")
    study_file.write_text(text.replace("TOP", "100000000"))
    with pytest.raises(
        InputError, match=r"study.yaml:5: grid.tokens: asks for 100,000,000 tokens; the training split has"
    ):
        draft_plan(load_study(study_file), MACHINE, store)
    study_file.write_text(text.replace("TOP", "200"))
    study = load_study(study_file)
    plan = draft_plan(study, MACHINE, store)
    (prepared,) = prepare(study, [spec_of(plan.trials[0].trial.model)], [0], Here()).values()
    there = prepared.manifest["splits"]["train"]["tokens"]
    study_file.write_text(text.replace("TOP", str(there + 1)))
    with pytest.raises(InputError, match=f"the training split has {there:,};"):
        draft_plan(load_study(study_file), MACHINE, store)


def test_a_disk_with_less_room_than_the_plan_may_take_is_told_of(
    study_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, store = load_study(study_file), Store.open(study_file.parent / "run")
    whole = draft_plan(study, MACHINE, store)
    assert "little_disk" not in {code for code, _ in whole.lint}
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=whole.disk_bytes - 1))
    (told,) = [text for code, text in draft_plan(study, MACHINE, store).lint if code == "little_disk"]
    assert f"are free at {study_file.parent}" in told
