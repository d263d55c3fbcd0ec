"""A study made of known laws: trial tables and run folders without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from rayscale.runs.ledger import COLUMNS, SCHEMA, Ledger, TrialRecord
from rayscale.system.storage import Store

MODELS = {"tiny": 1e5, "small": 3e5, "base": 1e6, "large": 3e6}
SIZES = (500, 1000, 2000, 4000, 8000)
SECOND_GPU = 0.7  # what a second GPU adds of the first's speed
START_SECONDS = 5.0


def true_odds(params: Any, examples: Any, ceiling: float = 3.5) -> Any:
    """Log odds of F1 without noise."""
    return ceiling - 20 * params**-0.25 - 30 * examples**-0.4


def seconds(params: float, examples: float, gpus: int) -> float:
    """Wall seconds of a run without noise: a fixed start, then three passes."""
    return START_SECONDS + 3 * examples / (3e8 / params * (1 + SECOND_GPU * (gpus - 1)))


def trials(
    seed: int = 0, *, ceiling: float = 3.5, noise: float = 0.05, seeds: int = 3, gpus: tuple[int, ...] = (1, 2),
    models: tuple[str, ...] = tuple(MODELS), sizes: tuple[int, ...] = SIZES, timed: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """A trial table; the first seed of each cell also runs on two GPUs, at the same loss and F1."""
    rng, rows = np.random.default_rng(seed), []
    for model in models:
        params = MODELS[model]
        for size in sizes:
            for run in range(seeds):
                error = rng.normal(0, noise)
                f1 = 1 / (1 + np.exp(-true_odds(params, size, ceiling) - error))
                loss = (0.3 + 5 * params**-0.2 + 6 * size**-0.3) * np.exp(-0.2 * error)
                for count in gpus if run == 0 else gpus[:1]:
                    wall = seconds(params, size, count) * np.exp(rng.normal(0, 0.02))
                    row = {
                        "trial_id": f"{model}-{size}-{run}-{count}", "status": "ok", "model": model,
                        "params": int(params),
                        "task": "sequence-classification", "data_requested": size, "examples": size, "gpus": count,
                        "seed": run, "augment": "none", "eval_loss": loss, "f1_macro": f1, "schema_version": 1,
                    }  # fmt: skip
                    if timed:
                        row |= {"train_seconds": wall, "device_seconds": wall * count, "exclusive": True,
                                "examples_per_second": 3 * size / (wall - START_SECONDS)}  # fmt: skip
                    rows.append(row)
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS))


def write_run(folder: Path, table: pd.DataFrame, *, price: float | None = 2.5) -> Path:
    """A run folder with a record for each row, and the plan that asked for them."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {name: None if pd.isna(value) else value for name, value in row.items()} for row in table.to_dict("records")
    ]
    rows = pa.Table.from_pylist(rows, schema=SCHEMA).to_pylist()
    for row in rows:
        Ledger(Store.open(folder)).write(TrialRecord(row, {}))
    names = ("trial_id", "model", "params", "data_requested", "gpus", "seed", "augment")
    asked = [{**{name: row[name] for name in names}, "seconds": 1.0, "gpu_seconds": 7.0 * row["gpus"]} for row in rows]
    plan = {
        "study": "made", "task": "sequence-classification", "data_axis": "examples", "trials": asked, "cut": [],
        "target": {"metric": "f1_macro", "reach": None}, "prices": {"gpu_hour": price, "currency": "USD"}, "lint": [],
        "total": {}, "machine": {"slots": 2, "device": "cpu"}, "data_fingerprint": "made",
    }  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "study.yaml").write_text("name: made\n")
    return folder
