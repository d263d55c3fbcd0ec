"""Study → Plan with all that a plan needs gathered: a survey of the text, the machine, what earlier trials took."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from rayscale.errors import InputError, StudyError
from rayscale.plan.augmentations import FEW_CHILDREN, childless, children_counts, few_children, segmenter_notes, try_out
from rayscale.plan.estimate import Copies, Measured, Supply, steps_of
from rayscale.plan.plan import Plan, leave_out, make_plan, model_specs
from rayscale.plan.rate_transfer import Optimum, read_optimum
from rayscale.runs.fit_rows import entropy
from rayscale.runs.ledger import Ledger, TrialRecord
from rayscale.runs.trial import ModelSpec, Trial
from rayscale.study.augment_key import read as read_augmentation
from rayscale.study.study import Ladder, Study
from rayscale.study.training import Transfer
from rayscale.system.machine import GIGA, Machine, free_bytes, nearest_folder
from rayscale.system.storage import Store
from rayscale.text.augment.children import FoundAugmentation, find_all, find_augmentations
from rayscale.text.error_places import naming_fields
from rayscale.text.prepared import Prepared, find_tokens
from rayscale.text.review.diagnosis import after_preparing, diagnose
from rayscale.text.review.row_counts import listed, place_labels, row_counts, token_counts
from rayscale.text.review.survey import Survey, survey, survey_folder
from rayscale.text.tokens.encode import TokenizerSpec, letters_per_token, spec_of

PRETRAINED_VOCABULARY = 30_000  # of a checkpoint's tokenizer, before it is read


def run_store(study: Study, out: str | None) -> Store:
    """The run's folder: `out`, else <storage>/<name>; a relative storage is below the current folder."""
    try:
        return Store.open(out or f"{study.run.storage.rstrip('/')}/{study.name}")
    except InputError as error:
        where = "--out" if out else study.where("run", "storage")
        raise StudyError(error.message, code=error.code, where=where) from error


def draft_plan(study: Study, machine: Machine, store: Store) -> Plan:
    """The plan of a study on a machine. Raises InputError: data, checkpoints or GPU counts that cannot serve it."""
    _check_extra(study)
    with naming_fields(study):
        texts = survey(study)
    task = study.task
    if task.type == "sequence-classification" and len(texts.labels) > texts.rows_train / 2:
        text = f"column '{task.label}' has {len(texts.labels)} different labels in {texts.rows_train} rows"
        where = study.where("task", "label")
        raise StudyError(f"{text}; name the column that holds the classes", code="not_a_label", where=where)
    if task.type == "multi-label" and (mark := _unseparated(texts.labels, task.separator)):
        text = f"labels such as '{next(label for label in texts.labels if mark in label)}' look like several; if they"
        fix = f"are write separator: '{mark}' (it is '{task.separator}'), else give them as JSON lists"
        raise StudyError(f"{text} {fix}", code="not_separated", where=study.where("task", "labels"))
    # Text that is prepared was planned before, so its checkpoints are here; other checkpoints are fetched only after
    # all else was found feasible.
    specs = model_specs(study) if texts.folder else None
    tokenised = _tokenised(study, texts, specs) if specs else {}
    augmentations = find_augmentations(study)
    supply = _supply(study, texts, tokenised, augmentations)
    records = Ledger(store).read()[0]
    optimum = read_optimum(study) if isinstance(study.training.learning_rate, Transfer) else None
    plan = make_plan(study, machine, supply, _measured(records), specs, optimum.rate_of if optimum else None)
    tokenizers = tokenizers_of(plan)
    diagnosis = diagnose(study, texts, tokenizers, tokenised)
    lint = (*_changed(records, plan), *_transferred(optimum, plan), *_little_room(store, plan), *plan.lint,
            *segmenter_notes(augmentations, texts))  # fmt: skip
    plan = replace(plan, lint=lint, doctor=diagnosis)
    if not augmentations:
        return plan
    children = _augmented(study, texts, tokenizers, sorted({planned.trial.seed for planned in plan.trials}))
    if children:
        return with_children(plan, children)
    return replace(plan, lint=(*plan.lint, *try_out(augmentations, texts)))


