"""Study → Plan: the trials with stable ids, what each will cost and on what basis, and what is cut.

Pure and quick: no torch, no Ray. What needs reading text comes in as a `Supply`, measured by `text`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from operator import attrgetter
from typing import Any

from rayscale.errors import InputError, StudyError
from rayscale.plan.design_lint import lint
from rayscale.plan.estimate import Measured, Planned, Supply, cost, learn, share_gpus, wall_seconds
from rayscale.plan.feasibility import check_feasible
from rayscale.plan.heads import READ_AS_BYTES, UNCUT, check_head, check_reader, no_padding, padding_of
from rayscale.plan.parameters import (
    LABELLED_BY_LAST_STATE,
    WIDTH_KEYS,
    check_weights,
    count,
    count_adapters,
    count_head,
    depth_of,
    family_config,
)
from rayscale.plan.resources import disk_bytes
from rayscale.report.numbers import plural
from rayscale.runs.fit_rows import guessing_loss
from rayscale.runs.trial import ModelSpec, Trial, identified
from rayscale.study.checkpoints import check_tokenizer, find_checkpoint, read_config
from rayscale.study.study import Ladder, Study
from rayscale.study.tasks import find_kind
from rayscale.system.groups import grouped
from rayscale.system.machine import Machine
from rayscale.system.storage import Store

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
    doctor: Mapping[str, Any] = field(default_factory=dict)  # what was found of the text: `text.review.diagnosis`

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

    def save(self, store: Store) -> None:
        """Write plan.json."""
        store.write("plan.json", json.dumps(self.to_json(), indent=1, allow_nan=False).encode())


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
            checkpoint = find_checkpoint(model.pretrained, model.revision)
            check_head(str(checkpoint.folder), checkpoint.config, study.task.type)
            tokenizer, token_ids = check_tokenizer(checkpoint.folder, checkpoint.config)
            family = str(checkpoint.config.get("model_type"))
            # A decoder reads the class of a text off its last token, which it must find in a padded batch.
            by_last = find_kind(study.task.type).labels_texts and family in LABELLED_BY_LAST_STATE
            if by_last and padding_of(checkpoint.config.get, token_ids) is None:
                raise no_padding(str(checkpoint.folder))
            if study.run.keep != "none" and family in READ_AS_BYTES:
                check_reader(str(checkpoint.folder), family, tokenizer)
            depth = depth_of(str(checkpoint.folder), checkpoint.config)
            check_weights(checkpoint.folder)
            for whole in (None, depth):
                count(checkpoint.config, study.task.type, 2, whole, checkpoint.folder)
        where = study.where("models", number, "layers")
        for layers in model.layers or (depth,):
            if layers > depth:
                text = f"{checkpoint.name} has {depth} layers, {layers} asked for; use {depth} or fewer"
                raise StudyError(text, code="too_many_layers", where=where)
            if layers < depth and family in UNCUT:
                text = f"{checkpoint.name} is a '{family}' checkpoint, whose layers cannot be left out; remove the key"
                raise StudyError(text, code="wrong_architecture", where=where)
            base = model.name or checkpoint.name
            name = base if layers == depth else f"{base}@{layers}"
            if model.lora:
                name = f"{name}-{model.lora.label}"
                with _at(study.where("models", number, "lora")):
                    count_adapters(checkpoint.folder, layers, model.lora, study.task.type)
            hidden = next((checkpoint.config[key] for key in WIDTH_KEYS if checkpoint.config.get(key)), None)
            vocabulary = checkpoint.config.get("vocab_size")
            place = (str(checkpoint.folder), model.revision, checkpoint.digest)
            specs.append(ModelSpec(name, "pretrained", family, layers, hidden, vocabulary, *place, model.lora))
    specs = list(dict.fromkeys(specs))
    names = Counter(spec.name for spec in specs)
    # Two models must not share a row of the table: what tells them apart joins the name.
    marks = [spec.digest[:6] if spec.digest else f"v{spec.vocabulary}" for spec in specs]
    return [
        replace(spec, name=f"{spec.name}-{mark}") if names[spec.name] > 1 else spec
        for spec, mark in zip(specs, marks, strict=True)
    ]


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
    check_feasible(study, machine, supply)
    cells = []
    task = study.task.model_copy(update={"max_length": study.task.length})
    training = {**study.training.model_dump(), "epochs": study.epochs, "learning_rate": "auto"}
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
                    for copies, rate in product(supply.augmentations, rates):
                        trial = replace(
                            plain, training={**plain.training, "learning_rate": rate}, augment=copies.name,
                            copies=copies.copies, augment_digest=copies.digest,
                        )  # fmt: skip
                        rule = cost(identified(trial), params, non_embedding, supply, stored, trained)
                        cells.append(share_gpus(rule, machine.trials_per_gpu))
    kept, cut = _within_budget(study, _pair_alone(cells, machine))
    return _planned(study, machine, supply, learn(kept, measured), cut)


def _planned(
    study: Study, machine: Machine, supply: Supply, kept: Sequence[Planned], cut: Sequence[tuple[str, str]]
) -> Plan:
    """The plan of these cells, in the order of admission."""
    ordered = sorted(kept, key=lambda p: (p.alone, -p.trial.gpus, -p.seconds, p.trial.trial_id))
    disk = disk_bytes(ordered, study.run, machine.slots)
    seconds = wall_seconds(ordered, machine.slots, study.run.executor)
    notes = tuple(lint(study, ordered, supply, machine))
    return Plan(study, machine, supply, tuple(ordered), tuple(cut), seconds, disk, notes)


def leave_out(plan: Plan, why: Mapping[str, str]) -> Plan:
    """The plan without the trials of these ids, which join what is cut, each with its reason.

    Raises StudyError where none is left.
    """
    left = [planned for planned in plan.trials if planned.trial.trial_id not in why]
    if not left:
        text = "; ".join(dict.fromkeys(why.values()))
        raise StudyError(f"leaves no trial: {text}", code="no_children", where=plan.study.where("data", "augment"))
    order = [copies.name for copies in plan.supply.augmentations]
    left = _pair_alone(sorted(left, key=lambda planned: order.index(planned.trial.augment)), plan.machine)
    cut = [(_named(planned), why[planned.trial.trial_id]) for planned in plan.trials if planned.trial.trial_id in why]
    smaller = _planned(plan.study, plan.machine, plan.supply, left, [*plan.cut, *cut])
    of_design = set(lint(plan.study, plan.trials, plan.supply, plan.machine))
    others = [note for note in plan.lint if note not in of_design]
    return replace(smaller, lint=(*others, *smaller.lint), doctor=plan.doctor)


def _parameters(spec: ModelSpec, study: Study, n_labels: int) -> tuple[int, int, int, int]:
    """(all parameters, those without embedding tables, all at the full depth of the checkpoint, those that learn)."""
    if spec.kind == "family":
        assert spec.width is not None
        assert spec.vocabulary is not None
        config = family_config(spec.family, spec.layers, spec.width, spec.vocabulary, study.task.length, n_labels)
        counts = count(config, study.task.type, n_labels, spec.layers)
        return *counts, 0, counts[0]
    assert spec.path
    config = read_config(spec.path)
    stored = count(config, study.task.type, n_labels, None, spec.path)[0]
    counts = count(config, study.task.type, n_labels, spec.layers, spec.path)
    if spec.lora is None:
        return *counts, stored, counts[0]
    head = count_head(config, study.task.type, n_labels)
    return *counts, stored, count_adapters(spec.path, spec.layers, spec.lora, study.task.type) + head


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
    for planned in sorted((p for p in cells if p.trial.augment == augment), key=lambda p: p.trial.data_requested):
        fits = planned.trial.model.name not in chosen or planned.seconds <= PAIR_SECONDS
        if planned.trial.gpus == max(counts) and fits:
            chosen[planned.trial.model.name] = planned.trial.data_requested
    pairs = {(name, size, augment, 0) for name, size in chosen.items()}
    cell_of = attrgetter("model.name", "data_requested", "augment", "seed")
    return [replace(p, alone=p.trial.gpus < machine.slots and cell_of(p.trial) in pairs) for p in cells]


def _within_budget(study: Study, cells: Sequence[Planned]) -> tuple[list[Planned], list[tuple[str, str]]]:
    """Cut until the budget holds: repeated seeds first, then cells, the dearest first in both."""
    hours = study.budget.gpu_hours
    if study.budget.usd and study.prices.gpu_hour:
        hours = min(hours or float("inf"), study.budget.usd / study.prices.gpu_hour)
    cut: list[tuple[str, str]] = []
    if hours is None:
        return list(cells), cut
    # All rates of a sweep go together: a part of them would choose among less than was asked for.
    swept = grouped((planned.cell, planned) for planned in cells)
    spent = sum(p.gpu_seconds for p in cells) / 3600
    for planned in sorted(cells, key=lambda p: (p.trial.seed == 0, -p.gpu_seconds)):
        if spent <= hours:
            break
        if together := swept.pop(planned.cell, None):
            cut.append((_named(planned), f"over the budget of {hours:g} GPU-hours"))
            spent -= sum(p.gpu_seconds for p in together) / 3600
    kept = [planned for planned in cells if planned.cell in swept]
    if not kept:
        cheapest = min(planned.gpu_seconds for planned in cells) / 3600
        text = f"leaves no trial: the cheapest takes about {cheapest:.2g} GPU-hours, the budget is {hours:.2g}"
        raise StudyError(text, code="budget_too_small", where=study.where("budget"))
    return kept, cut


def _named(planned: Planned) -> str:
    """A cell as people read it."""
    t = planned.trial
    augment = f", augment {t.augment}" if t.augment != "none" else ""
    return f"{t.model.name}, {t.data_requested} {t.data_axis}, {plural(t.gpus, 'GPU')}, seed {t.seed}{augment}"
