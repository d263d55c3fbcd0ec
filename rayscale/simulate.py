"""A planted law, a design, noise and seeds → a trial table whose truth is known: for tests, demos and design checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from rayscale.errors import InputError, nearest
from rayscale.laws import Law, find_law
from rayscale.observations import numbers, require_columns

# A made-up machine, so that simulated runs have times: operations a second and GPU, and what a further GPU adds of one.
FLOPS_PER_SECOND = 1e11
EFFICIENCY = 0.8


def simulate(
    law: str | Law, parameters: Mapping[str, float], design: pd.DataFrame, noise: float = 0.01, seed: int = 0
) -> pd.DataFrame:
    """The design (one row per run) with what each run would have measured if the law were true.

    The design needs `params` and the data: `data_requested`, `tokens` or `examples`. Columns that it lacks are added:
    model, gpus (1), seed (0), augment (none), trial_id, status (ok), eval_loss (the law times exp of a normal error of
    deviation `noise`), perplexity, and, for a made-up machine, examples_per_second, device_seconds, train_seconds.
    Runs that differ only in GPUs get the same loss, as at a fixed global batch.
    Raises InputError for parameters that the law has not, lacks, or that give no positive finite target, and for a
    negative noise; TableError for a design without sizes.
    """
    law = find_law(law)
    _check(law, parameters)
    if not (np.isfinite(noise) and noise >= 0):
        raise InputError(f"noise is {noise}; it is the deviation of the log target, 0 or more", where="noise")
    data = next((name for name in ("data_requested", "tokens", "examples") if name in design.columns), "data_requested")
    require_columns(design, [data, "params"])
    table = design.reset_index(drop=True).copy()
    usual: dict[str, Any] = dict.fromkeys(("data_requested", "tokens", "examples"), table[data])
    usual |= {"gpus": 1, "seed": 0, "augment": "none", "status": "ok"}
    usual |= {"model": [f"planted-{params:g}" for params in table["params"]]}
    for name, value in usual.items():
        if name not in table.columns:
            table[name] = value
    inputs = {"params": numbers(table, "params"), "data": numbers(table, data), "gpus": numbers(table, "gpus")}
    for role, values in inputs.items():
        if not (np.isfinite(values) & (values > 0)).all():
            raise InputError(f"the design's {role} must be positive numbers", where=role)
    with np.errstate(all="ignore"):  # what overflows is refused in the next line
        truth = np.asarray(law.function(inputs, parameters)) * np.ones(len(table))
    if not (np.isfinite(truth) & (truth > 0)).all():
        raise InputError(f"{law.name} with these parameters gives no positive finite value for every row of the design")
    # One error for each model, data size and seed, drawn in the order in which the design first names them.
    run = table.groupby(["model", "data_requested", "seed", "augment"], sort=False, dropna=False).ngroup().to_numpy()
    errors = np.random.default_rng(seed).normal(0.0, noise, len(table))
    table["eval_loss"] = truth * np.exp(errors[run])
    table["perplexity"] = np.exp(np.minimum(table["eval_loss"], 700.0))
    speed = FLOPS_PER_SECOND / (6 * inputs["params"]) * (1 + EFFICIENCY * (inputs["gpus"] - 1))
    table["examples_per_second"] = speed
    table["train_seconds"] = inputs["data"] / speed
    table["device_seconds"] = table["train_seconds"] * inputs["gpus"]
    table["exclusive"] = True
    if "trial_id" not in table.columns:
        table["trial_id"] = [f"simulated-{row:05d}" for row in range(len(table))]
    return table


def parse_planted(text: str) -> tuple[Law, dict[str, float]]:
    """The law and its parameters from `NAME:A=..,B=..`, as `run --simulate` takes it; InputError names the fault."""
    name, colon, rest = text.partition(":")
    law = find_law(name.strip())
    example = f"{law.name}:" + ",".join(f"{each}=.." for each in law.names)
    if not colon:
        raise InputError(f"'{text}' names a law without parameters; write {example}", where="simulate")
    found: dict[str, float] = {}
    for part in rest.split(","):
        key, equals, value = (each.strip() for each in part.partition("="))
        try:
            parsed = float(value)
        except ValueError:
            message = f"'{part.strip()}' in '{text}' is no NAME=NUMBER; write {example}"
            raise InputError(message, where="simulate") from None
        if not equals or key in found:
            raise InputError(f"'{part.strip()}' in '{text}' comes twice; write {example}", where="simulate")
        found[key] = parsed
    _check(law, found)
    return law, found


def _check(law: Law, parameters: Mapping[str, float]) -> None:
    for name in parameters:
        if name not in law.names:
            hint = f"{nearest(name, list(law.names))} (it has: {', '.join(law.names)})"
            raise InputError(f"{law.name} has no parameter '{name}'{hint}", where=name)
    if missing := [name for name in law.names if name not in parameters]:
        raise InputError(f"{law.name} needs also {', '.join(missing)}", where=missing[0])
    for parameter in law.parameters:
        value = parameters[parameter.name]
        if not np.isfinite(value) or (parameter.kind != "exponent" and value < 0):
            raise InputError(f"{parameter.name} is {value}; it must be finite, 0 or more", where=parameter.name)
