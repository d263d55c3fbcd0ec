"""Study → Plan: the trials with stable ids, what each will cost and on what basis, and what is cut.

Pure and quick: no torch, no Ray. What needs reading text comes in as a `Supply`, measured by the text floor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rayscale.errors import InputError, StudyError
from rayscale.plan.estimate import Copies, Measured, Planned, Supply, cost, learn, share_gpus, wall_seconds
from rayscale.plan.heads import UNCUT, check_head, no_padding, padding_of
from rayscale.plan.parameters import (
    LABELLED_BY_LAST_STATE,
    WIDTH_KEYS,
    check_weights,
    count,
    count_adapters,
    count_head,
    count_mixture,
    depth_of,
    family_config,
    has_head,
)
from rayscale.plan.resources import crowd, disk_bytes
from rayscale.runs.fit_rows import guessing_loss
from rayscale.runs.trial import CELL, ModelSpec, Trial, identified
from rayscale.study.checkpoints import Checkpoint, check_tokenizer, find_checkpoint, read_config
from rayscale.study.checks import repeated
from rayscale.study.study import Ladder, Study
from rayscale.study.tasks import find_kind
from rayscale.system.machine import Machine, torch_without_cuda

#: About the longest that a cell runs alone at the most GPUs, so that its speed can be measured.
PAIR_SECONDS = 8.0


@dataclass(frozen=True)
class Plan:
    """What will run, in the order of admission: larger GPU counts first, trials that run alone last."""

    study: Study
    machine: Machine
    supply: Supply
    trials: tuple[Planned, ...]
    cut: tuple[tuple[str, str], ...]
    seconds: float  # wall time, start-up included
    disk_bytes: int  # the most at one time: records, kept models, checkpoints
    lint: tuple[tuple[str, str], ...]
    doctor: Mapping[str, Any] = field(default_factory=dict)  # what was found of the text: `text.diagnosis`

    @property
    def gpu_hours(self) -> float:
        """Sum over trials of GPUs (or slots) x hours."""
        return sum(p.gpu_seconds for p in self.trials) / 3600

    @property
    def money(self) -> float | None:
        """GPU-hours at the study's price; None without one."""
        price = self.study.prices.gpu_hour
        return self.gpu_hours * price if price else None

    @property
    def guessing_loss(self) -> dict[str, float]:
        """By model the test loss of one that has learnt nothing."""
        words = {planned.trial.model.name: planned.trial.model.vocabulary for planned in self.trials}
        return guessing_loss(self.study.task.type, words, self.supply.n_labels, self.supply.guessing_loss)

    def to_json(self) -> dict[str, Any]:
        """The object of `plan --json`."""
        return {
            "study": self.study.name,
            "machine": asdict(self.machine),
            "task": self.study.task.type,
            "data_axis": self.study.grid.axis,
            "data_fingerprint": self.supply.fingerprint,
            "data": dict(self.supply.counts),
            "target": self.study.target.model_dump(),
            "prices": self.study.prices.model_dump(),
            "trials": [planned.row() for planned in self.trials],
            "cut": [{"cell": cell, "reason": reason} for cell, reason in self.cut],
            "total": {
                "trials": len(self.trials),
                "seconds": self.seconds,
                "gpu_hours": self.gpu_hours,
                "money": self.money,
                "currency": self.study.prices.currency,
                "disk_bytes": self.disk_bytes,
            },
            "guessing_loss": self.guessing_loss,
            "lint": [{"code": code, "message": message} for code, message in self.lint],
            "doctor": dict(self.doctor),
        }


@contextmanager
def _at(place: str) -> Iterator[None]:
    """An error of a checkpoint that rises within names the place in the study that asks for it."""
    try:
        yield
    except InputError as error:
        raise StudyError(str(error), code=error.code, where=place) from error