def _augmented(
    study: Study, texts: Survey, tokenizers: Sequence[TokenizerSpec], seeds: Sequence[int]
) -> dict[str, Prepared]:
    """The prepared data of every tokenizer and augmentation, by name; empty unless all are there."""
    prepared = find_all(study, tokenizers, seeds, texts.folder) if texts.folder else {}
    return {name: data for name, data in prepared.items() if data} if all(prepared.values()) else {}


def with_children(plan: Plan, prepared: Mapping[str, Prepared]) -> Plan:
    """The plan once the children are made: without the cells that have none, with what is to be said of the others.

    Raises StudyError where no trial is left.
    """
    if why := childless((planned.trial for planned in plan.trials), prepared):
        plan = leave_out(plan, why)
    counts = children_counts(prepared)
    lint = (*(note for note in plan.lint if note[0] != FEW_CHILDREN), *few_children(counts))
    whole = {**plan.supply.counts, **({"children": counts} if counts else {})}
    return replace(plan, lint=lint, supply=replace(plan.supply, counts=whole))


def tokenizers_of(plan: Plan) -> list[TokenizerSpec]:
    """The tokenizers of the plan's models, each once."""
    return list(dict.fromkeys(spec_of(planned.trial.model) for planned in plan.trials))


def _little_room(store: Store, plan: Plan) -> list[tuple[str, str]]:
    """That the disk has less room than the plan may take; of object storage nobody can tell."""
    if store.local is None or (free := free_bytes(store.local)) >= plan.disk_bytes:
        return []
    there = f"{free / GIGA:.1f} GB are free at {nearest_folder(store.local)}"
    needed = f"kept models and checkpoints take up to {plan.disk_bytes / GIGA:.1f} GB"
    fix = "make room, keep fewer models (run.keep), write checkpoint_seconds: null, or give another run.storage"
    return [("little_disk", f"{there}, {needed}: {fix}")]


def _transferred(optimum: Optimum | None, plan: Plan) -> list[tuple[str, str]]:
    """What the transferred rates rest on, and how far they reach beyond it."""
    if optimum is None:
        return []
    trials = [planned.trial for planned in plan.trials]
    rates = [trial.settings.learning_rate for trial in trials]
    wider = max(trial.model.width or 1 for trial in trials) / max(cell.width for cell in optimum.cells)
    longer = max(map(steps_of, trials)) / max(cell.steps for cell in optimum.cells)
    law = f"learning rates of {min(rates):.3g} to {max(rates):.3g}, ~ {optimum.law}"
    reach = f"up to {max(1, wider):.3g} times their width and {max(1, longer):.3g} times their steps"
    return [("transfer", f"{law}, from the best ones of {len(optimum.cells)} swept cells: {reach}")]


def _check_extra(study: Study) -> None:
    """Raise StudyError where a package of an extra is missing, before anything is trained."""
    needs: list[tuple[str, str, str, tuple[str | int, ...]]] = []
    if study.task.kind.needs:
        package, extra = study.task.kind.needs
        needs.append((package, extra, f"{study.task.type} is scored with {package}", ("task", "type")))
    for number, model in enumerate(study.models):
        if getattr(model, "lora", None):
            needs.append(("peft", "lora", "adapters are peft's", ("models", number, "lora")))
    for package, extra, use, field in needs:
        if importlib.util.find_spec(package) is None:
            text = f"{use}, which is not installed; pip install 'rayscale[{extra}]'"
            raise StudyError(text, code="missing_extra", where=study.where(*field))


def _unseparated(labels: Sequence[str], separator: str) -> str | None:
    """A sign that likely stands between labels, as half of them hold it."""
    likely = (mark for mark in ("|", ";", ",", "/") if mark != separator)
    return next((mark for mark in likely if sum(mark in label for label in labels) > len(labels) / 2), None)


