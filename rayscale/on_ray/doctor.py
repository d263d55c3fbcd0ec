"""Findings about a cluster: whether it can be reached, what its nodes offer, whether they agree with this machine."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayscale.errors import ClusterError
from rayscale.system.doctor import Finding
from rayscale.system.machine import GIGA, Machine, installed, nearest_folder
from rayscale.system.storage import Store

if TYPE_CHECKING:
    from rayscale.study.study import Study

ANSWER_SECONDS = 60.0
PACKAGES = ("python", "ray", "torch", "transformers", "tokenizers", "numpy", "pyarrow")
#: A clock off by more makes times of records wrong; by much more, leases too.
CLOCK_WARN_SECONDS, CLOCK_FAIL_SECONDS = 2.0, 60.0


@dataclass(frozen=True)
class NodeReport:
    """What a node says of itself. `clock_seconds` is how much later its clock is than ours, give or take half of
    `trip_seconds`; `versions` is None for a node that gave no answer."""

    name: str
    resources: Mapping[str, float]
    versions: Mapping[str, str | None] | None
    clock_seconds: float = 0.0
    trip_seconds: float = 0.0
    sees_storage: bool = True


def examine_cluster(address: str, study: Study | None) -> tuple[list[Finding], Machine | None]:
    """Connect, ask every node, and leave again; the machine is what the cluster offers, None if it gave no answer."""
    from rayscale.on_ray.session.session import connect

    run = study.run if study else None
    wanted = (run.accelerator, run.hang_seconds, run.trials_per_gpu) if run else ("auto", 60.0)
    try:
        with connect(address, *wanted) as session:
            offered = f"{session.machine.slots} slots ({session.machine.device_name}) on {session.nodes} nodes"
            finding = Finding("cluster", "ok", f"{address}: {offered}")
            if not session.machine.slots:
                finding = replace(finding, level="fail", mend="start nodes with GPUs or CPUs to offer")
            storage = Store.open(study.run.storage if study else "runs").local
            return [finding, *judge_nodes(_ask_nodes(storage), installed(PACKAGES), storage)], session.machine
    except ClusterError as error:
        return [Finding("cluster", "fail", str(error), "check `ray status` there, the address, and the token")], None


def judge_nodes(nodes: Sequence[NodeReport], ours: Mapping[str, str | None], storage: Path | None) -> Iterator[Finding]:
    """A finding for each node, and one for each thing in which it differs from this machine."""
    for node in nodes:
        offered = ", ".join(f"{amount:g} {name}" for name, amount in sorted(node.resources.items())) or "nothing"
        if node.versions is None:
            yield Finding(f"node {node.name}", "fail", f"offers {offered}, and gave no answer in {ANSWER_SECONDS:g} s",
                          "look at its raylet's log, or take it out of the cluster")  # fmt: skip
            continue
        yield Finding(f"node {node.name}", "ok", f"offers {offered}")
        other = {name: version for name, version in node.versions.items() if version != ours[name]}
        for name in other:
            # Ray itself wants one Python and one Ray on all nodes; of the rest only the numbers may differ.
            level: Any = "fail" if name in ("python", "ray") or other[name] is None else "warn"
            yield Finding(f"node {node.name} {name}", level, f"{other[name] or 'not installed'}, here {ours[name]}",
                          f"install {name} {ours[name]} there: the same lock on every node")  # fmt: skip
        off, doubt = node.clock_seconds, node.trip_seconds / 2
        if abs(off) - doubt > CLOCK_WARN_SECONDS:
            level = "fail" if abs(off) - doubt > CLOCK_FAIL_SECONDS else "warn"
            yield Finding(f"node {node.name} clock", level, f"{off:+.1f} s from this machine's",
                          "synchronise both by NTP (timedatectl set-ntp true)")  # fmt: skip
    answered = [node for node in nodes if node.versions is not None]
    if answered and storage and not all(node.sees_storage for node in answered):
        blind = ", ".join(node.name for node in answered if not node.sees_storage)
        yield Finding("storage on nodes", "warn", f"{storage} is not seen from {blind}",
                      "where checkpoints are wanted there, give run.storage on shared or object storage")  # fmt: skip


def _ask_nodes(storage: Path | None) -> list[NodeReport]:
    import ray

    from rayscale.on_ray.cluster import living_nodes, run_on

    marker = _marker(storage)
    try:
        reports = []
        for node in living_nodes():
            name, offered = str(node["NodeManagerHostname"]), _offered(node["Resources"])
            try:
                # Starts the worker, so that the next answer is quick.
                ray.get(run_on(node["NodeID"], look_around, None, retries=0), timeout=ANSWER_SECONDS)
                sent = time.time()
                answer = ray.get(run_on(node["NodeID"], look_around, marker, retries=0), timeout=ANSWER_SECONDS)
                back = time.time()
            except ray.exceptions.RayError:
                reports.append(NodeReport(name, offered, None))
                continue
            name = f"{name}:{answer['raylet']}" if name == socket.gethostname() else name
            clock = answer["time"] - (sent + back) / 2
            reports.append(NodeReport(name, offered, answer["versions"], clock, back - sent, answer["sees"]))
        return reports
    finally:
        if marker:
            marker.unlink(missing_ok=True)


def _offered(resources: Mapping[str, float]) -> dict[str, float]:
    """What a node offers, in GB where it is memory; marks of nodes and of accelerators are left out."""
    plain = {name: amount for name, amount in resources.items() if ":" not in name}
    return {name: round(amount / GIGA, 1) if "memory" in name else amount for name, amount in plain.items()}


def _marker(storage: Path | None) -> Path | None:
    """A file that nodes look for, in the nearest folder of the storage that is here."""
    if storage is None:
        return None
    marker = nearest_folder(storage) / f".rayscale-seen-{uuid.uuid4().hex}"
    try:
        marker.touch()
    except OSError:  # the storage's own finding says so
        return None
    return marker


def look_around(marker: Path | None) -> dict[str, Any]:
    """What a node says of itself: versions, time, and whether it sees a file."""
    return {
        "versions": installed(PACKAGES),
        "time": time.time(),
        "sees": marker is None or marker.exists(),
        "raylet": os.getppid(),
    }
