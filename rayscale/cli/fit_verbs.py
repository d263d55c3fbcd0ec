"""Verbs of what was measured: fit a law, predict, recommend, compare, write the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rayscale.cli.options import Json, RunFolder, option, size
from rayscale.cli.output import RefusedError, print_json, print_lines, say, width
from rayscale.errors import InputError


def fit(
    source: Annotated[str, typer.Argument(metavar="RUN|TABLE", help="A run folder, or a CSV, TSV, JSONL or parquet.")],
    law: Annotated[str, option("--law", "NAME|auto", "auto, one of `plugins`, or a formula.")],
    params: Annotated[str | None, option("--params", "COLUMN", "Model parameters N.")] = None,
    data: Annotated[str | None, option("--data", "COLUMN", "Examples or tokens D.")] = None,
    target: Annotated[str | None, option("--target", "COLUMN", "Column to fit (in a run folder: eval_loss).")] = None,
    unique: Annotated[str | None, option("--unique", "COLUMN", "Column of unique examples or tokens.")] = None,
    compute: Annotated[str | None, option("--compute", "COLUMN", "FLOP.")] = None,
    gpus: Annotated[str | None, option("--gpus", "COLUMN", "Workers G.")] = None,
    loss: Annotated[str | None, option("--loss", "COLUMN", "The loss that the metric follows.")] = None,
    copies: Annotated[str | None, option("--copies", "COLUMN", "Column of augmented copies per example.")] = None,
    weights: Annotated[str | None, option("--weights", "COLUMN", "How many runs a row is worth.")] = None,
    through: Annotated[
        str | None, option("--through", "COLUMN", "The loss that --law predicts and a metric, the target, follows.")
    ] = None,
    where: Annotated[str | None, option("--where", "QUERY", "Rows to use: 'N > 1e6 and split == \"a\"'.")] = None,
    holdout: Annotated[str | None, option("--holdout", "QUERY", "Rows to keep out of the fit and predict.")] = None,
    by: Annotated[str | None, option("--by", "COLUMN,..", "Columns to group by: one fit per group.")] = None,
    bootstrap: Annotated[int, option("--bootstrap", "K", "Resamples for the intervals.")] = 1000,
    seed: Annotated[int, option("--seed", "S", "The same seed gives the same result.")] = 0,
    predictions: Annotated[
        Path | None,
        option("--predictions", "FILE", "Write the held-out rows with predictions (.csv or .parquet)."),
    ] = None,
    out: Annotated[Path | None, option("--out", "FIT.json", "Save the fit, for `predict`.")] = None,
    draws: Annotated[bool, typer.Option("--draws", help="Print the resamples too; needs --json.")] = False,
    json_: Json = False,
) -> None:
    """Fit a law to any table of runs, or to a run folder."""
    from rayscale.laws.fitting.result import without_draws
    from rayscale.verdict.table_fit import FitRequest, fit_and_save

    if draws and not json_:
        raise InputError("resamples are printed as JSON; add --json", code="usage", where="--draws")
    named = {"params": params, "data": data, "unique": unique, "compute": compute, "gpus": gpus, "loss": loss,
             "copies": copies}  # fmt: skip
    columns = {role: column for role, column in named.items() if column is not None}
    asked = FitRequest(law, columns, target, where, holdout, by, bootstrap, seed, weights, through)
    done = fit_and_save(source, asked, predictions, out)
    saved = done.to_json()
    if json_:
        print_json(saved if draws else without_draws(saved))
    else:
        from rayscale.report.terminal.fit import fit_lines

        print_lines(fit_lines(saved.get("groups", [saved]), saved["held_out"], width()))
        for file in (predictions, out):
            if file is not None:
                say(f"Wrote {file}")
    if done.refused:
        raise RefusedError(done.refusal())


def predict(
    source: Annotated[str, typer.Argument(metavar="RUN|FIT", help="A run folder, or a file of `fit --out`.")],
    params: Annotated[float | None, size("--params", "N", "Parameters of the model, such as 7B.")] = None,
    data: Annotated[float | None, size("--data", "D", "Examples, or tokens for causal-lm.")] = None,
    unique: Annotated[float | None, size("--unique", "U", "Unique examples or tokens.")] = None,
    compute: Annotated[float | None, size("--compute", "C", "FLOP.")] = None,
    gpus: Annotated[int | None, option("--gpus", "G", "GPUs, for the speed.")] = None,
    loss: Annotated[float | None, option("--loss", "L", "The loss that the metric follows.")] = None,
    copies: Annotated[float | None, option("--copies", "K", "Augmented copies per example.")] = None,
    by: Annotated[list[str] | None, option("--by", "COLUMN=VALUE", "The group, of a fit with --by.")] = None,
    json_: Json = False,
) -> None:
    """Predict the loss of a model and data size, with 95% intervals."""
    from rayscale.verdict.prediction import parse_by, saved_fit
    from rayscale.verdict.prediction import predict as forecast

    prediction = forecast(
        saved_fit(source), params=params, data=data, unique=unique, compute=compute, gpus=gpus, loss=loss,
        copies=copies, by=parse_by(by or []),
    )  # fmt: skip
    if json_:
        print_json(prediction)
        return
    from rayscale.report.terminal.fit import prediction_lines

    print_lines(prediction_lines(prediction, width()))


def recommend(
    run: RunFolder,
    target: Annotated[str, option("--target", "METRIC>=X", "'f1_macro>=0.92', 'eval_loss<=1.5'.")],
    budget: Annotated[str | None, option("--budget", "20gpuh|50usd", "Maximum cost of one run.")] = None,
    probability: Annotated[
        float, option("--probability", "P", "Share of new runs that should reach the target.")
    ] = 0.5,
    beyond: Annotated[float, option("--beyond", "X", "Search data up to X times the largest measured.")] = 10.0,
    law: Annotated[str, option("--law", "NAME|auto", "The law that predicts the target.")] = "auto",
    json_: Json = False,
) -> None:
    """Find the cheapest allocation predicted to reach a target."""
    from rayscale.runs.folder import load
    from rayscale.verdict.recommendation import recommend_run

    recommendation = recommend_run(load(run), target, budget=budget, probability=probability, beyond=beyond, law=law)
    if json_:
        print_json(recommendation)
        return
    from rayscale.report.terminal.recommendation import recommend_lines

    print_lines(recommend_lines(recommendation, width()))


def compare(
    first: Annotated[str, typer.Argument(metavar="RUN", help="A run folder.")],
    second: Annotated[str, typer.Argument(metavar="RUN", help="The run folder to compare it with.")],
    target: Annotated[
        str | None,
        option("--target", "METRIC", "Metric to compare; default: the target of the studies."),
    ] = None,
    json_: Json = False,
) -> None:
    """Compare two studies in pairs: cells equal in model, data, GPUs and seed."""
    from rayscale.runs.folder import load
    from rayscale.verdict.comparison import compare_runs

    comparison = compare_runs(load(first), load(second), target=target)
    if json_:
        print_json(comparison)
        return
    from rayscale.report.terminal.comparison import compare_lines

    print_lines(compare_lines(comparison, (first, second), width()))


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
        print_json({"report": page})
    else:
        say(page)
    if open_:
        import webbrowser

        webbrowser.open(Path(page).absolute().as_uri() if loaded.store.local else page)
