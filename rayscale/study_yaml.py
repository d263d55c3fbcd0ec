"""YAML with line marks: plain values, and for each field the line it stands on."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rayscale.errors import StudyError

MAX_BYTES = 1_000_000
MAX_NODES = 20_000


@dataclass(frozen=True)
class Located:
    """A YAML document: its value, and the line (from 1) of each field by its path of keys and positions."""

    path: Path
    value: Any
    lines: dict[tuple[Any, ...], int]


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number, as YAML 1.2 does (YAML 1.1 wants a dot)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse(path: Path) -> Located:
    """Read one YAML mapping. Raises StudyError naming file and line."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise _error(path, 0, "no such file; `rayscale init` writes one") from None
    except OSError as error:
        raise _error(path, 0, f"cannot be read: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise _error(path, 0, f"has {len(raw)} bytes; a study file has at most {MAX_BYTES}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise _error(path, line, f"byte {raw[error.start]:#04x} is not UTF-8; save the file as UTF-8") from None
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            lines: dict[tuple[Any, ...], int] = {}
            if node is not None:
                _mark(path, node, (), lines)
            value = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        hint = "; indent with spaces, not tabs" if "'\\t'" in str(error.problem) else ""
        raise _error(path, mark.line + 1 if mark else 1, f"broken YAML: {error.problem}{hint}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line = text[: getattr(error, "position", 0) or 0].count("\n") + 1
        reason = getattr(error, "reason", None) or str(error).splitlines()[0]
        raise _error(path, line, f"broken YAML: {reason}") from None
    if not isinstance(value, dict):
        raise _error(path, 1, "a study is a mapping of keys to values; `rayscale init` writes one to start from")
    return Located(path, value, lines)


def locate(document: Located, where: tuple[Any, ...], exact: bool = False) -> Any:
    """Line of the field, or of the nearest parent that the file has (None if `exact` and it has not)."""
    if where in document.lines or exact:
        return document.lines.get(where)
    return locate(document, where[:-1]) if where else 1


def _error(path: Path, line: int, text: str) -> StudyError:
    return StudyError(text, code="invalid_study", where=f"{path}:{line}" if line else str(path))


def _mark(path: Path, node: yaml.Node, where: tuple[Any, ...], lines: dict[tuple[Any, ...], int]) -> None:
    # Aliases are walked once per use, so that an alias bomb is met here, before any value is built.
    lines.setdefault(where, node.start_mark.line + 1)
    if len(lines) > MAX_NODES or len(where) > 50:
        raise _error(path, node.start_mark.line + 1, "too many or too deeply nested values; write them without aliases")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name: Hashable = key.value
            if key.tag == "tag:yaml.org,2002:int" and re.fullmatch(r"[0-9_]+", key.value):
                name = int(key.value.replace("_", ""))
            inner = (*where, name)
            if inner in lines:
                raise _error(path, key.start_mark.line + 1, f"'{name}' stands twice; keep one")
            lines[inner] = key.start_mark.line + 1
            _mark(path, value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            _mark(path, value, (*where, number), lines)
