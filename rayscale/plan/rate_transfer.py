"""`learning_rate: {transfer: RUN}`: the best rates of a sweep on small cells, carried over to larger ones.

The law is log rate = constant + powers of width, layers and steps. The powers that `auto` has are its prior: a sweep of
one cell moves the constant alone, one of several widths or step counts the powers, too, as far as its noise allows: two
widths at two step counts a factor of two apart move the power of the steps by a sixth of the way to what they say.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from rayscale.errors import InputError, StudyError
from rayscale.plan.estimate import steps_of
from rayscale.runs.ledger import Ledger, TrialRecord
from rayscale.runs.trial import Trial
from rayscale.study.study import Study
from rayscale.study.training import Transfer
from rayscale.system.storage import Store

#: Powers of width, layers and steps from scratch and pretrained: those of `auto` (learning_rates.py, with the reasons).
PRIOR = {"family": (-1.0, 0.0, -1 / 3), "pretrained": (-2.0, -2 / 3, 0.0)}
POWER_DEVIATION = 0.25  # how far a power may well be from that
NOISE = 0.4  # of a cell's best rate, in log, at least: so 36 swept cells scattered about a law (docs/LOG.md)
LOSS_NOISE = 0.01  # of a loss, relative: what seeds differ by; it makes the best rate of a flat sweep uncertain


@dataclass(frozen=True)
class Best:
    """The best rate of one model at one data size, and the deviation of its log."""

    width: int
    layers: int
    steps: int
    rate: float
    deviation: float = NOISE


@dataclass(frozen=True)
class Optimum:
    """The law of the best rate: the log of the rate at width, layers and steps of 1, and the three powers."""

    constant: float
    powers: tuple[float, ...]
    cells: tuple[Best, ...]

    def rate(self, width: int, layers: int, steps: int) -> float:
        """To three digits, so that rounding makes no other trials."""
        logs = np.log([width, layers, steps])
        return float(f"{math.exp(self.constant + float(np.dot(self.powers, logs))):.3g}")

    def rate_of(self, trial: Trial) -> float:
        """That of a trial."""
        return self.rate(trial.model.width or 1, trial.model.layers, steps_of(trial))

    @property
    def law(self) -> str:
        """The powers, for people."""
        named = zip(("width", "layers", "steps"), self.powers, strict=True)
        return " x ".join(f"{name}^{power:.2f}" for name, power in named if round(power, 2))


def fit_optimum(cells: Sequence[Best], kind: str) -> Optimum:
    """The law of these best rates, of models from scratch (`family`) or `pretrained`: the mode of a normal posterior.

    Nothing is known of the constant beforehand.
    """
    design = np.array([[1.0, *np.log([cell.width, cell.layers, cell.steps])] for cell in cells])
    weights = np.array([cell.deviation**-2 for cell in cells])
    # About the mean of the cells, so that the prior of the powers does not lean on where width is 1.
    centre = np.average(design[:, 1:], axis=0, weights=weights)
    design[:, 1:] -= centre
    prior = np.array([0.0, *PRIOR[kind]])
    precision = np.diag([0.0, *[POWER_DEVIATION**-2.0] * 3])
    weighed = design.T * weights
    rates = np.log([cell.rate for cell in cells])
    constant, *powers = np.linalg.solve(weighed @ design + precision, weighed @ rates + precision @ prior).tolist()
    return Optimum(constant - float(np.dot(powers, centre)), tuple(powers), tuple(cells))


def best_rate(losses: Mapping[float, float]) -> tuple[float, float] | None:
    """(rate, deviation of its log): where a parabola in the log of the rate through the lowest validation loss and its
    neighbours is lowest.

    None where that is at the end of the sweep, so that the best rate may lie beyond it. A neighbour that diverged has
    an infinite loss: then the best of the sweep is the answer.
    """
    rates = sorted(losses)
    place = rates.index(min(rates, key=lambda rate: losses[rate]))
    if place in (0, len(rates) - 1):
        return None
    near = rates[place - 1 : place + 2]
    if not all(math.isfinite(losses[rate]) for rate in near):
        return near[1], NOISE
    curved, sloped, _ = np.polyfit(np.log(near), [losses[rate] / losses[near[1]] for rate in near], 2)
    if curved <= 0:  # three equal losses
        return None
    # The slope between the outer two, divided by the curvature.
    noise = LOSS_NOISE * math.sqrt(2) / math.log(near[2] / near[0]) / (2 * curved)
    return float(np.exp(-sloped / (2 * curved))), math.hypot(NOISE, noise)


def read_optimum(study: Study) -> Optimum:
    """The law of the run that the study's `learning_rate` names.

    Raises StudyError where that holds no sweep of the same task, optimizer and batch that has its best rate inside.
    """
    setting = study.training.learning_rate
    assert isinstance(setting, Transfer)
    where = study.where("training", "learning_rate")
    try:
        records = Ledger(Store.open(setting.transfer)).read()[0]
    except InputError as error:
        raise StudyError(error.message, code=error.code, where=where) from None
    kinds = {(hasattr(model, "pretrained"), bool(getattr(model, "lora", None))) for model in study.models}
    if len(kinds) > 1:
        text = "carries rates over to one of checkpoints, checkpoints with lora, and ladders; write a study for each"
        raise StudyError(text, code="no_transfer", where=where)
    pretrained, adapted = kinds.pop()
    kind = "pretrained" if pretrained else "family"
    alike = [record for record in records if _is_like(record, study, kind, adapted)]
    swept = _sweeps(alike)
    cells = [
        Best(trial.model.width or 1, trial.model.layers, steps_of(trial), *best)
        for trial, losses in swept
        if (best := best_rate(losses))
    ]
    if not cells:
        training = study.training
        same = f"{study.task.type} with optimizer {training.optimizer} and global_batch {training.global_batch}"
        reason = f"it has no finished sweep (learning_rate: [...], 3 rates or more) of {same}; {len(records)} records"
        if swept:
            reason = f"the best rates of all {len(swept)} cells lie at the ends of its sweep: widen that"
        raise StudyError(f"found {setting.transfer}: {reason}", code="no_transfer", where=where)
    return fit_optimum(cells, kind)


def _is_like(record: TrialRecord, study: Study, kind: str, adapted: bool) -> bool:
    trial, training = record.trial, record.trial["training"]
    return (
        record.row["status"] in ("ok", "diverged")
        and trial["model"]["kind"] == kind
        and bool(trial["model"].get("lora")) == adapted
        and trial["model"]["width"] is not None
        and trial["task"]["type"] == study.task.type
        and trial["augment"] == "none"
        and isinstance(training["learning_rate"], float)
        and training["optimizer"] == study.training.optimizer
        and training["global_batch"] == study.training.global_batch
    )


def _sweeps(records: Sequence[TrialRecord]) -> list[tuple[Trial, dict[float, float]]]:
    """The mean loss by learning rate of each model at each data size with three rates or more, and a trial of it."""
    cells: dict[tuple[str, int], Trial] = {}
    losses: dict[tuple[str, int], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        trial = Trial.from_json(record.trial)
        cell = (trial.model.name, trial.data_requested)
        loss = record.row["validation_loss"]
        cells.setdefault(cell, trial)
        losses[cell][float(trial.settings.learning_rate)].append(math.inf if loss is None else loss)
    swept = [cell for cell in sorted(cells) if len(losses[cell]) > 2]
    return [(cells[cell], {rate: fmean(seeds) for rate, seeds in losses[cell].items()}) for cell in swept]
