"""Runs that did no better than guessing: found, told, and kept out of every law."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rayscale.plan.draft import draft_plan
from rayscale.report.rebuild import with_sentences
from rayscale.report.terminal.run import verdict_lines
from rayscale.runs.fit_rows import entropy, guessing_loss, untrained, with_guesses
from rayscale.runs.folder import load
from rayscale.runs.ledger import COLUMNS, Ledger, make_record
from rayscale.study.study import load_study
from rayscale.system.machine import this_machine
from rayscale.system.storage import Store
from rayscale.verdict.verdict import conclude

GUESS = math.log(77)


def study(plateau: float = GUESS) -> pd.DataFrame:
    """Four models at five sizes by a chinchilla law, but for the small ones at little data, which learnt nothing."""
    rng = np.random.default_rng(0)
    rows = []
    for model, params in (("a", 1e5), ("b", 3e5), ("c", 1e6), ("d", 3e6)):
        for size in (250, 500, 1000, 2000, 4000):
            loss = (0.2 + 40 * params**-0.3 + 20 * size**-0.4) * math.exp(rng.normal(0, 0.01))
            flat = params < 1e6 and size < 1000
            rows.append({"trial_id": f"{model}-{size}", "status": "ok", "model": model, "params": params, "seed": 0,
                         "gpus": 1, "data_requested": size, "examples": size, "augment": "none", "executor": "lanes",
                         "eval_loss": plateau * 1.01 if flat else loss, "train_loss": 0.9 * loss})  # fmt: skip
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS))


def verdict_on(trials: pd.DataFrame) -> dict:
    fit = conclude(trials, data_axis="examples", target="eval_loss", reach=None, bootstrap=50)
    return with_sentences(fit, "sequence-classification", "examples")


def test_guessing_scores_the_entropy_of_the_labels_or_the_log_of_what_can_be_guessed() -> None:
    assert entropy([5, 5]) == pytest.approx(math.log(2))
    assert entropy([9, 1, 0]) == pytest.approx(-0.9 * math.log(0.9) - 0.1 * math.log(0.1))
    assert guessing_loss("causal-lm", {"m": 512}, 0, None) == {"m": math.log(512)}
    assert guessing_loss("sequence-classification", {"m": 512}, 77, None) == {"m": math.log(77)}
    assert guessing_loss("sequence-classification", {"m": 512}, 77, 1.5) == {"m": 1.5}
    assert guessing_loss("token-classification", {"m": 512}, 9, None) == {}


def test_runs_on_the_plateau_are_told_first_and_no_law_counts_them() -> None:
    trials = with_guesses(study(), dict.fromkeys("abcd", GUESS))
    found = verdict_on(trials)
    assert found["verdict"]["untrained"] == {"runs": 4, "of": 20, "low": GUESS, "high": GUESS}
    assert found["verdict"]["sentences"][0].startswith("4 of 20 runs did no better than guessing (test loss at or")
    shared = found["fits"][0]
    assert shared["rows_used"] == 16
    assert [each["row"] for each in shared["rows_dropped"]] == [0, 1, 5, 6]
    assert all("no better than guessing" in each["reason"] for each in shared["rows_dropped"])
    assert "untrained" in [each["code"] for each in shared["warnings"]]
    assert any(line.startswith("Warning (untrained)") for line in verdict_lines(found))
    # What the law says is then what the runs that learnt say alone.
    learnt = study().drop([0, 1, 5, 6])
    assert [fit["params"] for fit in found["fits"][:2]] == [fit["params"] for fit in verdict_on(learnt)["fits"][:2]]


def test_a_run_that_is_only_too_sure_of_itself_and_a_simulated_one_stay() -> None:
    trials = with_guesses(study(), dict.fromkeys("abcd", GUESS))
    assert untrained(trials).sum() == 4
    assert not untrained(trials.assign(train_loss=0.1)).any()
    planted = with_guesses(study().assign(executor="simulated"), dict.fromkeys("abcd", GUESS))
    assert not untrained(planted).any()
    assert not untrained(study()).any()  # nobody said what guessing scores


def test_a_study_in_which_nothing_was_learnt_says_so() -> None:
    trials = with_guesses(study().assign(eval_loss=GUESS, train_loss=GUESS), dict.fromkeys("abcd", GUESS))
    found = verdict_on(trials)["verdict"]
    assert found["untrained"]["runs"] == 20
    assert found["doubling"]["data"]["note"] == "no run did better than guessing"


def test_the_plan_says_what_guessing_scores_and_the_run_folder_marks_its_trials(study_file: Path) -> None:
    store = Store.open(study_file.parent / "run")
    plan = draft_plan(load_study(study_file), this_machine("cpu"), store)
    assert plan.to_json()["guessing_loss"] == pytest.approx({"bert-1x32": 0.69, "bert-2x64": 0.69}, abs=0.02)
    store.write("plan.json", json.dumps(plan.to_json()).encode())
    first, second = plan.trials[0].trial, plan.trials[1].trial
    Ledger(store).write(make_record(first, status="ok", eval_loss=0.72))
    Ledger(store).write(make_record(second, status="ok", eval_loss=0.5))
    run = load(study_file.parent / "run")
    assert run.judged_trials.guessing_loss.tolist() == [*plan.guessing_loss.values()][:1] * 2
    assert run.fit_rows.trial_id.tolist() == [second.trial_id]


def test_a_damaged_model_hides_no_trials_of_a_plan_that_does_not_say_what_guessing_scores(study_file: Path) -> None:
    store = Store.open(study_file.parent / "run")
    plan = draft_plan(load_study(study_file), this_machine("cpu"), store)
    written = plan.to_json()
    del written["guessing_loss"]
    store.write("plan.json", json.dumps(written).encode())
    trial = plan.trials[0].trial
    Ledger(store).write(make_record(trial, status="ok", eval_loss=0.5))
    run = load(study_file.parent / "run")
    for config, guessing in ((b'{"id2label": {"0": "cat", "1": "dog"}}', {trial.model.name: math.log(2)}), (b"{", {})):
        store.write(f"models/{trial.trial_id}/config.json", config)
        assert run.guessing_loss == guessing
        assert run.judged_trials.trial_id.tolist() == run.fit_rows.trial_id.tolist() == [trial.trial_id]
