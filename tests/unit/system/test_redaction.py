"""Secrets leave no trace in what a run writes or says, and names lead nowhere but into the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayscale.errors import InputError, TrialError
from rayscale.runs.events import log_event
from rayscale.runs.folder import load
from rayscale.runs.ledger import Ledger, make_record
from rayscale.runs.outcomes import Outcomes
from rayscale.study.checkpoints import find_checkpoint
from rayscale.study.study import load_study
from rayscale.system.failures import describe, error_json
from rayscale.system.names import as_name, is_name
from rayscale.system.redaction import HIDDEN, has_secret, redact
from rayscale.system.storage import Store
from tests.unit.cli.test_verbs import PLANTED
from tests.unit.conftest import STUDY
from tests.unit.made_study import trials, write_run

pytestmark = pytest.mark.row

CANARY = "c4n4ry-9f8e7d6c5b4a"
#: The secrets of the environment; every one holds the canary.
SECRETS = {
    "HF_TOKEN": f"hf_{CANARY}",
    "AWS_SECRET_ACCESS_KEY": f"{CANARY}/+aws",
    "RAY_AUTH_TOKEN": f"ray{CANARY}",
    "WANDB_API_KEY": f"wandb-{CANARY}",
    "HTTPS_PROXY": f"http://me:{CANARY}@127.0.0.1:9",
    "MY_PASSWORD": f"pass word {CANARY}",
    "DATABASE": f"postgres://me:db{CANARY}@host/x",
}
ODD = "läufe [x] *?/漢字 ' \" & <b>$HOME;"


def test_secrets_are_taken_out_by_value_and_by_their_place_in_a_uri() -> None:
    found = {"HF_TOKEN": "abcdef12", "TOKENIZERS_PARALLELISM": "false", "RAY_AUTH_TOKEN_PATH": "/home/me/token",
             "RAY_AUTH_MODE": "token", "MONKEY": "banana-tree", "API_KEY": "abcdef1234"}  # fmt: skip
    assert redact("abcdef12 abcdef1234 false /home/me/token banana-tree", found) == (
        f"{HIDDEN} {HIDDEN} false /home/me/token banana-tree"
    )
    for uri in ("s3://key:secret@bucket/run", "https://hub/x?token=abc&rev=1", "https://ghp_token@host/x",
                "gs://b/x?X-Goog-Signature=12ab"):  # fmt: skip
        assert has_secret(uri)
    assert redact("GET https://me:pw@host:80/x?rev=1&sig=12&a=b", {}) == "GET https://***@host:80/x?rev=1&sig=***&a=b"
    assert redact("login as pass-word failed", {"PROXY": "http://me:pass-word@host"}) == f"login as {HIDDEN} failed"
    assert redact("Authorization: Bearer abc.def-123", {}) == "Authorization: Bearer ***"
    for plain in ("s3://bucket/run", "mail me@host", "https://host/@scope/pkg?rev=1", "a://b c@d", "basic words here"):
        assert not has_secret(plain)
        assert redact(plain, {}) == plain


@given(st.text(), st.text(min_size=6))
def test_no_secret_of_the_environment_survives(text: str, secret: str) -> None:
    shown = redact(f"{text}{secret}{text}", {"SOME_SECRET": secret})
    assert secret not in shown.replace(HIDDEN, "\0")


@given(st.text())
def test_any_text_becomes_a_name(text: str) -> None:
    assert is_name(as_name(text))
    assert not is_name(text) or as_name(text) == text


def leaks(folder: Path) -> list[str]:
    """Files below the folder that hold the canary, also inside parquet."""
    found = []
    for path in (path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
        if CANARY.encode() in content or CANARY in str(path):
            found.append(str(path))
    return found


class Sandbox:
    """A home, a folder for temporary files and one to work in, and the command line run there."""

    def __init__(self, root: Path) -> None:
        self.root, self.work, self.cache = root, root / "work", root / "home" / ".cache"
        for name in ("home", "tmp", "work"):
            (root / name).mkdir()
        rows = [f"row number {i} about {'cats' if i % 2 else 'dogs'},{'cat' if i % 2 else 'dog'}" for i in range(200)]
        (self.work / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
        (self.work / "study.yaml").write_text(STUDY)
        kept = {name: value for name, value in os.environ.items() if name not in ("RAYSCALE_CACHE", "XDG_CACHE_HOME")}
        self.environment = {**kept, **SECRETS, "HOME": str(root / "home"), "TMPDIR": str(root / "tmp")}
        self.said = ""

    def run(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "rayscale", *arguments], cwd=self.work, env=self.environment, timeout=300,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        self.said += done.stdout + done.stderr
        return done.stdout

    def files(self) -> set[Path]:
        """All that lies there, caches aside: they may be deleted at any time."""
        return {path for path in self.root.rglob("*") if path.is_file() and not path.is_relative_to(self.cache)}


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


@pytest.mark.faults
def test_row_6_a_planted_run_writes_into_its_folder_only_and_tells_no_secret(sandbox: Sandbox) -> None:
    before, out = sandbox.files(), sandbox.work / ODD / "run"
    place = str(out.relative_to(sandbox.work))
    answer = json.loads(
        sandbox.run("run", "study.yaml", "--simulate", PLANTED, "--yes", "--json", "--out", place, "--address", "local")
    )
    assert answer["run"] == str(out)
    assert json.loads(sandbox.run("status", place, "--json"))["done"] == 8
    assert json.loads(sandbox.run("predict", place, "--params", "2e5", "--data", "200", "--json"))["predicted"]
    sandbox.run("plan", "study.yaml", "--out", place)
    for wrong in ("../../<script>", "x" * 300):
        sandbox.run("run", "study.yaml", "--out", "elsewhere", "--only", wrong, "--yes", code=2)
    new = sandbox.files() - before
    assert new
    assert all(path.is_relative_to(out) for path in new)
    assert {path.name for path in new} >= {"plan.json", "events.jsonl", "report.html", "trials.parquet", "fit.json"}
    # matplotlib keeps its list of fonts there, rayscale what it learnt of the text.
    assert {path.name for path in sandbox.cache.iterdir()} <= {"matplotlib", "rayscale"}
    assert leaks(sandbox.root) == []
    assert CANARY not in sandbox.said


def test_secrets_in_what_fails_are_taken_out_of_all_that_is_said(sandbox: Sandbox) -> None:
    uri = f"s3://key:{CANARY}@bucket/run"
    study = sandbox.work / "study.yaml"
    sandbox.run("run", "study.yaml", "--yes", "--json", "--out", uri, code=2)
    sandbox.run("status", uri, "--json", code=2)
    sandbox.run("plan", "study.yaml", "--bogus", uri, "--json", code=2)
    sandbox.run("submit", "study.yaml", "--address", f"http://me:{CANARY}@127.0.0.1:9", "--json", code=1)
    study.write_text(STUDY.replace("accelerator: cpu", f"storage: '{uri}'"))
    sandbox.run("plan", "study.yaml", "--json", code=2)
    assert "study.yaml:9: run.storage: found 's3://***@bucket/run'; put credentials in the environment" in sandbox.said
    study.write_text(STUDY.replace("rows.csv", f"{SECRETS['HF_TOKEN']}.csv"))
    sandbox.run("plan", "study.yaml", "--json", code=2)
    assert CANARY not in sandbox.said
    assert "Traceback" not in sandbox.said


def test_every_way_into_a_run_takes_secrets_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    told = f"no access with {SECRETS['AWS_SECRET_ACCESS_KEY']} to s3://a:{CANARY}@b"
    error = TrialError(told)
    try:
        raise error
    except TrialError:
        assert CANARY not in json.dumps([describe(error), error_json(error)])
    store = Store.open(tmp_path)
    event: Any = {"event": "run_stopped", "reason": told, "attempts": [{"reason": told, "seconds": 1.0}, None]}
    log_event(store, event)
    write_run(tmp_path, trials(seeds=1, gpus=(1,), models=("tiny",), sizes=(500,)))
    with pytest.raises(InputError, match=r"storage s3://\*\*\*@b: a URI with a secret"):
        Store.open(f"s3://a:{CANARY}@b")
    assert leaks(tmp_path) == []
    study = tmp_path / "study.yaml"
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(90)))
    study.write_text(STUDY.replace("[20, 40, 80]", "[20]").replace(", seeds: {20: 2}", ""))
    from rayscale.plan.draft import draft_plan
    from rayscale.system.machine import Machine

    trial = draft_plan(load_study(study), Machine("cpu", 2, "p", "this machine"), store).trials[0].trial
    assert CANARY not in str(make_record(trial, status="failed", error=told).row)
    outcomes = Outcomes(Ledger(store), "none", "inline", {})
    outcomes.add(trial, {"status": "failed", "attempts": 1, "error": {"message": told, "traceback": told}})
    assert leaks(tmp_path) == []


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "modèle 1", "x" * 200, '"><img onerror=x>', "..."])
def test_row_6_a_model_is_named_after_its_folder_in_plain_signs(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name.replace("/", "_")
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"x")
    assert is_name(find_checkpoint(str(folder), None).name)


def test_row_6_a_curve_is_asked_by_a_trial_and_not_by_a_path(tmp_path: Path) -> None:
    table = trials(seeds=1, gpus=(1,), models=("tiny",), sizes=(500,))
    folder = write_run(tmp_path / "run", table)
    (tmp_path / "secret.parquet").write_bytes((tmp_path / "secret").name.encode())
    for wrong in ("../../secret", "/etc/passwd", "", "a\0b", ".."):
        with pytest.raises(InputError, match="no curve of trial"):
            load(folder).curves(wrong)
