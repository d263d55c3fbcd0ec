"""Run a study without training: losses drawn from a law the user names, to try a design and all that follows it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rayscale.errors import InputError
from rayscale.laws.simulation import parse_planted, simulate
from rayscale.plan.draft import draft_plan, run_store
from rayscale.plan.estimate import Planned
from rayscale.plan.observer import Observer
from rayscale.report.rebuild import rebuild_report
from rayscale.runs.events import log_event
from rayscale.runs.folder import Run, recover, refuse_another_study
from rayscale.runs.lease import hold
from rayscale.runs.ledger import Ledger, TrialRecord, make_record
from rayscale.runs.outcomes import Outcomes
from rayscale.study.study import load_study
from rayscale.system.machine import this_machine

NOISE = 0.01  # standard deviation of the log loss between seeds


def run_simulated(
    study_file: str | Path, planted: str, *, out: str | None, observer: Observer, seed: int = 0,
    seconds_a_trial: float = 0.0,
) -> Run | None:  # fmt: skip
    """Fill a run folder with simulated records of the study's plan, one by one; None without consent.

    Records that hold what the law gives are kept, so that the same command goes on where an earlier one was stopped.
    Each trial takes `seconds_a_trial`. Raises InputError for an unknown law, wrong parameters, a folder that holds
    records of real trials or that another driver owns.
    """
    study = load_study(study_file)
    law, parameters = parse_planted(planted)
    store = run_store(study, out or f"{study.run.storage.rstrip('/')}/{study.name}-simulated")
    store.check_writable()
    with hold(store, say=observer.say) as lease:
        ledger = Ledger(store, lease.check)
        earlier, damaged = ledger.read()
        if any(record.row["executor"] != "simulated" for record in earlier):
            text = f"{store.location} holds real trials; simulate into another folder with --out"
            raise InputError(text, code="real_run")
        refuse_another_study(store, study.name, bool(earlier))
        plan = draft_plan(study, this_machine(study.run.accelerator, study.run.trials_per_gpu), store)
        rows = [{**p.row(), "tokens": p.trial.data_requested, "copies": p.trial.copies} for p in plan.trials]
        design = pd.DataFrame(rows)
        drawn = _records(plan.trials, simulate(law, parameters, design, noise=NOISE, seed=seed)["eval_loss"])
        # Another law, or another value of it, is simulated anew.
        kept = {
            record.trial_id: record
            for record in earlier
            if (again := drawn.get(record.trial_id)) and record.row["eval_loss"] == again.row["eval_loss"]
        }
        pending = [planned for planned in plan.trials if planned.trial.trial_id not in kept]
        for damage in damaged:
            observer.say(damage.text)
        if not observer.consent(plan, pending, len(kept)):
            return None
        recover(ledger, damaged)
        store.write("study.yaml", Path(study_file).read_bytes())
        plan.save(store)
        log_event(store, {"event": "run_started", "study": str(Path(study_file).absolute()), "simulated": planted})
        outcomes = Outcomes(ledger, study.run.keep, "simulated", kept)
        for trial_id in (planned.trial.trial_id for planned in pending):
            log_event(store, {"event": "trial_started", "trial_id": trial_id})
            time.sleep(seconds_a_trial)
            outcomes.settle(drawn[trial_id])
        rebuild_report(store)
        log_event(store, {"event": "run_ended"})
    return Run(store)


def _records(planned: Sequence[Planned], losses: Any) -> dict[str, TrialRecord]:
    """The record of each trial by its id: it depends on the law alone, so that it is the same on every run."""
    records = {}
    for cell, loss in zip(planned, losses, strict=True):
        trial = cell.trial
        records[trial.trial_id] = make_record(
            trial, status="ok", params=cell.params, eval_loss=float(loss), executor="simulated", attempts=1,
            **{trial.data_axis: trial.data_requested * (1 + trial.copies)},
        )  # fmt: skip
    return records
