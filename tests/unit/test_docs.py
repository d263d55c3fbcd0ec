"""Documents say what the code does: generated help, links, command lines, study files, names."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import rayscale as rs
from rayscale.cli.verbs import app
from rayscale.study import augment_key
from rayscale.study.study import Study
from rayscale.study.tasks import KINDS
from rayscale.study.yaml_file import parse
from rayscale.system.registry import BUILT_IN

ROOT = Path(__file__).parents[2]
GUIDES = ("training", "augmentation", "gpus", "clusters", "laws", "plugins")
PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in GUIDES)]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
COMMANDS: Any = typer.main.get_command(app)

MINIMAL: dict[str, Any] = {
    "name": "minimal",
    "task": {"type": "sequence-classification"},
    "data": {"train": "builtin"},
    "models": [{"family": "bert", "sizes": ["1x64"]}],
    "grid": {"examples": [100]},
}


def blocks(page: Path, language: str) -> list[str]:
    return [text for name, text in BLOCK.findall(page.read_text()) if name == language]


def command_lines(page: Path) -> list[str]:
    """Every `rayscale` command in blocks of commands: continued lines joined, comments left out."""
    lines = [line for text in blocks(page, "") for line in text.replace("\\\n", " ").split("\n")]
    return [line for line in lines if re.match(r"(\.venv/bin/)?rayscale ", line)]


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", re.sub(BLOCK, "", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def is_defined(name: str) -> bool:
    """Whether a dotted name is a module, or what a module defines."""
    parent, _, last = name.rpartition(".")
    try:
        return not parent or hasattr(importlib.import_module(parent), last) or bool(importlib.import_module(name))
    except ModuleNotFoundError:
        return False


def test_the_documented_help_is_what_the_commands_print() -> None:
    spec = importlib.util.spec_from_file_location("cli_help", ROOT / "scripts" / "cli_help.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "cli.md").read_text() == module.page(), "run: python scripts/cli_help.py"


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.stem)
def test_guides_fit_a_screen_in_width_and_are_linked_from_the_readme(page: Path) -> None:
    assert f"(docs/{page.name})" in (ROOT / "README.md").read_text()
    assert max(map(len, page.read_text().splitlines())) <= 120


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", re.sub(BLOCK, "", page.read_text())):
        if "://" in target:
            continue
        there = page.parent / target if target else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_command_lines_parse(page: Path) -> None:
    for line in command_lines(page):
        verb, *arguments = shlex.split(line, comments=True)[1:]
        assert verb in COMMANDS.commands, line
        try:
            COMMANDS.commands[verb].make_context(verb, arguments)
        except typer.TyperException as error:
            pytest.fail(f"{line}: {error.format_message()}")


@pytest.mark.parametrize("page", LINKED[:-1], ids=lambda page: page.stem)
def test_commands_in_running_text_have_the_verbs_and_options_they_name(page: Path) -> None:
    for text in re.findall(r"`rayscale ([^`]+)`", re.sub(BLOCK, "", page.read_text())):
        verb, *words = re.sub(r"[\[\]]", "", text).split()
        names = {name for parameter in COMMANDS.commands[verb].params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= names, text


@pytest.mark.parametrize("page", PAGES[:-1], ids=lambda page: page.stem)  # plugins.md: test_plugin_examples.py
def test_parts_of_study_files_are_valid(page: Path, tmp_path: Path) -> None:
    path = tmp_path / "part.yaml"
    for text in blocks(page, "yaml"):
        if re.match(r" *- ", text):
            text = ("data:\n  augment:\n" if "segmenter" in text else "models:\n") + text
        path.write_text(text)
        document = parse(path)
        assert not document.problems
        part = document.value
        if "data" in part:
            part["data"] = {"train": "builtin", **part["data"]}
        Study.model_validate({**MINIMAL, **part})
        entries = part.get("data", {}).get("augment", ())
        own = [entry for entry in entries if not re.search(r"my_package|typing_slips", str(entry))]
        assert augment_key.problems(own, None) == []


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("laws", [name.removesuffix("_by_size") for name in BUILT_IN["rayscale.laws"] if "_without_E" not in name]),
        ("augmentation", list(BUILT_IN["rayscale.augmenters"])),
        ("training", list(KINDS)),
    ],
)
def test_guides_name_all_that_there_is(page: str, names: list[str]) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    assert [name for name in names if f"`{name}`" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_guides_take_from_the_package_is_there(page: Path) -> None:
    for text in blocks(page, "python"):
        for name in re.findall(r"\brs\.(\w+)", text):
            assert name in rs.__all__, name


@pytest.mark.parametrize("page", LINKED[:-1], ids=lambda page: page.stem)
def test_modules_and_files_that_pages_name_are_there(page: Path) -> None:
    text = page.read_text()
    for path in re.findall(r"\b(?:rayscale|tests|benchmarks|scripts|jobs)/[\w/]+(?:\.(?:py|yaml|toml))?", text):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"\brayscale(?:\.[a-z_]\w*)+", text):
        if name in BUILT_IN:
            continue
        assert is_defined(name), name


def test_the_lock_names_no_host_and_hashes_everything() -> None:
    for name in ("requirements.lock", "requirements-cpu.lock"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        pins = re.findall(r"^[a-z0-9][\w.\[\]-]*==", text, flags=re.M)
        assert len(pins) == len(re.findall(r"^[a-z0-9][\w.\[\],-]*==[^\n]*\\\n\s+--hash=", text, flags=re.M))