def model_specs(study: Study) -> list[ModelSpec]:
    """The sizes of all models of the study, in the order of the file; each once.

    Raises InputError for a checkpoint that cannot be found or read, that cannot do the task, whose tokenizer is not
    there or not its own, that names no padding where it needs some, that has fewer layers than asked for, or not those
    that adapters are asked for.
    """
    specs: list[ModelSpec] = []
    for number, model in enumerate(study.models):
        if isinstance(model, Ladder):
            for size in model.sizes:
                layers, width = map(int, size.split("x"))
                name = f"{model.family}-{size}"
                specs.append(ModelSpec(name, "family", model.family, layers, width, model.vocabulary))
            continue
        with _at(study.where("models", number, "pretrained")):
            found = find_checkpoint(model.pretrained, model.revision)
            check_head(str(found.folder), found.config, study.task.type)
            _check_padding(found, study.task.type, check_tokenizer(found.folder, found.config))
            depth = depth_of(str(found.folder), found.config)
            check_weights(found.folder)
            for whole in (None, depth):
                count(found.config, study.task.type, 2, whole, found.folder)
            family = str(found.config.get("model_type"))
        for layers in model.layers or (depth,):
            if layers > depth:
                raise StudyError(
                    f"{found.name} has {depth} layers, {layers} asked for; use {depth} or fewer",
                    code="too_many_layers",
                    where=study.where("models", number, "layers"),
                )
            if layers < depth and family in UNCUT:
                raise StudyError(
                    f"{found.name} is a '{family}' checkpoint, of whose layers none can be left out; leave the key out",
                    code="wrong_architecture",
                    where=study.where("models", number, "layers"),
                )
            own = model.name or found.name
            name = own if layers == depth else f"{own}@{layers}"
            if model.lora:
                name = f"{name}-{model.lora.label}"
                with _at(study.where("models", number, "lora")):
                    count_adapters(found.folder, layers, model.lora, study.task.type)
            wide = next((found.config[key] for key in WIDTH_KEYS if found.config.get(key)), None)
            words, path = found.config.get("vocab_size"), str(found.folder)
            place = (path, model.revision, found.digest)
            specs.append(ModelSpec(name, "pretrained", family, layers, wide, words, *place, model.lora))
    specs = list(dict.fromkeys(specs))
    names = Counter(spec.name for spec in specs)
    # Two models must not share a row of the table: what tells them apart joins the name.
    return [
        replace(spec, name=f"{spec.name}-{spec.digest[:6] if spec.digest else f'v{spec.vocabulary}'}")
        if names[spec.name] > 1
        else spec
        for spec in specs
    ]


def _check_padding(found: Checkpoint, task_type: str, token_ids: Mapping[str, int]) -> None:
    """Raises InputError for a decoder that would read the class of a text off its last token, which it cannot find."""
    by_last = find_kind(task_type).labels_texts and found.config.get("model_type") in LABELLED_BY_LAST_STATE
    if by_last and padding_of(found.config.get, token_ids) is None:
        raise no_padding(str(found.folder))


def make_plan(
    study: Study,
    machine: Machine,
    supply: Supply,
    measured: Sequence[Measured] = (),
    specs: Sequence[ModelSpec] | None = None,
    rate_of: Callable[[Trial], float] | None = None,
) -> Plan:
    """All cells of the grid with id and cost; `measured` are finished trials that estimates learn from.

    `specs` are those of `model_specs`, where they are known already: checkpoints are hashed for them. `rate_of` gives
    the rates of a study that transfers them.

    Raises StudyError: more GPUs asked for than there are, more data than there is.
    """
    _check_feasible(study, machine, supply)
    cells = []
    task = {**study.task.model_dump(), "max_length": study.task.length}
    training = {**study.training.model_dump(), "epochs": study.epochs}
    for spec in specs or model_specs(study):
        params, non_embedding, stored, trained = _parameters(spec, study, supply.n_labels)
        for size in study.grid.sizes:
            for gpus in sorted(set(study.grid.gpus)):
                for seed in range(study.grid.seeds_at(size)):
                    plain = Trial(
                        "", study.name, task, spec, study.grid.axis, size, gpus, seed, "none", training, machine.device,
                        1, supply.fingerprint,
                    )  # fmt: skip
                    rates = [rate_of(plain)] if rate_of else study.training.rates
                    rated = [replace(plain, training={**plain.training, "learning_rate": rate}) for rate in rates]
                    for trial in (_augmented(each, copies) for copies in supply.augmentations for each in rated):
                        held = supply.held_out_rows
                        cells.append(cost(trial, params, non_embedding, supply.mean_tokens, held, stored, trained))
    cells = [share_gpus(each, machine.trials_per_gpu) for each in cells]
    kept, cut = _within_budget(study, _pair_alone(cells, machine))
    return _planned(study, machine, supply, learn(kept, measured), cut)


