"""A planted law, a design, noise and seeds → a trial table whose truth is known: for tests, demos and design checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from rayscale.errors import InputError, nearest
from rayscale.laws.fitting.coordinates import link, unlink
from rayscale.laws.fitting.observations import USUAL, numbers, require_columns
from rayscale.laws.formula import find_law
from rayscale.laws.law import Law

# A made-up machine, so that simulated runs have times: operations a second and GPU, and what a further GPU adds of one.
FLOPS_PER_SECOND = 1e11
EFFICIENCY = 0.8
_MACHINE = ("params", "data", "gpus")
_MEASURED = {"loss": "eval_loss"}  # the column of a law's target, where its name is another


def simulate(
    law: str | Law, parameters: Mapping[str, float], design: pd.DataFrame, noise: float = 0.01, seed: int = 0
) -> pd.DataFrame:
    """The design (one row per run) with what each run would have measured if the law were true.

    The design needs a column for every input of the law: `params`; the data, as `data_requested`, `tokens`, `examples`
    or `data`; `unique`, `copies` (else 0), `compute` (else 6 params data), `gpus` (else 1), `loss`. The law's target is
    added as a column of its name (a loss as eval_loss, with perplexity and bits_per_token): the law times exp of a
    normal error of deviation `noise`, or, for a metric between 0 and 1, with that error on its log odds. Columns that
    the design lacks are added: model, gpus (1), seed, augment (none), trial_id, status (ok) and, for a made-up machine
    where sizes are known, examples_per_second, device_seconds, train_seconds. A column `share`, below 1 where trials
    share GPUs, is that share of the speed and of what a second costs. Runs that differ only in GPUs get the same error,
    as at a fixed global batch, unless GPUs are an input of the law.
    Raises InputError for parameters that the law has not, lacks, or that give no positive finite target, for a law
    without a measured target (isoflop: simulate chinchilla), and for a negative noise; TableError for a missing column.
    """
    law = find_law(law)
    _check(law, parameters)
    if not (np.isfinite(noise) and noise >= 0):
        raise InputError(
            f"noise is {noise}; it must be 0 or more: the standard deviation of the log target", where="noise"
        )
    table = design.reset_index(drop=True).copy()
    data = next((name for name in USUAL["data"] if name in table.columns), None)
    usual: dict[str, Any] = {} if data is None else dict.fromkeys(USUAL["data"], table[data])
    usual |= {"gpus": 1, "seed": 0, "augment": "none", "copies": 0.0, "status": "ok"}
    named = "params" in table.columns
    usual |= {"model": [f"planted-{params:g}" for params in table["params"]] if named else "planted"}
    for name, value in usual.items():
        if name not in table.columns:
            table[name] = value
    columns = {role: next((name for name in USUAL[role] if name in table.columns), None) for role in USUAL}
    if columns["compute"] is None and "compute" in law.inputs and data and named:
        table["compute"] = 6.0 * numbers(table, "params") * numbers(table, data)
        columns["compute"] = "compute"
    require_columns(table, [columns[role] or USUAL[role][0] for role in law.inputs])
    asked = {role: column for role in USUAL if (column := columns[role]) and role in (*law.inputs, *_MACHINE)}
    inputs = {role: numbers(table, column) for role, column in asked.items()}
    for role, values in inputs.items():
        if not (np.isfinite(values) & ((values > 0) | ((values == 0) & (role in law.zero)))).all():
            raise InputError(f"the design's {role} must be positive numbers", where=role)
    with np.errstate(all="ignore"):  # what overflows is refused in the next line
        truth = np.asarray(law.function(inputs, parameters)) * np.ones(len(table))
    top = 1.0 if law.link == "logit" else np.inf
    if not (np.isfinite(truth) & (truth > 0) & (truth < top)).all():
        raise InputError(f"{law.name} with these parameters gives no positive finite value for every row of the design")
    # One error for each model, data size and seed, drawn in the order in which the design first names them.
    keys = ["model", *([] if data is None else ["data_requested"]), "seed", "augment"]
    keys += [str(columns[role]) for role in law.inputs if role not in ("params", "data")]
    run = table.groupby(keys, sort=False, dropna=False).ngroup().to_numpy()
    errors = np.random.default_rng(seed).normal(0.0, noise, len(table))[run]
    measured = _MEASURED.get(law.target, law.target)
    share = numbers(table, "share") if "share" in table.columns else 1.0
    if set(inputs) >= set(_MACHINE):
        speed = FLOPS_PER_SECOND / (6 * inputs["params"]) * (1 + EFFICIENCY * (inputs["gpus"] - 1))
        table["examples_per_second"] = speed * share
    table[measured] = truth * np.exp(errors) if law.link == "log" else unlink("logit", link("logit", truth) + errors)
    if measured == "eval_loss":
        table["perplexity"] = np.exp(np.minimum(table["eval_loss"], 700.0))
        table["bits_per_token"] = table["eval_loss"] / np.log(2)
    if "examples_per_second" in table.columns and "data" in inputs:
        table["train_seconds"] = inputs["data"] / table["examples_per_second"]
        table["device_seconds"] = table["train_seconds"] * inputs["gpus"] * share
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
        raise InputError(f"'{text}' names a law without parameters; write {example}", where="--simulate")
    parameters: dict[str, float] = {}
    for part in rest.split(","):
        key, equals, value = (each.strip() for each in part.partition("="))
        try:
            parsed = float(value)
        except ValueError:
            message = f"'{part.strip()}' in '{text}' is not NAME=NUMBER; write {example}"
            raise InputError(message, where="--simulate") from None
        if not equals or key in parameters:
            raise InputError(f"'{part.strip()}' in '{text}' is given twice; write {example}", where="--simulate")
        parameters[key] = parsed
    try:
        _check(law, parameters)
    except InputError as error:
        raise InputError(f"{error.message}; write {example}", code=error.code, where="--simulate") from None
    return law, parameters


def _check(law: Law, parameters: Mapping[str, float]) -> None:
    if law.result is not None:
        text = f"{law.name} does not predict a measured target, so it cannot be simulated"
        raise InputError(f"{text}; simulate chinchilla and fit {law.name}", where="law")
    for name in parameters:
        if name not in law.names:
            hint = f"{nearest(name, list(law.names))} (it has: {', '.join(law.names)})"
            raise InputError(f"{law.name} has no parameter '{name}'{hint}", where=name)
    if missing := [name for name in law.names if name not in parameters]:
        raise InputError(f"{law.name} also needs {', '.join(missing)}", where=missing[0])
    for parameter in law.parameters:
        value = parameters[parameter.name]
        signed = parameter.kind == "exponent" or law.frame is not None
        if not np.isfinite(value) or (not signed and value < 0):
            what = "finite" if signed else "finite, 0 or more"
            raise InputError(f"{parameter.name} is {value}; it must be {what}", where=parameter.name)
