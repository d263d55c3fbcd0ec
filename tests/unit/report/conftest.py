"""Simulated studies with the values that a real one has on two cores: trial tables, plans and provenance."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

LANGUAGE = "causal-lm"
CLASSES = "sequence-classification"
LADDERS: Mapping[str, Mapping[str, int]] = {
    LANGUAGE: {"gpt2-2x32": 81_000, "gpt2-2x64": 240_000, "gpt2-3x128": 670_000},
    CLASSES: {"bert-1x64": 310_000, "bert-2x128": 960_000, "bert-4x256": 4_100_000},
}
SIZES = {LANGUAGE: (100_000, 200_000, 400_000, 800_000), CLASSES: (500, 1_000, 2_000, 4_000)}
#: E, A, alpha, B, beta of the law that the simulated losses follow.
TRUTH = {LANGUAGE: (2.1, 14.0, 0.22, 620.0, 0.47), CLASSES: (0.55, 3.4, 0.18, 24.0, 0.49)}


def loss_of(task: str, params: np.ndarray, data: np.ndarray) -> np.ndarray:
    """The planted law, E + A / N^alpha + B / D^beta."""
    e, a, alpha, b, beta = TRUTH[task]
    return e + a * params**-alpha + b * data**-beta


def make_trials(
    task: str = LANGUAGE,
    models: Mapping[str, int] | None = None,
    sizes: Sequence[int] | None = None,
    gpus: Sequence[int] = (1, 2),
    seeds: Sequence[int] = (3, 2, 1, 1),
    failed: int = 1,
    noise: float = 0.012,
) -> pd.DataFrame:
    """One row per cell with every column of the trial table; the first `failed` rows have failed."""
    from rayscale.runs.ledger import COLUMNS

    rows = []
    for model, params in (models or LADDERS[task]).items():
        for place, size in enumerate(sizes or SIZES[task]):
            for seed in range(seeds[min(place, len(seeds) - 1)]):
                for count in gpus:
                    rows.append(_row(task, model, params, size, count, seed, noise))
    for row in rows[:failed]:
        row.update(
            dict.fromkeys(("eval_loss", "train_loss", "accuracy", "f1_macro", "examples_per_second")),
            status="failed", error="RuntimeError: worker 1 was killed (out of memory?)", attempts=3,
        )  # fmt: skip
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS))


def _row(task: str, model: str, params: int, size: int, gpus: int, seed: int, noise: float) -> dict:
    draw = np.random.default_rng(zlib.crc32(f"{model}/{size}/{seed}".encode()))
    loss = float(loss_of(task, np.array(params), np.array(size)) * np.exp(noise * draw.standard_normal()))
    examples = size // 64 if task == LANGUAGE else size
    steps = max(1, examples // 32)
    speed = 3.1e8 / params * gpus**0.72 * float(np.exp(0.04 * draw.standard_normal((gpus, 1))[-1, 0]))
    accuracy = float(np.clip(1 - 0.32 * loss, 0.02, 0.99))
    classes = task == CLASSES
    return {
        "trial_id": f"{zlib.crc32(f'{model}{size}{gpus}{seed}'.encode()):08x}{zlib.crc32(model.encode()):08x}",
        "status": "ok", "task": task, "model": model, "params": params,
        "params_non_embedding": int(params * 0.6), "data_requested": size, "examples": examples,
        "tokens": size if task == LANGUAGE else size * 31, "epochs": 1.0 if task == LANGUAGE else 3.0,
        "steps": steps, "gpus": gpus, "global_batch": 32, "micro_batch": 32 // gpus, "seed": seed,
        "augment": "none", "learning_rate": 0.003, "optimizer": "adamw", "schedule": "linear", "precision": "fp32",
        "flops": 6.0 * params * size, "train_loss": loss * 0.98, "validation_loss": loss * 1.003, "eval_loss": loss,
        "accuracy": accuracy if classes else None, "f1_macro": accuracy * 0.97 if classes else None,
        "perplexity": None if classes else float(np.exp(loss)), "train_seconds": examples / speed,
        "eval_seconds": 0.4, "device_seconds": gpus * examples / speed, "examples_per_second": speed,
        "tokens_per_second": speed * 64, "peak_memory_bytes": 4.1e8, "exclusive": seed == 0,
        "executor": "lanes", "attempts": 1, "started_at": "2026-01-05T10:00:00Z", "ended_at": "2026-01-05T10:00:09Z",
        "host": "node-a", "device": "cpu", "data_fingerprint": "9f2c61aa01b7", "training_version": 1,
        "versions": json.dumps({"ray": "2.60.0", "torch": "2.13.0"}), "schema_version": 1,
    }  # fmt: skip


def make_plan(trials: pd.DataFrame) -> dict:
    """The object of `plan --json` for these trials."""
    rows = [
        {
            "trial_id": row.trial_id, "model": row.model, "params": int(row.params), "gpus": int(row.gpus),
            "data_requested": int(row.data_requested), "seed": int(row.seed), "seconds": 4.0,
            "gpu_seconds": 4.0 * row.gpus, "peak_memory_bytes": 400_000_000, "alone": bool(row.exclusive),
            "basis": "6 N D FLOP at 2e10 FLOP/s",
        }
        for row in trials.itertuples()
    ]  # fmt: skip
    seconds = sum(row["gpu_seconds"] for row in rows)
    return {
        "study": "demo", "task": "causal-lm", "data_axis": "tokens", "trials": rows,
        "machine": {"device": "cpu", "slots": 2, "device_name": "Xeon, 2 cores", "origin": "this machine"},
        "cut": [{"cell": "gpt2-3x128, 1600000 tokens", "reason": "beyond the budget of 0.05 GPU-hours"}],
        "total": {
            "trials": len(rows), "seconds": seconds, "gpu_hours": seconds / 3600, "money": None, "currency": "USD",
            "disk_bytes": 12_000_000,
        },
        "lint": [{"code": "two_gpu_counts", "message": "two GPU counts give a ratio, not a scaling curve"}],
    }  # fmt: skip


def make_study(task: str = LANGUAGE, name: str = "demo") -> dict:
    """A study as `Study.model_dump(mode="json")` gives it."""
    axis = "tokens" if task == LANGUAGE else "examples"
    return {
        "name": name,
        "task": {"type": task, "text": "text", "label": "label", "max_length": None},
        "data": {"train": "builtin", "validation": None, "test": None, "test_fraction": 0.1},
        "models": [{"family": "gpt2" if task == LANGUAGE else "bert", "sizes": ["2x32", "2x64", "3x128"]}],
        "grid": {axis: list(SIZES[task]), "gpus": [1, 2], "seeds": {SIZES[task][0]: 3, SIZES[task][1]: 2}},
        "training": {"epochs": None, "global_batch": 32, "learning_rate": "auto", "schedule": "linear"},
        "target": {"metric": "eval_loss", "reach": None},
    }


def make_provenance() -> dict:
    """What a run knows of where its numbers come from."""
    return {
        "rayscale": "0.1.0",
        "versions": {"python": "3.11.9", "ray": "2.60.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "host": "node-a", "device": "cpu: Xeon, 2 cores", "seeds": [0, 1, 2], "data_fingerprint": "9f2c61aa01b7",
        "commands": ["rayscale run study.yaml --yes", "rayscale report runs/demo"],
    }  # fmt: skip


@pytest.fixture(scope="session")
def simulated() -> SimpleNamespace:
    """The makers above, for tests to build the study they need."""
    return SimpleNamespace(
        trials=make_trials, plan=make_plan, study=make_study, provenance=make_provenance, loss_of=loss_of,
        LANGUAGE=LANGUAGE, CLASSES=CLASSES, LADDERS=LADDERS, SIZES=SIZES,
    )  # fmt: skip
