"""Submit a study to a cluster as a Ray job and bring its results back: what `ray job submit` does, and the way home.

The study, the files it reads and this rayscale travel with the job (`job_files`). Its run folder lies where the study's
storage says, by default in the head node's home, where a second submission of the same study resumes it, or follows the
job that still runs it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import shlex
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rayscale.errors import ClusterError, InputError, RayscaleError, first_line
from rayscale.on_ray.job_files import LEFT_THERE, MOST_BYTES, PART_BYTES, STAGED, STUDY, JobFiles, gather
from rayscale.report.rebuild import rebuild_report
from rayscale.runs.events import log_event
from rayscale.runs.lease import FOLDER as LEASE_FOLDER
from rayscale.study.study import RunSettings, Study, load_study
from rayscale.system import disk
from rayscale.system.names import is_name
from rayscale.system.signals import Stopped
from rayscale.system.storage import Store
from rayscale.text.rows.clean import BUILT_IN, find_files
from rayscale.text.sources.digests import look
from rayscale.text.sources.remote import is_remote

RUNS = "rayscale-runs"  # below the home of the user that Ray runs as on the head node
MARK = "rayscale-archive"
TUNE = "tune"  # the subfolder of a run that Ray Tune writes
POLL_SECONDS = (2.0, 15.0)
LOST_SECONDS = 60.0  # without an answer from the dashboard, before a job is no longer followed
REFUSED = 2  # exit code of `rayscale run` for wrong input
_RUN, _REQUEST = "rayscale_run", "rayscale_request"  # metadata of a job: its run folder, and what it was asked


@dataclass(frozen=True)
class Submission:
    """What is asked of a cluster: a study, its run folder there, further options of `rayscale run`, the job's name."""

    study_file: Path
    address: str
    files: JobFiles
    place: str
    options: tuple[str, ...] = ()
    name: str | None = None

    @property
    def metadata(self) -> dict[str, str]:
        """What tells this job from others in the cluster's list."""
        asked = hashlib.sha256("\0".join([self.files.digest, *self.options]).encode()).hexdigest()
        return {"job_name": self.name or f"rayscale {self.place.rpartition('/')[2]}", _RUN: self.place, _REQUEST: asked}

    @property
    def shown(self) -> str:
        """The run folder there, as a person writes it."""
        return self.place if "://" in self.place or self.place.startswith("/") else f"~/{self.place}"

    @property
    def command(self) -> str:
        """The job's entry point, run in its working directory."""
        words = shlex.join(["--out", self.place, *self.options])
        return f'cd "$HOME" && python -m rayscale run "$OLDPWD/{STAGED}/{STUDY}" --address auto --yes {words}'

    def translate(self, line: str, out: Path) -> str:
        """A line of the job's log with the user's paths: those of the study's files, and `out` of the results."""
        line = self.files.translate(line)
        folder = rf"[^\s'\"]*{re.escape(self.place)}(?=[/\s'\";:,)]|\.?$)"
        return line if "://" in self.place else re.sub(folder, lambda _: str(out), line)


def remote_place(study: Study) -> str:
    """The run folder of a study that runs as a job: relative to the head node's home, absolute there, or a URI.

    It is <storage>/<name> where the study names a storage. By default it is below RUNS and bears, beside the name, the
    first digits of a fingerprint of task and text, so that two studies of one name never share a folder, and one whose
    grid grows keeps its own.
    """
    storage = study.run.storage.rstrip("/")
    if storage != RunSettings.model_fields["storage"].default:
        return f"{storage}/{study.name}".removeprefix("~/")
    digest = hashlib.sha256(study.task.model_dump_json().encode())
    settings = study.data.model_dump(mode="json", exclude={"train", "validation", "test", "reader", "augment"})
    digest.update(repr(sorted(settings.items())).encode())
    for role in ("train", "validation", "test"):
        given = getattr(study.data, role)
        local = given and given != BUILT_IN and not is_remote(given)
        texts = [look(file).digest for file in find_files(given)] if local else [given]
        digest.update("\0".join([role, *map(str, texts)]).encode())
    return f"{RUNS}/{study.name}-{digest.hexdigest()[:8]}"


