"""Lanes on Ray: one TorchTrainer that stays up, whose workers ask the pool for trials and train them together.

Ray Train V2 starts a fresh set of processes for every `TorchTrainer.fit()`, each importing torch: 17-60 s a trial on
two cores. A lane pays that once.
"""

from __future__ import annotations

import asyncio
import gc
import re
import socket
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from rayscale.errors import MemoryTrialError, first_line
from rayscale.on_ray.cluster import on_node
from rayscale.on_ray.data.parcels import Parcel, read_files, unwrap
from rayscale.on_ray.lanes.lane import Cell
from rayscale.on_ray.lanes.pool import LanePool
from rayscale.on_ray.lanes.processes import Member, end_actor, kill_strays, kill_workers, remove_left_groups
from rayscale.on_ray.lanes.retry import OUT_OF_MEMORY
from rayscale.on_ray.lanes.rules import START_SECONDS
from rayscale.on_ray.session.occupancy import LOOKS, Holder, look_at
from rayscale.runs.outcomes import TrialOutcome
from rayscale.runs.provenance import provenance
from rayscale.runs.savepoints import Saving
from rayscale.runs.trial import Trial
from rayscale.system.failures import Failure, describe

if TYPE_CHECKING:
    from rayscale.on_ray.data.stream import Stream
    from rayscale.on_ray.session.capacity import Capacity

RESTARTS_PER_LANE = 20  # a trial has its own, smaller limit; this one ends a lane whose machine is broken
HOST_RESTARTS = 20
PROBE_SECONDS = 1.0
TIDY_ROUNDS = 20
CLOSING_ROUNDS = 4
COLLECTIVE_SECONDS = 15.0


@dataclass(frozen=True)
class LaneSettings:
    """What every lane of a run shares.

    One worker asks Ray for `worker_resources`, among them its `share` of a GPU. Without `saving` trials are not saved.
    A collective may take `collective_seconds` longer than a rank may be silent. `capacity` is that of a cluster which
    others use too; None: all of it is this run's.
    """

    worker_resources: Mapping[str, float]
    device: str
    hang_seconds: float
    keep: str
    saving: Saving | None = None
    start_seconds: float = START_SECONDS
    collective_seconds: float = COLLECTIVE_SECONDS
    share: float = 1.0
    capacity: Capacity | None = None


@dataclass(frozen=True)
class Handed:
    """What a lane's workers get for one trial: the trial as plain values, and the folders that it reads."""

    trial: Mapping[str, Any]
    prepared: Parcel | Stream
    checkpoint: Parcel | None


def open_host(environment: Mapping[str, str]) -> Any:
    """Start the actor in which all lanes' trainers wait; it imports torch once, while the text is prepared.

    It and all that it starts have these variables: the Ray may be one that was started without them.
    """
    actor: Any = ray.remote(_TrainerHost)
    host = actor.options(
        num_cpus=0,
        max_concurrency=1000,
        max_restarts=HOST_RESTARTS,
        scheduling_strategy=on_node(),  # with the driver's node the run ends anyway
        runtime_env={"env_vars": dict(environment)} if environment else None,
    ).remote()
    host.warm_up.remote()
    return host


def open_pool(
    cells: Sequence[Cell], slots: int, retries: int, trials_per_lane: int | None, settings: LaneSettings, host: Any
) -> Any:
    """Start the pool's actor; returns its handle. It and all lanes end with the driver."""
    actor = ray.remote(_PoolActor).options(num_cpus=0, max_concurrency=10_000, scheduling_strategy=on_node())
    pool: Any = actor.remote(settings, host, list(cells), slots, retries, trials_per_lane)
    pool.watch.remote()
    return pool


def end_lanes(pool: Any, host: Any) -> None:
    """End all lanes at once, for a run that stops: a caller's Ray stays up, and they would keep its slots."""
    for actor in (pool, host):
        ray.kill(actor)
    for _ in range(CLOSING_ROUNDS):  # Ray tells late of a process that it has ended
        time.sleep(PROBE_SECONDS)
        remove_left_groups()


