"""The command line: each verb parses its arguments and makes one call. Heavy imports happen inside the verb."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rayscale.errors import ClusterError, InputError, RayscaleError
from rayscale.study.tasks import KINDS
from rayscale.system.failures import describe, error_json, traceback_of
from rayscale.system.redaction import redact
from rayscale.system.signals import CODES, Stopped, stopping

if TYPE_CHECKING:
    from rayscale.runs.folder import Run

app = typer.Typer(
    name="rayscale",
    help="Measure the effect of more data, a larger model or more GPUs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"rayscale {version('rayscale')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; text for people goes to stderr.")]
Yes = Annotated[bool, typer.Option("--yes", help="Start without asking for confirmation.")]
Out = Annotated[str | None, typer.Option("--out", metavar="DIR", help="Run folder; default: <storage>/<name>.")]
StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="A study file (YAML).")]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, by path or URI.")]
Address = Annotated[
    str, typer.Option("--address", metavar="local|auto|HOST:PORT", help="Start Ray on this machine, or join a cluster.")
]

RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Run failed trials again.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Show the bases of the estimates and the details of the data checks.")
]
Only = Annotated[
    str | None, typer.Option("--only", metavar="TRIAL_ID", help="Run this trial alone, even if it has a record.")
]
Executor = Annotated[
    str | None, typer.Option("--executor", metavar="lanes|isolated|inline", help="Override the study's executor.")
]


@app.command()
def demo(out: Out = None, yes: Yes = False, json_: Json = False) -> None:
    """Run the whole job on the built-in corpus: offline, on any machine."""
    study = Path(__file__).with_name("demo.yaml")
    _run(study, out or "runs/demo", "local", yes, json_, retry_failed=False, only=None, executor=None)


@app.command()
def init(
    task: Annotated[str, typer.Option("--task", metavar="T", help=f"One of {', '.join(KINDS)}.")] = "",
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FILE", help="Your data; its columns are detected.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write the study file.")] = Path(
        "study.yaml"
    ),
    encoding: Annotated[
        str | None, typer.Option("--encoding", metavar="NAME", help="Encoding of your data; default: UTF-8.")
    ] = None,
    json_: Json = False,
) -> None:
    """Write a commented study file for your data."""
    from rayscale.plan.starter import write_starter

    written = write_starter(task or None, data, out, encoding)
    if json_:
        _print_json(written)
    else:
        _say(f"Wrote {out}. Next: rayscale plan {out}")


@app.command()
def doctor(
    study: Annotated[
        Path | None, typer.Argument(metavar="STUDY", help="A study whose plan to check on this machine.")
    ] = None,
    address: Annotated[
        str | None, typer.Option("--address", metavar="auto|HOST:PORT", help="A cluster to check as well.")
    ] = None,
    json_: Json = False,
) -> None:
    """Check versions, devices, cluster, storage and the study's text, and suggest fixes."""
    from rayscale.cli.doctor import as_lines, check_up, verdict

    found = check_up(study, address)
    failed = any(each.level == "fail" for each in found)
    if json_:
        _print_json({"findings": [each.to_json() for each in found], "ok": not failed})
    else:
        _print_lines(as_lines(found))
    if failed:
        raise _RefusedError(RayscaleError(verdict(found), code="unwell"))