def _planned(
    study: Study, machine: Machine, supply: Supply, kept: Sequence[Planned], cut: Sequence[tuple[str, str]]
) -> Plan:
    """The plan of these cells, in the order of admission."""
    ordered = sorted(kept, key=lambda p: (p.alone, -p.trial.gpus, -p.seconds, p.trial.trial_id))
    disk = disk_bytes(ordered, study.run, machine.slots)
    seconds, lint = wall_seconds(ordered, machine.slots, study.run.executor), _lint(study, ordered, supply, machine)
    return Plan(study, machine, supply, tuple(ordered), tuple(cut), seconds, disk, tuple(lint))


def leave_out(plan: Plan, why: Mapping[str, str]) -> Plan:
    """The plan without the trials of these ids, which join what is cut, each with its reason.

    Raises StudyError where none is left.
    """
    left = [each for each in plan.trials if each.trial.trial_id not in why]
    if not left:
        text = "; ".join(dict.fromkeys(why.values()))
        raise StudyError(f"leaves no trial: {text}", code="no_children", where=plan.study.where("data", "augment"))
    order = [copies.name for copies in plan.supply.augmentations]
    left = _pair_alone(sorted(left, key=lambda each: order.index(each.trial.augment)), plan.machine)
    cut = [(_named(each), why[each.trial.trial_id]) for each in plan.trials if each.trial.trial_id in why]
    made = _planned(plan.study, plan.machine, plan.supply, left, [*plan.cut, *cut])
    said = _lint(plan.study, plan.trials, plan.supply, plan.machine)
    return replace(made, lint=(*(each for each in plan.lint if each not in said), *made.lint), doctor=plan.doctor)


def _check_feasible(study: Study, machine: Machine, supply: Supply) -> None:
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
    for key, asked, mend in (
        ("compile", study.training.compile, "false"),
        ("precision", study.training.precision == "tf32", "auto"),
    ):
        if asked and machine.device == "cpu":
            raise StudyError(
                f"is for GPUs, and {machine.origin} has none; write {mend}",
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
         "is plateau, which the validation rows tell; write another one"),
    ):  # fmt: skip
        if needed:
            raise StudyError(
                f"{what}, or give validation rows, of which there are none: more text, a file as data.validation, or a "
                "larger data.validation_fraction",
                code="no_validation",
                where=study.where(*place),
            )


