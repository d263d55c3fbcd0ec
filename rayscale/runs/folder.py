"""A run folder read back: the study as given, the plan, the trials, the fit, and how far a run has come."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from rayscale.errors import InputError
from rayscale.runs.events import Event, log_event, read_events
from rayscale.runs.fit_rows import counted, guessing_loss, with_guesses
from rayscale.runs.lease import FOLDER as LEASE_FOLDER
from rayscale.runs.ledger import Damaged, Ledger, TrialRecord, planned_only, table
from rayscale.runs.sweeps import OUTDONE
from rayscale.system.names import is_name
from rayscale.system.storage import Store

if TYPE_CHECKING:
    import pandas as pd

# What the readers of plan.json rely on, and of each of its trials.
_PLAN_KEYS = ("study", "machine", "task", "data_axis", "data_fingerprint", "target", "prices", "trials")
_TRIAL_KEYS = ("trial_id", "gpus", "seconds")


@dataclass(frozen=True)
class Run:
    """A run folder. Everything is read when asked for, so a run in progress shows its latest state."""

    store: Store

    def __repr__(self) -> str:
        # The names of the files alone: what is printed by the way reads no plan of thousands of cells.
        records = len(self.store.names("trials", ".json")) if self.store.exists("trials") else 0
        return f"<Run {self.folder}: {records} trial{'s' * (records != 1)} recorded>"

    @property
    def folder(self) -> str:
        """Where the run lies: a path or URI."""
        return self.store.location

    @property
    def study(self) -> dict[str, Any]:
        """study.yaml as given. Raises InputError if it is missing or no study."""
        return self._object("study.yaml", yaml.safe_load, (), "run the study again, which rewrites it")

    @property
    def plan(self) -> dict[str, Any]:
        """plan.json: the object of `rayscale plan --json`. Raises InputError if it is missing or damaged."""
        fix = "run the study again, which rewrites it and repeats no finished trial"
        plan = self._object("plan.json", json.loads, _PLAN_KEYS, fix)
        rows = plan["trials"]
        if not isinstance(rows, list) or any(not isinstance(row, dict) or set(_TRIAL_KEYS) - set(row) for row in rows):
            raise self._damaged("plan.json", "'trials' is not a list of planned trials", fix)
        return plan

    @property
    def records(self) -> list[TrialRecord]:
        """The whole records of the ledger, by trial id."""
        return Ledger(self.store).read()[0]

    @property
    def damaged(self) -> list[Damaged]:
        """Record files that cannot be trusted, with the reason."""
        return Ledger(self.store).read()[1]

    @property
    def unplanned(self) -> list[TrialRecord]:
        """Records of cells that the plan does not hold (any more): kept, but not in `trials`."""
        planned = self._planned()
        return [] if planned is None else [record for record in self.records if record.trial_id not in planned]

    @property
    def trials(self) -> pd.DataFrame:
        """The trial table, one row per record of a planned cell; columns as in `rayscale.runs.ledger.COLUMNS`.

        Raises InputError for a damaged plan.json or trials.parquet.
        """
        if records := self.records:
            planned = self._planned()
            return table(records if planned is None else planned_only(records, planned))
        if self.store.exists("trials.parquet"):
            try:
                return self._table("trials.parquet")
            except (pa.ArrowException, OSError) as error:
                raise self._damaged("trials.parquet", f"cannot be read as parquet: {error}") from None
        return table([])

    @property
    def judged_trials(self) -> pd.DataFrame:
        """What laws go by: `trials` without those that another learning rate of their cell outdid, and a column
        `guessing_loss`, the test loss of a model that has learnt nothing."""
        trials = self.trials
        return with_guesses(trials[trials["status"] != OUTDONE].reset_index(drop=True), self.guessing_loss)

    @property
    def guessing_loss(self) -> dict[str, float]:
        """Test loss of guessing by model: as the plan has it, else from what trials and kept models say."""
        if not self.store.exists("plan.json"):
            return {}
        plan, records = self.plan, self.records
        if "guessing_loss" in plan:
            return dict(plan["guessing_loss"])
        models = {str(record.row.get("model")): record.trial.get("model") or {} for record in records}
        vocabularies = {name: model.get("vocabulary") for name, model in models.items()}
        places = (f"models/{record.trial_id}/config.json" for record in records)
        kept = next((place for place in places if self.store.exists(place)), None)
        classes = None
        if kept:
            with suppress(InputError):  # a damaged model says nothing of its classes; the trials stay
                classes = self._object(kept, json.loads, (), "train it again").get("id2label")
        return guessing_loss(plan["task"], vocabularies, len(classes or ()), None)

    @property
    def fit_rows(self) -> pd.DataFrame:
        """The rows of `trials` that a law counts: ok, better than guessing, one augmentation, each seed once, at its
        fewest GPUs."""
        return counted(self.judged_trials)

    @property
    def fit(self) -> dict[str, Any] | None:
        """fit.json, or None before the first fit. Raises InputError if it is damaged."""
        if not self.store.exists("fit.json"):
            return None
        fix = f"`rayscale report {self.folder}` rewrites it"
        saved = self._object("fit.json", json.loads, ("fits", "verdict"), fix)
        fits = saved["fits"]
        if not isinstance(fits, list) or not all(isinstance(part, dict) for part in [*fits, saved["verdict"]]):
            raise self._damaged("fit.json", "it has no fits", fix)
        return saved

    @property
    def events(self) -> list[Event]:
        """What happened, in order, each with `at` (UTC) and `event`; lines that a crash cut off are skipped."""
        return read_events(self.store)[0]

    def curves(self, trial_id: str) -> pd.DataFrame:
        """Training curve of a trial: step, train_loss, validation_loss, learning_rate."""
        name = f"curves/{trial_id}.parquet"
        if not is_name(trial_id) or not self.store.exists(name):
            raise InputError(f"no curve of trial '{trial_id}' in {self.folder}; see run.trials.trial_id",
                             code="no_curve")  # fmt: skip
        return self._table(name)

    def classes(self, trial_id: str) -> pd.DataFrame | None:
        """Scores by class of one trial on the test set, averages last (column `average`); None where it has none."""
        name = f"classes/{trial_id}.parquet"
        return self._table(name) if self.store.exists(name) else None

    def _table(self, name: str) -> pd.DataFrame:
        return pq.read_table(io.BytesIO(self.store.read(name))).to_pandas()

    def _object(self, name: str, parse: Callable[[bytes], Any], keys: tuple[str, ...], fix: str) -> dict[str, Any]:
        """The mapping in a file, which has these keys."""
        if not self.store.exists(name):
            raise InputError("no such file", fix=fix, code="missing_file", where=f"{self.folder}/{name}")
        try:
            value = parse(self.store.read(name))
            problem = f"it holds a {type(value).__name__}, not one object"
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            value, problem = None, f"{type(error).__name__}: {error}"
        if not isinstance(value, dict):
            raise self._damaged(name, f"damaged ({problem[:120]})", fix)
        if missing := [key for key in keys if key not in value]:
            raise self._damaged(name, f"it lacks {', '.join(missing)}", fix)
        return value

    def _damaged(self, name: str, text: str, fix: str = "") -> InputError:
        return InputError(text, fix=fix, code="damaged_file", where=f"{self.folder}/{name}")

    def _planned(self) -> dict[str, str | None] | None:
        """The models' names by trial id, as the plan has them; None without a plan."""
        if not self.store.exists("plan.json"):
            return None
        return {row["trial_id"]: row.get("model") for row in self.plan["trials"]}