@app.command()
def plan(
    study: StudyFile,
    out: Out = None,
    address: Annotated[
        str, typer.Option("--address", metavar="local|auto|HOST:PORT", help="Plan for a cluster.")
    ] = "local",
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
        _print_json(drafted)
    else:
        from rich.console import Console

        from rayscale.report.terminal.plan import PlanView

        Console(highlight=False).print(PlanView(drafted, verbose))


@app.command()
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


@app.command()
def status(run: RunFolder, json_: Json = False) -> None:
    """Show the progress of a run: trials done, time left, cost, errors."""
    from rayscale.runs.folder import load
    from rayscale.runs.status import read_status

    found = read_status(load(run))
    if json_:
        _print_json(found)
        return
    from collections import Counter

    from rayscale.report.numbers import duration, plural

    total = found["done"] + found["failed"] + found["running"] + found["waiting"]
    diverged = f" ({found['diverged']} of them diverged)" if found["diverged"] else ""
    _say(f"{found['study']}: {found['done']} of {total} trials done{diverged}, {found['failed']} failed, "
          f"{found['running']} running, {found['waiting']} waiting.")  # fmt: skip
    _say(f"{found['gpu_hours']:.3g} GPU-hours spent; about {duration(found['eta_seconds'])} of work left.")
    if found["last_error"]:
        _say(f"Last error: {found['last_error']}")
    for reason, cells in Counter(each["reason"] for each in found["cut"]).items():
        _say(f"Cut: {plural(cells, 'cell')} ({reason}).")
    if found["unplanned"]:
        _say(f"{found['unplanned']} records belong to cells no longer in the study; they are kept but not counted.")
    for damaged in found["damaged"]:
        _say(f"Damaged record: {damaged['file']}: {damaged['reason']}; run again, which repeats that trial.")
    if found["set_aside"]:
        _say(f"Damaged records set aside by a later run: {', '.join(found['set_aside'])}.")
    if found["broken_events"]:
        _say(f"{found['broken_events']} incomplete lines in events.jsonl (cut off by a crash) were skipped.")
    if found["owner"]:
        _say(f"Driver: process {found['owner']['pid']} on {found['owner']['host']}, since {found['owner']['since']}.")


@app.command()
def fit(
    source: Annotated[str, typer.Argument(metavar="RUN|TABLE", help="A run folder, or a CSV, TSV, JSONL or parquet.")],
    law: Annotated[str, typer.Option("--law", metavar="NAME|auto", help="auto, one of `plugins`, or a formula.")],
    params: Annotated[str | None, typer.Option("--params", metavar="COLUMN", help="Model parameters N.")] = None,
    data: Annotated[str | None, typer.Option("--data", metavar="COLUMN", help="Examples or tokens D.")] = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="COLUMN", help="Column to fit (in a run folder: eval_loss).")
    ] = None,
    unique: Annotated[
        str | None, typer.Option("--unique", metavar="COLUMN", help="Column of unique examples or tokens.")
    ] = None,
    compute: Annotated[str | None, typer.Option("--compute", metavar="COLUMN", help="FLOP.")] = None,
    gpus: Annotated[str | None, typer.Option("--gpus", metavar="COLUMN", help="Workers G.")] = None,
    loss: Annotated[
        str | None, typer.Option("--loss", metavar="COLUMN", help="The loss that the metric follows.")
    ] = None,
    copies: Annotated[
        str | None, typer.Option("--copies", metavar="COLUMN", help="Column of augmented copies per example.")
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", metavar="QUERY", help="Rows to use: 'N > 1e6 and split == \"a\"'.")
    ] = None,
    holdout: Annotated[
        str | None, typer.Option("--holdout", metavar="QUERY", help="Rows to keep out of the fit and predict.")
    ] = None,
    by: Annotated[
        str | None, typer.Option("--by", metavar="COLUMN,..", help="Columns to group by: one fit per group.")
    ] = None,
    bootstrap: Annotated[int, typer.Option("--bootstrap", metavar="K", help="Resamples for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="The same seed gives the same result.")] = 0,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions", metavar="FILE", help="Write the held-out rows with predictions (.csv or .parquet)."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FIT.json", help="Save the fit, for `predict`.")] = None,
    json_: Json = False,
) -> None:
    """Fit a law to any table of runs, or to a run folder."""
    from rayscale.verdict.table_fit import FitRequest, fit_and_save

    named = {"params": params, "data": data, "unique": unique, "compute": compute, "gpus": gpus, "loss": loss,
             "copies": copies}  # fmt: skip
    columns = {role: column for role, column in named.items() if column is not None}
    asked = FitRequest(law, columns, target, where, holdout, by, bootstrap, seed)
    done = fit_and_save(source, asked, predictions, out)
    saved = done.to_json()
    if json_:
        _print_json(saved)
    else:
        from rayscale.report.terminal.fit import fit_lines

        _print_lines(fit_lines(saved.get("groups", [saved]), saved["held_out"], _width()))
        for file in (predictions, out):
            if file is not None:
                _say(f"Wrote {file}")
    if done.refused:
        raise _RefusedError(done.refusal())


@app.command()
def predict(
    source: Annotated[str, typer.Argument(metavar="RUN|FIT", help="A run folder, or a file of `fit --out`.")],
    params: Annotated[float | None, typer.Option("--params", metavar="N", help="Parameters of the model.")] = None,
    data: Annotated[
        float | None, typer.Option("--data", metavar="D", help="Examples, or tokens for causal-lm.")
    ] = None,
    unique: Annotated[float | None, typer.Option("--unique", metavar="U", help="Unique examples or tokens.")] = None,
    compute: Annotated[float | None, typer.Option("--compute", metavar="C", help="FLOP.")] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", metavar="G", help="GPUs, for the speed.")] = None,
    loss: Annotated[float | None, typer.Option("--loss", metavar="L", help="The loss that the metric follows.")] = None,
    copies: Annotated[float | None, typer.Option("--copies", metavar="K", help="Augmented copies per example.")] = None,
    by: Annotated[
        list[str] | None, typer.Option("--by", metavar="COLUMN=VALUE", help="The group, of a fit with --by.")
    ] = None,
    json_: Json = False,
) -> None:
    """Predict the loss of a model and data size, with 95% intervals."""
    from rayscale.verdict.prediction import parse_by, saved_fit
    from rayscale.verdict.prediction import predict as forecast

    found = forecast(
        saved_fit(source), params=params, data=data, unique=unique, compute=compute, gpus=gpus, loss=loss,
        copies=copies, by=parse_by(by or []),
    )  # fmt: skip
    if json_:
        _print_json(found)
        return
    from rayscale.report.terminal.fit import prediction_lines

    _print_lines(prediction_lines(found, _width()))


@app.command()
def recommend(
    run: RunFolder,
    target: Annotated[str, typer.Option("--target", metavar="METRIC>=X", help="'f1_macro>=0.92', 'eval_loss<=1.5'.")],
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="20gpuh|50usd", help="Maximum cost of one run.")
    ] = None,
    probability: Annotated[
        float, typer.Option("--probability", metavar="P", help="Share of new runs that should reach the target.")
    ] = 0.5,
    beyond: Annotated[
        float, typer.Option("--beyond", metavar="X", help="Search data up to X times the largest measured.")
    ] = 10.0,
    law: Annotated[str, typer.Option("--law", metavar="NAME|auto", help="The law that predicts the target.")] = "auto",
    json_: Json = False,
) -> None:
    """Find the cheapest allocation predicted to reach a target."""
    from rayscale.runs.folder import load
    from rayscale.verdict.recommendation import recommend_run

    found = recommend_run(load(run), target, budget=budget, probability=probability, beyond=beyond, law=law)
    if json_:
        _print_json(found)
        return
    from rayscale.report.terminal.recommendation import recommend_lines

    _print_lines(recommend_lines(found, _width()))


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="RUN", help="A run folder.")],
    second: Annotated[str, typer.Argument(metavar="RUN", help="The run folder to compare it with.")],
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="METRIC", help="Metric to compare; default: the target of the studies."),
    ] = None,
    json_: Json = False,
) -> None:
    """Compare two studies in pairs: cells equal in model, data, GPUs and seed."""
    from rayscale.runs.folder import load
    from rayscale.verdict.comparison import compare_runs

    found = compare_runs(load(first), load(second), target=target)
    if json_:
        _print_json(found)
        return
    from rayscale.report.terminal.comparison import compare_lines

    _print_lines(compare_lines(found, (first, second), _width()))


