"""Which field of the study an error in the text comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from rayscale.errors import InputError
from rayscale.study.study import Study
from rayscale.text.rows.clean import find_files


@contextmanager
def naming_fields(study: Study) -> Iterator[None]:
    """An error in the text that rises within also says which line and field of the study led to it."""
    try:
        yield
    except InputError as error:
        field = _field_of(study, error)
        place = (error.where or "").removeprefix(".".join(field)).lstrip(": ")
        text = f"{place}: {error.message}" if place else error.message
        raise type(error)(text, code=error.code, where=study.where(*field)) from error


def _field_of(study: Study, error: InputError) -> tuple[str, ...]:
    where, data, task = error.where or "", study.data, study.task
    if named := re.match(r"(data|task|grid)\.(\w+)", where):
        return named[1], named[2]
    if error.code in ("missing_column", "ambiguous_column"):
        for field, column in reversed(task.columns.items()):
            if where.endswith(f": {column}"):
                return "task", field
    if error.code in ("unknown_name", "broken_plugin") and data.format:
        return "data", "format"
    given = {role: getattr(data, role) for role in ("train", "validation", "test") if getattr(data, role)}
    if error.code in ("unreachable_storage", "no_space"):
        return next((("data", role) for role, pattern in given.items() if pattern == where), ("data",))
    files = {file: role for role, pattern in given.items() for file in find_files(pattern)}
    fitting = [file for file in files if where.startswith(file)]
    return ("data", files[max(fitting, key=len)]) if fitting else ("data",)
