"""What the figures draw: the ok rows, the models in order of size, the law that carries the curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rayscale.report.wording import fits_of, usable
from rayscale.study.metrics import LOWER_IS_BETTER, PERCENTS
from rayscale.study.tasks import KINDS

#: Curves and their bands for one law: (fit as saved, rows) → columns predicted, low, high.
Predict = Callable[[dict, pd.DataFrame], pd.DataFrame]
_DATA, _PARAMS = ("examples", "tokens", "data_requested"), ("params", "params_non_embedding")
_NAMES = {"eval_loss": "test loss", "validation_loss": "validation loss", "train_loss": "training loss"}


@dataclass(frozen=True)
class Evidence:
    """The measured rows and the fits, as every figure needs them.

    `ok` has the rows with a positive target; `models` are all models of the table from small to large; `data` and
    `params` name the columns on the two axes; `laws` are the usable fits of `target`; `cells` has for each model with
    ok rows its mean, least and greatest target at each data size (index; columns data, mean, low, high).
    """

    task: str
    target: str
    data: str
    params: str
    ok: pd.DataFrame
    models: tuple[str, ...]
    laws: tuple[dict, ...]
    cells: Mapping[str, pd.DataFrame]

    @property
    def measured(self) -> list[str]:
        """The models with ok rows, from small to large."""
        return [model for model in self.models if model in self.cells]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The data sizes asked for, ascending."""
        return tuple(sorted(int(size) for size in self.ok["data_requested"].dropna().unique()))

    @property
    def quantity(self) -> str:
        """The target in a word or two: `loss`, `accuracy`."""
        return "loss" if self.target in _NAMES else self.target_label

    @property
    def lower(self) -> bool:
        """Whether less of the target is better."""
        return self.target in LOWER_IS_BETTER

    @property
    def target_label(self) -> str:
        """`test loss, nats per token`: the quantity with its unit."""
        name = _NAMES.get(self.target, self.target.replace("_", " "))
        unit = KINDS[self.task].unit if self.task in KINDS else None
        return f"{name}, {unit}" if unit and self.target in _NAMES else name

    @property
    def data_label(self) -> str:
        return "training tokens" if self.data == "tokens" else "training examples"

    def models_in(self, rows: pd.DataFrame) -> list[str]:
        """The models that have some of the rows, from small to large."""
        return [model for model in self.models if (rows["model"] == model).any()]

    def position(self, model: str) -> int:
        """The place of a model among all, which sets its colour and marker in every figure."""
        return self.models.index(model)

    def law_for(self, model: str | None, column: str | None = None) -> dict | None:
        """The fit whose curve belongs to this model: one over all models, else the model's own.

        With a `column` the first of these that it goes into; without a model one over all models.
        """
        single = [law for law in self.laws if law.get("by") and law["by"].get("model") == model]
        shared = [law for law in self.laws if not law.get("by")]
        able = [law for law in (*shared, *single) if column is None or column in (law.get("columns") or {}).values()]
        return next(iter(able), None)

    def params_of(self, model: str) -> float:
        return float(self.ok.loc[self.ok["model"] == model, self.params].median())


def gather(study: dict, trials: pd.DataFrame, fit: dict | None) -> Evidence:
    """Pick target and axes from the study and the fits, and the rows that have them."""
    task = str((study.get("task") or {}).get("type") or next(iter(trials["task"]), None) or "")
    quality = [item for item in fits_of(fit) if item.get("target") != "examples_per_second"]
    good = [item for item in quality if usable(item)]
    # The first law carries the curves: that of the target, where the verdict rests on it, else of the loss.
    trials = trials.assign(**{f"{name} / 100": pd.to_numeric(trials[name]) / 100 for name in PERCENTS & {*trials}})
    target = _measured([str(item.get("target")) for item in (*good, *quality)], "eval_loss", trials)
    named = [column for item in [*good, *quality] for column in (item.get("columns") or {}).values()]
    usual = KINDS[task].axis if task in KINDS else "examples"
    data = _measured([*(column for column in named if column in _DATA), usual], "data_requested", trials)
    params = _measured([column for column in named if column in _PARAMS], "params", trials)
    ok = trials[(trials["status"] == "ok") & _positive(trials, target) & _positive(trials, data)]
    sized = trials.groupby("model")[params].median().fillna(np.inf) if len(trials) else pd.Series(dtype=float)
    models = tuple(sorted(sized.index, key=lambda model: (sized[model], model)))
    laws = tuple(item for item in good if item.get("target") == target)
    spans = {"data": (data, "mean"), "mean": (target, "mean"), "low": (target, "min"), "high": (target, "max")}
    cells = {str(model): rows.groupby("data_requested").agg(**spans) for model, rows in ok.groupby("model")}
    return Evidence(task, target, data, params, ok, models, laws, cells)


def _measured(names: Sequence[str], otherwise: str, trials: pd.DataFrame) -> str:
    """The first of these columns that has values."""
    return next((name for name in names if name in trials.columns and _positive(trials, name).any()), otherwise)


def _positive(trials: pd.DataFrame, column: str) -> pd.Series:
    values = pd.to_numeric(trials[column], errors="coerce").astype(float)
    return values.gt(0) & np.isfinite(values)
