"""What a cluster offers to trials: which resource counts, how much of it one worker takes, how many workers fit."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray

from rayscale.on_ray.cluster import living_nodes, run_on
from rayscale.system.machine import Machine, cpu_name, gpu_bytes, physical_cores

SLOT = "slot"  # custom resource: one one-thread worker on a machine without GPUs
UNITS = 10_000  # in which Ray counts a resource
ANSWER_SECONDS = 30.0  # that a node may take to tell the memory of its GPUs
MOST = 1024  # slots of an autoscaler without a limit


@dataclass(frozen=True)
class Capacity:
    """One worker takes `amount` of `resource` (GPU, slot or CPU), or `sharing` workers do together; it asks Ray for
    `worker`."""

    resource: str
    amount: float
    worker: dict[str, float]
    sharing: int = 1

    def slots(self) -> int:
        """How many workers fit on the nodes that live, or on those that the autoscaler may have, if these are more."""
        return max(sum(self.fit(node["Resources"]) for node in living_nodes()), self.most())

    def most(self) -> int:
        """How many workers fit on the nodes that the autoscaler may have; 0 where there is none (of version 2)."""
        from ray._private.state import state

        config = state.get_cluster_config()
        slots = 0
        for group in config.node_group_configs if config is not None else ():
            fit = self.fit(group.resources)
            slots += MOST if fit and group.max_count < 0 else fit * group.max_count
        if slots and self.resource in config.max_resources:
            slots = min(slots, self.fit(config.max_resources))
        return min(slots, MOST)

    def fit(self, node: Any) -> int:
        """How many workers fit on a node with these resources."""
        return int(node.get(self.resource, 0) // self.amount) * self.sharing


def local_capacity(machine: Machine) -> Capacity:
    """A Ray of our own, which was started with as many slots as the machine has."""
    return _of_gpus(machine.trials_per_gpu) if machine.device == "cuda" else Capacity(SLOT, 1, {"CPU": 0, SLOT: 1})


def find_capacity(address: str, accelerator: str, trials_per_gpu: int = 1) -> tuple[Machine, Capacity]:
    """What the cluster that this process has joined offers; `accelerator` is auto, gpu or cpu."""
    resources = ray.cluster_resources()
    gpu = _of_gpus(trials_per_gpu)
    on_gpus = accelerator == "gpu" or (accelerator == "auto" and gpu.slots() > 0)
    capacity = gpu if on_gpus else _of_cpus(resources)
    most = capacity.most()
    origin = f"the cluster at {address}" + (f" with all {most} that its autoscaler may start" if most else "")
    if not on_gpus:
        return Machine("cpu", capacity.slots(), cpu_name(), origin), capacity
    name = next((key.split(":", 1)[1] for key in resources if key.startswith("accelerator_type:")), "GPU")
    return Machine("cuda", capacity.slots(), name, origin, trials_per_gpu, _smallest_gpu()), capacity


def _of_gpus(trials_per_gpu: int) -> Capacity:
    """Workers of which so many share a GPU. Ray rounds to its units: six sixths would be more than 1."""
    share = UNITS // trials_per_gpu / UNITS if trials_per_gpu > 1 else 1
    return Capacity("GPU", 1, {"CPU": 0, "GPU": share}, trials_per_gpu)


def _of_cpus(resources: dict[str, float]) -> Capacity:
    """One-thread workers: as many as the nodes declare slots, else as they have physical cores."""
    if SLOT in resources:
        return Capacity(SLOT, 1, {"CPU": 0.0, SLOT: 1.0})
    nodes = living_nodes("CPU")
    cores = ray.get([run_on(node["NodeID"], physical_cores) for node in nodes])
    # How many CPUs, as Ray counts them, make one physical core; the most of all nodes.
    per_slot = max([1.0, *(node["Resources"]["CPU"] / number for node, number in zip(nodes, cores, strict=True))])
    return Capacity("CPU", per_slot, {"CPU": 0.9 * per_slot})  # a little stays for Tune's own actors


def _smallest_gpu() -> int | None:
    """Bytes of the smallest GPU; None where no node tells, such as before an autoscaler has started one.

    Nothing but advice depends on it, so that a node which does not answer is left out, not waited for.
    """
    answers = [run_on(node["NodeID"], gpu_bytes) for node in living_nodes("GPU")]
    sizes = []
    for answer in ray.wait(answers, num_returns=len(answers), timeout=ANSWER_SECONDS)[0] if answers else ():
        with suppress(ray.exceptions.RayError):
            sizes.append(ray.get(answer))
    return min((size for size in sizes if size), default=None)
