"""Study → Plan with all that a plan needs gathered: a survey of the text, the machine, what earlier trials took."""

from __future__ import annotations

from rayscale.errors import StudyError
from rayscale.ledger import Ledger
from rayscale.machine import Machine
from rayscale.plan import Plan, Supply, make_plan
from rayscale.storage import Store
from rayscale.study import Study
from rayscale.text.survey import survey


def run_store(study: Study, out: str | None) -> Store:
    """The run's folder: `out`, else <storage>/<name>; a relative storage is below the current folder."""
    return Store.open(out or f"{study.run.storage.rstrip('/')}/{study.name}")


def draft_plan(study: Study, machine: Machine, store: Store) -> Plan:
    """The plan of a study on a machine. Raises InputError: data, checkpoints or GPU counts that cannot serve it."""
    found = survey(study)
    # A trained tokenizer of some thousand entries gives about a token for four characters of English.
    mean_tokens = found.mean_characters / 4 + 2
    if study.task.type == "sequence-classification" and len(found.labels) > found.rows_train / 2:
        raise StudyError(
            f"column '{study.task.label}' has {len(found.labels)} different labels in {found.rows_train} rows; "
            "name the column that holds the classes",
            code="not_a_label",
            where=study.where("task", "label"),
        )
    held_out = found.rows_validation + found.rows_test
    supply = Supply(found.fingerprint, found.rows_train, mean_tokens, len(found.labels), found.exact, held_out)
    measured = [record.row for record in Ledger(store).read()[0] if record.row["status"] == "ok"]
    return make_plan(study, machine, supply, measured)
