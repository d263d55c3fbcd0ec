"""Whether a study can run on this machine and on this text at all: GPUs, rows, tokens, validation rows."""

from __future__ import annotations

from collections.abc import Iterator

from rayscale.errors import StudyError
from rayscale.plan.estimate import Supply
from rayscale.study.study import Study
from rayscale.system.machine import Machine, torch_without_cuda

Refusal = tuple[str, tuple[str, ...], str]  # code, field, text


def check_feasible(study: Study, machine: Machine, supply: Supply) -> None:
    """Raises StudyError where this machine lacks GPUs that the study needs, or its text is too short for the grid."""
    for refusals in (_gpus(study, machine), _rows(study, supply), _tokens(study, supply)):
        for code, field, text in refusals:
            raise StudyError(text, code=code, where=study.where(*field))


def _gpus(study: Study, machine: Machine) -> Iterator[Refusal]:
    on_gpus = machine.device == "cuda"
    place = machine.origin
    if on_gpus and not machine.slots:
        text = f"asks for GPUs; {place} has none; write auto or cpu, or give --address of a cluster with GPUs"
        yield "no_gpu", ("run", "accelerator"), text
    if on_gpus and place == "this machine" and (build := torch_without_cuda()):
        text = f"{place} has {machine.gpus} GPUs ({machine.device_name}), but its torch {build} was built for CPUs only"
        yield "cpu_torch", ("run", "accelerator"), f"{text}; install torch with CUDA, or write accelerator: cpu"
    if (most := max(study.grid.gpus)) > machine.slots:
        what = "GPUs" if on_gpus else "worker slots (physical cores, as there is no GPU)"
        text = f"asks for {most} GPUs a trial; {place} has {machine.slots} {what}; use at most {machine.slots}"
        yield "infeasible_gpus", ("grid", "gpus"), f"{text}, or give --address of a larger cluster"
    no_gpu = f"needs a GPU, and {place} has none; set it to"
    if machine.device == "cpu" and study.training.compile:
        yield "no_gpu", ("training", "compile"), f"{no_gpu} false"
    if machine.device == "cpu" and study.training.precision == "tf32":
        yield "no_gpu", ("training", "precision"), f"{no_gpu} auto"


def _rows(study: Study, supply: Supply) -> Iterator[Refusal]:
    largest = study.grid.sizes[-1]
    training = study.training
    if supply.exact and study.grid.axis == "examples" and largest > (rows := supply.train_rows):
        text = f"asks for {largest} examples; the training split has {rows} after duplicates, near-duplicates"
        text += f" and the validation and test rows are taken out; use at most {rows}"
        yield "too_little_data", ("grid", "examples"), text
    if not supply.exact or supply.counts.get("validation") != 0:
        return
    for needed, field, what in (
        (study.run.keep == "best", ("run", "keep"), "is best, which the validation rows decide; write all or none"),
        (len(training.rates) > 1, ("training", "learning_rate"),
         "is a sweep, whose best the validation rows decide; write one rate or auto"),
        (training.early_stopping is not None, ("training", "early_stopping"),
         "ends training by the validation rows; leave it out"),
        (training.schedule == "plateau", ("training", "schedule"),
         "is plateau, which the validation rows decide; write another one"),
    ):  # fmt: skip
        if needed:
            text = "or give validation rows, of which there are none: more text, a file as data.validation, or a larger"
            yield "no_validation", field, f"{what}, {text} data.validation_fraction"


def _tokens(study: Study, supply: Supply) -> Iterator[Refusal]:
    """Before the text is tokenised its tokens are an estimate, and twice as many are accepted."""
    if study.grid.axis != "tokens":
        return
    code, field = "too_little_data", ("grid", "tokens")
    window = study.task.length
    sizes = study.grid.sizes
    if sizes[0] < window:
        text = f"asks for {sizes[0]} tokens, less than one window of {window} (task.max_length); use {window} or more"
        yield code, field, text
    available = supply.train_tokens
    if available is not None and sizes[-1] > available * (2 if supply.estimated else 1):
        there = f"{'about ' if supply.estimated else ''}{available:,.0f}"
        yield code, field, f"asks for {sizes[-1]:,} tokens; the training split has {there}; use fewer, or add text"
    if supply.held_out_tokens is not None and supply.held_out_tokens < window / 2:
        text = f"the validation or the test split has about {supply.held_out_tokens:,.0f} tokens, less than one window"
        yield code, ("data",), f"{text} of {window}; give more text, a larger fraction or a smaller task.max_length"
