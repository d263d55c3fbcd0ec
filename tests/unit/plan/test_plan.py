"""Plans: stable ids, costs, cuts, and what cannot run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rayscale.errors import StudyError
from rayscale.plan.estimate import WORKER_BYTES, Copies, Measured, Supply, cost, steps_of, wall_seconds
from rayscale.plan.plan import make_plan
from rayscale.runs.trial import ModelSpec, Trial
from rayscale.study.sections import Task
from rayscale.study.study import load_study
from rayscale.system.machine import Machine
from rayscale.text.tokens.encode import letters_per_token

CPU = Machine("cpu", 2, "a processor", "this machine")
SUPPLY = Supply("f" * 64, 160, 12.0, 2)


def edited(study_file: Path, old: str, new: str) -> Path:
    text = study_file.read_text()
    assert old in text
    study_file.write_text(text.replace(old, new))
    return study_file


def test_the_grid_is_complete_and_ids_are_unique_and_stable(study_file: Path) -> None:
    plan = make_plan(load_study(study_file), CPU, SUPPLY)
    ids = [p.trial.trial_id for p in plan.trials]
    assert len(ids) == len(set(ids)) == 2 * (2 + 1 + 1)
    assert ids == [p.trial.trial_id for p in make_plan(load_study(study_file), CPU, SUPPLY).trials]


def test_ids_change_with_what_changes_the_result_and_with_nothing_else(study_file: Path) -> None:
    study = load_study(study_file)
    ids = {p.trial.trial_id for p in make_plan(study, CPU, SUPPLY).trials}
    renamed = study.model_copy(update={"name": "other", "run": study.run.model_copy(update={"retries": 5})})
    assert {p.trial.trial_id for p in make_plan(renamed, CPU, SUPPLY).trials} == ids
    slower = study.model_copy(update={"training": study.training.model_copy(update={"learning_rate": 1e-4})})
    assert not {p.trial.trial_id for p in make_plan(slower, CPU, SUPPLY).trials} & ids
    assert not {p.trial.trial_id for p in make_plan(study, CPU, replace(SUPPLY, fingerprint="0")).trials} & ids
    wider = study.model_copy(update={"grid": study.grid.model_copy(update={"examples": (20, 40, 80, 160)})})
    assert ids < {p.trial.trial_id for p in make_plan(wider, CPU, SUPPLY).trials}


def test_a_trial_survives_json(study_file: Path) -> None:
    trial = make_plan(load_study(study_file), CPU, SUPPLY).trials[0].trial
    assert Trial.from_json(trial.to_json()) == trial


def test_larger_allocations_come_first_and_lone_trials_last(study_file: Path) -> None:
    plan = make_plan(load_study(edited(study_file, "gpus: [1]", "gpus: [1, 2]")), CPU, SUPPLY)
    keys = [(p.alone, -p.trial.gpus) for p in plan.trials]
    assert keys == sorted(keys)
    alone = [p for p in plan.trials if p.alone]
    assert {p.trial.model.name for p in alone} == {"bert-1x32", "bert-2x64"}
    assert all(p.trial.gpus == 1 for p in alone)  # two GPUs fill this machine: those trials are alone anyway


def test_more_gpus_than_there_are_is_refused_with_both_figures(study_file: Path) -> None:
    study = load_study(edited(study_file, "gpus: [1]", "gpus: [1, 4]"))
    with pytest.raises(
        StudyError, match=r"study.yaml:7: grid.gpus: asks for 4 GPUs a trial; this machine has 2 worker"
    ):
        make_plan(study, CPU, SUPPLY)


def test_trials_that_share_a_gpu_take_and_cost_a_share_of_it(study_file: Path) -> None:
    shared = edited(study_file, "{accelerator: cpu}", "{accelerator: gpu, trials_per_gpu: 4}")
    gpu = Machine("cuda", 4, "a GPU", "a cluster", 4)
    assert gpu.gpus == 1
    whole = make_plan(load_study(study_file), replace(gpu, slots=1, trials_per_gpu=1), SUPPLY)
    plan = make_plan(load_study(shared), gpu, SUPPLY)
    assert [p.trial.trial_id for p in plan.trials] == [p.trial.trial_id for p in whole.trials]
    assert plan.gpu_hours == pytest.approx(whole.gpu_hours * 2.2 / 4)  # each takes 2.2 times as long
    assert plan.seconds < whole.seconds
    whole_ones = (
        r"run.trials_per_gpu: is 4, but grid.gpus asks for trials of 2 whole GPUs; write 1, or grid.gpus: \[1\]"
    )
    with pytest.raises(StudyError, match=whole_ones):
        load_study(edited(shared, "gpus: [1]", "gpus: [1, 2]"))
    edited(shared, "gpus: [1, 2]", "gpus: [1]")
    with pytest.raises(StudyError, match=r"run.trials_per_gpu: is 4, but the executor inline runs one trial after"):
        load_study(edited(shared, "trials_per_gpu: 4", "trials_per_gpu: 4, executor: inline"))


@pytest.mark.parametrize("setting", ["compile: true", "precision: tf32"])
def test_what_gpus_alone_can_do_is_refused_on_a_cpu(study_file: Path, setting: str) -> None:
    study = load_study(edited(study_file, "training: {", f"training: {{{setting}, "))
    with pytest.raises(
        StudyError, match=rf"study.yaml:\d+: training.{setting[:7]}\w*: needs a GPU, and this machine has"
    ):
        make_plan(study, CPU, SUPPLY)


def test_more_data_than_there_is_is_refused_with_both_figures(study_file: Path) -> None:
    with pytest.raises(StudyError, match=r"asks for 80 examples; the training split has 60"):
        make_plan(load_study(study_file), CPU, replace(SUPPLY, train_rows=60))


def measured(plan, *, steps: int = 20, train: float = 90.0, **settings) -> list[Measured]:
    """One finished trial of bert-2x64 at 40 examples, with other training settings if given."""
    trial = next(p.trial for p in plan.trials if (p.trial.model.name, p.trial.data_requested) == ("bert-2x64", 40))
    return [Measured(replace(trial, training={**trial.training, **settings}), steps, train, 10.0)]


def test_estimates_learn_from_measured_trials_by_their_steps(study_file: Path) -> None:
    study = load_study(study_file)
    plan = make_plan(study, CPU, SUPPLY, measured(make_plan(study, CPU, SUPPLY), steps=2))
    told = {p.trial.model.name: p for p in plan.trials if p.trial.data_requested == 80}
    assert steps_of(told["bert-2x64"].trial) == 3
    assert told["bert-2x64"].basis.startswith("measured: 1 finished trial ")
    assert told["bert-2x64"].seconds == pytest.approx(90 / 2 * 3 + 10)  # evaluation is of the same rows
    assert told["bert-1x32"].basis.startswith("rule")


def test_trials_that_shared_a_gpu_are_no_measurement_of_lone_ones_nor_the_other_way_round(study_file: Path) -> None:
    gpu = Machine("cuda", 4, "a GPU", "a cluster", 4)
    study, whole = load_study(study_file), replace(gpu, slots=1, trials_per_gpu=1)
    for machine, share in ((gpu, 0.25), (whole, 1.0)):
        first = make_plan(study, machine, SUPPLY)
        taken = {
            each: make_plan(study, machine, SUPPLY, [replace(m, share=each) for m in measured(first)]).trials
            for each in (0.25, 0.5, 1.0, None)
        }
        assert [each for each, trials in taken.items() if trials != first.trials] == [share]
        told = next(p for p in taken[share] if p.basis.startswith("measured"))
        assert told.gpu_seconds == pytest.approx(told.seconds * share)


@pytest.mark.parametrize("settings", [{"epochs": 7}, {"global_batch": 64}, {"precision": "bf16"}])
def test_trials_of_other_settings_are_no_measurement(study_file: Path, settings: dict) -> None:
    study = load_study(study_file)
    first = make_plan(study, CPU, SUPPLY)
    assert make_plan(study, CPU, SUPPLY, measured(first, **settings)).trials == first.trials


@pytest.mark.parametrize("field", ["device", "data_fingerprint"])
def test_trials_of_another_device_or_text_are_no_measurement(study_file: Path, field: str) -> None:
    study = load_study(study_file)
    first = make_plan(study, CPU, SUPPLY)
    other = [replace(each, trial=replace(each.trial, **{field: "other"})) for each in measured(first)]
    assert make_plan(study, CPU, SUPPLY, other).trials == first.trials


def test_another_vocabulary_changes_no_id_of_the_first(study_file: Path) -> None:
    ids = {p.trial.trial_id for p in make_plan(load_study(study_file), CPU, SUPPLY).trials}
    both = edited(study_file, "grid:", "  - {family: bert, sizes: [1x32], vocabulary: 1024}\ngrid:")
    trials = [p.trial for p in make_plan(load_study(both), CPU, SUPPLY).trials]
    assert ids < {trial.trial_id for trial in trials}
    assert "bert-1x32-v512" in {trial.model.name for trial in trials}


def test_memory_counts_the_worker_itself(study_file: Path) -> None:
    plan = make_plan(load_study(study_file), CPU, SUPPLY)
    assert all(p.peak_memory_bytes > WORKER_BYTES["cpu"] + 16 * p.params for p in plan.trials)
    # The demo's largest model on one worker was measured at 635 to 644 MB.
    model = ModelSpec("gpt2-2x128", "family", "gpt2", 2, 128, 512)
    training = {"epochs": 1, "global_batch": 8}
    trial = Trial("", "demo", Task(type="causal-lm", max_length=64), model, "tokens", 30000, 1, 0, "none", training,
                  "cpu", 1, "f")  # fmt: skip
    supply = replace(SUPPLY, mean_tokens=60.0, held_out_rows=1000)
    assert cost(trial, 470_528, 396_544, supply, 0, 470_528).peak_memory_bytes == pytest.approx(640e6, rel=0.05)


def test_checkpointing_makes_other_cells_that_take_less_memory(study_file: Path) -> None:
    plain = make_plan(load_study(study_file), CPU, SUPPLY)
    said_no = edited(study_file, "training: {", "training: {gradient_checkpointing: false, ")
    assert make_plan(load_study(said_no), CPU, SUPPLY).trials == plain.trials
    assert all("gradient_checkpointing" not in p.trial.training for p in plain.trials)
    twice = make_plan(load_study(edited(said_no, "checkpointing: false", "checkpointing: true")), CPU, SUPPLY)
    assert not {p.trial.trial_id for p in plain.trials} & {p.trial.trial_id for p in twice.trials}
    deep = [max(plan.trials, key=lambda p: p.peak_memory_bytes) for plan in (plain, twice)]
    assert deep[1].peak_memory_bytes < deep[0].peak_memory_bytes
    assert deep[1].seconds > deep[0].seconds


LANGUAGE = """\
name: toy
task: {type: causal-lm, text: text, max_length: 32}
data: {train: rows.csv}
models: [{family: gpt2, sizes: [1x32], vocabulary: 512}]
grid: {tokens: [TOKENS]}
"""


def language(study_file: Path, tokens: str) -> Path:
    study_file.write_text(LANGUAGE.replace("TOKENS", tokens))
    return study_file


def test_tokens_that_cannot_be_there_are_refused(study_file: Path) -> None:
    supply = replace(SUPPLY, train_tokens=2000.0, held_out_tokens=250.0)
    with pytest.raises(StudyError, match=r"study.yaml:5: grid.tokens: asks for 100,000,000 tokens; .* about 2,000"):
        make_plan(load_study(language(study_file, "1000, 100000000")), CPU, supply)
    with pytest.raises(StudyError, match=r"grid.tokens: asks for 10 tokens, less than one window of 32"):
        make_plan(load_study(language(study_file, "10, 1000")), CPU, supply)
    with pytest.raises(StudyError, match=r"data: the validation or the test split has about 8 tokens"):
        make_plan(load_study(language(study_file, "1000")), CPU, replace(supply, held_out_tokens=8.0))
    counted = replace(supply, estimated=False)
    with pytest.raises(StudyError, match=r"asks for 3,000 tokens; the training split has 2,000"):
        make_plan(load_study(language(study_file, "1000, 3000")), CPU, counted)


def test_tokens_that_may_be_there_are_a_note(study_file: Path) -> None:
    supply = replace(SUPPLY, train_tokens=2000.0, held_out_tokens=250.0)
    notes = dict(make_plan(load_study(language(study_file, "1000, 3000")), CPU, supply).lint)
    assert notes["few_tokens"].startswith("3,000 tokens requested, about 2,000 expected")
    assert "few_tokens" not in dict(make_plan(load_study(language(study_file, "500, 1000")), CPU, supply).lint)


def test_tokens_of_a_text_grow_as_the_vocabulary_shrinks() -> None:
    values = [letters_per_token(size) for size in (256, 300, 400, 512, 2048, 30_000, 200_000)]
    assert values == sorted(values)
    assert letters_per_token(1536) == pytest.approx((2.6 + 3.1) / 2)


def test_a_budget_cuts_repeats_before_cells_and_says_so(study_file: Path) -> None:
    whole = make_plan(load_study(study_file), CPU, SUPPLY)
    hours = whole.gpu_hours * 0.8
    with study_file.open("a") as file:
        file.write(f"budget: {{gpu_hours: {hours}}}\n")
    plan = make_plan(load_study(study_file), CPU, SUPPLY)
    assert plan.gpu_hours <= hours
    assert len(plan.trials) + len(plan.cut) == len(whole.trials)
    assert all("budget" in reason for _, reason in plan.cut)
    kept = {(p.trial.model.name, p.trial.data_requested, p.trial.seed) for p in plan.trials}
    if any(seed for *_, seed in kept):
        assert {cell for cell in kept if cell[2] == 0} >= {("bert-1x32", 20, 0), ("bert-2x64", 80, 0)}


def test_results_change_no_pairs_and_no_cuts(study_file: Path) -> None:
    study = load_study(edited(study_file, "gpus: [1]", "gpus: [1, 2]"))
    slow = measured(make_plan(study, CPU, SUPPLY), train=1e4)
    chosen = [{p.trial.trial_id for p in make_plan(study, CPU, SUPPLY, m).trials if p.alone} for m in ([], slow)]
    assert chosen[0] == chosen[1] != set()


def test_a_budget_that_leaves_nothing_is_refused(study_file: Path) -> None:
    with study_file.open("a") as file:
        file.write("budget: {gpu_hours: 1.0e-9}\n")
    with pytest.raises(StudyError, match=r"study.yaml:10: budget: leaves no trial"):
        make_plan(load_study(study_file), CPU, SUPPLY)


def test_models_that_share_a_name_are_told_apart(study_file: Path) -> None:
    text = "  - {family: bert, sizes: [1x32], vocabulary: 1024}\ngrid:"
    study = load_study(edited(study_file, "grid:", text))
    names = {p.trial.model.name for p in make_plan(study, CPU, SUPPLY).trials}
    assert names == {"bert-1x32-v512", "bert-1x32-v1024", "bert-2x64"}


def test_lint_says_what_the_design_cannot_show(study_file: Path) -> None:
    study = load_study(edited(study_file, "sizes: [1x32, 2x64]", "sizes: [1x32]"))
    assert "one_size" in [code for code, _ in make_plan(study, CPU, SUPPLY).lint]


def test_packing_runs_lone_trials_by_themselves(study_file: Path) -> None:
    first, second, third = make_plan(load_study(study_file), CPU, SUPPLY).trials[:3]
    timed = [replace(p, seconds=s, alone=a) for p, s, a in ((first, 4, False), (second, 2, False), (third, 1, True))]
    assert wall_seconds(timed, 2) - wall_seconds([], 2) == 5
    assert wall_seconds(timed[:2], 2) - wall_seconds([], 2) == 4


def test_augmentations_multiply_the_cells_and_leave_plain_ids_alone(study_file: Path) -> None:
    study = load_study(study_file)
    plain = make_plan(study, CPU, SUPPLY)
    syn = Copies("syn", 2, "0123456789abcdef")
    both = make_plan(study, CPU, replace(SUPPLY, augmentations=(Copies(), syn)))
    ids = {p.trial.trial_id for p in plain.trials}
    assert {p.trial.trial_id for p in both.trials if p.trial.augment == "none"} == ids
    assert len(both.trials) == 2 * len(plain.trials)
    other = make_plan(study, CPU, replace(SUPPLY, augmentations=(replace(syn, digest="f" * 16),)))
    made = {p.trial.trial_id for p in both.trials} - ids
    assert not made & {p.trial.trial_id for p in other.trials}
    assert [code for code, _ in other.lint if code == "no_plain_cells"]
    cells = {(p.trial.augment, p.trial.model.name, p.trial.data_requested, p.trial.seed): p for p in both.trials}
    for (augment, *cell), planned in cells.items():
        if augment == "syn":  # three times the rows: at least twice the time, evaluation and start being the same
            assert planned.seconds > 2 * cells["none", *cell].seconds
            assert steps_of(planned.trial) == -(-3 * planned.trial.data_requested // 32)
    assert {row["augment"] for row in both.to_json()["trials"]} == {"none", "syn"}


def test_the_disk_holds_kept_models_and_three_checkpoints_of_the_largest_trials_that_run_at_once(
    study_file: Path,
) -> None:
    study = load_study(study_file)

    def disk(slots: int = 2, **settings: Any) -> int:
        run = study.run.model_copy(update={"keep": "none", **settings})
        return make_plan(study.model_copy(update={"run": run}), replace(CPU, slots=slots), SUPPLY).disk_bytes

    plan = make_plan(study, CPU, SUPPLY)
    bare, largest = disk(), max(p.params for p in plan.trials)
    assert bare == disk(checkpoint_seconds=None) < 1e6  # all are shorter than 300 s
    assert disk(checkpoint_seconds=1e-3) == bare + 2 * 3 * 12 * largest
    assert disk(slots=1, checkpoint_seconds=1e-3) == bare + 3 * 12 * largest
    assert disk(keep="best") == bare + 4 * largest
    assert disk(keep="all") == bare + 4 * sum(p.params for p in plan.trials)


def test_keep_best_without_validation_rows_is_refused(study_file: Path) -> None:
    none = replace(SUPPLY, counts={"validation": 0})
    study = load_study(study_file)
    with pytest.raises(
        StudyError, match=r"study.yaml:\d+: run.keep: is best, which the validation rows decide"
    ) as told:
        make_plan(study, CPU, none)
    assert told.value.code == "no_validation"
    kept = study.model_copy(update={"run": study.run.model_copy(update={"keep": "all"})})
    assert make_plan(kept, CPU, none).trials
    for key, value in (("learning_rate", (1e-3, 1e-2)), ("early_stopping", 3), ("schedule", "plateau")):
        watched = kept.model_copy(update={"training": kept.training.model_copy(update={key: value})})
        with pytest.raises(StudyError, match=rf"study.yaml:\d+: training.{key}: .* validation rows"):
            make_plan(watched, CPU, none)


def test_a_sweep_trains_every_cell_at_every_rate_and_is_cut_as_a_whole(study_file: Path) -> None:
    plain = make_plan(load_study(study_file), CPU, SUPPLY)
    path = edited(study_file, "learning_rate: 1e-3", "learning_rate: [1e-2, 1e-3, 1e-4]")
    plan = make_plan(load_study(path), CPU, SUPPLY)
    rates = [p.trial.training["learning_rate"] for p in plan.trials]
    assert sorted(rates) == sorted([1e-4, 1e-3, 1e-2] * len(plain.trials))
    assert {p.trial.trial_id for p in plain.trials} < {p.trial.trial_id for p in plan.trials}
    assert plan.gpu_hours == pytest.approx(3 * plain.gpu_hours)
    assert ("sweep", "3 learning rates: 8 cells take 24 trials; validation rows choose the best") in plan.lint
    half = path.read_text() + f"budget: {{gpu_hours: {plan.gpu_hours / 2}}}\n"
    path.write_text(half)
    left = make_plan(load_study(path), CPU, SUPPLY)
    assert 0 < len(left.trials) < 24
    assert len(left.trials) % 3 == 0
    assert len(left.trials) + 3 * len(left.cut) == 24