class _PoolActor(LanePool):
    def __init__(
        self, settings: LaneSettings, host: Any, cells: list[Cell], slots: int, retries: int, per_lane: int | None
    ) -> None:
        super().__init__(
            cells, slots, retries, per_lane, self._start_lane, share=settings.share, hang_seconds=settings.hang_seconds,
            start_seconds=settings.start_seconds, end_workers=kill_workers, end_strays=kill_strays, withdraw=end_actor,
        )  # fmt: skip
        self.settings, self.host = settings, host
        self.looks, self.holders = deque[int](maxlen=LOOKS), tuple[Holder, ...]()
        self.tasks: set[asyncio.Task[None]] = set()

    async def look(self) -> None:
        """Look at the cluster, then after the lanes."""
        if self.settings.capacity is not None:
            try:
                now = await asyncio.to_thread(look_at, self.settings.capacity, self.looks)
            except (RuntimeError, ray.exceptions.RayError):  # the head is busy; if it is gone, the guard says so
                pass
            else:
                self.holders = now.holders
                await self.resize(now.slots, now.room, now.placed)
        await super().look()

    async def snapshot(self, known_events: int = 0) -> dict[str, Any]:
        """What runs now, and who holds what this run waits for."""
        return {**await super().snapshot(known_events), "holders": self.holders}

    def _start_lane(self, lane_id: int, size: int) -> None:
        handle = ray.get_runtime_context().current_actor

        async def wait_for_its_end() -> None:
            try:
                error = await self.host.run.remote(handle, lane_id, size, self.settings)
            except ray.exceptions.RayError as failure:
                error = first_line(failure)
            if error:
                self._begin(self._tidy())
            await self.lane_ended(lane_id, error)

        self._begin(wait_for_its_end())

    async def _tidy(self) -> None:
        """A trainer has died: what it held becomes free, as soon as Ray knows of each process that it is gone."""
        for _ in range(TIDY_ROUNDS):
            remove_left_groups()
            await asyncio.sleep(PROBE_SECONDS)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self.tasks.discard)

    async def join(self, lane_id: int, group: str, rank: int, member: Member) -> None:
        """A worker is up: from now on it is asked every second whether it still answers."""
        self._begin(self._probe(lane_id, group, rank, member))

    async def _probe(self, lane_id: int, group: str, rank: int, member: Member) -> None:
        death = None
        while self.has(lane_id, group) and death is None:
            try:
                await asyncio.wait_for(_answer(member.actor), self.settings.hang_seconds)
            except TimeoutError:
                death = "hang", f"the process of {{}} does not answer since {self.settings.hang_seconds:.0f} s"
            except ray.exceptions.ActorUnavailableError:
                pass  # may come back; if not, it is said to be dead
            except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as failure:
                death = judge_death(failure)
            if death is not None:
                text = death[1].format(f"worker {rank} (pid {member.pid} on {member.host})")
                error: Failure = {"message": text, "code": death[0], "rank": rank, "host": member.host}
                await self.lose(lane_id, group, error)
            await asyncio.sleep(PROBE_SECONDS)


def judge_death(failure: Exception) -> tuple[str, str]:
    """The code of a worker's death by what Ray says of it, and the sentence for it."""
    text = str(failure)
    if isinstance(failure, ray.exceptions.OutOfMemoryError) or re.search("running low on memory|OUT_OF_MEMORY", text):
        return OUT_OF_MEMORY, "out of memory: Ray ended {}, as its node ran low"
    if "node has died" in text:
        return "node_died", "the node of {} died"
    return "worker_died", "the process of {} died"


async def _answer(actor: Any) -> None:
    await actor.__ray_ready__.remote()


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
        resources = dict(settings.worker_resources)
        timeout = settings.hang_seconds + settings.collective_seconds  # the watch speaks first: it knows which rank
        with tempfile.TemporaryDirectory(prefix="rayscale-lane-") as scratch:
            trainer = TorchTrainer(
                serve_trials,
                train_loop_config={"pool": pool, "lane_id": lane_id, "settings": settings},
                scaling_config=ScalingConfig(num_workers=size, use_gpu=cuda, resources_per_worker=resources),
                run_config=RunConfig(
                    callbacks=[_asking(pool, lane_id)],
                    name=f"lane-{lane_id}",
                    storage_path=scratch,
                    # Train V2's own class at run time; its types still show the one before.
                    failure_config=FailureConfig(max_failures=RESTARTS_PER_LANE, controller_failure_limit=3),  # type: ignore[call-arg]
                ),
                torch_config=TorchConfig(backend="nccl" if cuda else "gloo", timeout_s=round(timeout)),
            )
            try:
                trainer.fit()
            except Exception as error:  # any failure of a lane is the pool's to judge, also Ray's own types
                return f"{type(error).__name__}: {first_line(error)}"
        return None


def _asking(pool: Any, lane_id: int) -> Any:
    """Tells the pool which actor asks Ray for the places of a lane's workers, each time before it asks."""
    from ray.train.v2._internal.execution.callback import WorkerGroupCallback

    class Asking(WorkerGroupCallback):  # type: ignore[misc,unused-ignore]
        def before_worker_group_start(self, worker_group_context: Any) -> None:
            pool.place.remote(lane_id, ray.get_runtime_context().get_actor_id())

    return Asking()