def submit(
    study_file: Path, address: str, out: Path, say: Callable[[str], None], *, options: Sequence[str] = (),
    name: str | None = None,
) -> str:  # fmt: skip
    """Run a study on the cluster with the dashboard `address` (http://HOST:8265); the run folder comes back to `out`.

    `options` are further ones of `rayscale run`. While a job runs this study already it is followed, and none is
    started. Returns the job's id: `name` if that is given, with a number where an ended job has it. Raises InputError
    for a wrong study before anything is sent, for one that is refused on the cluster, and where a job runs the folder
    with another study file or other options; ClusterError when the cluster cannot be reached or the job fails. What a
    failed job left in its run folder comes back all the same. With a storage URI in the study nothing is brought back.
    """
    if name is not None and not (is_name(name) and name.isascii()):
        text = f"found '{name}'; give a job a name of 1 to 64 of the characters A-Z a-z 0-9 . _ -"
        raise InputError(text, code="bad_name", where="--name")
    files, place = gather(study_file), remote_place(load_study(study_file))
    asked = Submission(study_file, address, files, place, tuple(options), name)
    client = _client(address)
    job = _running(client, asked)
    if job is not None:
        say(f"Job {job} runs this study already; its log follows.")
    else:
        job = _begin(client, asked, say)
        say(f"Submitted {job}; its run folder on the cluster is {asked.shown}. Its log follows.")
    here = partial(asked.translate, out=out)
    try:
        _follow(client, job, lambda line: say(f"  {here(line)}"))
    except (KeyboardInterrupt, Stopped):
        stop = f"ray job stop {job} --address {address}"
        say(f"The job keeps running; repeat the command to follow it. Stop it with: {stop}")
        raise
    failure = _failure(client, job, here)
    if isinstance(failure, InputError):  # it never ran: there is nothing to bring
        raise failure
    if "://" in place:
        say(f"Results: {place}")
    else:
        missing = _fetch(client, asked, job, out, say)
        failure = failure or missing
    if failure:
        raise failure
    return job


def _client(address: str) -> Any:
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    if not address.startswith(("http://", "https://")):
        text = f"found '{address}'; give the address of the cluster's dashboard, such as http://HOST:8265"
        raise InputError(text, code="bad_address", where="--address")
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, OSError, RayError) as error:
        text = f"no Ray dashboard answers at {address} ({first_line(error)})"
        fix = "check the address, and RAY_AUTH_MODE=token with RAY_AUTH_TOKEN if the cluster wants a token"
        raise ClusterError(text, fix=fix, code="cluster_unreachable") from error


# ---- starting, and finding what runs


def _running(client: Any, asked: Submission) -> str | None:
    """The job that runs this folder now, None if there is none. Raises InputError where it was asked something else."""
    for job in client.list_jobs():
        metadata = job.metadata or {}
        if metadata.get(_RUN) != asked.place or job.status.is_terminal():
            continue
        if metadata.get(_REQUEST) != asked.metadata[_REQUEST]:
            number = job.submission_id
            text = f"job {number} runs {asked.place} with another version of the study, its files or the options"
            fix = f"wait for it, or stop it: ray job stop {number} --address {asked.address}"
            raise InputError(text, fix=fix, code="run_in_use", where=asked.address)
        return job.submission_id
    return None


def _begin(client: Any, asked: Submission, say: Callable[[str], None]) -> str:
    """Send the files and start the job; in parts, where one request cannot take all."""
    with tempfile.TemporaryDirectory(prefix="rayscale-submit-") as name:
        folder = Path(name)
        if asked.files.size <= MOST_BYTES:
            asked.files.write(folder)
            return _start(client, asked.command, folder, asked)
        size = asked.files.size / (1 << 20)
        say(
            f"The study's files take {size:,.0f} MiB, and one request takes 100 MiB: they go in parts of "
            f"{PART_BYTES >> 20} MiB. Without sending: text in storage that the cluster reads (s3://, gs://, hf://, or "
            "file:// on a disk that its nodes share), a checkpoint by its hub id, or `rayscale run --address auto` on "
            "one of its nodes."
        )
        kept = f"{RUNS}/.parts/{asked.files.digest[:16]}"
        for number, part in enumerate(asked.files.parts(folder)):
            say(f"  part {number + 1} ({part.stat().st_size / (1 << 20):,.0f} MiB) ...")
            left = f'rm -rf "$HOME"/{kept}; ' if not number else ""  # an attempt that broke off may have sent more
            command = f'{left}mkdir -p "$HOME"/{kept} && cp part "$HOME"/{kept}/{number:06d}'
            if failure := _failure(client, _start(client, command, folder)):
                raise failure
        unpacked = f'cat "$HOME"/{kept}/* | tar -xzf - && rm -r "$HOME"/{kept} && {asked.command}'
        return _start(client, unpacked, folder, asked)


def _start(client: Any, command: str, folder: Path, asked: Submission | None = None) -> str:
    import rayscale

    package = str(Path(rayscale.__file__).parent)
    environment = {"working_dir": str(folder), "py_modules": [package], "env_vars": {"PYTHONUNBUFFERED": "1"}}
    names: dict[str, Any] = {}
    try:
        if asked is not None:
            names = {"metadata": asked.metadata, "submission_id": _free_name(client, asked)}
        return client.submit_job(entrypoint=command, runtime_env=environment, **names)
    except (RuntimeError, ValueError, OSError) as error:
        raise ClusterError(f"the cluster did not take the job: {error}", code="submit_refused") from error


