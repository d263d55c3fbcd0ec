"""Study → Plan: the trials with stable ids, what each will cost and on what basis, and what is cut.

Pure and quick: no torch, no Ray. What needs reading text comes in as a `Supply`, measured by the text floor.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rayscale.checkpoints import find_checkpoint
from rayscale.errors import StudyError
from rayscale.machine import Machine
from rayscale.parameters import count, family_config
from rayscale.study import Ladder, Study

#: Rises only when a golden loss changes: records of another version are other trials.
TRAINING_VERSION = 1

# What a trial is assumed to cost until trials of the run were measured; plan shows the basis beside each figure.
FLOP_PER_SECOND = {"cpu": 2.0e10, "cuda": 5.0e13}
SECONDS_PER_STEP = {"cpu": 0.01, "cuda": 0.02}
START_UP_SECONDS = 40.0  # Ray, data preparation and the first lane; further lane sizes cost LANE_SECONDS
LANE_SECONDS = 20.0


@dataclass(frozen=True)
class ModelSpec:
    """One model of the grid. `digest` is the content of a checkpoint; `width` and `vocabulary` are a ladder's."""

    name: str
    kind: str  # "family" or "pretrained"
    family: str  # model_type: bert, gpt2, ...
    layers: int
    width: int | None = None
    vocabulary: int | None = None
    path: str | None = None
    revision: str | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Trial:
    """One cell of the grid; `trial_id` is a hash of everything that changes its result and of nothing else."""

    trial_id: str
    study: str
    task: Mapping[str, Any]
    model: ModelSpec
    data_axis: str  # "examples" or "tokens"
    data_requested: int
    gpus: int
    seed: int
    augment: str
    training: Mapping[str, Any]
    device: str
    threads: int
    data_fingerprint: str

    def to_json(self) -> dict[str, Any]:
        """Plain values, from which `from_json` makes the same trial."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Trial:
        """The trial that `to_json` wrote."""
        return cls(**{**value, "model": ModelSpec(**value["model"])})


@dataclass(frozen=True)
class Planned:
    """A trial and its expected cost; `alone` asks that nothing runs beside it, so that its speed is measured."""

    trial: Trial
    params: int
    seconds: float
    peak_memory_bytes: int
    basis: str
    alone: bool

    def row(self) -> dict[str, Any]:
        """The row of `plan --json`."""
        trial = self.trial
        return {
            "trial_id": trial.trial_id,
            "model": trial.model.name,
            "params": self.params,
            "data_requested": trial.data_requested,
            "gpus": trial.gpus,
            "seed": trial.seed,
            "seconds": self.seconds,
            "gpu_seconds": self.seconds * trial.gpus,
            "peak_memory_bytes": self.peak_memory_bytes,
            "basis": self.basis,
            "alone": self.alone,
        }


@dataclass(frozen=True)
class Supply:
    """What the text offers: rows for training and their mean length in tokens (an estimate, before tokenising).

    `exact` is False where the rows of large files were estimated; the data's own check comes after preparation then.
    """

    fingerprint: str
    train_rows: int
    mean_tokens: float
    n_labels: int
    exact: bool = True
    held_out_rows: int = 0  # validation and test rows: each trial evaluates all of them


@dataclass(frozen=True)
class Plan:
    """What will run, in the order of admission: larger GPU counts first, trials that run alone last."""

    study: Study
    machine: Machine
    supply: Supply
    trials: tuple[Planned, ...]
    cut: tuple[tuple[str, str], ...]
    seconds: float  # wall time, start-up included
    disk_bytes: int
    lint: tuple[tuple[str, str], ...]

    @property
    def gpu_hours(self) -> float:
        """Sum over trials of GPUs (or slots) x hours."""
        return sum(p.seconds * p.trial.gpus for p in self.trials) / 3600

    @property
    def money(self) -> float | None:
        """GPU-hours at the study's price; None without one."""
        price = self.study.prices.gpu_hour
        return self.gpu_hours * price if price else None

    def to_json(self) -> dict[str, Any]:
        """The object of `plan --json`."""
        return {
            "study": self.study.name,
            "machine": asdict(self.machine),
            "task": self.study.task.type,
            "data_axis": self.study.grid.axis,
            "data_fingerprint": self.supply.fingerprint,
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
            "lint": [{"code": code, "message": message} for code, message in self.lint],
        }


