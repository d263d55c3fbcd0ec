"""Whether a study can run on this machine and on this text at all: GPUs, rows, tokens, validation rows."""

from __future__ import annotations

from rayscale.errors import StudyError
from rayscale.plan.estimate import Supply
from rayscale.study.study import Study
from rayscale.system.machine import Machine, torch_without_cuda


def check_feasible(study: Study, machine: Machine, supply: Supply) -> None:
    """Raises StudyError where this machine lacks GPUs that the study needs, or its text is too short for the grid."""
    most = max(study.grid.gpus)
    if machine.device == "cuda" and not machine.slots:
        raise StudyError(
            f"asks for GPUs; {machine.origin} has none; write auto or cpu, or give --address of a cluster with GPUs",
            code="no_gpu",
            where=study.where("run", "accelerator"),
        )
    if machine.device == "cuda" and machine.origin == "this machine" and (build := torch_without_cuda()):
        raise StudyError(
            f"{machine.origin} has {machine.gpus} GPUs ({machine.device_name}), but its torch {build} was built for "
            "CPUs alone; install torch with CUDA, or write accelerator: cpu",
            code="cpu_torch",
            where=study.where("run", "accelerator"),
        )
    if most > machine.slots:
        what = "GPUs" if machine.device == "cuda" else "worker slots (physical cores, as there is no GPU)"
        raise StudyError(
            f"asks for {most} GPUs a trial; {machine.origin} has {machine.slots} {what}; "
            f"use at most {machine.slots}, or give --address of a larger cluster",
            code="infeasible_gpus",
            where=study.where("grid", "gpus"),
        )
    for key, requested, usual in (
        ("compile", study.training.compile, "false"),
        ("precision", study.training.precision == "tf32", "auto"),
    ):
        if requested and machine.device == "cpu":
            raise StudyError(
                f"needs a GPU, and {machine.origin} has none; set it to {usual}",
                code="no_gpu",
                where=study.where("training", key),
            )
    largest = study.grid.sizes[-1]
    if supply.exact and study.grid.axis == "examples" and largest > supply.train_rows:
        raise StudyError(
            f"asks for {largest} examples; the training split has {supply.train_rows} after duplicates, "
            f"near-duplicates and the validation and test rows are taken out; use at most {supply.train_rows}",
            code="too_little_data",
            where=study.where("grid", "examples"),
        )
    if supply.exact and supply.counts.get("validation") == 0:
        _check_validated(study)
    if study.grid.axis == "tokens":
        _check_tokens(study, supply)


def _check_validated(study: Study) -> None:
    """Raises StudyError where something depends on validation rows; there are none."""
    training = study.training
    for needed, place, what in (
        (study.run.keep == "best", ("run", "keep"), "is best, which the validation rows decide; write all or none"),
        (len(training.rates) > 1, ("training", "learning_rate"),
         "is a sweep, whose best the validation rows decide; write one rate or auto"),
        (training.early_stopping is not None, ("training", "early_stopping"),
         "ends training by the validation rows; leave it out"),
        (training.schedule == "plateau", ("training", "schedule"),
         "is plateau, which the validation rows decide; write another one"),
    ):  # fmt: skip
        if needed:
            raise StudyError(
                f"{what}, or give validation rows, of which there are none: more text, a file as data.validation, or a "
                "larger data.validation_fraction",
                code="no_validation",
                where=study.where(*place),
            )


def _check_tokens(study: Study, supply: Supply) -> None:
    """Raises StudyError; before the text is tokenised its tokens are an estimate, and twice as many are accepted."""
    window, sizes = study.task.length, study.grid.sizes
    if sizes[0] < window:
        raise StudyError(
            f"asks for {sizes[0]} tokens, less than one window of {window} (task.max_length); use {window} or more",
            code="too_little_data",
            where=study.where("grid", "tokens"),
        )
    available = supply.train_tokens
    if available is not None and sizes[-1] > available * (2 if supply.estimated else 1):
        about = "about " if supply.estimated else ""
        raise StudyError(
            f"asks for {sizes[-1]:,} tokens; the training split has {about}{available:,.0f}; use fewer, or add text",
            code="too_little_data",
            where=study.where("grid", "tokens"),
        )
    if supply.held_out_tokens is not None and supply.held_out_tokens < window / 2:
        raise StudyError(
            f"the validation or the test split has about {supply.held_out_tokens:,.0f} tokens, less than one window of "
            f"{window}; give more text, a larger fraction or a smaller task.max_length",
            code="too_little_data",
            where=study.where("data"),
        )