def _check_tokens(study: Study, supply: Supply) -> None:
    """Tokens are estimates until the text is tokenised: refused is what is wrong by more than a factor of two."""
    window, sizes = study.task.length, study.grid.sizes
    if sizes[0] < window:
        raise StudyError(
            f"asks for {sizes[0]} tokens, less than one window of {window} (task.max_length); use {window} or more",
            code="too_little_data",
            where=study.where("grid", "tokens"),
        )
    there = supply.train_tokens
    if there is not None and sizes[-1] > there * (2 if supply.estimated else 1):
        about = "about " if supply.estimated else ""
        raise StudyError(
            f"asks for {sizes[-1]:,} tokens; the training split has {about}{there:,.0f}; use fewer, or give more text",
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


def _augmented(plain: Trial, copies: Copies) -> Trial:
    return identified(replace(plain, augment=copies.name, copies=copies.copies, augment_digest=copies.digest))


def _parameters(spec: ModelSpec, study: Study, n_labels: int) -> tuple[int, int, int, int]:
    """(all parameters, those without embedding tables, all at the full depth of the checkpoint, those that learn)."""
    if spec.kind == "family":
        assert spec.width is not None
        assert spec.vocabulary is not None
        config = family_config(spec.family, spec.layers, spec.width, spec.vocabulary, study.task.length, n_labels)
        found = count(config, study.task.type, n_labels, spec.layers)
        return *found, 0, found[0]
    assert spec.path
    config = read_config(spec.path)
    stored = count(config, study.task.type, n_labels, None, spec.path)[0]
    found = count(config, study.task.type, n_labels, spec.layers, spec.path)
    if spec.lora is None:
        return *found, stored, found[0]
    head = count_head(config, study.task.type, n_labels)
    return *found, stored, count_adapters(spec.path, spec.layers, spec.lora, study.task.type) + head


def _pair_alone(cells: Sequence[Planned], machine: Machine) -> list[Planned]:
    """Mark one cell per model and GPU count to run alone, on the same data, augmentation and seed: the pairs that speed
    is read from.

    Wanted: the longest cell of at most PAIR_SECONDS, since the shorter it is the more its speed scatters; the smallest
    where all take longer.
    """
    counts = {p.trial.gpus for p in cells}
    if len(counts) < 2:
        return list(cells)
    chosen: dict[str, int] = {}
    augment = cells[0].trial.augment
    for each in sorted((p for p in cells if p.trial.augment == augment), key=lambda p: p.trial.data_requested):
        fits = each.trial.model.name not in chosen or each.seconds <= PAIR_SECONDS
        if each.trial.gpus == max(counts) and fits:
            chosen[each.trial.model.name] = each.trial.data_requested
    return [
        replace(
            p, alone=(p.trial.seed, p.trial.augment, p.trial.data_requested) == (0, augment, chosen[p.trial.model.name])
        )
        if p.trial.gpus < machine.slots
        else p
        for p in cells
    ]


def _within_budget(study: Study, cells: Sequence[Planned]) -> tuple[list[Planned], list[tuple[str, str]]]:
    """Cut until the budget holds: repeated seeds first, then cells, the dearest first in both."""
    hours = study.budget.gpu_hours
    if study.budget.usd and study.prices.gpu_hour:
        hours = min(hours or float("inf"), study.budget.usd / study.prices.gpu_hour)
    cut: list[tuple[str, str]] = []
    if hours is None:
        return list(cells), cut
    # All rates of a sweep go together: a part of them would choose among less than was asked for.
    swept: dict[tuple[Any, ...], list[Planned]] = {}
    for each in cells:
        swept.setdefault(_cell(each), []).append(each)
    spent = sum(p.gpu_seconds for p in cells) / 3600
    for each in sorted(cells, key=lambda p: (p.trial.seed == 0, -p.gpu_seconds)):
        if spent <= hours:
            break
        together = swept.pop(_cell(each), None)
        if together is None:
            continue
        cut.append((_named(each), f"over the budget of {hours:g} GPU-hours"))
        spent -= sum(p.gpu_seconds for p in together) / 3600
    kept = [each for each in cells if _cell(each) in swept]
    if not kept:
        cheapest = min(each.gpu_seconds for each in cells) / 3600
        raise StudyError(
            f"leaves no trial: the cheapest takes about {cheapest:.2g} GPU-hours, the budget is {hours:.2g}",
            code="budget_too_small",
            where=study.where("budget"),
        )
    return kept, cut


def _named(planned: Planned) -> str:
    """A cell as people read it."""
    t = planned.trial
    augment = f", augment {t.augment}" if t.augment != "none" else ""
    return f"{t.model.name}, {t.data_requested} {t.data_axis}, {t.gpus} GPUs, seed {t.seed}{augment}"


def _cell(planned: Planned) -> tuple[Any, ...]:
    """What the trials of a sweep share."""
    return tuple(getattr(planned.trial, name) for name in CELL)


def _stored_classes(folder: str, n_labels: int) -> str:
    """What is to be said of a checkpoint that brings a head of the task's size."""
    names = read_config(folder).get("id2label") or {}
    listed = [str(names.get(str(number), "")) for number in range(min(n_labels, 4))]
    of = f" ({', '.join(listed)}{', ...' if n_labels > 4 else ''})" if all(listed) else ""
    return (
        f"training begins with the head that the checkpoint brings, of as many classes{of}, not with a new one; its "
        "first class becomes the first of the study's, which stand in the order of their names, and so on. For a new "
        "head give the body alone: AutoModel.from_pretrained(folder).save_pretrained(another)"
    )


def _lint(study: Study, planned: Sequence[Planned], supply: Supply, machine: Machine) -> list[tuple[str, str]]:
    """What this design cannot show, and what the text and the GPUs may not give."""
    found = []
    if (crowding := crowd(planned, machine)) and crowding.mend:
        found.append(("little_gpu_memory", f"{crowding.found}: {crowding.mend}"))
    there = supply.train_tokens
    if study.grid.axis == "tokens" and there is not None and supply.estimated and study.grid.sizes[-1] > there:
        text = (
            f"{study.grid.sizes[-1]:,} tokens asked, about {there:,.0f} expected: tokenising will tell before training"
        )
        found.append(("few_tokens", text))
    sizes = sorted({p.trial.data_requested for p in planned})
    params = sorted({p.params for p in planned})
    axis = study.grid.axis
    if len(sizes) < 3:
        number = "1 data size" if len(sizes) == 1 else "2 data sizes"
        found.append(("few_points", f"{number}: a curve in data needs 3, its hold-out check 4"))
    elif len(sizes) == 3:
        found.append(("few_points", "3 data sizes: a curve can be fitted, but not checked on a held-out size"))
    if len(sizes) > 1 and sizes[-1] < 8 * sizes[0]:
        found.append(("few_sizes", f"{axis} span a factor of {sizes[-1] / sizes[0]:.2g}: 8 or more fixes the exponent"))
    if study.run.trials_per_gpu > 1 and all(p.trial.device == "cpu" for p in planned):
        found.append(("no_gpu_to_share", "run.trials_per_gpu means nothing here: trials run on CPUs, one to a core"))
    if len(params) == 1:
        found.append(("one_size", "one model size: nothing can be said about larger models"))
    if params and len(params) > 1 and params[-1] < 8 * params[0]:
        text = f"model sizes span a factor of {params[-1] / params[0]:.2g}: 8 or more fixes the exponent"
        found.append(("few_sizes", text))
    if len({p.trial.model.lora for p in planned if p.trial.model.kind == "pretrained"}) > 1:
        text = "models that differ in lora have one size: a law over sizes is one curve through both; see those of each"
        found.append(("mixed_lora", text))
    for spec in dict.fromkeys(p.trial.model for p in planned if p.trial.model.path):
        if has_head(str(spec.path), study.task.type, supply.n_labels):
            found.append(("reused_head", f"{spec.name}: {_stored_classes(str(spec.path), supply.n_labels)}"))
    for spec, whole in {p.trial.model: p.params for p in planned if p.trial.model.lora}.items():
        if spec.path and (experts := count_mixture(spec.path, spec.layers)):
            text = (
                f"{spec.name}: its experts, {experts:,} of {whole:,} parameters, get no adapters and stay as they "
                "are; the layers beside them learn"
            )
            found.append(("frozen_experts", text))
    if {p.trial.augment for p in planned} and not any(p.trial.augment == "none" for p in planned):
        found.append(("no_plain_cells", "no cell without augmentation: what a copy is worth cannot be said; add none"))
    if len(study.training.rates) > 1:
        rates, cells = len(study.training.rates), len({_cell(p) for p in planned})
        text = f"{rates} learning rates: {cells} cells take {len(planned)} trials; the best on validation rows counts"
        found.append(("sweep", text))
    found += [("duplicate_cells", text) for text in repeated(study)]
    if not any(p.trial.seed for p in planned):
        found.append(("no_replicates", "one seed everywhere: seed noise is guessed from residuals, not measured"))
    return found
