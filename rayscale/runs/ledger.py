"""The ledger: one durable JSON record per finished trial, and the trial table derived from them.

A record's file holds `row`, `trial` and `sha256`, the checksum of all else in it; its version is row.schema_version.
Every later version keeps to that, so that each rayscale can tell a newer record from a damaged one.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from rayscale.errors import InputError, StorageError
from rayscale.runs.sweeps import settle
from rayscale.runs.trial import TRAINING_VERSION, Trial
from rayscale.system.redaction import redact
from rayscale.system.storage import Store

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 5

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]


def _share_of(row: Mapping[str, Any]) -> float | None:
    """What a trial took of its GPU, told by what it was charged for its time; None where lost attempts are in that."""
    if row["device"] != "cuda":
        return 1.0
    if row["attempts"] != 1 or not (row["device_seconds"] and row["started_at"] and row["ended_at"]):
        return None
    wall = datetime.fromisoformat(row["ended_at"]) - datetime.fromisoformat(row["started_at"])
    return 1 / max(1, round(wall.total_seconds() * row["gpus"] / row["device_seconds"]))


#: How a record (`row` and `trial`) of each earlier version becomes one of the next: a version that adds a column fills
#: it here. There is an entry for every version before SCHEMA_VERSION, the oldest first.
UPGRADES: dict[int, Upgrade] = {
    1: lambda body: {**body, "row": {"f1_words": None, **body["row"]}},
    2: lambda body: {**body, "row": {"bits_per_token": None, "bits_per_character": None, **body["row"]}},
    3: lambda body: {**body, "row": {"share": _share_of(body["row"]), **body["row"]}},
    4: lambda body: {**body, "row": {"metric_signature": None, **body["row"]}},
}

_TEXT, _WHOLE, _REAL, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()

#: Columns of the trial table and their types, in order. The speeds (examples_per_second, tokens_per_second, mfu) are
#: those of training without its first steps (at most ten, or a quarter of all) and without validation; train_seconds is
#: the time of all steps. `share` is what a trial took of each of its GPUs (or slots): device_seconds are of that.
#: `metric_signature` says by which rules the metrics were counted, where a task knows several (see `Score`).
COLUMNS: dict[str, pa.DataType] = {
    **dict.fromkeys(("trial_id", "status", "task", "model"), _TEXT),
    **dict.fromkeys(("params", "params_non_embedding", "data_requested", "examples", "tokens"), _WHOLE),
    "epochs": _REAL,
    **dict.fromkeys(("steps", "gpus", "global_batch", "micro_batch", "seed"), _WHOLE),
    "augment": _TEXT,
    "learning_rate": _REAL,
    **dict.fromkeys(("optimizer", "schedule", "precision"), _TEXT),
    **dict.fromkeys(
        (
            "flops", "train_loss", "validation_loss", "eval_loss", "accuracy", "precision_macro", "recall_macro",
            "f1_micro", "f1_macro", "f1_weighted", "exact_match", "f1_words", "bleu", "chrf", "perplexity",
            "bits_per_token", "bits_per_character", "train_seconds", "eval_seconds", "device_seconds",
            "examples_per_second", "tokens_per_second", "mfu",
        ),
        _REAL,
    ),
    "peak_memory_bytes": _WHOLE,
    "metric_signature": _TEXT,
    "exclusive": _FLAG,
    "share": _REAL,
    "executor": _TEXT,
    "attempts": _WHOLE,
    **dict.fromkeys(("error", "started_at", "ended_at", "host", "device", "data_fingerprint"), _TEXT),
    "training_version": _WHOLE,
    "versions": _TEXT,
    "schema_version": _WHOLE,
}  # fmt: skip
SCHEMA = pa.schema(list(COLUMNS.items()))
ASIDE = ".damaged-"  # in the name of a damaged file that was set aside, before the digest of its content
STATUSES = ("ok", "failed", "diverged", "stopped")


@dataclass(frozen=True)
class TrialRecord:
    """What one trial measured. `row` has every column of the table; `trial` is what was asked for."""

    row: Mapping[str, Any]
    trial: Mapping[str, Any]

    @property
    def trial_id(self) -> str:
        """Id of the trial, also the name of the record's file."""
        return self.row["trial_id"]

    @property
    def finished(self) -> bool:
        """Whether the result stands: ok and diverged trials are not run again."""
        return self.row["status"] in ("ok", "diverged")


def make_record(trial: Trial, **measured: Any) -> TrialRecord:
    """A record of `trial` with the given columns; the others are null.

    Raises ValueError for a column that the table does not have, a wrong type or a wrong status: a bug, not bad input.
    Numbers that are not finite become null, since records are plain JSON.
    """
    if strange := sorted(set(measured) - set(COLUMNS)):
        raise ValueError(f"no such columns: {strange}")
    if measured.get("status") not in STATUSES:
        raise ValueError(f"status must be one of {STATUSES}, found {measured.get('status')!r}")
    values = {
        "trial_id": trial.trial_id,
        "task": trial.task.type,
        "model": trial.model.name,
        "data_requested": trial.data_requested,
        "gpus": trial.gpus,
        "share": 1.0,
        "seed": trial.seed,
        "augment": trial.augment,
        "device": trial.device,
        "data_fingerprint": trial.data_fingerprint,
        "training_version": TRAINING_VERSION,
        "schema_version": SCHEMA_VERSION,
        **measured,
    }
    row = {name: _plain(values.get(name), kind) for name, kind in COLUMNS.items()}
    row["error"] = row["error"] and redact(row["error"])
    return TrialRecord(row, trial.to_json())


