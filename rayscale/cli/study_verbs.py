"""Verbs of a study, from its file to its trials: write it, check this machine, plan, run, follow, submit."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rayscale.cli.options import (
    Address,
    Executor,
    Json,
    Only,
    Out,
    RetryFailed,
    RunFolder,
    StudyFile,
    Verbose,
    Yes,
    option,
)
from rayscale.cli.output import RefusedError, print_json, print_lines, say
from rayscale.errors import ClusterError, InputError, RayscaleError
from rayscale.study.tasks import KINDS
from rayscale.system.signals import Stopped

if TYPE_CHECKING:
    from rayscale.runs.folder import Run


def demo(out: Out = None, yes: Yes = False, json_: Json = False) -> None:
    """Run the whole job on the built-in corpus: offline, on any machine."""
    study = Path(__file__).with_name("demo.yaml")
    _run(study, out or "runs/demo", "local", yes, json_, retry_failed=False, only=None, executor=None)


def init(
    task: Annotated[str, typer.Option("--task", metavar="T", help=f"One of {', '.join(KINDS)}.")] = "",
    data: Annotated[Path | None, option("--data", "FILE", "Your data; its columns are detected.")] = None,
    out: Annotated[Path, option("--out", "FILE", "Where to write the study file.")] = Path("study.yaml"),
    encoding: Annotated[str | None, option("--encoding", "NAME", "Encoding of your data; default: UTF-8.")] = None,
    json_: Json = False,
) -> None:
    """Write a commented study file for your data."""
    from rayscale.plan.starter import write_starter

    written = write_starter(task or None, data, out, encoding)
    if json_:
        print_json(written)
    else:
        say(f"Wrote {out}. Next: rayscale plan {out}")


def doctor(
    study: Annotated[
        Path | None, typer.Argument(metavar="STUDY", help="A study whose plan to check on this machine.")
    ] = None,
    address: Annotated[str | None, option("--address", "auto|HOST:PORT", "A cluster to check as well.")] = None,
    json_: Json = False,
) -> None:
    """Check versions, devices, cluster, storage and the study's text, and suggest fixes."""
    from rayscale.cli.doctor import as_lines, check_up, verdict

    findings = check_up(study, address)
    failed = any(finding.level == "fail" for finding in findings)
    if json_:
        print_json({"findings": [finding.to_json() for finding in findings], "ok": not failed})
    else:
        print_lines(as_lines(findings))
    if failed:
        raise RefusedError(RayscaleError(verdict(findings), code="unwell"))


def plan(
    study: StudyFile,
    out: Out = None,
    address: Annotated[str, option("--address", "local|auto|HOST:PORT", "Plan for a cluster.")] = "local",
    verbose: Verbose = False,
    json_: Json = False,
) -> None:
    """Show the planned trials and their estimated memory, time, cost and disk."""
    from rayscale.study.study import load_study

    loaded = load_study(study)  # before the rest is imported: a wrong file is refused at once, in little memory
    from rayscale.plan.draft import draft_plan, run_store
    from rayscale.system.machine import this_machine

    if address == "local":
        machine = this_machine(loaded.run.accelerator, loaded.run.trials_per_gpu)
    else:
        from rayscale.on_ray.session.session import connect

        with connect(address, loaded.run.accelerator, loaded.run.hang_seconds, loaded.run.trials_per_gpu) as session:
            machine = session.machine
    drafted = draft_plan(loaded, machine, run_store(loaded, out)).to_json()
    if json_:
        print_json(drafted)
    else:
        from rich.console import Console

        from rayscale.report.terminal.plan import PlanView

        Console(highlight=False).print(PlanView(drafted, verbose))


def run(
    study: StudyFile,
    out: Out = None,
    address: Address = "local",
    yes: Yes = False,
    retry_failed: RetryFailed = False,
    simulate: Annotated[
        str | None,
        typer.Option(metavar="LAW:A=..,B=..", help="Train nothing: draw losses from this law, to try a design."),
    ] = None,
    only: Only = None,
    executor: Executor = None,
    verbose: Verbose = False,
    json_: Json = False,
) -> None:
    """Run a study; run it again to resume."""
    if simulate is not None:
        given = {"--only": only, "--executor": executor, "--retry-failed": retry_failed}
        given["--address"] = address != "local"
        for option in (name for name, value in given.items() if value):
            text = f"--simulate trains nothing, so {option} has no effect with it; leave one of them out"
            raise InputError(text, code="usage", where=option)
    _run(study, out, address, yes, json_, retry_failed=retry_failed, only=only, executor=executor, planted=simulate,
         verbose=verbose)  # fmt: skip


