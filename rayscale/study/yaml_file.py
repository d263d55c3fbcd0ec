"""YAML with line marks: plain values, and for each field the line it stands on.

A file from a stranger costs little and does nothing: its size, nodes, depth and digits are bounded before any value is
built, and no tag makes anything but plain values.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from rayscale.errors import StudyError, first_line
from rayscale.study.messages import dotted

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_DEPTH = 50
MAX_DIGITS = 100
_INT = "tag:yaml.org,2002:int"
_TOO_MANY = "too many or too deeply nested values; a study has a few hundred"


@dataclass(frozen=True)
class Located:
    """A YAML document: its value, and the line (from 1) of each field by its path of keys and positions.

    `problems` are fields that are wrong whatever they stand for: a key given twice, control characters.
    """

    path: Path
    value: Any
    lines: dict[tuple[Any, ...], int]
    problems: tuple[tuple[tuple[Any, ...], str], ...] = ()


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number, as YAML 1.2 does (YAML 1.1 wants a dot), within bounds."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.nodes = self.depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As SafeLoader's, until there are too many of them or they lie too deep."""
        self.nodes, self.depth = self.nodes + 1, self.depth + 1
        if self.nodes > MAX_NODES or self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem=_TOO_MANY, problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """As SafeLoader's; whatever goes wrong says where."""
        try:
            return super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            shown = f"{type(error).__name__}: {str(error)[:100]}"
            raise ConstructorError(None, None, f"not a valid {_tag(node)} ({shown})", node.start_mark) from None

    def construct_whole(self, node: Any) -> int:
        """A whole number; 0 for one of more digits than Python reads, which is a problem of its own."""
        return 0 if len(node.value) > MAX_DIGITS else super().construct_yaml_int(node)

    def construct_unknown(self, node: Any) -> Any:
        """Refuse the tags of which SafeLoader knows nothing."""
        text = f"the tag {_tag(node)} is not supported; write the value without it"
        raise ConstructorError(None, None, text, node.start_mark)


_Loader.add_constructor(_INT, _Loader.construct_whole)
_Loader.add_constructor(None, _Loader.construct_unknown)
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
        marks = _Marks(path)
        try:
            node = loader.get_single_node()
            if node is not None:
                marks.walk(node, ())
            value = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        hint = "; indent with spaces, not tabs" if "'\\t'" in str(error.problem) else ""
        line, field = (mark.line + 1, marks.field_at(mark)) if mark else (1, ())
        raise _error(path, line, f"broken YAML: {error.problem}{hint}", field) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line = text[: getattr(error, "position", 0) or 0].count("\n") + 1
        reason = getattr(error, "reason", None) or first_line(error)
        raise _error(path, line, f"broken YAML: {reason}") from None
    if not isinstance(value, dict):
        raise _error(path, 1, "a study is a mapping of keys to values; `rayscale init` writes one to start from")
    return Located(path, value, marks.lines, tuple(marks.problems))


def locate(document: Located, where: tuple[Any, ...], exact: bool = False) -> Any:
    """Line of the field, or of the nearest parent that the file has (None if `exact` and it has not)."""
    if where in document.lines or exact:
        return document.lines.get(where)
    return locate(document, where[:-1]) if where else 1


def _error(path: Path, line: int, text: str, field: tuple[Any, ...] = ()) -> StudyError:
    where = f"{path}:{line}" if line else str(path)
    return StudyError(text, code="invalid_study", where=f"{where}: {dotted(field)}" if field else where)


def _tag(node: yaml.Node) -> str:
    return str(node.tag).replace("tag:yaml.org,2002:", "!!")[:80]


class _Marks:
    """The line of each field, from a walk over the nodes before any value is built."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[tuple[Any, ...], int] = {}
        self.problems: list[tuple[tuple[Any, ...], str]] = []
        self._places: dict[tuple[int, int], tuple[Any, ...]] = {}

    def field_at(self, mark: Any) -> tuple[Any, ...]:
        """The field whose value begins at this mark; empty if none does."""
        return self._places.get((mark.line, mark.column), ())

    def walk(self, node: yaml.Node, where: tuple[Any, ...]) -> None:
        """Note this node and all below it. Raises StudyError for what must not be built."""
        # Aliases are walked once per use, so that an alias bomb is met here.
        line = node.start_mark.line + 1
        self.lines.setdefault(where, line)
        self._places.setdefault((node.start_mark.line, node.start_mark.column), where)
        if len(self.lines) > MAX_NODES or len(where) > MAX_DEPTH:
            raise _error(self.path, line, f"{_TOO_MANY}; write them without aliases", where[:1])
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                self._entry(key, value, where)
        elif isinstance(node, yaml.SequenceNode):
            for number, value in enumerate(node.value):
                self.walk(value, (*where, number))
        else:
            self._check(node, where)

    def _entry(self, key: yaml.Node, value: yaml.Node, where: tuple[Any, ...]) -> None:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise _error(self.path, line, "a key must be a word, not a list or mapping; check the signs : and ?", where)
        name: Hashable = key.value
        if key.tag == _INT and re.fullmatch(r"[0-9_]{1,20}", key.value):
            name = int(key.value.replace("_", "") or 0)
        inner = (*where, name)
        if inner in self.lines:
            self.problems.append((inner, "is given twice; keep one"))
        self.lines[inner] = line
        self._check(key, inner)
        self.walk(value, inner)

    def _check(self, node: yaml.Node, where: tuple[Any, ...]) -> None:
        if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in node.value):
            self.problems.append((where, "contains control characters, such as NUL; remove them"))
        if node.tag == _INT and len(node.value) > MAX_DIGITS:
            self.problems.append((where, f"found a number of {len(node.value)} digits; give a smaller one"))
