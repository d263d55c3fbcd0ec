"""A metric by way of the loss: a law of the loss over the sizes, then the metric as a sigmoid of the loss.

For a metric whose own curve is too short, or flat at first, where the loss already falls (Llama 3, arXiv 2407.21783;
Bhagia et al. 2024, arXiv 2412.04403). Both stages are fits of their own; a prediction is the second at what the first
predicts, for the points and for pairs of draws, so that its interval knows what both are unsure of. The second is
fitted as `auto` fits it, with weak priors and a discrepancy: the end of a sigmoid that has hardly begun is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rayscale.errors import InputError, TableError
from rayscale.laws.auto.blend import Blend
from rayscale.laws.catalogue import METRIC_SIGMOID
from rayscale.laws.fitting.coordinates import log_fraction, log_odds, unlink
from rayscale.laws.fitting.held_out import foretell
from rayscale.laws.fitting.observations import LOG_ODDS, dropped_rows, observe
from rayscale.laws.fitting.outcome import Outcome
from rayscale.laws.fitting.result import Z95, Estimate, Fit, around, interval
from rayscale.laws.law import Array, Law

WORSE = tuple(Outcome)  # from the best outcome to the worst
KNOWN = 257  # losses at which draws of the metric are computed


class Stage(Protocol):
    """What a stage's estimate is asked for: an Estimate, or the Mixture of a blend."""

    @property
    def noise(self) -> float: ...

    @property
    def widening(self) -> float: ...

    def log_values(self, inputs: Mapping[str, Array]) -> tuple[Array, Array]: ...


@dataclass(frozen=True, eq=False)
class Composition:
    """The estimate of both stages, on the scale of the metric's log odds.

    `noise` is the deviation of a run's log odds given its loss; that of its log loss is `loss.noise`.
    """

    loss: Stage
    metric: Stage
    noise: float

    @property
    def widening(self) -> float:
        """The larger of the factors that few degrees of freedom make of an interval."""
        return max(self.loss.widening, self.metric.widening)

    def linked_values(self, inputs: Mapping[str, Array]) -> tuple[Array, Array]:
        """Log odds of the metric at the inputs: of the point (n,) and of every pair of draws (draws, n)."""
        point, losses = self.loss.log_values(inputs)
        # A draw of the metric is a function, known where all draws of the loss lie, and straight in between.
        known = np.unique(np.quantile(np.vstack([point, losses]), np.linspace(0, 1, KNOWN)))
        _, metrics = self._metric(known)
        count = max(len(losses), len(metrics))
        # Draws come law by law; in a fixed random order the pairs are independent.
        order = np.random.default_rng(0).permutation(count)
        drawn = [np.interp(losses[k % len(losses)], known, metrics[order[k] % len(metrics)]) for k in range(count)]
        return self._metric(point)[0], np.array(drawn)

    def _metric(self, log_loss: Array) -> tuple[Array, Array]:
        """Log odds of the metric at log losses (m,), of the point (m,) and of every draw (draws, m)."""
        point, drawn = self.metric.log_values({"loss": np.exp(np.clip(log_loss, -700, 700))})
        return log_odds(point), log_odds(drawn)

    def log_values(self, inputs: Mapping[str, Array]) -> tuple[Array, Array]:
        """Log of the metric at the inputs: of the point (n,) and of every pair of draws (draws, n)."""
        point, drawn = self.linked_values(inputs)
        return log_fraction(point), log_fraction(drawn)

    def interval(self, point: Any, drawn: Any) -> tuple[Any, Any]:
        """95% interval around `point` from `drawn` (draws first): percentiles, moved out for few rows."""
        return interval(point, drawn, self.widening)

    def reach_of_runs(self, inputs: Mapping[str, Array]) -> Array:
        """How far 95% of new runs lie from their mean, in log odds, (n,): by their loss, and by the metric given it."""
        point, _ = self.loss.log_values(inputs)
        up, down = (self._metric(point + sign * self.loss.noise)[0] for sign in (1, -1))
        by_loss = self.loss.widening * np.abs(up - down) / 2
        return np.asarray(Z95 * np.hypot(by_loss, self.metric.widening * self.noise))

    def to_json(self) -> dict[str, Any]:
        """What is not saved with the stages."""
        return {"noise": self.noise}


