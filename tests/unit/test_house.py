"""The house: rooms, their pages, their sizes, and imports that never form a circle (also those for types alone)."""

from __future__ import annotations

import ast
import importlib
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOUSE = ROOT / "rayscale"
ROOMS = sorted(folder.name for folder in HOUSE.iterdir() if (folder / "__init__.py").exists())
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(HOUSE.rglob("*.py"))
}
MODULES = {name: path for name, path in FILES.items() if path.name != "__init__.py"}
#: What belongs to the package itself: rooms aside.
TOP = {"__init__.py", "__main__.py", "errors.py", "py.typed"}
MOST_MODULES = 15
LONG, SHORT = 400, 30


def imports(path: Path) -> Iterator[str]:
    """The modules of the house that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in FILES else node.module for name in whole if node.module in FILES)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)


GRAPH = {name: {other for other in imports(path) if other != name} for name, path in MODULES.items()}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of names that reach each other: what is left when names without a way out, or in, are taken away."""
    left = {name: set(others) & set(graph) for name, others in graph.items()}
    while True:
        reached = {other for others in left.values() for other in others}
        ends = [name for name, others in left.items() if not others or name not in reached]
        if not ends:
            return [sorted(left)] if left else []
        left = {name: others - set(ends) for name, others in left.items() if name not in ends}


def lifted(depth: int) -> dict[str, set[str]]:
    """The graph of folders at a depth below the package, or of files that lie above it."""
    graph: dict[str, set[str]] = defaultdict(set)
    for name, others in GRAPH.items():
        ours = ".".join(name.split(".")[: depth + 1])
        theirs = {".".join(other.split(".")[: depth + 1]) for other in others}
        graph[ours] |= {other for other in theirs if not f"{ours}.".startswith(f"{other}.")}
    return graph


def test_imports_form_no_circle() -> None:
    assert circles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == [["a", "b"]]
    assert circles(GRAPH) == []


@pytest.mark.parametrize("depth", [1, 2])
def test_folders_form_no_circle(depth: int) -> None:
    assert circles(lifted(depth)) == []


def test_nothing_but_rooms_lies_at_the_top() -> None:
    there = {path.name for path in HOUSE.iterdir() if path.name != "__pycache__"}
    assert there == {*ROOMS, *TOP}


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES.values()} - {HOUSE}), ids=lambda p: p.name)
def test_no_folder_is_crowded_or_deep(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) - 1 <= MOST_MODULES
    assert len(folder.relative_to(HOUSE).parts) <= 2
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), "a page says what the folder is for"


def test_modules_are_worth_opening_and_not_endless() -> None:
    callers: dict[str, set[str]] = defaultdict(set)
    for name, others in GRAPH.items():
        for other in others:
            callers[other].add(name)
    lines = {name: path.read_text().count("\n") for name, path in MODULES.items()}
    plugins = {name for name in MODULES if ".tasks." in name}  # found by their name
    small = {name for name in set(MODULES) - plugins if lines[name] < SHORT and len(callers[name]) == 1}
    assert not small, "a module this short lives with its caller"
    long = {name for name, path in MODULES.items() if lines[name] > LONG and not _excused(path)}
    assert not long, f"more than {LONG} lines; split it, or say in its docstring why it is long ('Long because ...')"


def _excused(path: Path) -> bool:
    return "Long because" in (ast.get_docstring(ast.parse(path.read_text())) or "")


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_a_page_shows_what_its_room_defines(room: str) -> None:
    package = importlib.import_module(f"rayscale.{room}".rstrip("."))
    declared = {
        (alias.name, node.module)
        for node in ast.walk(ast.parse(Path(str(package.__file__)).read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[-1] != "lazy"
        for alias in node.names if node.module.startswith("rayscale")
    }  # fmt: skip
    assert package.__all__ == sorted(package.__all__)
    assert {name for name, _ in declared} == set(package.__all__)
    for name, home in declared:
        assert getattr(package, name) is getattr(importlib.import_module(home), name)
        assert f"{package.__name__}.{name}" not in FILES, "a module has the name of what the room shows"
    with pytest.raises(AttributeError, match="nothing_of_it"):
        _ = package.nothing_of_it


def test_the_readme_shows_the_rooms() -> None:
    tree = (ROOT / "README.md").read_text().split("## The house")[1].split("```")[1]
    assert sorted(re.findall(r"^  (\w+)/", tree, re.M)) == ROOMS
