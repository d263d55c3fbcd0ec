"""Children made by Ray Data are, byte for byte, those that one process makes; a study trains on them."""

from __future__ import annotations

from pathlib import Path

from rayscale.on_ray.data.prepare import RayWorkers
from rayscale.on_ray.driver import run_study
from rayscale.study.study import load_study
from rayscale.text import preparation as steps
from rayscale.text.augment import children
from rayscale.text.tokens.encode import TokenizerSpec
from tests.ray.conftest import write_study

BERT = TokenizerSpec("trained", "bert", 400)
AUGMENTED = """\
name: toy
task: {type: sequence-classification, text: text, label: label, max_length: 32}
data:
  train: rows.csv
  augment:
    - none
    - {name: own, synonyms: {source: own.csv, share: 0.4}, swap: {share: 0.2}, copies: 2}
models:
  - {family: bert, sizes: [1x32], vocabulary: 400}
grid: {examples: [40, 160], gpus: [1]}
training: {epochs: 1, global_batch: 16, learning_rate: 2e-3}
run: {accelerator: cpu}
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_ray_makes_the_same_children_and_the_trials_count_them(session, tmp_path, monkeypatch):
    path = write_study(tmp_path, AUGMENTED)
    (tmp_path / "own.csv").write_text("word,synonym\ncat,puss\ndog,hound\nfast,swift\nhouse,home\nbird,fowl\n")
    study = load_study(path)
    monkeypatch.setattr(children, "BLOCK_ROWS", 100)
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "here"))
    alone = steps.prepare(study, [BERT], [0], steps.Here())["bert-400+own"]
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "ray"))
    spread = steps.prepare(study, [BERT], [0], RayWorkers())["bert-400+own"]
    assert contents(alone.path.parent) == contents(spread.path.parent)

    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "here"))
    run = run_study(study, out=str(tmp_path / "run"), executor="inline")
    trials = run.trials.sort_values(["augment", "data_requested"]).reset_index(drop=True)
    assert list(trials["status"]) == ["ok"] * 4
    assert list(trials["augment"]) == ["none", "none", "own", "own"]
    assert list(trials["data_requested"]) == [40, 160, 40, 160]
    assert list(trials["examples"][:2]) == [40, 160]
    assert all(2 * asked < found <= 3 * asked for asked, found in zip((40, 160), trials["examples"][2:], strict=True))
    assert trials["trial_id"].nunique() == 4
    told = run.plan["data"]["tokens"]
    assert told["bert-400+own"]["train"]["rows"] > told["bert-400"]["train"]["rows"]


def test_models_run_in_a_pool_of_actors_and_give_the_same_children(session, tmp_path, monkeypatch):
    from tests.nn.made_checkpoints import make_masked

    make_masked(tmp_path / "masked", steps=30)
    entry = "{name: context, contextual: {model: masked, share: 0.3}}"
    lines = [f"    - {entry}" if "name: own" in line else line for line in AUGMENTED.splitlines()]
    study = load_study(write_study(tmp_path, "\n".join(lines)))
    monkeypatch.setattr(children, "BLOCK_ROWS", 64)
    folders = []
    for name, workers in (("here", steps.Here()), ("ray", RayWorkers())):
        monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / name))
        made = steps.prepare(study, [BERT], [0], workers)["bert-400+context"]
        folders.append(contents(made.path.parent))
    rows = made.manifest["augmentation"]["rows"]
    assert rows["kept"] > 0.5 * rows["real"]
    assert folders[0] == folders[1]
