"""Augmentations that make little or nothing: found before their cells are trained like those of plain rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rayscale.report.notes import lost_copies
from rayscale.study.augment_key import CHARACTERS
from rayscale.study.augmenters import GROUP
from rayscale.system import registry
from rayscale.system.groups import grouped
from rayscale.text.augment.chain import Chain
from rayscale.text.augment.children import FoundAugmentation, describe_children, name_of
from rayscale.text.augment.segments import needed
from rayscale.text.normalise import keys_of, normalise
from rayscale.text.tokens.encode import spec_of

if TYPE_CHECKING:
    from rayscale.runs.trial import Trial
    from rayscale.text.prepared import Prepared
    from rayscale.text.review.survey import Survey

#: Code of what a plan says of an augmentation with few children.
FEW_CHILDREN = "few_children"
#: Of the copies asked for; with fewer an augmented cell is nearly a plain one.
FEW = 0.1
TRIED = 256  # texts
_MEND = "see whether its words, its language and its share suit the text"


def childless(trials: Iterable[Trial], prepared: Mapping[str, Prepared]) -> dict[str, str]:
    """By id the trials whose rows have no child, and why; `prepared` by `name_of`, those that are there."""
    reasons = {}
    for trial in trials:
        data = prepared.get(name_of(spec_of(trial.model).name, trial.augment))
        if data is None or (counts := describe_children(data)) is None:
            continue
        rows, children = data.count(trial.data_axis, trial.data_requested, trial.seed)
        if children:
            continue
        why = f"(of {counts['made']:,} copies: {lost_copies(counts['dropped'])}); {_MEND}"
        if counts["kept"]:
            why = f"of these {rows:,} rows ({counts['kept']:,} in all {counts['real']:,} rows)"
        reasons[trial.trial_id] = f"{trial.augment} made no child {why}"
    return reasons


def children_counts(prepared: Mapping[str, Prepared]) -> dict[str, dict[str, Any]]:
    """By augmentation how many copies were made of how many rows, how many stay, and why the others do not."""
    counts = {name.rpartition("+")[2]: describe_children(data) for name, data in prepared.items()}
    return {name: data for name, data in counts.items() if data}


def few_children(counts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """What a plan should say of augmentations that made little, with its code."""
    for name, copies in counts.items():
        if 0 < copies["kept"] < FEW * copies["made"]:
            left = f"{copies['kept']:,} of {copies['made']:,} copies are left ({lost_copies(copies['dropped'])})"
            cost = "its cells are nearly plain ones, at the cost of augmented ones"
            yield FEW_CHILDREN, f"{name}: {left}: {cost}; {_MEND}"


def try_out(augmentations: Sequence[FoundAugmentation], survey: Survey) -> Iterator[tuple[str, str]]:
    """The same before the text is prepared, from some training rows; models and code of plugins are not run for it."""
    built_in = {entry.name for entry in registry.entries(GROUP) if entry.origin == "rayscale"}
    texts = survey.splits["train"]["text"].slice(0, TRIED).to_pylist()
    for entry in augmentations:
        if entry.augmentation.on_models or not texts or {step.name for step in entry.augmentation.steps} - built_in:
            continue
        made = [normalise(row.text) for row in Chain(entry.augmentation).rows(texts, keys_of(texts), 0)]
        changed = sum(child not in ("", text) for child, text in zip(made, texts, strict=True))
        if changed < FEW * len(texts):
            text = f"{entry.name} changes {changed} of the first {len(texts)} training rows"
            end = "" if changed else "; cells without any are not run"
            yield FEW_CHILDREN, f"{text}{end}; {_MEND}"


def segmenter_notes(augmentations: Sequence[FoundAugmentation], survey: Survey) -> Iterator[tuple[str, str]]:
    """How words are found where the text is written without spaces."""
    wanted = needed(survey.splits["train"]["text"].slice(0, TRIED).to_pylist())
    ways = grouped((entry.augmentation.by, entry.name) for entry in augmentations if entry.augmentation.by)
    for way, names in ways.items() if wanted else ():
        wording = "characters are words" if way == CHARACTERS else f"words are found by {way.replace('+', ' and ')}"
        missing = ", ".join(sorted(wanted - set(way.split("+"))))
        fix = f"; pip install 'rayscale[segment]' finds words ({missing})" if missing else ""
        yield "segmenter", f"{', '.join(names)}: where text has no spaces, {wording}{fix}"
