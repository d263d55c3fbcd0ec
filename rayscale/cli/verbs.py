"""The command line: the verbs in the order of the help, and the entry point that turns errors into exit codes.

Heavy imports happen inside the verb.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, Any

import typer

from rayscale.cli.fit_verbs import compare, fit, predict, recommend, report
from rayscale.cli.options import Json
from rayscale.cli.output import RefusedError, print_json
from rayscale.cli.study_verbs import demo, doctor, init, last_words, plan, run, status, submit
from rayscale.errors import RayscaleError
from rayscale.study.messages import printable
from rayscale.system.failures import describe, error_json, traceback_of
from rayscale.system.redaction import redact
from rayscale.system.signals import CODES, Stopped, stopping

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


def plugins(json_: Json = False) -> None:
    """List the registered plugins, and where each comes from."""
    from rayscale.system.registry import entries

    registered = entries()
    if json_:
        print_json({"plugins": [vars(entry) for entry in registered]})
    else:
        for entry in registered:
            print(f"{entry.group}  {entry.name}  {entry.target}  ({entry.origin})")


for verb in (demo, init, doctor, plan, run, status, fit, predict, recommend, compare, report, submit, plugins):
    app.command()(verb)


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
    with stopping(last_words) as signals:
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
    except RefusedError as refused:
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
        print_json({"error": error})
    # What a file holds may stand in the message: a terminal must not obey it.
    shown = "\n".join(map(printable, error["message"].split("\n")))
    print(f"rayscale: {shown}", file=sys.stderr)
    return code
