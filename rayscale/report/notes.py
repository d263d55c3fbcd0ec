"""What became of every row of the text, in sentences: from `data` of plan.json."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from pathlib import PurePath
from typing import Any

from rayscale.report.numbers import plain, plural

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
    return [f"Rows: {text}.", *row_details(data), *row_decisions(data)] if (text := row_counts(data)) else []


def row_counts(data: dict[str, Any]) -> str:
    """Used + dropped = read, each reason with its number; empty without counts."""
    if not data.get("read"):
        return ""
    dropped = {reason: number for reason, number in (data.get("dropped") or {}).items() if number}
    reasons = ", ".join(f"{number:,} {REASONS.get(reason, plain(reason))}" for reason, number in dropped.items())
    text = (
        f"{'' if data.get('exact', True) else 'the first '}{data['read']:,} read = {data['train']:,} training + "
        f"{data['validation']:,} validation + {data['test']:,} test + {sum(dropped.values()):,} dropped"
    )
    text = f"{text} ({reasons})" if reasons else text
    expected = data.get("expected")
    return f"{text}; about {expected['train']:,.0f} training rows are expected in all" if expected else text


def row_details(data: dict[str, Any]) -> list[str]:
    """Where dropped rows are listed, how copies fared, and what tokenising cut off, a sentence each."""
    dropped = data.get("dropped") or {}
    notes = []
    if (lines := data.get("bad_row_lines") or 0) > (dropped.get("bad_row") or 0):
        notes.append(f"The rows that cannot be used take {lines:,} lines of their files with them.")
    if dropped.get("bad_row"):
        notes.append("bad_rows.txt in the run folder lists the rows that cannot be used.")
    if dropped.get("near_validation") or dropped.get("near_test"):
        notes.append("near_duplicates.txt in the run folder lists training rows that nearly duplicate held-out rows.")
    if number := data.get("conflicting_labels"):
        notes.append(f"{plural(number, 'dropped duplicate')} had another label than the row that was kept.")
    notes += [_children(plain(name), counts) for name, counts in (data.get("children") or {}).items()]
    return notes + cut_notes(data.get("tokens") or {})


def row_decisions(data: dict[str, Any]) -> list[str]:
    """Labels that no training row has, and how to fix that."""
    names = data.get("labels_not_in_training") or []
    # Places are named without folders: a report is shown to others.
    places = [f" ({plain(PurePath(place).name)})" for place in data.get("places_of_these") or ()]
    shown = [plain(name) + place for name, place in zip_longest(names, places, fillvalue="")][:MOST_NAMED]
    listed = ", ".join(shown) + (", ..." if len(names) > MOST_NAMED else "")
    fix = "add training rows with them, or remove theirs from the held-out text"
    label = f"{plural(len(names), 'label')} not in the training rows, so never learnt: {listed}; {fix}."
    return [label] if names else []


def _children(name: str, counts: Mapping[str, Any]) -> str:
    """How many copies an augmentation made, and how many stay."""
    lost = lost_copies(counts["dropped"])
    copies = f"{counts['made']:,} copies of {plural(counts['real'], 'training row')}"
    return f"{name}: {copies}, {counts['kept']:,} kept{f'; dropped: {lost}' if lost else ''}."


def lost_copies(dropped: Mapping[str, int]) -> str:
    """Why copies of rows were dropped, each reason with its number, the commonest first."""
    lost = sorted(((reason, number) for reason, number in dropped.items() if number), key=lambda item: -item[1])
    return ", ".join(f"{number:,} {_OF_COPIES.get(reason, plain(reason))}" for reason, number in lost)


def cut_notes(tokenizers: Mapping[str, Any]) -> list[str]:
    """What tokenising cut off, a sentence each, from `text.review.row_counts.token_counts`; empty where nothing was."""
    notes = []
    for name, splits in tokenizers.items():
        train = splits.get("train") or {}
        if cut := train.get("truncated_rows"):
            of, most = plural(train["rows"], "training row"), train.get("max_length", "max_length")
            are = "is" if cut == 1 else "are"
            notes.append(f"{plain(name)}: {cut:,} of {of} {are} longer than {most} tokens and cut.")
        for split, counts in splits.items():
            if counts.get("unread"):
                lost = plural(counts["unread"], "target")
                notes.append(
                    f"{plain(name)}: truncation removed {lost} from the {split} rows; the loss leaves them out."
                )
        if train.get("dropped_tokens"):
            left = plural(train["dropped_tokens"], "token")
            notes.append(f"{plain(name)}: {left} after the last whole training window are left out.")
    return notes


def doctor_notes(doctor: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(name, what was found, the fix) of every finding, those with a fix first."""
    keys = ("name", "found", "mend")
    findings = [tuple(plain(str(item.get(key) or "")) for key in keys) for item in doctor.get("findings") or []]
    return [(name, text, fix) for name, text, fix in sorted(findings, key=lambda finding: not finding[2])]
