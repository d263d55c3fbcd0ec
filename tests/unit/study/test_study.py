"""The study file: what is read, and what is said of mistakes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rayscale.errors import StudyError
from rayscale.laws.formula import read_laws
from rayscale.study.augment_key import read as read_augmentation
from rayscale.study.study import Ladder, Study, load_study
from rayscale.system.paths import files_of


def refusal(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_study_is_read_with_its_defaults(study_file: Path) -> None:
    study = load_study(study_file)
    assert study.grid.sizes == (20, 40, 80)
    assert [study.grid.seeds_at(size) for size in study.grid.sizes] == [2, 1, 1]
    assert study.training.learning_rate == 1e-3  # YAML 1.1 alone would read text
    assert study.data.train == str(study_file.parent / "rows.csv")
    assert isinstance(study.models[0], Ladder)
    assert study.target.metric == "eval_loss"


def test_every_mistake_is_named_in_one_pass_with_file_line_field_and_mend(study_file: Path) -> None:
    text = study_file.read_text()
    text = text.replace("epochs: 1", "epoch: 1").replace("1x32", "1by32").replace("rows.csv", "row.csv")
    text = text.replace("accelerator: cpu", "accelerator: tpu").replace("[20, 40, 80]", "[20, 40, eighty]")
    said = refusal(study_file, text)
    assert re.search(r"study.yaml:8: training.epoch: unknown key; did you mean 'epochs'\?", said)
    assert re.search(r"study.yaml:6: models.0.sizes.0: found '1by32'; a size is layers x width", said)
    assert re.search(r"study.yaml:4: data.train: no such file: .*row.csv", said)
    assert re.search(r"study.yaml:9: run.accelerator: found 'tpu'", said)
    assert re.search(r"study.yaml:7: grid.examples.2: found 'eighty'", said)
    assert len(said.splitlines()) == 5


@pytest.mark.parametrize(
    ("old", "new", "mend"),
    [
        ("{epochs: 1, learning_rate: 1e-3}", "{optimizer: sgd}", "auto was measured for adamw; with sgd give a number"),
        ("{epochs: 1, learning_rate: 1e-3}", "{learning_rate: [1e-3, 1e-3]}", "a list of different rates"),
        ("{epochs: 1, learning_rate: 1e-3}", "{learning_rate: [1e-3]}", "a list of different rates"),
        ("{epochs: 1, learning_rate: 1e-3}", "{learning_rate: [1e-3, 0]}", "training.learning_rate.1: found 0;"),
        ("{epochs: 1, learning_rate: 1e-3}", "{momentum: 0.9}", "has an effect with optimizer: sgd only"),
        ("{epochs: 1, learning_rate: 1e-3}", "{plateau_factor: 0.3}", "has an effect with schedule: plateau only"),
        ("{epochs: 1, learning_rate: 1e-3}", "{cooldown: 0.2}", "has an effect with schedule: constant_with_cooldown"),
        ("gpus: [1]", "gpus: [1], design: lean", "full grids only"),
    ],
)
def test_keys_without_effect_yet_are_refused_by_name(study_file: Path, old: str, new: str, mend: str) -> None:
    assert mend in refusal(study_file, study_file.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", ":1: broken YAML"),
        ("\tname: x", "spaces, not tabs"),
        ("", "a study is a mapping"),
        ("- a\n- b\n", "a study is a mapping"),
        ("name: a\nname: b\n", ":2: name: is given twice"),
        ("name: !!python/object/apply:os.system [echo]\n", "broken YAML"),
    ],
)
def test_broken_yaml_is_one_message(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path / "broken.yaml", text)


def test_an_alias_bomb_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join(['*a' + str(i - 1)] * 10)}]" for i in range(1, 9)]
    assert "without aliases" in refusal(tmp_path / "bomb.yaml", "\n".join(lines))


@pytest.mark.parametrize("name", ["../x", ".hidden", "<script>", "a" * 65, "a/b"])
def test_names_cannot_lead_out_of_the_run(study_file: Path, name: str) -> None:
    assert "name: found" in refusal(study_file, study_file.read_text().replace("name: toy", f"name: '{name}'"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("gpus: [1]", "gpus: 1", "grid.gpus: found 1; give a list, such as [1, 2]"),
        ("seeds: {20: 2}", "seeds: yes", "grid.seeds: found true; give a whole number, such as 3, or one for each"),
        ("seeds: {20: 2}", "seeds: {20: x}", "grid.seeds.20: found 'x'; give a whole number"),
        ("grid: {examples: [20, 40, 80], gpus: [1], seeds: {20: 2}}", "grid:", "grid: found nothing; give a mapping"),
        ("run: {accelerator: cpu}", "target: f1", "did you mean 'f1_micro' or 'f1_macro' or 'f1_weighted'?"),
        ("run: {accelerator: cpu}", "target: {metric: f1_macro, reach: 92}", "between 0 and 1; write 0.92"),
        ("run: {accelerator: cpu}", "target: {metric: eval_loss, reach: 0}", "eval_loss is always above 0"),
        ("run: {accelerator: cpu}", "prices: {currency: usd}", "give three capital letters, such as USD"),
        ("learning_rate: 1e-3", "warmup: 1.5", "give a number below 1"),
        ("learning_rate: 1e-3", "schedule: liner", "did you mean 'linear'?)"),
        ("epochs: 1", "epochs: '3'", "training.epochs: found '3'; give a whole number"),
        ("epochs: 1", "compile: 'yes'", "training.compile: found 'yes'; give true or false"),
        ("epochs: 1", "gradient_checkpointing: 1", "training.gradient_checkpointing: found 1; give true or false"),
        ("name: toy", "name: 5", "name: found 5; give text"),
    ],
)
def test_a_wrong_value_is_one_line_in_the_words_of_the_file(study_file: Path, old: str, new: str, said: str) -> None:
    found = refusal(study_file, study_file.read_text().replace(old, new))
    assert said in found
    assert len(found.splitlines()) == 1
    assert not re.search("tuple|dictionary|instance|Input|valid (string|integer|number)", found)


@pytest.mark.parametrize("name", ["my [x].csv", "what?.csv", "a*b.csv"])
def test_a_file_may_have_the_signs_of_a_pattern_in_its_name(study_file: Path, name: str) -> None:
    folder = study_file.parent / "half [done]"
    folder.mkdir()
    (study_file.parent / "rows.csv").rename(folder / name)
    copy = folder / "study.yaml"
    copy.write_text(study_file.read_text().replace("rows.csv", f"'{name}'"))
    assert files_of(load_study(copy).data.train) == [str(folder / name)]
    copy.write_text(study_file.read_text().replace("rows.csv", "'*.csv'"))
    assert files_of(load_study(copy).data.train) == [str(folder / name)]


def test_axis_must_fit_the_task(study_file: Path) -> None:
    said = refusal(study_file, study_file.read_text().replace("examples:", "tokens:"))
    assert "the data axis of sequence-classification is examples" in said


def test_a_byte_order_mark_is_no_mistake(study_file: Path) -> None:
    study_file.write_bytes(b"\xef\xbb\xbf" + study_file.read_bytes())
    assert load_study(study_file).name == "toy"


def test_the_schema_is_json_schema() -> None:
    assert Study.model_json_schema()["properties"]["grid"]


@pytest.mark.parametrize(
    ("laws", "names"),
    [
        ("auto", None),
        ("power", ["power"]),
        ("[power, shifted]", ["power", "shifted"]),
        ("['E + B * data ** -beta']", ["formula"]),
        (
            "{mine: {formula: E + B * data ** -beta, bounds: {beta: [0.1, 1]}}, two: {formula: E * data}}",
            ["mine", "two"],
        ),
    ],
)
def test_laws_are_named_or_written_as_formulas(study_file: Path, laws: str, names: list[str] | None) -> None:
    study_file.write_text(study_file.read_text() + f"laws: {laws}\n")
    chosen = read_laws(load_study(study_file).model_dump()["laws"])
    assert (chosen and [law.name for law in chosen]) == names


@pytest.mark.parametrize(
    ("laws", "said"),
    [
        ("powr", r"study.yaml:10: laws: found 'powr'; 'powr' is not registered .*did you mean 'power'\?"),
        ("\n  - power\n  - shfted", r"study.yaml:12: laws.1: .*did you mean 'shifted'\?"),
        ("[]", r"study.yaml:10: laws: found \[\]; give at least one"),
        ("3", r"study.yaml:10: laws: found 3; write auto, a law's name, a list of names"),
        ("null", "laws: found nothing; write auto"),
        ("\n  mine: E * data", r"study.yaml:11: laws.mine: found 'E \* data'; write auto"),
        (
            "\n  mine:\n    formula: E + B * data ^ -b",
            r"study.yaml:12: laws.mine.formula: .*position 14: .*write \*\* for",
        ),
        (
            "\n  mine:\n    formula: E * data\n    bounds: {F: [0, 1]}",
            r"study.yaml:13: laws.mine.bounds: .*not one of its parameters",
        ),
        (
            "\n  mine:\n    formula: E * data\n    bounds: {E: [a, 1]}",
            r"study.yaml:13: laws.mine.bounds.E.0: found 'a'",
        ),
        ("\n  power: {formula: E * data}", r"study.yaml:11: laws.power: .*give your law another"),
        ("\n  my law: {formula: E * data}", r"study.yaml:11: laws.my law: .*letters, digits and _"),
        ("\n  mine: {formla: E * data}", r"study.yaml:11: laws.mine.formla: unknown key; did you mean 'formula'\?"),
    ],
)
def test_a_wrong_law_is_named_with_file_line_and_mend(study_file: Path, laws: str, said: str) -> None:
    assert re.search(said, refusal(study_file, study_file.read_text() + f"laws: {laws}\n"))


AUGMENT = "train: rows.csv\n  augment:\n    - none\n    - "


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("syn", ":7: data.augment.1: found 'syn'; write none, or a name and a step"),
        ("{name: syn}", "data.augment.1: names no step"),
        ("{synonyms: {}}", "data.augment.1: found nothing; give the augmentation a name"),
        ("{name: syn, synonims: {}}", "data.augment.1.synonims: unknown step; did you mean 'synonyms'?"),
        (
            "{name: syn, synonyms: {shares: 0.1}}",
            "data.augment.1.synonyms.shares: unknown setting; did you mean",
        ),
        ("{name: syn, synonyms: {share: 2}}", "data.augment.1.synonyms.share: found 2; give 1 or less"),
        ("{name: syn, synonyms: {copies: 0}}", "data.augment.1.synonyms.copies: found 0; give a whole number from 1"),
        ("{name: x, swap: {copies: 1}, delete: {copies: 2}}", "copies is given more than once with different numbers"),
        ("{name: x, swap: {}, seed: -1}", "data.augment.1.seed: found -1"),
        ("{name: x, swap: {}}\n    - {name: x, delete: {}}", "data.augment.2: 'x' is given twice"),
    ],
)
def test_a_wrong_augmentation_is_named_with_its_line_and_mend(study_file: Path, entry: str, said: str) -> None:
    assert said in refusal(study_file, study_file.read_text().replace("train: rows.csv", AUGMENT + entry))


def test_augmentations_are_read_in_order_with_paths_below_the_study(study_file: Path) -> None:
    (study_file.parent / "own.csv").write_text("car,auto\n")
    entry = "{name: own, synonyms: {source: own.csv}, swap: {share: 0.1}, copies: 2}"
    study_file.write_text(study_file.read_text().replace("train: rows.csv", AUGMENT + entry))
    none, own = map(read_augmentation, load_study(study_file).data.augment)
    assert (none.name, none.steps, none.copies) == ("none", (), 0)
    assert [step.name for step in own.steps] == ["synonyms", "swap"]
    assert own.steps[0].settings.source == str(study_file.parent / "own.csv")
    assert own.copies == 2
