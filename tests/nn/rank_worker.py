"""What each rank of a group trains, alike on any number of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from made import Made, make_classification, make_language, make_tagged, make_topics, make_trial

from rayscale.nn.training.train import train_trial
from rayscale.runs.trial import ModelSpec, Trial
from rayscale.study.lora import Lora


def cases(folder: Path) -> Iterator[tuple[str, Trial, Made]]:
    """Trials whose last batch is ragged, some with dropout; 49 rows leave a single one to all ranks."""
    bert = ModelSpec("tiny", "pretrained", "bert", 2, path=str(folder / "bert"))
    for rows in (49, 53):
        yield f"classify-{rows}", make_trial(model=bert, data_requested=rows), make_classification(folder)
    yield "drop", make_trial(), make_classification(folder)  # a BERT as it is from scratch, with dropout 0.1
    yield "tag", make_trial("token-classification", model=bert), make_tagged(folder)
    yield "topics", make_trial("multi-label", model=bert), make_topics(folder)
    yield "continue", make_trial("causal-lm"), make_language(folder, ragged=True)
    yield "adapt", make_trial(model=replace(bert, lora=Lora(rank=2, dropout=0.3))), make_classification(folder)
    yield "diverge", make_trial("causal-lm", training={"learning_rate": 1e30}), make_language(folder)


def run(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    """The results of all cases; the models of rank 0 are saved."""
    return {
        name: train_trial(trial, made, rank=rank, world_size=world_size, save_to=folder / f"{name}-{world_size}")
        for name, trial, made in cases(folder)
    }


def write(rank: int, world_size: int, folder: Path) -> None:
    """Run all cases; results go to a file in the folder."""
    (folder / f"rank-{rank}-of-{world_size}.json").write_text(json.dumps(run(rank, world_size, folder)))
