"""Run a study without training: losses drawn from a law the user names, to try a design and all that follows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from rayscale.draft import draft_plan, run_store
from rayscale.errors import InputError
from rayscale.finish import finish
from rayscale.ledger import Ledger, make_record
from rayscale.machine import this_machine
from rayscale.run_folder import Run, log_event
from rayscale.simulate import parse_planted, simulate
from rayscale.study import load_study

NOISE = 0.01  # standard deviation of the log loss between seeds


def run_planted(study_file: str | Path, planted: str, *, out: str | None, observer: Any, seed: int = 0) -> Run | None:
    """Fill a run folder with simulated records of the study's plan; None without consent.

    Raises InputError for an unknown law, wrong parameters, or a folder that holds records of real trials.
    """
    study = load_study(study_file)
    law, parameters = parse_planted(planted)
    store = run_store(study, out or f"{study.run.storage.rstrip('/')}/{study.name}-simulated")
    store.check_writable()
    earlier = Ledger(store).read()[0]
    if any(record.row["executor"] != "simulated" for record in earlier):
        raise InputError(
            f"{store.location} holds real trials; simulate into another folder with --out", code="real_run"
        )
    plan = draft_plan(study, this_machine(study.run.accelerator), store)
    if not observer.consent(plan, plan.trials):
        return None
    design = pd.DataFrame(
        [{**each.row(), "tokens": each.trial.data_requested, "copies": each.trial.copies} for each in plan.trials]
    )
    measured = simulate(law, parameters, design, noise=NOISE, seed=seed)
    store.write("study.yaml", Path(study_file).read_bytes())
    store.write("plan.json", json.dumps(plan.to_json(), indent=1, allow_nan=False).encode())
    log_event(store, "run_started", study=str(Path(study_file).absolute()), simulated=planted)
    for planned, loss in zip(plan.trials, measured["eval_loss"], strict=True):
        trial = planned.trial
        Ledger(store).write(
            make_record(
                trial, status="ok", params=planned.params, eval_loss=float(loss), executor="simulated", attempts=1,
                **{trial.data_axis: trial.data_requested * (1 + trial.copies)},
            )
        )  # fmt: skip
    finish(store)
    log_event(store, "run_ended")
    return Run(store)