@dataclass(frozen=True, eq=False, repr=False)
class TwoStage(Fit):
    """A fit of a metric by way of the loss; `stages`: the fit of the loss, and that of the metric over the loss.

    params, intervals and the like are those of both; the outcome is the worse one, warnings name their stage.
    """

    stages: tuple[Fit, ...] = ()

    @classmethod
    def fit(cls, table: pd.DataFrame, **_: Any) -> Any:
        """Raises InputError: a law by name lacks the column of the loss."""
        raise InputError("two_stage is no law to name; add the column of the loss, through=... (--through COLUMN), to a"
                         " law of that loss", where="law")  # fmt: skip

    def predict(self, table: pd.DataFrame) -> pd.DataFrame:
        """As of every fit; `low` and `high` hold the noise of a run's loss and that of the metric given the loss."""
        estimate = cast(Composition, self.known_estimate())
        inputs, beyond = self.sizes(table, self.columns)
        point, drawn = estimate.linked_values(inputs)
        low, high = estimate.interval(point, drawn)
        linked = around(point, low, high, estimate.reach_of_runs(inputs))
        columns = {name: unlink("logit", value) for name, value in linked.items()}
        return pd.DataFrame({**columns, "extrapolation": beyond}, index=table.index)

    @property
    def formula(self) -> str:
        """Both stages, in the table's own names of target and loss."""
        if not self.stages:
            return self.law.formula
        loss = self.stages[0]
        sigmoid = METRIC_SIGMOID.formula.replace("loss", loss.target)
        return f"{self.target} = {sigmoid}; {loss.target} = {loss.formula}"

    @classmethod
    def read_fields(cls, law: Law, saved: Mapping[str, Any]) -> dict[str, Any]:
        """As a Fit's; the stages are fits themselves."""
        stages = tuple(Fit.from_json(stage) for stage in saved["stages"])
        return super().read_fields(_law(stages[0]), {**saved, "stages": stages})

    @classmethod
    def read_estimate(cls, law: Law, known: Mapping[str, Any], saved: Mapping[str, Any]) -> Any:
        """The composition of the stages' estimates."""
        loss, metric = (stage.known_estimate() for stage in known["stages"])
        return Composition(loss, metric, saved["noise"])


# So that a saved fit is read back by its law's name; `fit_law` fits it, of a law and the column `through`.
TWO_STAGE = Law("two_stage", "metric_sigmoid of the loss that a law predicts", lambda inputs, parameters: 0.0, (), (),
                "accuracy", METRIC_SIGMOID.source, link="logit", result=TwoStage)  # fmt: skip


def _law(loss: Fit) -> Law:
    """The law named two_stage over the sizes of the loss's law."""
    return replace(TWO_STAGE, inputs=tuple(loss.columns), zero=loss.law.zero, unscaled=loss.law.unscaled)


def check_stages(law: Law, target: str, through: str, loss: str | None) -> None:
    """Raises InputError or TableError for a law, or columns, that two stages cannot be made of."""
    if loss is not None or "loss" in law.inputs:
        text = f"{law.name} takes a loss" if loss is None else "the loss is named twice"
        message = f"{text}; `through` names the loss that a law of sizes predicts: give it a law such as auto or power"
        raise InputError(message, where="through")
    if target == through:
        raise TableError(f"'{target}' is both the target and the loss on the way to it; leave `through` out",
                         where="through")  # fmt: skip
    if (law.result is not None and law.name != "auto") or law.link == "logit":
        what = "is a law of log odds" if law.link == "logit" else "predicts no loss"
        raise InputError(f"{law.name} {what}; give a law of the loss, such as auto or chinchilla", where="law")
    if clash := [name for name in law.names if name in METRIC_SIGMOID.names]:
        text = f"{law.name} has a parameter '{clash[0]}', as the sigmoid of the second stage has"
        raise InputError(f"{text}; rename it, or take another law", where="law")


