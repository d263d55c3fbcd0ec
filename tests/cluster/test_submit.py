"""A head with token authentication on this machine: `ray job submit` of jobs/, `rayscale submit`, results back."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

import rayscale as rs
from rayscale.errors import ClusterError
from rayscale.on_ray import submission
from rayscale.on_ray.session import cleanup_process
from rayscale.on_ray.submission import pack, unpack
from tests.ray.conftest import STUDY, write_study
from tests.ray.started import Started

ROOT = Path(__file__).parents[2]
SMALL = STUDY.replace("[40, 80, 160]", "[40, 80]").replace("[1x32, 2x32]", "[1x32]").replace("[1, 2]", "[1]")
LONG = SMALL.replace("[40, 80]", "[200, 300]").replace("epochs: 1", "epochs: 60")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def command(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """The dashboard's address and the environment of a user who has the token."""
    folder = tmp_path_factory.mktemp("head")
    token = folder / "token"
    token.write_text("0123456789abcdef" * 4)
    token.chmod(0o600)
    port, dashboard, agent = free_port(), free_port(), free_port()
    servers = str(tmp_path_factory.mktemp("r"))
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_TMPDIR": servers,
        cleanup_process.VARIABLE: servers,
        "RAY_USAGE_STATS_ENABLED": "0",
        "HOME": str(folder),
        "RAYSCALE_CACHE": str(folder / "cache"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    environment.pop("RAY_ADDRESS", None)
    subprocess.run(
        [command("ray"), "start", "--head", f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=4",
         f"--dashboard-agent-listen-port={agent}", '--resources={"slot": 2}', "--disable-usage-stats",
         "--dashboard-host=127.0.0.1"],
        env=environment, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    yield f"http://127.0.0.1:{dashboard}", environment
    cleanup_process.kill(servers, os.getpid())  # `ray stop` would end every other Ray of this machine, too


def there(environment: dict[str, str], name: str) -> Path:
    """The run folder of a study in the head node's home: one, which bears its fingerprint."""
    (found,) = (Path(environment["HOME"]) / "rayscale-runs").glob(f"{name}-*")
    return found


def test_jobs_run_by_ray_job_submit_with_a_token(tmp_path: Path, head: tuple[str, dict[str, str]]) -> None:
    address, environment = head
    write_study(tmp_path, SMALL)
    arguments = [command("ray"), "job", "submit", f"--address={address}", f"--working-dir={tmp_path}",
                 "--runtime-env-json", f'{{"py_modules": ["{ROOT / "rayscale"}"]}}', "--",
                 "python", str(ROOT / "jobs" / "run_study.py"), "study.yaml"]  # fmt: skip
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Report:" in done.stdout
    run = rs.load(there(environment, "toy"))
    assert set(run.trials.status) == {"ok"}


def test_submit_brings_the_results_back_and_a_second_one_repeats_nothing(
    tmp_path: Path, head: tuple[str, dict[str, str]]
) -> None:
    address, environment = head
    study = write_study(tmp_path, SMALL.replace("name: toy", "name: sent"))
    out = tmp_path / "results"
    arguments = [sys.executable, "-m", "rayscale", "submit", str(study), "--address", address, "--out", str(out),
                 "--name", "sent"]  # fmt: skip
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(rs.load(out).trials) == 2
    assert (out / "report.html").is_file()
    assert "rayscale-archive" not in done.stdout
    assert (out / "study.yaml").read_bytes() == study.read_bytes()
    assert "Submitted sent;" in done.stdout
    assert f"Report: {out}/report.html" in done.stdout
    page = (out / "report.html").read_text()
    assert f"rayscale submit {study}" in page
    assert "_ray_pkg_" not in page
    told = pd.DataFrame([json.loads(text) for file in out.glob("tune/*/result.json") for text in file.open()])
    records = rs.load(out).trials.set_index("trial_id")
    assert set(told.rayscale_trial_id) == set(records.index)
    for trial_id, rows in told.groupby("rayscale_trial_id"):
        curve = pd.read_parquet(out / "curves" / f"{trial_id}.parquet")
        assert list(rows.step.dropna().astype(int))[: len(curve)] == list(curve.step)
        assert rows.eval_loss.iloc[-1] == records.eval_loss[trial_id]
    again = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=400)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Submitted sent-2;" in again.stdout
    assert "All 2 trials have a record already" in re.sub(r"\s+", " ", again.stdout)

    without = {name: value for name, value in environment.items() if name != "RAY_AUTH_TOKEN_PATH"}
    refused = subprocess.run(arguments, env={**without, "HOME": str(tmp_path)}, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert "token" in refused.stderr


@pytest.mark.faults
def test_row_41_a_submission_interrupted_here_goes_on_there_and_ray_job_stop_ends_it(
    tmp_path: Path, head: tuple[str, dict[str, str]]
) -> None:
    address, environment = head
    name = "stopped"
    study = write_study(tmp_path, LONG.replace("name: toy", f"name: {name}"))
    out = tmp_path / "results"
    words = ["submit", str(study), "--address", address, "--out", str(out)]
    here = Started(*words, log=tmp_path / "log", env=environment)
    here.until(lambda: "trial_started" in said(environment, name))
    here.process.send_signal(signal.SIGINT)
    assert here.ends() == 130
    stop = re.search(r"Stop it with: (ray job stop (\S+) --address \S+)", here.told)
    assert stop, here.told
    place = there(environment, name)
    assert "run_stopped" not in said(environment, name)
    other = subprocess.run([sys.executable, "-m", "rayscale", *words, "--retry-failed"], env=environment,
                           capture_output=True, text=True, timeout=400)  # fmt: skip
    assert other.returncode == 2
    assert f"job {stop[2]} runs" in other.stderr
    followed = Started(*words, log=tmp_path / "log-2", env=environment)
    followed.until(lambda: f"Job {stop[2]} runs this study already" in followed.told)
    followed.process.send_signal(signal.SIGINT)
    assert followed.ends() == 130
    subprocess.run([command("ray"), *stop[1].split()[1:]], env=environment, check=True, capture_output=True, timeout=60)
    events = [json.loads(line) for line in said(environment, name).splitlines()]
    assert (events[-1]["event"], events[-1]["reason"]) == ("run_stopped", "Stopped")  # in its own words, not killed
    info = subprocess.run([command("ray"), "job", "status", stop[1].split()[3], "--address", address],
                          env=environment, capture_output=True, text=True, timeout=60)  # fmt: skip
    assert "was stopped" in info.stdout + info.stderr
    again = subprocess.run([sys.executable, "-m", "rayscale", *words], env=environment, capture_output=True,
                           text=True, timeout=400)  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr
    assert set(rs.load(out).trials.status) == {"ok"}
    records = list((place / "trials").glob("*.json"))
    assert len(records) == 2


def said(environment: dict[str, str], name: str) -> str:
    files = (Path(environment["HOME"]) / "rayscale-runs").glob(f"{name}-*/events.jsonl")
    return "".join(file.read_text() for file in files)


IN_PARTS = """
import sys
from pathlib import Path
from rayscale.on_ray import job_files, submission
submission.MOST_BYTES, job_files.PART_BYTES = 1000, 500
submission.submit(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), print, options=["--only", sys.argv[4]])
"""


@pytest.mark.faults
def test_what_one_request_cannot_take_goes_in_parts(tmp_path: Path, head: tuple[str, dict[str, str]]) -> None:
    address, environment = head
    study, out = write_study(tmp_path, SMALL.replace("name: toy", "name: parts")), tmp_path / "results"
    planned = subprocess.run([sys.executable, "-m", "rayscale", "plan", str(study), "--json"], env=environment,
                             capture_output=True, text=True, timeout=100, check=True)  # fmt: skip
    trial = json.loads(planned.stdout)["trials"][0]["trial_id"]
    done = subprocess.run([sys.executable, "-c", IN_PARTS, str(study), address, str(out), trial], env=environment,
                          capture_output=True, text=True, timeout=400)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n  part ") > 1
    assert list(Path(out, "trials").iterdir()) == [out / "trials" / f"{trial}.json"]
    assert not list((Path(environment["HOME"]) / "rayscale-runs" / ".parts").iterdir())


def test_a_study_that_the_cluster_refuses_is_refused_here(tmp_path: Path, head: tuple[str, dict[str, str]]) -> None:
    address, environment = head
    study = write_study(tmp_path, SMALL.replace("name: toy", "name: wide").replace("gpus: [1]", "gpus: [64]"))
    arguments = [sys.executable, "-m", "rayscale", "submit", str(study), "--address", address]
    done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "refused on the cluster" in done.stderr
    assert f"{study}:" in done.stderr  # the user's file and line
    assert "grid.gpus: asks for 64 GPUs" in done.stderr
    assert "Results:" not in done.stdout
    assert "Traceback" not in done.stderr


def test_a_run_folder_survives_the_way_through_a_log(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "trials").mkdir(parents=True)
    (run / "trials" / "a.json").write_bytes(bytes(range(256)) * 50)
    (run / "models").mkdir()
    (run / "models" / "big").write_text("stays")
    unpack(f"a line before\n{pack(run)}\na line after", tmp_path / "back")
    assert (tmp_path / "back" / "trials" / "a.json").read_bytes() == (run / "trials" / "a.json").read_bytes()
    assert not (tmp_path / "back" / "models").exists()


def test_cluster_yaml_is_valid_for_ray_up() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text())))


def test_results_that_would_leave_their_folder_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../outside"), io.BytesIO())
    content = buffer.getvalue()
    digest, body = hashlib.sha256(content).hexdigest(), base64.encodebytes(content).decode()
    with pytest.raises(ClusterError, match="outside of their folder"):
        unpack(f"<{submission.MARK} {digest}>\n{body}</{submission.MARK}>", tmp_path / "back")
    assert not (tmp_path / "outside").exists()