def load(path: str | Path) -> Run:
    """Open a run folder by path or URI; needs no cluster. Raises InputError if it is none."""
    store = Store.open(path)
    if not store.exists("plan.json") and not store.exists("trials.parquet"):
        text = f"{path} is not a run folder (no plan.json or trials.parquet)"
        raise InputError(f"{text}; create one with `rayscale run STUDY`", code="no_run")
    return Run(store)


def refuse_another_study(store: Store, name: str, recorded: bool) -> None:
    """Raise InputError if the folder holds trials of a study of another name: they would be overwritten or hidden."""
    if not recorded or not store.exists("plan.json"):
        return
    try:
        there = Run(store).plan["study"]
    except InputError:
        return  # a damaged plan is written anew
    if there != name:
        text = f"{store.location} holds the run of study '{there}', this one is '{name}'"
        fix = "give another folder with --out, or give the study its old name"
        raise InputError(text, fix=fix, code="other_study", where="--out")


def remove_unused(store: Store) -> None:
    """Remove a folder in which no run ever began: nothing is in it but what a lease left."""
    if store.local is not None and {path.name for path in store.local.iterdir()} <= {LEASE_FOLDER}:
        store.delete_folder("")


def recover(ledger: Ledger, damaged: Sequence[Damaged]) -> None:
    """Clear up after a killed driver, for the run's owner: unfinished writes go, damaged records are set aside.

    What is done is kept in events.jsonl. Raises StorageError.
    """
    if removed := ledger.store.recover(LEASE_FOLDER):
        log_event(ledger.store, {"event": "unfinished_writes_removed", "files": removed})
    for record in damaged:
        now = ledger.set_aside(record)
        log_event(ledger.store, {"event": "record_set_aside", "file": record.name, "reason": record.reason, "now": now})
