"""Submit a study to a cluster as a Ray job and bring its results back: what `ray job submit` does, and the way home.

The study, its data files and its checkpoint folders travel with the job, and so does this rayscale. The run folder lies
in the head node's home, where a second submission of the same study resumes it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shlex
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from rayscale.errors import ClusterError, InputError, RayscaleError
from rayscale.files import files_of
from rayscale.signals import Stopped
from rayscale.study import Pretrained, Study, load_study

REMOTE_RUNS = "rayscale-runs"  # below the home of the user that Ray runs as on the head node
MARK = "rayscale-archive"
POLL_SECONDS = (2.0, 15.0)
REFUSED = 2  # exit code of `rayscale run` for wrong input
LEFT_THERE = ("tune", "checkpoints", "models")  # large; their place is said instead


def submit(study_file: Path, address: str, out: Path, say: Callable[[str], None]) -> str:
    """Run a study on the cluster with the dashboard `address` (http://HOST:8265); the run folder comes back to `out`.

    Returns the job's id. Raises InputError for a wrong study before anything is sent, and for one that is refused on
    the cluster; ClusterError when the cluster cannot be reached or the job fails. What a failed job left in its run
    folder comes back all the same. With a storage URI in the study nothing is brought back.
    """
    study = load_study(study_file)
    client = _client(address)
    with tempfile.TemporaryDirectory(prefix="rayscale-submit-") as folder:
        _stage(study, study_file, Path(folder))
        elsewhere = "://" in study.run.storage
        place = f"{study.run.storage.rstrip('/')}/{study.name}" if elsewhere else f"{REMOTE_RUNS}/{study.name}"
        command = (
            'cd "$HOME" && python -m rayscale.cli run "$OLDPWD/study.yaml" --address auto --yes '
            f"--out {shlex.quote(place)}"
        )
        job = _start(client, command, Path(folder))
        say(f"Submitted {job}; the run lies in {'' if elsewhere else '~/'}{place} there. Its log follows.")
        try:
            _follow(client, job, say)
        except (KeyboardInterrupt, Stopped):
            say(f"The job goes on; stop it with: ray job stop {job} --address {address}")
            raise
        failure = _failure(client, job)
        if not elsewhere:
            fetch = _start(client, f'cd "$HOME" && python -m rayscale.on_ray.submit {shlex.quote(place)}', Path(folder))
            _wait(client, fetch)
            if _failure(client, fetch) is None:
                unpack(client.get_job_logs(fetch), out)
                say(f"Results: {out} (models and Tune's files stay in ~/{place} on the head node)")
            else:
                failure = failure or _failure(client, fetch)
        else:
            say(f"Results: {place}")
    if failure:
        raise failure
    return job


def _client(address: str) -> Any:
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    if not address.startswith(("http://", "https://")):
        raise InputError(
            f"found '{address}'; give the address of the cluster's dashboard, such as http://HOST:8265",
            code="bad_address",
            where="--address",
        )
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, OSError, RayError) as error:
        raise ClusterError(
            f"no Ray dashboard answers at {address} ({str(error).splitlines()[0]}); check the address, and "
            "RAY_AUTH_MODE=token with RAY_AUTH_TOKEN if the cluster wants a token",
            code="cluster_unreachable",
        ) from error


def _stage(study: Study, study_file: Path, folder: Path) -> None:
    """Copy the study with what it reads; paths in the copy are relative to it."""
    content = yaml.safe_load(study_file.read_text(encoding="utf-8-sig"))
    for key in ("train", "validation", "test"):
        given = getattr(study.data, key)
        if given and given != "builtin" and "://" not in given:
            target = folder / "data" / key
            target.mkdir(parents=True)
            for number, file in enumerate(files_of(given)):  # numbered, as files of several folders may share a name
                shutil.copy(file, target / f"{number:06d}-{Path(file).name}")
            content["data"][key] = f"data/{key}/*"
    for number, model in enumerate(study.models):
        if isinstance(model, Pretrained) and Path(model.pretrained).is_dir():
            name = f"models/{number}/{Path(model.pretrained).name}"
            shutil.copytree(model.pretrained, folder / name)
            content["models"][number]["pretrained"] = name
    (folder / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def _start(client: Any, command: str, folder: Path) -> str:
    import rayscale

    package = str(Path(rayscale.__file__).parent)
    environment = {"working_dir": str(folder), "py_modules": [package], "env_vars": {"PYTHONUNBUFFERED": "1"}}
    try:
        return client.submit_job(entrypoint=command, runtime_env=environment)
    except (RuntimeError, ValueError, OSError) as error:
        raise ClusterError(f"the cluster did not take the job: {error}", code="submit_refused") from error


def _follow(client: Any, job: str, say: Callable[[str], None]) -> None:
    """Repeat the job's log line by line until it ends."""
    shown, pause = 0, POLL_SECONDS[0]
    while True:
        ended = client.get_job_status(job).is_terminal()
        lines = client.get_job_logs(job).split("\n")
        if not ended:
            lines = lines[:-1]  # the last one may be written only in part
        elif not lines[-1]:
            lines.pop()
        for line in lines[shown:]:
            say(f"  {line}")
        # Ray gives the whole log each time: asked less often while nothing is added.
        pause = POLL_SECONDS[0] if len(lines) > shown else min(2 * pause, POLL_SECONDS[1])
        shown = max(shown, len(lines))
        if ended:
            return
        time.sleep(pause)


def _wait(client: Any, job: str) -> None:
    while not client.get_job_status(job).is_terminal():
        time.sleep(0.5)


def _failure(client: Any, job: str) -> RayscaleError | None:
    """Why an ended job did not succeed, None if it did: InputError where it refused the study, else ClusterError."""
    status = client.get_job_status(job)
    if str(status) == "SUCCEEDED":
        return None
    told = client.get_job_info(job)
    if told.driver_exit_code == REFUSED:
        _, found, said = f"\n{client.get_job_logs(job)}".rpartition("\nrayscale: ")
        reason = said.strip() if found else told.message
        return InputError(f"refused on the cluster, by a copy with its own line numbers: {reason}",
                          code="refused_there")  # fmt: skip
    return ClusterError(f"job {job} ended as {status}: {told.message}", code="job_failed")


def pack(run: Path) -> str:
    """A run folder as text between two marks, so that it travels through a job's log."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for child in sorted(run.iterdir()):
            if child.name not in LEFT_THERE and not child.name.startswith("."):
                archive.add(child, arcname=child.name)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    return f"<{MARK} {digest}>\n{base64.encodebytes(content).decode()}</{MARK}>"


def unpack(log: str, out: Path) -> None:
    """Write the run folder that `pack` put into a log. Raises ClusterError if it is not there whole."""
    start, end = log.find(f"<{MARK} "), log.find(f"</{MARK}>")
    if start < 0 or end < 0:
        raise ClusterError("the results did not come back whole; submit again: finished trials are not repeated")
    head, body = log[start:end].split(">", 1)
    content = base64.b64decode(body)
    if hashlib.sha256(content).hexdigest() != head.split()[1]:
        raise ClusterError("the results came back damaged; submit again: finished trials are not repeated")
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        archive.extractall(out, filter="data")


if __name__ == "__main__":
    print(pack(Path(os.path.expanduser(sys.argv[1]))))
