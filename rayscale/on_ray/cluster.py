"""What Ray knows of its cluster: the nodes that live, tasks on one of them, the tables of its head."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def living_nodes(resource: str | None = None) -> list[dict[str, Any]]:
    """Ray's entries of the nodes that live, or of those among them that have a resource."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return [node for node in nodes if resource is None or node["Resources"].get(resource)]


def on_node(node_id: str | None = None) -> Any:
    """The scheduling strategy of what must run on this node; None: the node of this process."""
    return NodeAffinitySchedulingStrategy(node_id or ray.get_runtime_context().get_node_id(), soft=False)


def run_on(node_id: str, function: Callable[..., Any], *values: Any, retries: int = 3) -> Any:
    """Begin `function(*values)` on this node, by a task that asks for no CPU; the answer's ObjectRef.

    `retries`: how often it is begun again where its node or its worker is lost.
    """
    return _task(function).options(scheduling_strategy=on_node(node_id), max_retries=retries).remote(*values)


@cache
def _task(function: Callable[..., Any]) -> Any:
    """One for each function: Ray sends the code of a task once."""
    return ray.remote(num_cpus=0)(function)


def head_table(kind: str, *which: Any, **options: Any) -> list[Any]:
    """The rows of the head's table of this kind: PlacementGroup, Actor or Job."""
    from ray._private.state import state
    from ray.core.generated import gcs_pb2

    getters = {"PlacementGroup": "get_placement_group_table", "Actor": "get_actor_table", "Job": "get_job_table"}
    contents = getattr(state._connect_and_get_accessor(), getters[kind])(*which, **options)
    return [getattr(gcs_pb2, f"{kind}TableData").FromString(content) for content in contents]
