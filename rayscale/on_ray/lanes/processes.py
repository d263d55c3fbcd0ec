"""The worker processes of lanes, and what Ray Train leaves behind of them."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray

from rayscale.on_ray.cluster import head_table, run_on


@dataclass(frozen=True)
class Member:
    """A worker process of a lane: its actor, and where it runs."""

    actor: Any
    node_id: str
    pid: int
    host: str

    @classmethod
    def here(cls) -> Member:
        """This process."""
        context = ray.get_runtime_context()
        return cls(context.current_actor, context.get_node_id(), os.getpid(), socket.gethostname())


def kill_workers(workers: Sequence[Member]) -> None:
    """End processes with SIGKILL: Ray's own way asks them first, and takes half a minute for one that is stopped."""
    for worker in workers:
        _kill(worker.node_id, worker.pid)


def _kill(node_id: str, pid: int) -> None:
    if node_id == ray.get_runtime_context().get_node_id():
        _end_process(pid)
    else:
        run_on(node_id, _end_process, pid, retries=0)  # later, the number may be that of another process


def _end_process(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_strays(known: Sequence[Member], seconds: float) -> None:
    """End Train's workers of this job that were started so long ago and have joined no lane."""
    from ray._private.state import actors

    pids, now = {(worker.node_id, worker.pid) for worker in known}, time.time()
    job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
    for actor in actors(job_id=job, actor_state_name="ALIVE").values():
        place = (actor["Address"]["NodeID"], actor["Pid"])
        old = now - actor["StartTime"] / 1000 > seconds
        if actor["ActorClassName"] == "RayTrainWorker" and old and place not in pids:
            _kill(*place)


def end_actor(actor_id: str) -> None:
    """End the process of an actor of this job by its id; nothing if it is gone."""
    from ray._private.state import actors

    actor = actors(actor_id=actor_id)
    if actor and actor.get("State") == "ALIVE":
        _kill(actor["Address"]["NodeID"], actor["Pid"])


def remove_left_groups() -> None:
    """Remove placement groups of this job whose trainer has died: they would hold their slots until the job ends.

    Train's own cleaner asks the dashboard whether the trainer lives, and waits for ever where there is none. Groups
    that the driver made, such as Tune's, have no actor as their maker and stay.
    """
    from ray._private.state import state
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
    alive = state.actor_table(actor_id=None, job_id=job, actor_state_name="ALIVE")
    driver = ray.ActorID.nil().binary()
    for group in head_table("PlacementGroup"):
        ours = group.creator_job_id == job.binary() and group.state != group.REMOVED
        if ours and group.creator_actor_id != driver and group.creator_actor_id.hex() not in alive:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