def model_specs(study: Study) -> list[ModelSpec]:
    """The sizes of all models of the study, in the order of the file; each once.

    Raises InputError for a checkpoint that cannot be found or read, or that has fewer layers than asked for.
    """
    specs: list[ModelSpec] = []
    for number, model in enumerate(study.models):
        if isinstance(model, Ladder):
            for size in model.sizes:
                layers, width = map(int, size.split("x"))
                name = f"{model.family}-{size}"
                specs.append(ModelSpec(name, "family", model.family, layers, width, model.vocabulary))
            continue
        found = find_checkpoint(model.pretrained, model.revision)
        depth = int(found.config.get("num_hidden_layers") or found.config.get("n_layer") or 0)
        for layers in model.layers or (depth,):
            if layers > depth:
                raise StudyError(
                    f"{found.name} has {depth} layers, {layers} asked for; use {depth} or fewer",
                    code="too_many_layers",
                    where=study.where("models", number, "layers"),
                )
            name = found.name if layers == depth else f"{found.name}@{layers}"
            family = str(found.config.get("model_type"))
            wide = found.config.get("hidden_size") or found.config.get("n_embd")
            path = str(found.folder)
            specs.append(ModelSpec(name, "pretrained", family, layers, wide, None, path, model.revision, found.digest))
    specs = list(dict.fromkeys(specs))
    names = Counter(spec.name for spec in specs)
    # Two models must not share a row of the table: what tells them apart joins the name.
    return [
        replace(spec, name=f"{spec.name}-{spec.digest[:6] if spec.digest else f'v{spec.vocabulary}'}")
        if names[spec.name] > 1
        else spec
        for spec in specs
    ]


def make_plan(study: Study, machine: Machine, supply: Supply, measured: Sequence[Mapping[str, Any]] = ()) -> Plan:
    """All cells of the grid with id and cost; `measured` are rows of finished trials that estimates learn from.

    Raises StudyError: more GPUs asked for than there are, more data than there is.
    """
    _check_feasible(study, machine, supply)
    cells = []
    for spec in model_specs(study):
        params, non_embedding = _parameters(spec, study, supply.n_labels)
        for size in study.grid.sizes:
            for gpus in sorted(set(study.grid.gpus)):
                for seed in range(study.grid.seeds_at(size)):
                    trial = _trial(study, spec, size, gpus, seed, machine.device, supply.fingerprint)
                    cells.append(_cost(trial, study, params, non_embedding, supply))
    kept, cut = _within_budget(study, _pair_alone(cells, machine))
    kept = [_learn(each, measured) for each in kept]
    ordered = sorted(kept, key=lambda p: (p.alone, -p.trial.gpus, -p.seconds, p.trial.trial_id))
    weights = {p.trial.model: 4 * p.params for p in ordered}
    models_kept = {"none": 0, "best": max(weights.values(), default=0)}
    disk = models_kept.get(study.run.keep, sum(weights[p.trial.model] for p in ordered)) + 20_000 * len(ordered)
    seconds = _wall_seconds(ordered, machine.slots)
    return Plan(study, machine, supply, tuple(ordered), tuple(cut), seconds, disk, tuple(_lint(study, ordered)))


def remaining_seconds(planned: Sequence[Planned], slots: int, slowness: float = 1.0) -> float:
    """Wall seconds to run these trials in order on `slots`, packed greedily; `slowness` scales every estimate."""
    free = [0.0] * slots
    heapq.heapify(free)
    for each in planned:
        taken = [heapq.heappop(free) for _ in range(min(each.trial.gpus, slots))]
        start = max(taken) if not each.alone else max([*taken, *free])
        for _ in taken:
            heapq.heappush(free, start + each.seconds * slowness)
    return max(free, default=0.0)


