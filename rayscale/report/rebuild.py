"""Everything to the right of the ledger: table → fit → verdict → report. It can be done again without training."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from rayscale.laws.formula import read_laws
from rayscale.report.page.page import render
from rayscale.report.page.tables import ClassScores
from rayscale.report.sentences import verdict_sentences
from rayscale.runs.folder import Run
from rayscale.runs.ledger import Ledger, planned_only
from rayscale.study.metrics import LOWER_IS_BETTER
from rayscale.system.storage import Store
from rayscale.verdict.verdict import conclude


def rebuild_report(store: Store, *, bootstrap: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Write trials.parquet, fit.json and report.html of a run; returns the object of fit.json.

    Raises InputError where plan.json or study.yaml are missing or damaged.
    """
    run = Run(store)
    plan, study = run.plan, run.study
    # Other records stay in trials/, uncounted.
    records = planned_only(run.records, {row["trial_id"]: row.get("model") for row in plan["trials"]})
    if records or not store.exists("trials.parquet"):
        Ledger(store).write_table(records)
    trials = run.trials
    fit = conclude(
        run.judged_trials,
        data_axis=plan["data_axis"],
        target=plan["target"]["metric"],
        reach=plan["target"]["reach"],
        price_gpu_hour=plan["prices"]["gpu_hour"],
        currency=plan["prices"]["currency"],
        laws=read_laws((run.study or {}).get("laws") or "auto"),
        bootstrap=bootstrap,
        seed=seed,
    )
    fit = with_sentences(fit, plan["task"], plan["data_axis"])
    store.write("fit.json", json.dumps(fit, indent=1, allow_nan=False).encode())
    classes = best_classes(run, trials, plan["target"]["metric"])
    page = render(study, plan, trials, fit, _provenance(run, plan), datetime.now(UTC), classes)
    store.write("report.html", page.encode())
    return fit


def with_sentences(fit: dict[str, Any], task_type: str, data_axis: str) -> dict[str, Any]:
    """The object of fit.json with its verdict in words, `verdict.sentences`, before the numbers."""
    sentences = verdict_sentences(fit["verdict"], fit["fits"], task_type, data_axis)
    return {**fit, "verdict": {"sentences": sentences, **fit["verdict"]}}


def best_classes(run: Run, trials: pd.DataFrame, metric: str) -> ClassScores | None:
    """The scores by class of the best trial by the target; None for tasks without classes."""
    scored = trials[(trials["status"] == "ok") & trials[metric].notna()].sort_values(metric, kind="stable")
    for _, row in (scored if metric in LOWER_IS_BETTER else scored[::-1]).iterrows():
        if (scores := run.classes(row["trial_id"])) is not None:
            return ClassScores(row["trial_id"], row["model"], int(row["data_requested"]), scores)
    return None


def _provenance(run: Run, plan: dict[str, Any]) -> dict[str, Any]:
    command = f"rayscale run STUDY --out {run.folder}"
    for event in run.events:
        if event["event"] == "results_fetched":
            command = event["command"]
        elif event["event"] == "run_started" and event.get("study"):
            planted = f" --simulate '{event['simulated']}'" if "simulated" in event else ""
            command = f"rayscale run {event['study']} --out {run.folder}{planted}"
    return {
        "commands": [command, f"rayscale report {run.folder}"],
        "plan": {key: plan[key] for key in ("machine", "data_fingerprint")},
        "records of cells that the study does not ask for now": [record.trial_id for record in run.unplanned],
        "record files that cannot be trusted": [f"{damaged.name}: {damaged.reason}" for damaged in run.damaged],
    }
