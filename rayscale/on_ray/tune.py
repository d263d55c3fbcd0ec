"""Ray Tune owns the grid: each cell is a Tune trial, which submits the cell to the lane pool and reports its record.

Which cell comes next is decided here, so that cells waiting for one lane size never hold the places of another.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from rayscale.errors import ClusterError
from rayscale.on_ray.session.session import environment
from rayscale.plan.estimate import Planned
from rayscale.system.storage import Store

FOLDER = "tune"
ID = "rayscale_trial_id"  # a cell's id in the ledger; "trial_id" is Tune's own, which it writes over any other
TRIAL_ACTOR_LOSSES = 20  # a Tune trial only waits for its record: where its node is lost it asks again elsewhere


class CellOrder(Searcher):
    """Suggests planned cells in the plan's order, as many of each GPU count as the slots can run, and one to follow.

    `slots` says how many there are at the moment: a cluster may grow, and other jobs may hold some. A cell that
    is recorded already is suggested at once: it only reports.
    """

    def __init__(self, planned: Sequence[Planned], recorded: set[str], slots: Callable[[], int]) -> None:
        super().__init__(metric="eval_loss", mode="min")
        self._left = list(planned)
        self._recorded, self._slots = recorded, slots
        self._out: dict[str, int] = {}  # Tune's trial id → GPUs, 0 for a recorded cell

    def suggest(self, trial_id: str) -> Any:
        """The settings of the next cell; None while the slots are taken."""
        if not self._left:
            return Searcher.FINISHED
        out, capacity = Counter(self._out.values()), self._slots()
        room: dict[int, bool] = {}
        for gpus in sorted({p.trial.gpus for p in self._left} | (set(out) - {0}), reverse=True):
            runnable = capacity // gpus
            room[gpus] = out[gpus] < runnable + 1 if runnable else out[gpus] == 0
            capacity -= gpus * min(out[gpus], runnable)
        for position, planned in enumerate(self._left):
            recorded = planned.trial.trial_id in self._recorded
            if recorded or room[planned.trial.gpus]:
                self._left.pop(position)
                self._out[trial_id] = 0 if recorded else planned.trial.gpus
                return _settings(planned)
        return None

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """A Tune trial ended: its place is free."""
        self._out.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Tune saves its searchers; a resumed run takes the order from plan and ledger, so an empty file is enough."""
        open(checkpoint_path, "wb").close()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to read: see `save`."""


def _settings(planned: Planned) -> dict[str, Any]:
    trial = planned.trial
    return {
        ID: trial.trial_id,
        "model": trial.model.name,
        "data_requested": trial.data_requested,
        "gpus": trial.gpus,
        "seed": trial.seed,
        "augment": trial.augment,
        "learning_rate": trial.settings.learning_rate,
    }


def run_cell(config: dict[str, Any], pool: Any) -> None:
    """One Tune trial: submit the cell, wait for its durable record, report the points of its curve and the record."""
    for point in ray.get(pool.submit.remote(config[ID])):
        values = {ID if name == "trial_id" else name: value for name, value in point.items() if value is not None}
        tune.report({ID: config[ID], **values})


def run_grid(planned: Sequence[Planned], recorded: set[str], slots: Callable[[], int], pool: Any, store: Store) -> Any:
    """Run all cells through Tune and return its ResultGrid; Tune's files lie in the run's folder tune/.

    The folder is written anew: after a resume it holds every cell, recorded ones included.
    """
    if store.local is not None:
        shutil.rmtree(store.local / FOLDER, ignore_errors=True)
    else:
        store.delete_folder(FOLDER)
    with environment(_ENVIRONMENT):
        grid = tune.Tuner(
            tune.with_resources(tune.with_parameters(run_cell, pool=pool), {"CPU": 0.01}),
            tune_config=tune.TuneConfig(
                search_alg=CellOrder(planned, recorded, slots), num_samples=len(planned), metric="eval_loss",
                mode="min", reuse_actors=True,
                trial_dirname_creator=lambda trial: f"{trial.config[ID]}_{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name=FOLDER, storage_path=store.root, storage_filesystem=None if store.local else store.filesystem,
                verbose=0, failure_config=tune.FailureConfig(max_failures=TRIAL_ACTOR_LOSSES),
            ),
        ).fit()  # fmt: skip
    if grid.errors:
        raise ClusterError(f"{len(grid.errors)} of Tune's trials ended with an error: {grid.errors[0]}")
    return grid


_ENVIRONMENT = {
    # The driver's own handler prints how to resume; Tune's would wait for running trials without a word.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_WARN_THRESHOLD_S": "10",
    # The points of a curve come all at once: one call takes them, instead of one each.
    "TUNE_RESULT_BUFFER_LENGTH": "1000",
    "TUNE_RESULT_BUFFER_MIN_TIME_S": "5",
    # A failed or diverged trial has no eval_loss; by default that would end Tune and with it the study.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
}
