"""What became of every row of the text, in sentences: from `data` of plan.json."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from pathlib import PurePath
from typing import Any

from rayscale.report.numbers import plain, plural, whole

MOST_NAMED = 3  # labels

REASONS = {
    "bad_row": "cannot be used",
    "empty": "without text",
    "duplicate": "duplicates",
    "in_validation": "also in validation",
    "in_test": "also in the test split",
    "near_validation": "nearly in validation",
    "near_test": "nearly in the test split",
}
_OF_COPIES = {**REASONS, "in_training": "also in training", "duplicate": "the same as others"}


def row_notes(data: dict[str, Any]) -> list[str]:
    """Used + dropped = read, each reason with its number; then what was cut or disagrees. Empty without counts."""
    if not data.get("read"):
        return []
    lost = {reason: number for reason, number in (data.get("dropped") or {}).items() if number}
    reasons = ", ".join(f"{whole(number)} {REASONS.get(reason, plain(reason))}" for reason, number in lost.items())
    read = whole(data["read"]) if data.get("exact", True) else f"the first {whole(data['read'])}"
    notes = [
        f"Rows: {read} read = {whole(data['train'])} training + {whole(data['validation'])} validation + "
        f"{whole(data['test'])} test + {whole(sum(lost.values()))} dropped{f' ({reasons})' if reasons else ''}."
    ]
    if data.get("expected"):
        notes.append(f"About {whole(data['expected']['train'])} training rows are expected in all.")
    if (lines := data.get("bad_row_lines") or 0) > lost.get("bad_row", 0):
        notes.append(f"The rows that cannot be used take {whole(lines)} lines of their files with them.")
    if lost.get("bad_row"):
        notes.append("bad_rows.txt in the run folder lists the rows that cannot be used.")
    if lost.get("near_validation") or lost.get("near_test"):
        notes.append("near_duplicates.txt in the run folder lists training rows that nearly are held-out ones.")
    if number := data.get("conflicting_labels"):
        notes.append(f"{plural(number, 'dropped duplicate')} had another label than the row that stayed.")
    if names := data.get("labels_not_in_training"):
        # Places are told without folders: a report is shown to others.
        places = [f" ({plain(PurePath(place).name)})" for place in data.get("places_of_these") or ()]
        told = [plain(name) + place for name, place in zip_longest(names, places, fillvalue="")][:MOST_NAMED]
        shown = ", ".join(told) + (", ..." if len(names) > MOST_NAMED else "")
        mend = "give training rows of them, or take theirs out of the held-out text"
        notes.append(f"{plural(len(names), 'label')} not in the training rows, so never learnt: {shown}; {mend}.")
    notes += [_children(plain(name), counts) for name, counts in (data.get("children") or {}).items()]
    return notes + cut_notes(data.get("tokens") or {})


def _children(name: str, counts: Mapping[str, Any]) -> str:
    """How many copies an augmentation made, and how many stay."""
    lost = lost_copies(counts["dropped"])
    made, rows = whole(counts["made"]), plural(counts["real"], "training row")
    return f"{name}: {made} copies of {rows}, {whole(counts['kept'])} kept{f'; dropped: {lost}' if lost else ''}."


def lost_copies(dropped: Mapping[str, int]) -> str:
    """Why copies of rows were dropped, each reason with its number, the commonest first."""
    lost = sorted(((reason, number) for reason, number in dropped.items() if number), key=lambda each: -each[1])
    return ", ".join(f"{whole(number)} {_OF_COPIES.get(reason, plain(reason))}" for reason, number in lost)


def cut_notes(tokenizers: Mapping[str, Any]) -> list[str]:
    """What tokenising cut off, a sentence each, from `text.account.token_counts`; empty where nothing was."""
    notes = []
    for name, splits in tokenizers.items():
        train = splits.get("train") or {}
        if cut := train.get("truncated_rows"):
            of, most = plural(train["rows"], "training row"), train.get("max_length", "max_length")
            are = "is" if cut == 1 else "are"
            notes.append(f"{plain(name)}: {whole(cut)} of {of} {are} longer than {most} tokens and cut.")
        for split, counts in splits.items():
            if counts.get("unread"):
                lost = plural(counts["unread"], "target")
                notes.append(f"{plain(name)}: {lost} of the {split} rows went with what was cut; no loss counts them.")
        if train.get("dropped_tokens"):
            left = plural(train["dropped_tokens"], "token")
            notes.append(f"{plain(name)}: {left} after the last whole training window are left out.")
    return notes


#: Findings that a plan tells even where all is well: what data may bring, and what a score counts.
ALWAYS = ("first look", "tags")


def doctor_notes(doctor: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(name, what was found, the mend) of every finding, those with a mend first."""
    found = [(plain(str(each["name"])), plain(str(each["found"])), plain(str(each.get("mend") or "")))
             for each in doctor.get("findings") or []]  # fmt: skip
    return sorted(found, key=lambda each: not each[2])


def doctor_lines(doctor: dict[str, Any]) -> list[str]:
    """The short form: findings with a mend and those of ALWAYS; then where the others are shown."""
    notes = doctor_notes(doctor)
    shown = [each for each in notes if each[2] or each[0] in ALWAYS]
    lines = [f"Data ({name}): {found}{f'. Mend: {mend}' if mend else ''}." for name, found, mend in shown]
    others = [name for name, _, _ in notes if name not in {each[0] for each in shown}]
    return [*lines, f"Data, all well: {', '.join(others)} (`rayscale doctor STUDY` shows them)."] if others else lines