def _supply(
    study: Study, texts: Survey, tokenised: Mapping[str, Prepared], augmentations: Sequence[FoundAugmentation]
) -> Supply:
    copies = {known.name: Copies(known.name, known.augmentation.copies, known.mark) for known in augmentations}
    ordered = dict.fromkeys(copies.get(read_augmentation(entry).name, Copies()) for entry in study.data.augment)
    if tokenised:
        parts = [data.manifest["splits"] for data in tokenised.values()]
        fewest = {name: min(part[name]["tokens"] for part in parts) for name in texts.bytes}
    else:
        sizes = [model.vocabulary if isinstance(model, Ladder) else PRETRAINED_VOCABULARY for model in study.models]
        fewest = {name: size / letters_per_token(max(sizes)) for name, size in texts.letters.items()}
    return Supply(
        fingerprint=texts.fingerprint,
        train_rows=texts.rows_train,
        # A trained tokenizer of some thousand entries gives about a token for four characters of English.
        mean_tokens=texts.mean_letters / 4 + 2,
        n_labels=len(texts.labels),
        exact=texts.exact,
        held_out_rows=texts.rows_validation + texts.rows_test,
        train_tokens=fewest["train"],
        held_out_tokens=min(fewest["validation"], fewest["test"]),
        estimated=not tokenised,
        counts={**place_labels(texts.counts, study.data), "tokens": token_counts(tokenised) or None},
        guessing_loss=_entropy_of_labels(texts),
        augmentations=tuple(ordered),
    )


def _tokenised(study: Study, texts: Survey, specs: Sequence[ModelSpec]) -> dict[str, Prepared]:
    """The tokens of every tokenizer of the study, by its name; empty unless all are there."""
    if texts.folder is None:
        return {}
    wanted = sorted({spec_of(spec) for spec in specs}, key=lambda spec: spec.name)
    prepared = {spec.name: find_tokens(texts.folder, spec, study.task.length, ()) for spec in wanted}
    return {name: data for name, data in prepared.items() if data} if all(prepared.values()) else {}


def _changed(records: Sequence[TrialRecord], plan: Plan) -> list[tuple[str, str]]:
    """What a run with other data leaves behind, told once: when trials of the new data are there it is settled."""
    former = [record for record in records if record.row["data_fingerprint"] != plan.supply.fingerprint]
    if not former or len(former) < len(records):
        return []
    last = max(record.row["ended_at"] or "" for record in former)[:10]
    when = f"the last run of {last}" if last else "the last run"
    new = {planned.trial.trial_id for planned in plan.trials} - {record.trial_id for record in records}
    text = f"the data (its files, columns or split) changed since {when}: {len(former)} trials of the former data stay"
    return [("data_changed", f"{text} in trials/ and are not counted, {len(new)} cells are new")]


def _measured(records: Sequence[TrialRecord]) -> list[Measured]:
    return [
        Measured(Trial.from_json(trial), row["steps"], row["train_seconds"], row["eval_seconds"] or 0.0, row["share"])
        for row, trial in ((record.row, record.trial) for record in records)
        if row["status"] == "ok" and row["steps"] and row["train_seconds"]
    ]


def _entropy_of_labels(texts: Survey) -> float | None:
    """Of the test rows; None where rows have no class of their own."""
    rows = texts.splits["test"]
    if "label" not in rows.column_names or not pa.types.is_integer(rows.schema.field("label").type):
        return None
    return entropy(np.bincount(rows["label"].to_numpy()).tolist())


def write_plan(store: Store, plan: Plan, prepared: Mapping[str, Prepared]) -> None:
    """Write plan.json once more when the text is prepared: what became of every row is counted now, not estimated.

    Rows that were passed over are listed in bad_rows.txt and near_duplicates.txt.
    """
    if not prepared:
        return
    any_of_them = next(iter(prepared.values()))
    rows = place_labels(row_counts(any_of_them.manifest), plan.study.data)
    children = {name: part for name, part in plan.supply.counts.items() if name == "children"}
    counts = {"exact": True, **rows, "tokens": token_counts(prepared), **children}
    texts = survey_folder(Path(any_of_them.path).parent)
    doctor = after_preparing(plan.doctor, plan.study, texts, tokenizers_of(plan), prepared) if plan.doctor else {}
    supply = replace(plan.supply, counts=counts, guessing_loss=_entropy_of_labels(texts))
    replace(plan, supply=supply, doctor=doctor).save(store)
    for name, content in listed(any_of_them).items():
        store.write(name, content)