def compose(
    stages: tuple[Fit, Fit], table: pd.DataFrame, target: str, weights: str | None, excluded: NDArray[np.bool_],
    held: NDArray[np.bool_],
) -> TwoStage:  # fmt: skip
    """The fit of both stages to one group's `table`, of which `excluded` and `held` (rows,) were in neither.

    `rows_dropped` of the stages are by position in `table`; a row is used if either stage used it.
    """
    loss, metric = stages
    law, kept = _law(loss), ~excluded & ~held
    observations = observe(table, law, target=target, columns=loss.columns, excluded=excluded, held=held,
                           weights=weights)  # fmt: skip
    first, second = ({entry["row"]: entry["reason"] for entry in stage.rows_dropped} for stage in stages)
    reasons = {row: reason for row, reason in first.items() if row in second and kept[row]}
    reasons |= {entry["row"]: entry["reason"] for entry in observations.dropped if not kept[entry["row"]]}
    dropped = tuple({"row": row, "reason": reasons[row]} for row in sorted(reasons))
    parts = [_block(stage) for stage in stages]
    usable = all(stage.estimate is not None for stage in stages)
    fit = TwoStage(
        law,
        target,
        loss.columns,
        outcome=max((stage.outcome for stage in stages), key=WORSE.index),
        **(_both(stages, parts) if usable else {}),
        rows_used=int(kept.sum()) - sum(bool(kept[row]) for row in reasons),
        rows_dropped=dropped,
        weights=loss.weights,
        warnings=(*_named(stages), *_without_odds(target, second, kept), *dropped_rows(dropped)),
        seconds=loss.seconds + metric.seconds,
        data_range=loss.data_range,
        weighted_by=weights,
        estimate=cast(Estimate, _composition(loss, cast(Blend, metric))) if usable else None,
        stages=stages,
    )
    if not usable or not held.any():
        return fit
    return foretell(fit, observations)


def _without_odds(target: str, reasons: Mapping[int, str], kept: NDArray[np.bool_]) -> list[dict[str, str]]:
    """That the second stage does not use metrics of 1, where there are any; the first may use their loss."""
    count = sum(bool(kept[row]) and reason.endswith(LOG_ODDS) for row, reason in reasons.items())
    text = f"{target}: {count} row{' of 1 is' if count == 1 else 's of 1 are'} not used; log odds need less"
    return [{"code": "dropped_rows", "message": text}] if count else []


def _composition(loss: Fit, metric: Blend) -> Composition:
    """The estimate of two stages that have one."""
    mixture = metric.known_estimate()  # in log odds, as its only law is
    return Composition(loss.known_estimate(), mixture, mixture.noise)


def _block(stage: Fit) -> Array:
    """The covariance of a stage's parameters, (p, p)."""
    return np.array(stage.covariance, dtype=float).reshape(len(stage.params), len(stage.params))


def _both(stages: Iterable[Fit], blocks: list[Array]) -> dict[str, Any]:
    """The fields of a fit that are those of both stages together."""
    sizes = [len(block) for block in blocks]
    covariance = np.zeros((sum(sizes), sum(sizes)))
    covariance[: sizes[0], : sizes[0]], covariance[sizes[0] :, sizes[0] :] = blocks
    loss, metric = stages
    return {
        **{name: {**getattr(loss, name), **getattr(metric, name)}
           for name in ("params", "standard_errors", "intervals")},
        **{name: (getattr(loss, name) or 0) + (getattr(metric, name) or 0)
           for name in ("objective", "starts", "starts_at_best")},
        "covariance": tuple(map(tuple, covariance.tolist())),
    }  # fmt: skip


def _named(stages: tuple[Fit, Fit]) -> list[dict[str, str]]:
    """The warnings of both stages, each with the column that its stage is fitted to.

    No two runs have one loss, so that it says nothing of the second stage that it has no replicates.
    """
    loss, metric = ([warning for warning in stage.warnings if warning["code"] != "dropped_rows"] for stage in stages)
    metric = [warning for warning in metric if warning["code"] != "no_replicates"]
    return [{**warning, "message": f"{stage.target}: {warning['message']}"}
            for stage, warnings in zip(stages, (loss, metric), strict=True) for warning in warnings]  # fmt: skip