def _free_name(client: Any, asked: Submission) -> str | None:
    """The job's name, with a number where an ended job has it; None where none was asked for."""
    if asked.name is None:
        return None
    taken = {job.submission_id: job for job in client.list_jobs()}
    if asked.name in taken and not taken[asked.name].status.is_terminal():
        text = f"job {asked.name} runs already, and not this study; give another name"
        raise InputError(text, code="name_in_use", where="--name")
    names = (asked.name, *(f"{asked.name}-{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


# ---- while it runs


def _follow(client: Any, job: str, say: Callable[[str], None]) -> None:
    """Repeat the job's log line by line until it ends. Raises ClusterError where the dashboard answers no more."""
    shown, pause, answered = 0, POLL_SECONDS[0], time.monotonic()
    while True:
        try:
            ended = client.get_job_status(job).is_terminal()
            lines = client.get_job_logs(job).split("\n")
        except (RuntimeError, OSError) as error:  # requests' own errors are OSErrors
            if time.monotonic() - answered > LOST_SECONDS:
                text = f"the dashboard no longer answers ({first_line(error)})"
                fix = "the job may still run: repeat the command to follow it"
                raise ClusterError(text, fix=fix, code="cluster_lost") from error
            time.sleep(POLL_SECONDS[0])
            continue
        answered = time.monotonic()
        if not ended:
            lines = lines[:-1]  # the last one may be written only in part
        elif not lines[-1]:
            lines.pop()
        for line in lines[shown:]:
            say(line)
        # Ray gives the whole log each time: asked less often while nothing is added.
        pause = POLL_SECONDS[0] if len(lines) > shown else min(2 * pause, POLL_SECONDS[1])
        shown = max(shown, len(lines))
        if ended:
            return
        time.sleep(pause)


def _failure(client: Any, job: str, here: Callable[[str], str] = str) -> RayscaleError | None:
    """Why a job, once it has ended, did not succeed: InputError where it refused the study, else ClusterError."""
    while not (status := client.get_job_status(job)).is_terminal():
        time.sleep(0.5)
    if str(status) == "SUCCEEDED":
        return None
    info = client.get_job_info(job)
    if info.driver_exit_code == REFUSED:
        _, mark, message = f"\n{client.get_job_logs(job)}".rpartition("\nrayscale: ")
        reason = here(message.strip()) if mark else info.message
        return InputError(f"refused on the cluster: {reason}", code="refused_there")
    return ClusterError(f"job {job} ended as {status}: {info.message}", code="job_failed")


# ---- the way home


def _fetch(client: Any, asked: Submission, job: str, out: Path, say: Callable[[str], None]) -> RayscaleError | None:
    """Bring the run folder to `out`, where it tells of the user's study and paths; why it could not, else None."""
    with tempfile.TemporaryDirectory(prefix="rayscale-submit-") as folder:
        command = f'cd "$HOME" && python -m rayscale.on_ray.submission {shlex.quote(asked.place)}'
        fetch = _start(client, command, Path(folder))
        if failure := _failure(client, fetch):
            return failure
        unpack(client.get_job_logs(fetch), out)
    store = Store.open(out)
    store.write(STUDY, asked.study_file.read_bytes())
    study = str(asked.study_file.absolute())
    again = shlex.join(["rayscale", "submit", study, "--address", asked.address, "--out", str(out), *asked.options])
    log_event(store, {"event": "results_fetched", "study": study, "command": again, "job": job})
    if store.exists("report.html"):
        rebuild_report(store)  # its page names the study and the commands that are true here
    say(f"Results: {out} (models and checkpoints stay on the cluster, in {asked.shown})")
    return None


def pack(run: Path) -> str:
    """A run folder as text between two marks, so that it travels through a job's log."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for child in sorted(run.iterdir()):
            if child.name not in (*LEFT_THERE, LEASE_FOLDER) and not child.name.startswith("."):
                archive.add(child, arcname=child.name)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    return f"<{MARK} {digest}>\n{base64.encodebytes(content).decode()}</{MARK}>"


def unpack(log: str, out: Path) -> None:
    """Write the run folder that `pack` put into a log. Raises ClusterError if it is not there whole."""
    start, end = log.find(f"<{MARK} "), log.find(f"</{MARK}>")
    if start < 0 or end < 0:
        raise ClusterError("the results arrived incomplete; submit again: finished trials are not repeated")
    head, body = log[start:end].split(">", 1)
    content = base64.b64decode(body)
    if hashlib.sha256(content).hexdigest() != head.split()[1]:
        raise ClusterError("the results came back damaged; submit again: finished trials are not repeated")
    disk.make_folders(str(out.absolute()), disk.PRIVATE)
    shutil.rmtree(out / TUNE, ignore_errors=True)  # its files bear new names after each run
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for member in archive:  # by hand: extraction filters came with Python 3.11.4
            if not member.isfile():
                continue
            path = out / member.name
            if not path.resolve().is_relative_to(out.resolve()):
                raise ClusterError(f"the results hold a file outside of their folder: {member.name}")
            disk.write_file(path, archive.extractfile(member).read())  # type: ignore[union-attr]


if __name__ == "__main__":
    print(pack(Path(os.path.expanduser(sys.argv[1]))))
