"""Lanes on Ray: one TorchTrainer that stays up, whose workers ask the pool for trials and train them together.

Ray Train V2 starts a fresh set of processes for every `TorchTrainer.fit()`, each importing torch: 17-60 s a trial on
two cores. A lane pays that once.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray

from rayscale.errors import describe
from rayscale.on_ray.parcels import Parcel, read_files, unwrap
from rayscale.on_ray.place import place
from rayscale.on_ray.pool import Cell, LanePool
from rayscale.trial import Trial

RESTARTS_PER_LANE = 20  # a trial has its own, smaller limit; this one ends a lane whose machine is broken


@dataclass(frozen=True)
class LaneSettings:
    """What every lane of a run shares. `worker_resources` is what one worker asks Ray for."""

    worker_resources: Mapping[str, float]
    device: str
    hang_seconds: float
    keep: str


@dataclass(frozen=True)
class Handed:
    """What a lane's workers get for one trial: the trial as plain values, and the folders that it reads."""

    trial: Mapping[str, Any]
    prepared: Parcel
    checkpoint: Parcel | None


def open_host() -> Any:
    """Start the actor in which all lanes' trainers wait; it imports torch once, while the text is prepared."""
    host: Any = ray.remote(_TrainerHost)
    host = host.options(num_cpus=0, max_concurrency=1000).remote()
    host.warm_up.remote()
    return host


def open_pool(
    cells: Sequence[Cell], slots: int, retries: int, trials_per_lane: int | None, settings: LaneSettings, host: Any
) -> Any:
    """Start the pool's actor; returns its handle. It and all lanes end with the driver."""
    actor = ray.remote(_PoolActor).options(num_cpus=0, max_concurrency=10_000)
    return actor.remote(list(cells), slots, retries, trials_per_lane, settings, host)


class _PoolActor(LanePool):
    def __init__(
        self,
        cells: list[Cell],
        slots: int,
        retries: int,
        trials_per_lane: int | None,
        settings: LaneSettings,
        host: Any,
    ) -> None:
        super().__init__(cells, slots, retries, trials_per_lane, self._start_lane)
        self.settings, self.host = settings, host
        self.watches: set[Any] = set()

    def _start_lane(self, pool: LanePool, lane_id: int, size: int) -> None:
        import asyncio

        handle = ray.get_runtime_context().current_actor

        async def watch() -> None:
            try:
                error = await self.host.run.remote(handle, lane_id, size, self.settings)
            except ray.exceptions.RayError as failure:
                error = str(failure).splitlines()[0]
            await self.lane_ended(lane_id, error)

        task = asyncio.get_running_loop().create_task(watch())
        self.watches.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self.watches.discard)


class _TrainerHost:
    """Waits in one TorchTrainer.fit() per lane, a thread each."""

    def warm_up(self) -> None:
        """Import what every lane needs."""
        import ray.train.torch  # noqa: F401

    def run(self, pool: Any, lane_id: int, size: int, settings: LaneSettings) -> str | None:
        """Serve until the pool closes the lane; returns the error it ended with, if any."""
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        cuda = settings.device == "cuda"
        with tempfile.TemporaryDirectory(prefix="rayscale-lane-") as scratch:
            trainer = TorchTrainer(
                serve_trials,
                train_loop_config={"pool": pool, "lane_id": lane_id, "settings": settings},
                scaling_config=ScalingConfig(
                    num_workers=size, use_gpu=cuda, resources_per_worker=dict(settings.worker_resources)
                ),
                run_config=RunConfig(
                    name=f"lane-{lane_id}",
                    storage_path=scratch,
                    # Train V2's own class at run time; its types still show the one before.
                    failure_config=FailureConfig(max_failures=RESTARTS_PER_LANE, controller_failure_limit=3),  # type: ignore[call-arg]
                ),
                torch_config=TorchConfig(
                    backend="nccl" if cuda else "gloo", timeout_s=max(1, round(settings.hang_seconds))
                ),
            )
            try:
                trainer.fit()
            except Exception as error:  # any failure of a lane is the pool's to judge, also Ray's own types
                return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        return None


def serve_trials(config: dict[str, Any]) -> None:
    """The train loop of every worker of a lane: ask, set up, train together; rank 0 reports."""
    import torch.distributed as dist
    from ray.train import get_context
    from ray.train.torch import get_device

    context = get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    worker = _Worker(config["pool"], config["lane_id"], config["settings"], rank, size, str(get_device()))
    name = [uuid.uuid4().hex]
    if size > 1:
        dist.broadcast_object_list(name, src=0)
    seen = 0
    while (handed := ray.get(worker.pool.next_trial.remote(worker.lane_id, name[0], rank, seen))) is not None:
        seen = handed[0]
        worker.serve(seen, handed[1])


class _Worker:
    def __init__(self, pool: Any, lane_id: int, settings: LaneSettings, rank: int, size: int, device: str) -> None:
        # Imported before the first trial, so that no trial's time holds an import.
        from rayscale.nn import train

        self.train = train
        self.pool, self.lane_id, self.settings = pool, lane_id, settings
        self.rank, self.size, self.device = rank, size, device

    def serve(self, serial: int, handed: Handed) -> None:
        from rayscale.text.prepared import Prepared

        trial = Trial.from_json(handed.trial)
        error = prepared = checkpoint = None
        try:
            prepared = Prepared.open(unwrap(handed.prepared))
            checkpoint = str(unwrap(handed.checkpoint)) if handed.checkpoint else None
        except Exception as failure:  # becomes the trial's reason
            error = describe(failure)
        if not ray.get(self.pool.ready.remote(self.lane_id, serial, self.rank, error)):
            return
        try:
            outcome = self._train(serial, trial, prepared, checkpoint)
        except Exception as failure:  # becomes the trial's reason; other trials go on
            # Other ranks may wait for this one in a collective, and a CUDA context is broken for good after an error:
            # only new processes are safe then.
            restart = self.size > 1 or "CUDA" in str(failure)
            ray.get(self.pool.fail.remote(self.lane_id, serial, describe(failure), restart))
            if restart:
                raise
            return
        if self.rank == 0:
            ray.get(self.pool.finish.remote(self.lane_id, serial, outcome))

    def _train(self, serial: int, trial: Trial, prepared: Any, checkpoint: str | None) -> dict[str, Any]:
        def progress(told: dict[str, Any]) -> None:
            if self.rank == 0:
                self.pool.progress.remote(self.lane_id, serial, told)

        started = datetime.now(UTC)
        with tempfile.TemporaryDirectory(prefix="rayscale-model-") as scratch:
            kept = Path(scratch) / "model" if self.settings.keep != "none" and self.rank == 0 else None
            measured = self.train.train_trial(
                trial, prepared, checkpoint=checkpoint, rank=self.rank, world_size=self.size, device=self.device,
                progress=progress, save_to=kept,
            )  # fmt: skip
            model = ray.put(read_files(kept)) if kept is not None and kept.is_dir() else None
        return {
            "status": measured["status"],
            "measured": {**measured, **place(started, self.size)},
            "model": [model] if model else [],
        }
