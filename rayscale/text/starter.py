"""`rayscale init`: a commented study file that fits the user's data, to be read and changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from rayscale.errors import InputError
from rayscale.storage import Store

TASKS = ("sequence-classification", "causal-lm")
READ_ROWS = 2000


def write_starter(task: str | None, data: Path | None, out: Path) -> dict[str, Any]:
    """Write a study file; returns what was chosen. `task` and columns are guessed from `data` where not given.

    Raises InputError: `out` exists, `data` cannot be read, an unknown task.
    """
    if out.exists():
        raise InputError(f"{out} exists; give another name with --out", code="file_exists", where="--out")
    if task is not None and task not in TASKS:
        raise InputError(f"found '{task}'; use one of {', '.join(TASKS)}", code="unknown_task", where="--task")
    rows = _peek(data) if data else None
    if task is None:
        task = "causal-lm" if rows is None and data else "sequence-classification"
    if task == "causal-lm":
        chosen = {"task": task, "text": _text_column(rows) if rows is not None else "text"}
    else:
        text, label = _columns(rows, data) if rows is not None else ("text", "label")
        chosen = {"task": task, "text": text, "label": label}
    content = _page(chosen, data, out, None if rows is None or data is None else _count(data))
    Store.open(out.absolute().parent).write(out.name, content.encode())
    return {"study": str(out), **chosen}


def _peek(data: Path) -> pd.DataFrame | None:
    """The first rows of a table; None for plain text."""
    if not data.is_file():
        raise InputError(f"no such file: {data}", code="missing_file", where="--data")
    kind = data.suffix.lower()
    try:
        if kind == ".parquet":
            return pd.read_parquet(data).head(READ_ROWS)
        if kind in (".jsonl", ".ndjson"):
            return pd.read_json(data, lines=True, nrows=READ_ROWS)
        if kind in (".csv", ".tsv"):
            return pd.read_csv(data, sep="\t" if kind == ".tsv" else ",", nrows=READ_ROWS)
    except (ValueError, OSError) as error:
        raise InputError(f"{data} cannot be read as {kind[1:]}: {str(error).splitlines()[0]}", code="bad_data",
                         where="--data") from None  # fmt: skip
    return None


def _text_column(rows: pd.DataFrame) -> str:
    lengths = {name: rows[name].astype(str).str.len().mean() for name in rows.columns}
    return str(max(lengths, key=lambda name: lengths[name]))


def _columns(rows: pd.DataFrame, data: Path | None) -> tuple[str, str]:
    """The longest column is the text; of the others the one with the fewest different values is the label."""
    text = _text_column(rows)
    others = {name: rows[name].nunique() for name in rows.columns if name != text and rows[name].nunique() > 1}
    if not others:
        raise InputError(
            f"{data} has no column beside '{text}' that could be a label; for plain text use --task causal-lm",
            code="no_label",
            where="--data",
        )
    return text, str(min(others, key=lambda name: others[name]))


def _count(data: Path) -> int:
    if data.suffix.lower() == ".parquet":
        return len(pd.read_parquet(data, columns=[]).index)
    with data.open("rb") as file:
        return sum(1 for _ in file)


def _page(chosen: dict[str, Any], data: Path | None, out: Path, rows: int | None) -> str:
    train = "builtin" if data is None else _relative(data, out)
    if chosen["task"] == "causal-lm":
        task = f"{{type: causal-lm, text: {_quoted(chosen['text'])}, max_length: 64}}   # max_length: tokens per window"
        models = "  - {family: gpt2, sizes: [1x32, 2x64, 3x128], vocabulary: 2048}"
        axis = "tokens: [50000, 100000, 200000, 400000]"
        epochs = 1
    else:
        task = f"{{type: sequence-classification, text: {_quoted(chosen['text'])}, label: {_quoted(chosen['label'])}}}"
        models = "  - {family: bert, sizes: [1x32, 2x64, 3x128], vocabulary: 2048}"
        top = max(64, int((rows or 10_000) * 0.7)) // 8 * 8
        axis = f"examples: [{', '.join(str(top // step) for step in (8, 4, 2, 1))}]"
        epochs = 3
    return f"""\
# A study for rayscale. Next: rayscale plan {out.name}, then rayscale run {out.name}
name: {_safe(out.stem if out.stem != "study" or data is None else data.stem)}
task: {task}
data:
  train: {_quoted(train)}    # csv, tsv, jsonl, parquet, txt; globs; relative to this file
  test: null              # a file, or a share of train is kept out:
  test_fraction: 0.1
  validation_fraction: 0.1
models:                   # at least two sizes, eight times apart, so that a law in size can be fitted
  # from scratch, layers x width:
{models}
  # a checkpoint, by folder or hub id, whole and cut to its first layers:
  # - {{pretrained: sentence-transformers/all-MiniLM-L6-v2, layers: [1, 2, 3, 6]}}
grid:
  {axis}   # four sizes or more: the largest is held out to check the fit
  gpus: [1]               # [1, 2] also measures what a second GPU brings
  seeds: 2
training: {{epochs: {epochs}, global_batch: 32, learning_rate: auto}}
target: eval_loss         # or {{metric: {"perplexity" if chosen["task"] == "causal-lm" else "f1_macro"}, reach: ...}}
# prices: {{gpu_hour: 2.5, currency: USD}}
# budget: {{gpu_hours: 2}}
"""


def _relative(data: Path, out: Path) -> str:
    try:
        return str(data.resolve().relative_to(out.resolve().parent))
    except ValueError:
        return str(data.resolve())


def _quoted(text: str) -> str:
    plain = text.replace("_", "").replace("-", "").replace(".", "").replace("/", "")
    return text if plain.isascii() and plain.isalnum() and not plain.isdigit() else repr(text)


def _safe(name: str) -> str:
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in name)
    return kept.lstrip(".")[:64] or "study"
