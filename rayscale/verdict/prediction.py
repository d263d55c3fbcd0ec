"""One prediction from a saved fit: of a run (fit.json), of a table (`fit --out`), or of one group of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from rayscale.errors import InputError, nearest
from rayscale.laws.fitting.observations import usual_role
from rayscale.laws.fitting.outcome import Outcome
from rayscale.laws.fitting.result import Fit, far
from rayscale.laws.fitting.sizes import read_size
from rayscale.runs.folder import load
from rayscale.verdict.leading import reasons
from rayscale.verdict.metric_law import LOSS
from rayscale.verdict.speedup import relative_speeds

ROLES = ("params", "data", "unique", "compute", "gpus", "loss", "copies")
_ASKED = {"isoflop": ("compute",)}  # read from more columns than a prediction takes
_SHOWN = 12  # groups named in a message


def predict(
    saved: Mapping[str, Any],
    *,
    params: float | None = None,
    data: float | None = None,
    unique: float | None = None,
    compute: float | None = None,
    gpus: float | None = None,
    loss: float | None = None,
    copies: float | None = None,
    by: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The target at these sizes from a saved fit (the object of fit.json, of `fit --json`, or one fit), not refitted.

    predicted, low, high (95% for a new run), mean_low, mean_high (for the mean), extrapolation (times beyond the data),
    law, target, warnings; `unused`: the sizes given that the law does not take. `by` picks a group, column -> value.
    For a run, `gpus` adds `speedup` over the fewest GPUs measured: GPUs change no loss at a fixed global batch.
    Raises InputError where a size is missing or no positive number, and where no fit can say, with its reasons.
    """
    sizes = (params, data, unique, compute, gpus, loss, copies)
    given = {role: float(size) for role, size in zip(ROLES, sizes, strict=True) if size is not None}
    of_run = "fits" in saved
    fit = _of_run(saved, given) if of_run else _of_table(saved, by or {})
    values, used = _values(fit, given, saved.get("options") or {})
    asked = pd.DataFrame({fit.columns[role]: [value] for role, value in values.items()})
    prediction: dict[str, Any] = {str(name): float(value) for name, value in fit.predict(asked).iloc[0].items()}
    # Of the fit's own, those that bear on any prediction: not how far its held-out rows lay, nor which rows it dropped.
    warnings = [warning for warning in fit.warnings if warning["code"] not in ("dropped_rows", "far_extrapolation")]
    warnings += far(prediction["extrapolation"])
    prediction |= {"law": fit.law.name, "target": fit.target, **given, "warnings": warnings}
    if fit.by:
        prediction["by"] = dict(fit.by)
        used |= set(fit.by)
    if of_run and gpus is not None:
        steps = saved.get("verdict", {}).get("doubling", {}).get("gpus", {}).get("curve", [])
        prediction |= {"gpus": int(gpus), "speedup": relative_speeds(steps).get(int(gpus))}
        used.add("gpus")
    return {**prediction, "unused": sorted(set(given) - used)}


def saved_fit(source: str) -> dict[str, Any]:
    """The object of fit.json of a run folder, or of a file that `fit --out` wrote; InputError where there is none."""
    path = Path(source)
    if "://" not in source and path.is_file():
        try:
            saved = json.loads(path.read_bytes())
            fits = saved.get("fits", saved.get("groups", [saved])) if isinstance(saved, dict) else None
            if isinstance(fits, list) and all(isinstance(fit, dict) for fit in fits):
                return cast(dict[str, Any], saved)
            fault = "valid JSON, but not a saved fit"
        except (OSError, ValueError, RecursionError) as error:
            fault = f"not a saved fit ({str(error)[:80]}); "
            fault += "fit a table first: rayscale fit TABLE --law NAME ... --out FIT.json"
    elif source.endswith(".json") and not path.is_dir():
        fault = "no such file; `rayscale fit TABLE ... --out FIT.json` writes one"
    elif (fit := load(source).fit) is not None:
        return fit
    else:
        fault = f"has no fit.json yet; `rayscale report {source}` writes it"
    raise InputError(fault, code="no_fit", where=source)


