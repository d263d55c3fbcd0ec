"""What the data doctor found, in lines: from `doctor` of plan.json."""

from __future__ import annotations

from typing import Any

from rayscale.report.numbers import plain

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