def serve_trials(config: dict[str, Any]) -> None:
    """The train loop of every worker of a lane: ask, set up, train together; rank 0 reports."""
    import torch.distributed as dist
    from ray.train import get_context
    from ray.train.torch import get_device

    context = get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    worker = LaneWorker(config["pool"], config["lane_id"], config["settings"], rank, size, str(get_device()))
    name = [uuid.uuid4().hex]
    if size > 1:
        dist.broadcast_object_list(name, src=0)
    member, last = Member.here(), 0
    ray.get(worker.pool.join.remote(worker.lane_id, name[0], rank, member))
    while (handed := ray.get(worker.pool.next_trial.remote(worker.lane_id, name[0], rank, last, member))) is not None:
        last = handed[0]
        worker.serve(*handed)


class LaneWorker:
    """One rank of a lane of `size` workers; `now` is its clock."""

    _failed = False  # whether the last trial did

    def __init__(
        self, pool: Any, lane_id: int, settings: LaneSettings, rank: int, size: int, device: str,
        now: Callable[[Any], datetime] = datetime.now,
    ) -> None:  # fmt: skip
        # Imported before the first trial, so that no trial's time holds an import.
        from rayscale.nn import devices
        from rayscale.nn.training import train
        from rayscale.nn.training.kept_model import KeptModel

        gc.freeze()  # what imports made is there to stay: the end of every trial need not look for garbage in it
        self.train, self.devices = train, devices
        # A CPU reads a checkpoint, a map of its file, as fast as it copies one, and has no steps to record.
        self.kept = KeptModel() if device.startswith("cuda") else None
        self.pool, self.lane_id, self.settings = pool, lane_id, settings
        self.rank, self.size, self.device, self.now = rank, size, device, now

    def serve(self, serial: int, handed: Handed, micro_batch: int | None) -> None:
        """Train one trial together with the other ranks, `micro_batch` rows at once at most, and tell the pool."""
        from rayscale.on_ray.data.stream import open_prepared

        trial = Trial.from_json(handed.trial)
        error = prepared = checkpoint = None
        try:
            prepared = open_prepared(handed.prepared)
            checkpoint = str(unwrap(handed.checkpoint)) if handed.checkpoint else None
        except Exception as failure:  # becomes the trial's reason
            error = describe(failure)
        if not ray.get(self.pool.ready.remote(self.lane_id, serial, self.rank, error)):
            return
        try:
            outcome = self._train(serial, trial, prepared, checkpoint, micro_batch)
        except Exception as failure:  # becomes the trial's reason; other trials continue
            # Other ranks may wait for this one in a collective, and a CUDA context is broken for good after an error
            # other than a lack of memory: only new processes are safe then.
            restart = self.size > 1 or ("CUDA" in str(failure) and not self.devices.is_out_of_memory(failure))
            error = {**describe(failure), "rank": self.rank, "host": socket.gethostname()}
            ray.get(self.pool.fail.remote(self.lane_id, serial, error, restart))
            if restart:
                raise
            return
        if self.rank == 0:
            ray.get(self.pool.finish.remote(self.lane_id, serial, outcome))

    def _train(
        self, serial: int, trial: Trial, prepared: Any, checkpoint: str | None, micro_batch: int | None
    ) -> TrialOutcome:
        def progress(state: dict[str, Any]) -> None:
            self.pool.beat.remote(self.lane_id, serial, self.rank, state)

        saving = self.settings.saving and replace(self.settings.saving, say=self.pool.say.remote)
        started = self.now(UTC)
        with tempfile.TemporaryDirectory(prefix="rayscale-model-") as scratch:
            kept = Path(scratch) / "model" if self.settings.keep != "none" and self.rank == 0 else None
            measured = self.measure(
                trial, prepared, checkpoint=checkpoint, rank=self.rank, world_size=self.size, device=self.device,
                progress=progress, save_to=kept, saving=saving, micro_batch=micro_batch,
            )  # fmt: skip
            model = ray.put(read_files(kept)) if kept is not None and kept.is_dir() else None
        return {
            "status": measured["status"],
            "measured": {**measured, **provenance(started, self.now(UTC), self.size * self.settings.share)},
            "model": [model] if model else [],
        }

    def measure(self, *given: Any, **more: Any) -> dict[str, Any]:
        """What `train_trial` gives, whether or not the recordings of trials before it left memory enough for it."""
        train = partial(self.train.train_trial, *given, **more, kept=self.kept)
        held = self.kept is not None and self.kept.ready is not None
        if self._failed:
            gc.collect()  # its error held on to its model until the trial had been given up
        self._failed = True
        measured: dict[str, Any] | None = None
        try:
            measured = train()
        except MemoryTrialError:
            if not held:
                raise
        if measured is None:  # the error, which holds on to the model, is gone
            gc.collect()
            measured = train()
        self._failed = False
        return measured
