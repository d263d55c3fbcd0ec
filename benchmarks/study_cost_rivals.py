"""The rivals of study_cost.py: Ray Tune over the cells, one TorchTrainer of one worker for each, and in it a loop.

`tutorial` is the loop of a tutorial: texts tokenised when they are read and padded to the longest there may be, AdamW,
batch by batch, evaluation after each epoch. `trainer` is the Trainer of transformers at its best settings: texts
tokenised at once, batches of similar length, bf16, evaluation after each epoch. Both evaluate the test split at the
end, whose loss study_cost.py compares.

    python benchmarks/study_cost_rivals.py tutorial|trainer GIVEN LOSSES CORES     (study_cost.py calls it)
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray import train, tune
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

EVALUATION_BATCH = 64


def main() -> None:
    """Run all cells, as many at once as there are cores; write losses, steps and seconds by cell."""
    side, given, losses, cores = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    about = json.loads(Path(given, "cells.json").read_text())
    ray.init(num_cpus=cores, resources={"trial": cores}, include_dashboard=False, log_to_driver=False,
             logging_level=logging.ERROR)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:

        def trial(config: dict[str, Any]) -> None:
            TorchTrainer(
                work,
                train_loop_config={"side": side, "given": given, "number": config["number"]},
                scaling_config=train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
                run_config=train.RunConfig(
                    storage_path=folder, name=f"cell-{config['number']}", callbacks=[TuneReportCallback()]
                ),
            ).fit()

        found = tune.Tuner(
            # The worker of the trainer takes the core.
            tune.with_resources(trial, {"CPU": 0, "trial": 1}),
            param_space={"number": tune.grid_search(list(range(len(about["cells"]))))},
            tune_config=tune.TuneConfig(max_concurrent_trials=cores),
            run_config=tune.RunConfig(storage_path=folder, name="grid", verbose=0),
        ).fit()
        if found.errors:
            raise found.errors[0]
        by_cell = {about["cells"][each.config["number"]]["name"]: each.metrics for each in found}
    told = {
        "losses": {cell: metrics["test_loss"] for cell, metrics in by_cell.items()},
        "steps": {cell: metrics["steps"] for cell, metrics in by_cell.items()},
        "busy_seconds": sum(metrics["seconds"] for metrics in by_cell.values()),
    }
    losses.write_text(json.dumps(told))


def work(config: dict[str, Any]) -> None:
    """The train loop of a worker: one cell."""
    import numpy as np
    import pyarrow.parquet as pq
    import torch
    import transformers

    torch.set_num_threads(1)
    given = Path(config["given"])
    about = json.loads((given / "cells.json").read_text())
    cell = about["cells"][config["number"]]
    texts = {split: pq.read_table(given / split).to_pydict() for split in ("train", "validation", "test")}
    rows = np.load(given / cell["rows"])
    texts["train"] = {column: [values[row] for row in rows] for column, values in texts["train"].items()}
    tokenizer = transformers.AutoTokenizer.from_pretrained(given / "tokenizer")
    settings = dict(cell["config"])
    shape = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(cell["seed"])
    model = transformers.AutoModelForSequenceClassification.from_config(shape)
    loop = tutorial if config["side"] == "tutorial" else trainer
    began = time.perf_counter()
    told = loop(model, tokenizer, texts, about)
    train.report({**told, "seconds": time.perf_counter() - began})


def tutorial(
    model: Any, tokenizer: Any, texts: dict[str, dict[str, list[Any]]], about: dict[str, Any]
) -> dict[str, Any]:
    """The loop of a tutorial."""
    import torch
    import transformers
    from ray.train.torch import prepare_data_loader, prepare_model
    from torch.utils.data import DataLoader, Dataset

    class Texts(Dataset):  # type: ignore[type-arg]
        def __init__(self, split: str) -> None:
            self.text, self.label = texts[split]["text"], texts[split]["label"]

        def __len__(self) -> int:
            return len(self.text)

        def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
            given = tokenizer(self.text[place], padding="max_length", truncation=True, max_length=about["length"],
                              return_tensors="pt")  # fmt: skip
            return {**{key: value[0] for key, value in given.items()}, "labels": torch.tensor(self.label[place])}

    @torch.no_grad()
    def evaluate(split: str) -> float:
        model.eval()
        total = 0.0
        for batch in DataLoader(Texts(split), batch_size=EVALUATION_BATCH):
            total += model(**batch).loss.item() * len(batch["labels"])
        return total / len(texts[split]["text"])

    loader = prepare_data_loader(DataLoader(Texts("train"), batch_size=about["global_batch"], shuffle=True))
    model = prepare_model(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=about["learning_rate"], weight_decay=about["weight_decay"])
    steps = about["epochs"] * len(loader)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, round(about["warmup"] * steps), steps)
    done = 0
    for epoch in range(about["epochs"]):
        model.train()
        for batch in loader:
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            done += 1
        train.report({"epoch": epoch, "validation_loss": evaluate("validation")})
    return {"test_loss": evaluate("test"), "steps": done}


def trainer(
    model: Any, tokenizer: Any, texts: dict[str, dict[str, list[Any]]], about: dict[str, Any]
) -> dict[str, Any]:
    """The Trainer at its best settings."""
    import transformers
    from ray.train.huggingface.transformers import prepare_trainer

    def tokenise(split: str) -> list[dict[str, Any]]:
        ids = tokenizer(texts[split]["text"], truncation=True, max_length=about["length"])["input_ids"]
        return [{"input_ids": row, "labels": label} for row, label in zip(ids, texts[split]["label"], strict=True)]

    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)  # else accelerate wraps the model of the one worker in DDP
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder, per_device_train_batch_size=about["global_batch"],
            per_device_eval_batch_size=EVALUATION_BATCH, num_train_epochs=about["epochs"],
            learning_rate=about["learning_rate"], weight_decay=about["weight_decay"], lr_scheduler_type="linear",
            warmup_steps=about["warmup"], train_sampling_strategy="group_by_length", bf16=True, use_cpu=True,
            eval_strategy="epoch", save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
        )  # fmt: skip
        made = prepare_trainer(
            transformers.Trainer(
                model, arguments, train_dataset=tokenise("train"), eval_dataset=tokenise("validation"),
                data_collator=transformers.DataCollatorWithPadding(tokenizer), processing_class=tokenizer,
            )
        )  # fmt: skip
        made.train()
        loss = made.evaluate(tokenise("test"))["eval_loss"]
    return {"test_loss": loss, "steps": made.state.global_step}


if __name__ == "__main__":
    main()
