"""What a cluster offers to trials: which resource counts, how much of it one worker takes, how many workers fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray

from rayscale.system.machine import Machine, cpu_name, gpu_bytes, physical_cores

SLOT = "slot"  # custom resource: one one-thread worker on a machine without GPUs
UNITS = 10_000  # in which Ray counts a resource
ANSWER_SECONDS = 30.0  # that a node may take to tell the memory of its GPUs
MOST = 1024  # slots of an autoscaler without a limit


@dataclass(frozen=True)
class Capacity:
    """One worker takes `each` of `resource` (GPU, slot or CPU), or `sharing` workers do together; it asks Ray for
    `worker`."""

    resource: str
    each: float
    worker: dict[str, float]
    sharing: int = 1

    def slots(self) -> int:
        """How many workers fit on the nodes that live, or on those that the autoscaler may have, if these are more."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return max(sum(self.fit(node) for node in nodes), self.most())

    def most(self) -> int:
        """How many workers fit on the nodes that the autoscaler may have; 0 where there is none (of version 2)."""
        from ray._private.state import state

        config = state.get_cluster_config()
        found = 0
        for group in config.node_group_configs if config is not None else ():
            fit = self.fit(group.resources)
            found += MOST if fit and group.max_count < 0 else fit * group.max_count
        if found and self.resource in config.max_resources:
            found = min(found, self.fit(config.max_resources))
        return min(found, MOST)

    def fit(self, node: Any) -> int:
        """How many workers fit on a node with these resources."""
        return int(node.get(self.resource, 0) // self.each) * self.sharing


def local_capacity(machine: Machine) -> Capacity:
    """A Ray of our own, which was started with as many slots as the machine has."""
    return _of_gpus(machine.trials_per_gpu) if machine.device == "cuda" else Capacity(SLOT, 1, {"CPU": 0, SLOT: 1})


def find_capacity(address: str, accelerator: str, trials_per_gpu: int = 1) -> tuple[Machine, Capacity]:
    """What the cluster that this process has joined offers; `accelerator` is auto, gpu or cpu."""
    resources = ray.cluster_resources()
    gpu = _of_gpus(trials_per_gpu)
    if accelerator == "gpu" or (accelerator == "auto" and gpu.slots()):
        found, device = gpu, "cuda"
        name = next((key.split(":", 1)[1] for key in resources if key.startswith("accelerator_type:")), "GPU")
    else:
        found, device, name = _of_cpus(resources), "cpu", cpu_name()
    most = found.most()
    origin = f"the cluster at {address}" + (f" with all {most} that its autoscaler may start" if most else "")
    if found is not gpu:
        return Machine(device, found.slots(), name, origin), found
    return Machine(device, found.slots(), name, origin, trials_per_gpu, _smallest_gpu()), found


def _of_gpus(trials_per_gpu: int) -> Capacity:
    """Workers of which so many share a GPU. Ray rounds to its units: six sixths would be more than 1."""
    share = UNITS // trials_per_gpu / UNITS if trials_per_gpu > 1 else 1
    return Capacity("GPU", 1, {"CPU": 0, "GPU": share}, trials_per_gpu)


def _of_cpus(resources: dict[str, float]) -> Capacity:
    """One-thread workers: as many as the nodes declare slots, else as they have physical cores."""
    if SLOT in resources:
        return Capacity(SLOT, 1, {"CPU": 0.0, SLOT: 1.0})
    per_slot = _cpus_a_core()
    return Capacity("CPU", per_slot, {"CPU": 0.9 * per_slot})  # a little stays for Tune's own actors


def _cpus_a_core() -> float:
    """How many CPUs, as Ray counts them, make one physical core; the most of all nodes."""
    nodes = _nodes_with("CPU")
    cores = ray.get(_ask(nodes, physical_cores))
    return max(
        (max(1.0, node["Resources"]["CPU"] / each) for node, each in zip(nodes, cores, strict=True)), default=1.0
    )


def _smallest_gpu() -> int | None:
    """Bytes of the smallest GPU; None where no node tells, such as before an autoscaler has started one.

    Nothing but advice depends on it, so that a node which does not answer is left out, not waited for.
    """
    asked, told = _ask(_nodes_with("GPU"), gpu_bytes), []
    for answer in ray.wait(asked, num_returns=len(asked), timeout=ANSWER_SECONDS)[0] if asked else ():
        with suppress(ray.exceptions.RayError):
            told.append(ray.get(answer))
    return min((each for each in told if each), default=None)


def _nodes_with(resource: str) -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get(resource)]


def _ask(nodes: Sequence[dict[str, Any]], question: Callable[[], Any]) -> list[Any]:
    """The answers to come of these nodes, in their order."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0)(question)
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    return [ask.options(scheduling_strategy=each).remote() for each in there]
