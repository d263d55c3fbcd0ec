"""Adapters in a study file: what is asked for, what it is called and planned as, and what is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rayscale.errors import InputError, StudyError
from rayscale.plan.draft import draft_plan
from rayscale.plan.estimate import Supply
from rayscale.plan.parameters import count_adapters, count_mixture
from rayscale.plan.plan import Plan, make_plan, model_specs
from rayscale.report.terminal.plan import details
from rayscale.study.lora import ALL_LINEAR, Lora
from rayscale.study.study import Study, load_study
from rayscale.system.machine import Machine
from rayscale.system.storage import Store
from tests.unit.conftest import write_tokenizer

CPU, SUPPLY = Machine("cpu", 2, "a processor", "this machine"), Supply("f" * 64, 160, 12.0, 2)
LADDER = "{family: bert, sizes: [1x32, 2x64], vocabulary: 512}"
CONFIG = (
    '{"model_type": "bert", "num_hidden_layers": 2, "hidden_size": 8, "intermediate_size": 16, "vocab_size": 50, '
    '"num_attention_heads": 2, "max_position_embeddings": 32}'
)


@pytest.fixture
def checkpoint(study_file: Path) -> Path:
    """A BERT of 2 layers beside the study: the files alone."""
    folder = study_file.parent / "small"
    folder.mkdir()
    (folder / "config.json").write_text(CONFIG)
    shapes = {"embeddings.word_embeddings": (50, 8), "pooler.dense": (8, 8)}
    for number in (0, 1):
        parts = {"attention.self.query": (8, 8), "attention.self.value": (8, 8), "output.dense": (8, 16)}
        shapes |= {f"encoder.layer.{number}.{name}": shape for name, shape in parts.items()}
    tensors = {f"{name}.weight": np.zeros(shape, np.float32) for name, shape in shapes.items()}
    norms = {f"encoder.layer.{number}.output.LayerNorm.weight": np.ones(8, np.float32) for number in (0, 1)}
    save_file({**tensors, **norms}, folder / "model.safetensors")
    write_tokenizer(folder, 50)
    return folder


def study(study_file: Path, *models: str) -> Study:
    text = study_file.read_text()
    assert LADDER in text
    study_file.write_text(text.replace(f"  - {LADDER}\n", "".join(f"  - {model}\n" for model in models)))
    return load_study(study_file)


def plan(study_file: Path, *models: str) -> Plan:
    return make_plan(study(study_file, *models), CPU, SUPPLY)


def test_both_ways_of_training_stand_in_one_study_and_all_weights_keep_their_ids(
    study_file: Path, checkpoint: Path
) -> None:
    alone = {p.trial.trial_id: p.trial.model.name for p in plan(study_file, "{pretrained: small}").trials}
    study_file.write_text(study_file.read_text().replace("{pretrained: small}", LADDER))
    planned = plan(study_file, "{pretrained: small, lora: {rank: 2}}", "{pretrained: small, lora: null}")
    assert "mixed_lora" in dict(planned.lint)
    both = planned.trials
    names = {p.trial.trial_id: p.trial.model.name for p in both}
    assert alone.items() < names.items()
    assert set(names.values()) == {"small", "small-lora2"}
    assert len(names) == 2 * len(alone)
    full, adapted = (max((p for p in both if p.trial.model.name == name), key=lambda p: p.seconds)
                     for name in ("small", "small-lora2"))  # fmt: skip
    assert adapted.params == full.params == full.trained
    matrices = 2 * (16 + 16 + 24)  # in + out, of two layers; neither the pooler nor the table
    assert adapted.trained == 2 * matrices + 9 * (8 + 2)  # with pooler and classifier
    assert full.peak_memory_bytes - adapted.peak_memory_bytes == 12 * full.params - 16 * adapted.trained
    assert "4 FLOP x frozen" in adapted.basis
    assert "frozen" not in full.basis
    assert "16 bytes a parameter (4 if frozen)" in dict(details(planned.to_json()))["Memory basis"]


def test_a_cut_counts_the_adapters_of_the_layers_that_are_left(study_file: Path, checkpoint: Path) -> None:
    planned = plan(study_file, "{pretrained: small, name: mine, layers: [1, 2], lora: {rank: 3}}").trials
    assert {(p.trial.model.name, p.trained - 90) for p in planned} == {
        ("mine@1-lora3", 3 * 56), ("mine-lora3", 3 * 112)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "label"),
    [({}, "lora8"), ({"rank": 4, "alpha": 32}, "lora4"), ({"alpha": 16, "dropout": 0.1}, "lora8-alpha16-dropout0.1"),
     ({"target_modules": ["value", "query"]}, "lora8-query-value"), ({"target_modules": ALL_LINEAR}, "lora8")],
)  # fmt: skip
def test_a_label_says_the_rank_and_what_is_not_usual(given: dict, label: str) -> None:
    assert Lora(**given).label == label


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ("{rank: 0}", r"models.0.lora.rank: found 0; give 1 or more"),
        ("{rank: 2.5}", r"models.0.lora.rank: found 2.5; give a whole number"),
        ("{r: 8}", r"models.0.lora.r: unknown key \(keys here: rank, alpha, dropout, target_modules\)"),
        ("{alpha: -1}", r"models.0.lora.alpha: found -1; give a number above 0"),
        ("{dropout: 1}", r"models.0.lora.dropout: found 1; give a number below 1"),
        (
            "{target_modules: query}",
            r"models.0.lora.target_modules: found 'query'; give all-linear, or a list of names",
        ),
        ("{target_modules: []}", r"models.0.lora.target_modules: found \[\]; give all-linear, or a list of names"),
        ("true", r"models.0.lora: found true; give a mapping, such as {rank: 8}"),
        ("8", r"models.0.lora: found 8; give a mapping, such as {rank: 8}"),
    ],
)
def test_a_wrong_lora_is_told_with_the_mend(study_file: Path, checkpoint: Path, lora: str, said: str) -> None:
    with pytest.raises(StudyError, match=rf"study.yaml:6: {said}") as caught:
        study(study_file, f"{{pretrained: small, lora: {lora}}}")
    assert len(str(caught.value).splitlines()) == 1


def test_targets_that_the_checkpoint_has_not_are_told_with_those_it_has(study_file: Path, checkpoint: Path) -> None:
    wrong = study(study_file, "{pretrained: small, lora: {target_modules: [query, valeu]}}")
    with pytest.raises(
        StudyError, match=r"study.yaml:6: models.0.lora: .*'valeu'.*'value'.*\(there are: query, value, dense\)"
    ):
        model_specs(wrong)


def test_a_family_has_nothing_to_stand_beside(study_file: Path) -> None:
    with pytest.raises(StudyError, match=r"study.yaml:6: models.0.lora: adapters need pretrained weights, and a"):
        study(study_file, "{family: bert, sizes: [1x32], lora: {rank: 8}}")


def test_without_peft_a_plan_is_refused_and_names_the_extra(
    study_file: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else find(name, *rest))
    asked = study(study_file, LADDER, "{pretrained: small, lora: {}}")
    with pytest.raises(StudyError, match=r"study.yaml:7: models.1.lora: .*pip install 'rayscale\[lora\]'") as caught:
        draft_plan(asked, CPU, Store.open(study_file.parent / "run"))
    assert caught.value.code == "missing_extra"


def test_experts_get_no_adapters_whatever_the_files_call_them_and_the_plan_says_so(
    study_file: Path, checkpoint: Path
) -> None:
    shapes = {"self_attn.q_proj": (8, 8), "mlp.gate_proj": (16, 8), "mlp.experts.0.gate_proj": (16, 8),
              "mlp.experts.0.w2": (8, 16), "mlp.gate": (4, 8), "block_sparse_moe.router.layer": (4, 8),
              "mlp.shared_expert.up_proj": (16, 8)}  # fmt: skip
    tensors = {f"encoder.layer.0.{name}.weight": np.zeros(shape, np.float32) for name, shape in shapes.items()}
    held = {"encoder.layer.1.mlp.experts.gate_up_proj": np.zeros((4, 32, 8), np.float32)}
    embeddings = {"embeddings.word_embeddings.weight": np.zeros((50, 8), np.float32)}
    save_file({**tensors, **held, **embeddings}, checkpoint / "model.safetensors")
    adapted = 2 * ((8 + 8) + (16 + 8) + (16 + 8))
    assert count_adapters(checkpoint, 2, Lora(rank=2), "token-classification") == adapted
    assert count_mixture(checkpoint, 2) == 16 * 8 + 8 * 16 + 2 * 4 * 8 + 4 * 32 * 8
    assert count_mixture(checkpoint, 1) == 16 * 8 + 8 * 16 + 2 * 4 * 8
    planned = plan(study_file, "{pretrained: small, lora: {rank: 2}}")
    assert "small-lora2: its experts, 1,344 of " in dict(planned.lint)["frozen_experts"]
    assert "frozen_experts" not in dict(plan_of_all(study_file).lint)
    with pytest.raises(InputError, match=r"'w2' is part of the experts of this checkpoint.*leave it out"):
        count_adapters(checkpoint, 2, Lora(target_modules=("w2",)), "token-classification")


def plan_of_all(study_file: Path) -> Plan:
    """The same study with all weights learning."""
    study_file.write_text(study_file.read_text().replace(", lora: {rank: 2}", ""))
    return make_plan(load_study(study_file), CPU, SUPPLY)
