"""Language modelling: documents without labels, joined and cut into windows."""

from __future__ import annotations

from rayscale.study.study import Task
from rayscale.text.form import Form
from rayscale.text.normalise import normalise
from rayscale.text.sources.row import Row, checked_text


def check(row: Row, task: Task) -> tuple[str, None]:
    """The document with its lines kept."""
    return normalise(checked_text(row.values[0], row, task.text), keep_lines=True), None


FORM = Form(check, packed=True)