@app.command()
def report(
    run: RunFolder,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    json_: Json = False,
) -> None:
    """Fit the recorded trials again and write the HTML page."""
    from rayscale.report.rebuild import rebuild_report
    from rayscale.runs.folder import load

    loaded = load(run)
    rebuild_report(loaded.store)
    page = f"{loaded.folder}/report.html"
    if json_:
        _print_json({"report": page})
    else:
        _say(page)
    if open_:
        import webbrowser

        webbrowser.open(Path(page).absolute().as_uri() if loaded.store.local else page)


@app.command()
def submit(
    study: StudyFile,
    address: Annotated[
        str, typer.Option("--address", metavar="URL", help="The cluster's dashboard: http://HOST:8265.")
    ],
    out: Out = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="JOB", help="The job's id on the cluster; default: Ray's choice.")
    ] = None,
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
        _print_json({"job": job, "run": store.location})


@app.command()
def plugins(json_: Json = False) -> None:
    """List the registered plugins, and where each comes from."""
    from rayscale.system.registry import entries

    found = entries()
    if json_:
        _print_json({"plugins": [vars(entry) for entry in found]})
    else:
        for entry in found:
            print(f"{entry.group}  {entry.name}  {entry.target}  ({entry.origin})")


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
            terminal.say(_last_words() if terminal.agreed else "Stopped before anything was run.")
        raise
    if done is None:
        terminal.say("Not started.")
        if json_:
            _print_json({"run": None})
        return
    _conclude(done, terminal, json_)