def _wall_seconds(planned: Sequence[Planned], slots: int) -> float:
    sizes = {p.trial.gpus for p in planned}
    return START_UP_SECONDS + LANE_SECONDS * max(0, len(sizes) - 1) + remaining_seconds(planned, slots)


def _check_feasible(study: Study, machine: Machine, supply: Supply) -> None:
    most = max(study.grid.gpus)
    if machine.device == "cuda" and not machine.slots:
        raise StudyError(
            f"asks for GPUs; {machine.origin} has none; write auto or cpu, or give --address of a cluster with GPUs",
            code="no_gpu",
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
    largest = study.grid.sizes[-1]
    if supply.exact and study.grid.axis == "examples" and largest > supply.train_rows:
        raise StudyError(
            f"asks for {largest} examples; the training split has {supply.train_rows} after duplicates and the "
            f"validation and test rows are taken out; use at most {supply.train_rows}",
            code="too_little_data",
            where=study.where("grid", "examples"),
        )


def _trial(study: Study, spec: ModelSpec, size: int, gpus: int, seed: int, device: str, fingerprint: str) -> Trial:
    task = {**study.task.model_dump(), "max_length": study.task.length}
    training = {**study.training.model_dump(), "epochs": study.epochs}
    trial = Trial(
        "", study.name, task, spec, study.grid.axis, size, gpus, seed, "none", training, device, 1, fingerprint
    )
    # Names and places do not change a result; what a checkpoint holds does.
    identity = {**trial.to_json(), "training_version": TRAINING_VERSION}
    identity.pop("trial_id"), identity.pop("study")
    if spec.digest:
        identity["model"] = {"digest": spec.digest, "layers": spec.layers}
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return replace(trial, trial_id=hashlib.sha256(canonical.encode()).hexdigest()[:16])


def _parameters(spec: ModelSpec, study: Study, n_labels: int) -> tuple[int, int]:
    if spec.kind == "family":
        assert spec.width is not None
        assert spec.vocabulary is not None
        config = family_config(spec.family, spec.layers, spec.width, spec.vocabulary, study.task.length, n_labels)
    else:
        assert spec.path
        config = find_checkpoint_config(spec.path)
    return count(config, study.task.type, n_labels, spec.layers, spec.path)


def find_checkpoint_config(folder: str) -> dict[str, Any]:
    """config.json of a checkpoint's folder."""
    with open(f"{folder}/config.json", encoding="utf-8") as file:
        return json.load(file)


def _cost(trial: Trial, study: Study, params: int, non_embedding: int, supply: Supply) -> Planned:
    """What the rule says; pairs and cuts are chosen by it alone, so that results do not change the plan."""
    epochs, batch = study.epochs, study.training.global_batch
    length = min(supply.mean_tokens, study.task.length)
    tokens: float
    if trial.data_axis == "tokens":
        tokens, rows = trial.data_requested, trial.data_requested // study.task.length
    else:
        tokens, rows = trial.data_requested * length, trial.data_requested
    steps = epochs * -(-rows // batch)
    head = (trial.model.vocabulary or 0) * (trial.model.width or 0) if study.task.type == "causal-lm" else 0
    # Forward and backward are 6 FLOP per parameter and token, forward alone 2 (Kaplan et al. 2020, arXiv 2001.08361).
    flops = (6 * tokens * epochs + 2 * supply.held_out_rows * supply.mean_tokens) * (non_embedding + head)
    seconds = flops / FLOP_PER_SECOND[trial.device] / trial.gpus + steps * SECONDS_PER_STEP[trial.device]
    basis = "rule: 6 FLOP x parameters x tokens at an assumed speed, plus evaluation and time per step"
    micro = -(-batch // trial.gpus)
    activations = 4 * micro * length * (trial.model.width or 256) * (trial.model.layers * 16 + 4)
    logits = 12 * micro * length * (trial.model.vocabulary or 0) if study.task.type == "causal-lm" else 0
    return Planned(trial, params, float(seconds), int(16 * params + activations + logits), basis, False)


def _learn(planned: Planned, measured: Sequence[Mapping[str, Any]]) -> Planned:
    """The estimate scaled to what finished trials of this model and GPU count took per token."""
    trial = planned.trial
    alike = sorted(
        (row["train_seconds"] + (row.get("eval_seconds") or 0.0)) / row["data_requested"]
        for row in measured
        if (row.get("model"), row.get("gpus")) == (trial.model.name, trial.gpus) and row.get("train_seconds")
    )
    if not alike:
        return planned
    seconds = alike[len(alike) // 2] * trial.data_requested
    return replace(planned, seconds=seconds, basis=f"measured: {len(alike)} finished trials of this model")


def _pair_alone(cells: Sequence[Planned], machine: Machine) -> list[Planned]:
    """Mark one cell per model and GPU count to run alone, on the same data and seed: the pairs that speed is read from.

    Wanted: a cell long enough to time (3 s) and no longer than needed.
    """
    counts = {p.trial.gpus for p in cells}
    if len(counts) < 2:
        return list(cells)
    chosen: dict[str, int] = {}
    for each in sorted(cells, key=lambda p: p.trial.data_requested):
        if each.trial.gpus == max(counts) and (each.trial.model.name not in chosen or each.seconds <= 3):
            chosen[each.trial.model.name] = each.trial.data_requested
    return [
        replace(p, alone=p.trial.seed == 0 and p.trial.data_requested == chosen[p.trial.model.name])
        if p.trial.gpus < machine.slots
        else p
        for p in cells
    ]


def _within_budget(study: Study, cells: Sequence[Planned]) -> tuple[list[Planned], list[tuple[str, str]]]:
    """Cut until the budget holds: repeated seeds first, then cells, the dearest first in both."""
    hours = study.budget.gpu_hours
    if study.budget.usd and study.prices.gpu_hour:
        hours = min(hours or float("inf"), study.budget.usd / study.prices.gpu_hour)
    kept = list(cells)
    cut: list[tuple[str, str]] = []
    if hours is None:
        return kept, cut
    spent = sum(p.seconds * p.trial.gpus for p in kept) / 3600
    for each in sorted(kept, key=lambda p: (p.trial.seed == 0, -p.seconds * p.trial.gpus)):
        if spent <= hours:
            break
        t = each.trial
        cell = f"{t.model.name}, {t.data_requested} {t.data_axis}, {t.gpus} GPUs, seed {t.seed}"
        cut.append((cell, f"over the budget of {hours:g} GPU-hours"))
        kept.remove(each)
        spent -= each.seconds * t.gpus / 3600
    if not kept:
        cheapest = min(each.seconds * each.trial.gpus for each in cells) / 3600
        raise StudyError(
            f"leaves no trial: the cheapest takes about {cheapest:.2g} GPU-hours, the budget is {hours:.2g}",
            code="budget_too_small",
            where=study.where("budget"),
        )
    return kept, cut


def _lint(study: Study, planned: Sequence[Planned]) -> list[tuple[str, str]]:
    """What this design cannot show."""
    found = []
    sizes = sorted({p.trial.data_requested for p in planned})
    params = sorted({p.params for p in planned})
    axis = study.grid.axis
    if len(sizes) < 3:
        found.append(("few_points", f"{len(sizes)} data sizes: a curve in data needs 3, its hold-out check 4"))
    elif len(sizes) == 3:
        found.append(("few_points", "3 data sizes: a curve can be fitted, but not checked on a held-out size"))
    if len(sizes) > 1 and sizes[-1] < 8 * sizes[0]:
        found.append(("few_sizes", f"{axis} span a factor of {sizes[-1] / sizes[0]:.2g}: 8 or more fixes the exponent"))
    if len(params) == 1:
        found.append(("one_size", "one model size: nothing can be said about larger models"))
    if params and len(params) > 1 and params[-1] < 8 * params[0]:
        text = f"model sizes span a factor of {params[-1] / params[0]:.2g}: 8 or more fixes the exponent"
        found.append(("few_sizes", text))
    if not any(p.trial.seed for p in planned):
        found.append(("no_replicates", "one seed everywhere: seed noise is guessed from residuals, not measured"))
    return found
