"""Run a study without training: losses drawn from a law the user names, to try a design and all that follows it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rayscale.errors import InputError
from rayscale.laws.simulation import parse_planted, simulate
from rayscale.plan.draft import draft_plan, run_store
from rayscale.plan.estimate import Planned
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
    study_file: str | Path, planted: str, *, out: str | None, observer: Any, seed: int = 0,
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
    with hold(store, told=observer.say) as lease:
        ledger = Ledger(store, lease.check)
        earlier, damaged = ledger.read()
        if any(record.row["executor"] != "simulated" for record in earlier):
            raise InputError(
                f"{store.location} holds real trials; simulate into another folder with --out", code="real_run"
            )
        refuse_another_study(store, study.name, bool(earlier))
        plan = draft_plan(study, this_machine(study.run.accelerator, study.run.trials_per_gpu), store)
        design = pd.DataFrame(
            [{**each.row(), "tokens": each.trial.data_requested, "copies": each.trial.copies} for each in plan.trials]
        )
        drawn = _records(plan.trials, simulate(law, parameters, design, noise=NOISE, seed=seed)["eval_loss"])
        kept = {record.trial_id: record for record in earlier if _agrees(record, drawn.get(record.trial_id))}
        pending = [planned for planned in plan.trials if planned.trial.trial_id not in kept]
        for each in damaged:
            observer.say(each.told)
        if not observer.consent(plan, pending, len(kept)):
            return None
        recover(ledger, damaged)
        store.write("study.yaml", Path(study_file).read_bytes())
        store.write("plan.json", json.dumps(plan.to_json(), indent=1, allow_nan=False).encode())
        log_event(store, {"event": "run_started", "study": str(Path(study_file).absolute()), "simulated": planted})
        outcomes = Outcomes(ledger, study.run.keep, "simulated", kept)
        for planned_trial in pending:
            trial_id = planned_trial.trial.trial_id
            log_event(store, {"event": "trial_started", "trial_id": trial_id})
            time.sleep(seconds_a_trial)
            outcomes.settle(drawn[trial_id])
        rebuild_report(store)
        log_event(store, {"event": "run_ended"})
    return Run(store)


def _records(planned: Sequence[Planned], losses: Any) -> dict[str, TrialRecord]:
    """The record of each trial by its id: it depends on the law alone, so that it is the same on every run."""
    found = {}
    for each, loss in zip(planned, losses, strict=True):
        trial = each.trial
        found[trial.trial_id] = make_record(
            trial, status="ok", params=each.params, eval_loss=float(loss), executor="simulated", attempts=1,
            **{trial.data_axis: trial.data_requested * (1 + trial.copies)},
        )  # fmt: skip
    return found


def _agrees(record: TrialRecord, drawn: TrialRecord | None) -> bool:
    """Whether a record holds what the law gives: another law, or another value of it, is simulated anew."""
    return drawn is not None and record.row["eval_loss"] == drawn.row["eval_loss"]