def _conclude(done: Run, terminal: Any, json_: bool) -> None:
    from rayscale.runs.status import read_status

    fit, counts = done.fit or {}, read_status(done)
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
        _print_json({"run": place, **counts, "verdict": fit.get("verdict")})


def _width() -> int:
    from shutil import get_terminal_size

    return get_terminal_size((80, 24)).columns


def _say(line: str) -> None:
    """Print a line in the signs that stdout has."""
    from rayscale.report.terminal.run import encodable

    print(encodable(line, sys.stdout.encoding or "utf-8"))


def _print_lines(lines: list[str]) -> None:
    for line in lines:
        _say(line)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, allow_nan=False, indent=1))


class _RefusedError(Exception):
    """An answer that is a refusal: it is on stdout already, the reason goes to stderr, and the exit code follows."""

    def __init__(self, error: RayscaleError) -> None:
        super().__init__(str(error))
        self.error = error


def _last_words() -> str:
    """What a command that was stopped says at its end."""
    verb = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    if verb not in ("run", "demo"):
        return "Stopped."
    return f"Stopped. Finished trials are kept; resume with the same command: {shlex.join(['rayscale', *sys.argv[1:]])}"


def _use_utf8() -> None:
    """Begin again in Python's UTF-8 mode where the locale's file names are ASCII (LC_ALL=C with that mode off).

    Names of files in a study may be of any script, and other processes are started, which need the same. What is
    printed stays in signs that the terminal has.
    """
    if sys.getfilesystemencoding() != "ascii" or os.environ.get("PYTHONUTF8") == "1":
        return
    os.environ["PYTHONUTF8"] = "1"
    os.environ.setdefault("PYTHONIOENCODING", "ascii:backslashreplace")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def main() -> None:
    """Entry point: run a verb, turn errors into one message and an exit code."""
    _use_utf8()
    with stopping(_last_words) as signals:
        code = _run_verb("--json" in sys.argv[1:])
    if signals:
        # Not by sys.exit: where a KeyboardInterrupt once passed through `exec`, Python would end itself by a signal.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(CODES[signals[0]])
    sys.exit(code)


def _run_verb(as_json: bool) -> int:
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        return code if isinstance(code, int) else 0
    except RayscaleError as error:
        if error.show_traceback:
            print(traceback_of(error), file=sys.stderr)
        return _refuse(error_json(error), as_json, error.exit_code)
    except _RefusedError as refused:
        return _refuse(error_json(refused.error), False, refused.error.exit_code)
    except (KeyboardInterrupt, Stopped, typer.Abort):
        return CODES[signal.SIGINT]  # without a signal: the question was answered by the end of the input
    except typer.TyperException as error:  # wrong arguments
        where = getattr(getattr(error, "ctx", None), "command_path", "rayscale")
        text = getattr(error, "format_message", error.__str__)()
        return _refuse({"code": "usage", "message": f"{text} See `{where} --help`.", "where": where}, as_json, 2)
    except Exception as error:  # a defect of ours: the traceback is what a report of it needs
        print(traceback_of(error), file=sys.stderr)
        return _refuse({"code": "internal", "message": describe(error)["message"], "where": None}, as_json, 1)


def _refuse(error: dict[str, Any], as_json: bool, code: int) -> int:
    error = {key: value and redact(value) for key, value in error.items()}
    if as_json:
        _print_json({"error": error})
    # What a file holds may stand in the message: a terminal must not obey it.
    shown = "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in error["message"]
    )
    print(f"rayscale: {shown}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
