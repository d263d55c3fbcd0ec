"""`rayscale init`: a commented study file that fits the user's data, to be read and changed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayscale.errors import InputError
from rayscale.estimate import bytes_per_token
from rayscale.storage import Store
from rayscale.study import Data, Grid, Ladder, Study, Task
from rayscale.text.columns import Table, read_table
from rayscale.text.survey import Survey, survey

TASKS = ("sequence-classification", "causal-lm")
VOCABULARY = 2048
STEPS = (8, 4, 2, 1)  # the largest data size over each of the others
#: The largest size offered: with three small models it trains on a laptop in an hour or so.
MOST = {"sequence-classification": 16_000, "causal-lm": 400_000}
LEAST = {"sequence-classification": 8, "causal-lm": 8 * 64}  # a row, or a window, at the smallest size


@dataclass(frozen=True)
class Chosen:
    """What the study file will say of the data. `sizes` are on the data axis, ascending."""

    task: str
    text: str
    label: str | None
    sizes: tuple[int, ...]
    remark: str  # beside the sizes: what there is
    bad_rows: tuple[str, ...] = ()


def write_starter(task: str | None, data: Path | None, out: Path) -> dict[str, Any]:
    """Write a study file; returns what was chosen. `task` and columns are guessed from `data` where not given.

    Raises InputError: `out` exists, `data` cannot be read or is too little, an unknown task.
    """
    if out.exists():
        raise InputError(f"{out} exists; give another name with --out", code="file_exists", where="--out")
    if task is not None and task not in TASKS:
        raise InputError(f"found '{task}'; use one of {', '.join(TASKS)}", code="unknown_task", where="--task")
    chosen = _of_file(task, data) if data else _built_in(task or TASKS[0])
    Store.open(out.absolute().parent).write(out.name, _page(chosen, data, out).encode())
    found = {"study": str(out), "task": chosen.task, "text": chosen.text}
    return found if chosen.label is None else {**found, "label": chosen.label}


def _built_in(task: str) -> Chosen:
    label = None if task == "causal-lm" else "label"
    top = MOST["causal-lm"] if label is None else 8000
    return Chosen(task, "text", label, _sizes(top), "of the built-in corpus")


def _of_file(task: str | None, data: Path) -> Chosen:
    if not data.is_file():
        raise InputError(f"no such file: {data}", code="missing_file", where="--data")
    table = read_table(data)
    task = task or ("causal-lm" if table is None else "sequence-classification")
    text, label = ("text", "label") if table is None else _columns(table, data, task)
    label = None if task == "causal-lm" else label
    found = _survey(task, text, label, data)
    if task == "causal-lm":
        there = int(found.bytes["train"] / bytes_per_token(VOCABULARY))
        remark = f"of about {_rounded(there):,} training tokens"
        there = int(0.9 * there)  # an estimate
    else:
        there, remark = found.rows_train, f"of {found.rows_train:,} training rows"
        if not found.exact:
            there, remark = int(0.9 * there), f"of about {_rounded(there):,} training rows"
    if there < LEAST[task]:
        unit = "tokens" if task == "causal-lm" else "rows"
        raise InputError(f"{data} leaves {there} {unit} to train on; {LEAST[task]} are the least for a study",
                         code="too_little_data", where="--data")  # fmt: skip
    return Chosen(task, text, label, _sizes(min(there, MOST[task])), remark, found.bad_rows)


def _columns(table: Table, data: Path, task: str) -> tuple[str, str | None]:
    text = table.text()
    label = table.label(text)
    if label is None and task != "causal-lm":
        raise InputError(
            f"{data} has no column beside '{text}' that could be a label: two values or more, and not a new one on "
            "every second row; for plain text use --task causal-lm",
            code="no_label",
            where="--data",
        )
    return text, label


def _survey(task: str, text: str, label: str | None, data: Path) -> Survey:
    """What the text offers once it is clean and split; rows that cannot be used are passed over and listed."""
    language = task == "causal-lm"
    study = Study(
        name="starter",
        task=Task(type=task, text=text, label=label or "label"),  # type: ignore[arg-type]
        data=Data(train=str(data.absolute()), on_bad_row="skip"),
        models=(Ladder(family="gpt2" if language else "bert", sizes=("1x32",), vocabulary=VOCABULARY),),
        grid=Grid(tokens=(64,)) if language else Grid(examples=(1,)),
    )
    return survey(study)


def _sizes(top: int) -> tuple[int, ...]:
    """Four sizes up to `top`, each twice the one before."""
    smallest = _rounded(top // STEPS[0])
    return tuple(smallest * STEPS[0] // step for step in STEPS)


def _rounded(number: int) -> int:
    """Down to two digits."""
    digit = 10 ** max(0, len(str(number)) - 2)
    return number // digit * digit


def _page(chosen: Chosen, data: Path | None, out: Path) -> str:
    train = "builtin" if data is None else _relative(data, out)
    sizes = f"[{', '.join(map(str, chosen.sizes))}]"
    if chosen.label is None:
        task = f"{{type: causal-lm, text: {_quoted(chosen.text)}, max_length: 64}}   # max_length: tokens per window"
        family, axis, epochs, metric = "gpt2", f"tokens: {sizes}", 1, "perplexity"
    else:
        task = f"{{type: sequence-classification, text: {_quoted(chosen.text)}, label: {_quoted(chosen.label)}}}"
        family, axis, epochs, metric = "bert", f"examples: {sizes}", 3, "f1_macro"
    bad = ""
    if chosen.bad_rows:
        first = chosen.bad_rows[0].replace("\n", " ")
        bad = f"\n  # {len(chosen.bad_rows)} rows cannot be used; error instead of skip refuses them. The first:"
        bad += f"\n  # {first}\n  on_bad_row: skip"
    return f"""\
