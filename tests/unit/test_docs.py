"""Documents that are made from the code say what the code says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_documented_help_is_what_the_commands_print() -> None:
    spec = importlib.util.spec_from_file_location("cli_help", ROOT / "scripts" / "cli_help.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "cli.md").read_text() == module.page(), "run: python scripts/cli_help.py"


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target


def test_the_lock_names_no_host_and_hashes_everything() -> None:
    for name in ("requirements.lock", "requirements-cpu.lock"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        pins = re.findall(r"^[a-z0-9][\w.\[\]-]*==", text, flags=re.M)
        assert len(pins) == len(re.findall(r"^[a-z0-9][\w.\[\],-]*==[^\n]*\\\n\s+--hash=", text, flags=re.M))