def _plain(value: Any, kind: pa.DataType) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return pa.scalar(value, kind).as_py()


@dataclass(frozen=True)
class Damaged:
    """A record file that cannot be trusted, and why."""

    name: str
    reason: str

    @property
    def text(self) -> str:
        """What a run says of it."""
        return f"Damaged record {self.name}: {self.reason}. The file has been renamed; its trial will run again."


class NewerRecordError(InputError):
    """A record that a newer rayscale wrote: this one can neither read nor replace it."""


class Ledger:
    """The records of one run folder. Only the driver writes; `guard` raises where it may not (any more)."""

    def __init__(self, store: Store, guard: Callable[[], None] = lambda: None) -> None:
        self.store = store
        self.guard = guard

    def write(self, record: TrialRecord) -> None:
        """Make the record durable: when this returns it survives a crash. A damaged file in its place is set aside.

        Raises NewerRecordError where a newer rayscale wrote a record of this trial, StorageError where it cannot write
        or look at what is there.
        """
        body = {"row": {**record.row, "schema_version": SCHEMA_VERSION}, "trial": dict(record.trial)}
        wrapped = {"sha256": _checksum(body), **body}
        content = json.dumps(wrapped, sort_keys=True, allow_nan=False, ensure_ascii=False, indent=1)
        self.guard()
        name = f"trials/{record.trial_id}.json"
        if isinstance(damaged := self._read(name), Damaged):
            self.set_aside(damaged)
        self.store.write(name, content.encode())

    def read(self) -> tuple[list[TrialRecord], list[Damaged]]:
        """All records by trial id, and the files that are no whole record, each with the reason.

        Raises NewerRecordError if there are records that a newer rayscale wrote, StorageError for a file that cannot be
        read.
        """
        files = [self._read(name) for name in self.store.names("trials", ".json")]
        records = sorted((file for file in files if isinstance(file, TrialRecord)), key=lambda r: r.trial_id)
        return records, [file for file in files if isinstance(file, Damaged)]

    def set_aside(self, damaged: Damaged) -> str:
        """Keep a damaged file under another name, which is returned; its trial can be run and recorded again."""
        digest = hashlib.sha256(self.store.read(damaged.name)).hexdigest()[:8]
        aside = f"{damaged.name}{ASIDE}{digest}"
        self.store.rename(damaged.name, aside)
        return aside

    def aside(self) -> list[str]:
        """Names of the damaged files that were set aside."""
        return [name for name in self.store.names("trials") if ASIDE in name]

    def _read(self, name: str) -> TrialRecord | Damaged | None:
        """None where there is no such file (any more)."""
        try:
            return _parse(self.store.read(name), posixpath.basename(name).removesuffix(".json"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError.at(f"{self.store.location}/{name}", error, "read") from error
        except ValueError as error:
            return Damaged(name, str(error))
        except NewerRecordError as error:
            error.where = f"{self.store.location}/{name}"
            raise

    def write_table(self, records: Sequence[TrialRecord]) -> None:
        """Derive trials.parquet from the records."""
        sink = io.BytesIO()
        rows = _rows(records)
        settled = settle(rows.to_pandas())
        for name in ("status", "device_seconds"):
            place = SCHEMA.get_field_index(name)
            rows = rows.set_column(place, SCHEMA.field(name), pa.array(settled[name], SCHEMA.field(name).type))
        pq.write_table(rows, sink)
        self.store.write("trials.parquet", sink.getvalue())


def table(records: Sequence[TrialRecord]) -> pd.DataFrame:
    """The trial table: one row per record, columns as in COLUMNS; of a sweep the best is ok (see sweeps.py)."""
    return settle(_rows(records).to_pandas())


def _rows(records: Sequence[TrialRecord]) -> pa.Table:
    return pa.Table.from_pylist([dict(r.row) for r in records], schema=SCHEMA)


def planned_only(records: Sequence[TrialRecord], names: Mapping[str, str | None]) -> list[TrialRecord]:
    """The records of the trials in `names` (id → the model's name in the plan, None: as recorded), under those names.

    A model is called otherwise when another of the same name joins the study or its folder moves; its trials are the
    same ones.
    """
    kept = [record for record in records if record.trial_id in names]
    return [replace(r, row={**r.row, "model": names[r.trial_id] or r.row["model"]}) for r in kept]


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _parse(content: bytes, trial_id: str) -> TrialRecord:
    """Raises ValueError for what is no whole record of this trial, NewerRecordError for one of a newer version."""
    try:
        body = json.loads(content)
        checksum, version = body.pop("sha256"), body["row"]["schema_version"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a whole record ({type(error).__name__}: {error})") from None
    if _checksum(body) != checksum:
        raise ValueError("checksum does not match the content")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        text = f"was written by a newer rayscale (schema version {version}; this one reads up to {SCHEMA_VERSION})"
        raise NewerRecordError(text, fix="update rayscale, or give another folder with --out", code="newer_record")
    if body["row"]["trial_id"] != trial_id:
        raise ValueError(f"holds the record of another trial, {body['row']['trial_id']}")
    if version not in (*UPGRADES, SCHEMA_VERSION):
        raise ValueError(f"schema version {version} is none that was ever written")
    for step in range(version, SCHEMA_VERSION):
        body = UPGRADES[step](body)
    return TrialRecord({**body["row"], "schema_version": SCHEMA_VERSION}, body["trial"])