# A study for rayscale. Next: rayscale plan {out.name}, then rayscale run {out.name}
name: {_safe(out.stem if out.stem != "study" or data is None else data.stem)}
task: {task}
data:
  train: {_quoted(train)}    # csv, tsv, jsonl, parquet, txt, also .gz; globs; relative to this file
  test: null              # a file, or a share of train is kept out:
  test_fraction: 0.1
  validation_fraction: 0.1{bad}
models:                   # at least two sizes, eight times apart, so that a law in size can be fitted
  # from scratch, layers x width:
  - {{family: {family}, sizes: [1x32, 2x64, 3x128], vocabulary: {VOCABULARY}}}
  # a checkpoint, by folder or hub id, whole and cut to its first layers:
  # - {{pretrained: sentence-transformers/all-MiniLM-L6-v2, layers: [1, 2, 3, 6]}}
grid:
  # {chosen.remark}; four sizes or more: the largest is held out to check the fit
  {axis}
  gpus: [1]               # [1, 2] also measures what a second GPU brings
  seeds: 2
training: {{epochs: {epochs}, global_batch: 32, learning_rate: auto}}
target: eval_loss         # or {{metric: {metric}, reach: ...}}
# prices: {{gpu_hour: 2.5, currency: USD}}
# budget: {{gpu_hours: 2}}
"""


def _relative(data: Path, out: Path) -> str:
    try:
        return str(data.resolve().relative_to(out.resolve().parent))
    except ValueError:
        return str(data.resolve())


def _quoted(text: str) -> str:
    """The text as YAML reads it back: in single quotes unless it is one plain word."""
    if re.fullmatch(r"[A-Za-z/][\w./-]*", text, re.ASCII) and text.lower() not in _NO_TEXT:
        return text
    return "'" + text.replace("'", "''") + "'"


#: Words that YAML does not read as text.
_NO_TEXT = frozenset(("true", "false", "yes", "no", "on", "off", "null", "y", "n"))


def _safe(name: str) -> str:
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in name)
    return kept.lstrip(".")[:64] or "study"
