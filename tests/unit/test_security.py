"""The gates that CI keeps: no unsafe deserialisation in the package, a sound lock, what bandit finds."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for folder in ("rayscale", "jobs", "scripts", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)

pytestmark = pytest.mark.row

#: Calls that make objects or run code from what they read, whatever stands beside them.
NEVER = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads", "dill.load",
    "dill.loads", "joblib.load", "shelve.open", "marshal.load", "marshal.loads", "pandas.read_pickle", "pd.read_pickle",
    "eval", "exec", "compile", "__import__", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "os.system",
    "os.popen", "tempfile.mktemp",
}  # fmt: skip


def dotted(node: ast.expr) -> str:
    """The name that is called, as it is written: torch.load, or load."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def is_literal(call: ast.Call, keyword: str, value: object) -> bool:
    """Whether the call gives this keyword this value, written out."""
    given = {each.arg: each.value for each in call.keywords}.get(keyword)
    return isinstance(given, ast.Constant) and given.value == value


def unsafe(source: str) -> Iterator[str]:
    """What a source file calls that it must not, each as line and name."""
    tree = ast.parse(source)
    aliases = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
            yield from (f"{node.lineno}: import {n}" for n in names if n.split(".")[0] in ("pickle", "dill", "marshal"))
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        name = aliases.get(name, name)
        wrong = (
            name in NEVER
            or (name == "torch.load" and not is_literal(node, "weights_only", True))
            or (name == "yaml.load" and not any(dotted(each) in ("yaml.SafeLoader", "_Loader") for each in node.args))
            or (name in ("np.load", "numpy.load") and is_literal(node, "allow_pickle", True))
            or (name.endswith("extractall") and not is_literal(node, "filter", "data"))
            or any(
                each.arg in ("trust_remote_code", "shell", "allow_pickle")
                and not (isinstance(each.value, ast.Constant) and each.value.value is False)
                for each in node.keywords
            )
        )
        if wrong:
            yield f"{node.lineno}: {name}"


def test_nothing_unpickles_evaluates_or_starts_a_shell() -> None:
    found = {str(path.relative_to(ROOT)): list(unsafe(path.read_text(encoding="utf-8"))) for path in SOURCES}
    assert len(found) > 100
    assert {path: calls for path, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads\nloads(b)", "import torch\ntorch.load(p)", "yaml.load(text)",
        "torch.load(p, weights_only=False)", "yaml.load(text, yaml.Loader)", "np.load(p, allow_pickle=True)",
        "eval(text)", "subprocess.run(c, shell=True)", "subprocess.run(c, shell=flag)", "archive.extractall(out)",
        "AutoModel.from_pretrained(p, trust_remote_code=True)", "from os import system\nsystem('x')",
        "from_pretrained(p, trust_remote_code=study.trust)", "pd.read_pickle(p)", "from torch import load\nload(p)",
    ],
)  # fmt: skip
def test_the_check_sees_what_is_unsafe(source: str) -> None:
    assert list(unsafe(source))


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(p, weights_only=True)", "yaml.load(text, _Loader)", "yaml.safe_load(text)", "np.load(p)",
        "model.eval()", "rows.eval(query)", "re.compile(p)", "subprocess.run(c, shell=False)",
        "archive.extractall(out, filter='data')",
    ],
)  # fmt: skip
def test_the_check_lets_pass_what_is_safe(source: str) -> None:
    assert not list(unsafe(source))


def test_bandit_finds_nothing_that_is_not_exempt() -> None:
    asked = ["-m", "bandit", "--quiet", "--configfile", "pyproject.toml", "--recursive", "rayscale", "jobs", "scripts"]
    done = subprocess.run([sys.executable, *asked], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_exemption_gives_its_reason_beside_it() -> None:
    for path in SOURCES:
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            if "# nosec" in line:
                assert "# nosec B" in line, f"{path}:{number + 1}: name the rule"
                assert lines[number - 1].lstrip().startswith("#"), f"{path}:{number + 1}: give the reason above"


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "scripts" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HASH = "--hash=sha256:" + "0" * 64
ADVISORIES = [{"package": "ray", "fixed": "2.55", "id": "CVE-1", "what": "code runs"}]


def test_the_lock_as_it_is_passes_the_audit(audit: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main([]) == 0
    assert "0 found (17 known advisories checked)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        (f"ray==2.54.1 \\\n    {HASH}", "ray 2.54.1: code runs (CVE-1); take 2.55 or later"),
        (f"ray[data]==2.9 \\\n    {HASH}", "ray 2.9: code runs"),
        ("ray==2.60", "ray==2.60 has no SHA-256 hash"),
        (f"ray==2.60 \\\n    {HASH} --no-binary", "something next to it"),
        (f"ray>=2.60 \\\n    {HASH}", "'ray>=2.60' is not a pinned version"),
        (f"--index-url https://host/simple\nray==2.60 \\\n    {HASH}", "it names a host"),
        (f"ray @ git+ssh://host/ray \\\n    {HASH}", "it names a host"),
        ("-e .", "'-e .' is not a pinned version"),
        ("# nothing", "it pins nothing"),
    ],
)
def test_a_lock_that_is_not_sound_is_told_why(audit: ModuleType, lock: str, said: str) -> None:
    assert any(said in fault for fault in audit.faults("requirements.lock", lock, ADVISORIES))


def test_a_sound_lock_has_no_faults(audit: ModuleType) -> None:
    lock = f"# by uv\nray[data]==2.55.0 ; python_version < '4' \\\n    {HASH} \\\n    {HASH}\n    # via rayscale\n"
    lock += f"b==2.0+cpu \\\n    {HASH}\n"
    assert audit.faults("requirements.lock", lock, ADVISORIES) == []
    assert audit.numbers("2.55.0") == audit.numbers("2.55") < audit.numbers("2.55.1") < audit.numbers("2.100rc1")


def test_without_pip_audit_the_audit_says_so(audit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    found, said = audit.ask(ROOT / "requirements.lock")
    assert found == []
    assert "pip-audit is not installed" in said