def status(run: RunFolder, json_: Json = False) -> None:
    """Show the progress of a run: trials done, time left, cost, errors."""
    from rayscale.runs.folder import load
    from rayscale.runs.status import read_status

    counts = read_status(load(run))
    if json_:
        print_json(counts)
        return
    from collections import Counter

    from rayscale.report.numbers import duration, plural

    total = counts["done"] + counts["failed"] + counts["running"] + counts["waiting"]
    diverged = f" ({counts['diverged']} of them diverged)" if counts["diverged"] else ""
    say(f"{counts['study']}: {counts['done']} of {total} trials done{diverged}, {counts['failed']} failed, "
          f"{counts['running']} running, {counts['waiting']} waiting.")  # fmt: skip
    say(f"{counts['gpu_hours']:.3g} GPU-hours spent; about {duration(counts['eta_seconds'])} of work left.")
    if counts["last_error"]:
        say(f"Last error: {counts['last_error']}")
    for reason, cells in Counter(item["reason"] for item in counts["cut"]).items():
        say(f"Cut: {plural(cells, 'cell')} ({reason}).")
    if counts["unplanned"]:
        say(f"{plural(counts['unplanned'], 'record')} of cells no longer in the study: kept but not counted.")
    for damaged in counts["damaged"]:
        say(f"Damaged record: {damaged['file']}: {damaged['reason']}; run again, which repeats that trial.")
    if counts["set_aside"]:
        say(f"Damaged records set aside by a later run: {', '.join(counts['set_aside'])}.")
    if counts["broken_events"]:
        say(f"{plural(counts['broken_events'], 'incomplete line')} in events.jsonl skipped (cut off by a crash).")
    if counts["owner"]:
        say(f"Driver: process {counts['owner']['pid']} on {counts['owner']['host']}, since {counts['owner']['since']}.")


def submit(
    study: StudyFile,
    address: Annotated[str, option("--address", "URL", "The cluster's dashboard: http://HOST:8265.")],
    out: Out = None,
    name: Annotated[str | None, option("--name", "JOB", "The job's id on the cluster; default: Ray's choice.")] = None,
    retry_failed: RetryFailed = False,
    only: Only = None,
    executor: Executor = None,
    json_: Json = False,
) -> None:
    """Run a study on a cluster as a Ray job; repeat the command to follow it.

    The results are copied back when it ends.
    """
    from rayscale.on_ray.submission import submit as submit_study
    from rayscale.plan.draft import run_store
    from rayscale.runs.folder import remove_unused
    from rayscale.study.study import load_study

    store = run_store(load_study(study), out)
    if store.local is not None:  # before anything is sent
        store.check_writable()
        remove_unused(store)
    given = {"--only": only, "--executor": executor}
    options = [word for option, value in given.items() if value is not None for word in (option, value)]
    options += ["--retry-failed"] if retry_failed else []
    job = submit_study(
        study, address, Path(store.location), options=options, name=name,
        say=lambda text: print(text, file=sys.stderr if json_ else sys.stdout, flush=True),
    )  # fmt: skip
    if json_:
        print_json({"job": job, "run": store.location})


def _run(
    study: Path, out: str | None, address: str, yes: bool, json_: bool, *, retry_failed: bool, only: str | None,
    executor: str | None, planted: str | None = None, verbose: bool = False,
) -> None:  # fmt: skip
    from rayscale.study.study import load_study

    load_study(study)  # before the rest is imported: a wrong file is refused at once, in little memory
    from rayscale.cli.terminal import Terminal

    terminal = Terminal(json=json_, yes=yes, verbose=verbose)
    try:
        if planted is None:
            from rayscale.on_ray.driver import run_study

            done = run_study(study, out=out, address=address, retry_failed=retry_failed, only=only, executor=executor,
                             observer=terminal)  # fmt: skip
        else:
            from rayscale.plan.simulated_run import run_simulated

            done = run_simulated(study, planted, out=out, observer=terminal)
    except BaseException as error:
        terminal.close()
        if isinstance(error, KeyboardInterrupt | Stopped) or (isinstance(error, ClusterError) and terminal.agreed):
            terminal.say(last_words() if terminal.agreed else "Stopped before anything was run.")
        raise
    if done is None:
        terminal.say("Not started.")
        if json_:
            print_json({"run": None})
        return
    _conclude(done, terminal, json_)


def _conclude(done: Run, terminal: Any, json_: bool) -> None:
    from rayscale.runs.status import read_status

    fit = done.fit or {}
    counts = read_status(done)
    place = done.folder
    files = [f"Report: {place}/report.html", f"Trials: {place}/trials.parquet", f"Fit: {place}/fit.json"]
    wrong = ", ".join(f"{counts[what]} {what}" for what in ("failed", "diverged") if counts[what])
    last = f"; the last error: {counts['last_error']}" if counts["last_error"] else ""
    if counts["unplanned"]:
        text = "records belong to cells no longer in the study; they are kept but not counted"
        files.insert(0, f"{counts['unplanned']} {text}.")
    if wrong:
        files.insert(0, f"Of {len(done.plan['trials'])} trials {wrong}{last}")
    terminal.verdict(fit, files)
    if not counts["ok"]:
        raise RayscaleError(f"no trial succeeded ({wrong or 'none has finished'}){last}", code="no_trial_ok")
    if json_:
        print_json({"run": place, **counts, "verdict": fit.get("verdict")})


def last_words() -> str:
    """What a command that was stopped says at its end."""
    verb = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    if verb not in ("run", "demo"):
        return "Stopped."
    return f"Stopped. Finished trials are kept; resume with the same command: {shlex.join(['rayscale', *sys.argv[1:]])}"