def parse_by(texts: Sequence[str]) -> dict[str, str]:
    """Column -> value from `COLUMN=VALUE`, apart or comma-separated; raises InputError naming the fault.

    A comma begins the next pair only where a later `=` follows it, so that values may hold commas.
    """
    group = {}
    for part in (part for text in texts for part in re.split(r",(?=[^,=]+=)", text)):
        column, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"found '{part}'; write COLUMN=VALUE", where="--by")
        group[column.strip()] = value.strip()
    return group


def read_fit(saved: Mapping[str, Any]) -> Fit:
    """The fit of one saved object; raises InputError for anything else."""
    if not isinstance(saved, Mapping):
        raise InputError(f"this is not a fit saved by rayscale: found {type(saved).__name__}", code="not_a_fit")
    return Fit.from_json(saved)


def _of_run(saved: Mapping[str, Any], given: Mapping[str, float]) -> Fit:
    """The fit of a run that speaks for these sizes: the law over all models, else that of the model of this size.

    Of the quantity that its verdict rests on.
    """
    if missing := [role for role in ("params", "data") if role not in given]:
        raise InputError("needs a number: a run's law takes both sizes", where=f"--{missing[0]}")
    target = (saved.get("verdict", {}).get("leading") or {"target": LOSS})["target"]  # of older runs the loss
    known = [read_fit(fit) for fit in saved["fits"] if fit.get("target") == target]
    usable = [fit for fit in known if fit.outcome.usable]
    shared = [fit for fit in usable if fit.role_of("params")]
    of_size = [fit for fit in usable if (fit.by or {}).get("params") == given["params"]]
    if chosen := [*shared, *of_size]:
        return chosen[0]
    sizes = sorted(fit.by["params"] for fit in usable if fit.by and "params" in fit.by)
    text = f"no law over model sizes was fitted, and none for {given['params']:g} parameters"
    raise InputError(f"{text} (sizes with their own: {sizes}): {reasons(known)}", code=Outcome.NOT_IDENTIFIABLE.value)


def _of_table(saved: Mapping[str, Any], by: Mapping[str, str]) -> Fit:
    """The fit of a table, or the group of it that `by` names."""
    if "groups" not in saved:
        if by:
            raise InputError("this fit has no groups; leave --by out", where="--by")
        return read_fit(saved)
    groups = saved["groups"]
    columns = list(dict.fromkeys(column for group in groups for column in group.get("by") or {}))
    for column in by:
        if column not in columns:
            raise InputError(f"no groups by '{column}'{nearest(column, columns)} (there are: {', '.join(columns)})",
                             where="--by")  # fmt: skip
    chosen = [group for group in groups if all(_same(group["by"].get(name), value) for name, value in by.items())]
    if len(chosen) == 1:
        return read_fit(chosen[0])
    names = [",".join(f"{name}={value}" for name, value in group["by"].items()) for group in chosen or groups]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    fault = f"{len(chosen)} groups fit that" if by and chosen else "no group has that" if by else "this fit has groups"
    raise InputError(f"{fault}; name one of: {'; '.join(names[:_SHOWN])}{more}", code="which_group", where="--by")


def _same(value: Any, asked: str) -> bool:
    if str(value) == asked:
        return True
    try:
        return not isinstance(value, str | bool) and float(value) == read_size(asked)
    except (TypeError, ValueError):
        return False


def _values(fit: Fit, given: Mapping[str, float], options: Mapping[str, str]) -> tuple[dict[str, float], set[str]]:
    """The value of every role of the law, and which of the sizes given these are."""
    values, used = {}, set()
    needed = {role: column for role, column in fit.columns.items() if role in _ASKED.get(fit.law.name, (role,))}
    for role, column in needed.items():
        # A law of one input (power) may have been fitted in any column: --params N made N its only axis.
        saved = next((option for option, its in options.items() if its == column), usual_role(column))
        option = saved or role
        if saved is None and option not in given and len(fit.law.inputs) == len(given) == 1:
            option = next(iter(given))  # nothing saved says by which name the column was given
        if option not in given:
            message = f"needs a number: the {fit.law.name} law takes it (column '{column}')"
            raise InputError(message, where=f"--{option}")
        value, zero = given[option], role in fit.law.zero
        if not np.isfinite(value) or value < 0 or (value == 0 and not zero):
            raise InputError(f"found {value:g}; it must be {'0 or more' if zero else 'positive'}", where=f"--{option}")
        values[role] = value
        used.add(option)
    return values, used
