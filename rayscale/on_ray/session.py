"""Ray itself: start it here or join a cluster, with settings that suit many short trials, and say what it offers."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import ray
from ray._private import auto_init_hook
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker

import rayscale
from rayscale.errors import ClusterError
from rayscale.machine import Machine, cpu_name, physical_cores, this_machine
from rayscale.on_ray.reaper import reaping
from rayscale.signals import came, check, deferred

SLOT = "slot"  # custom resource: one one-thread worker on a machine without GPUs


@dataclass(frozen=True)
class Session:
    """A connection to Ray. `worker_resources` is what one training worker asks for."""

    machine: Machine
    worker_resources: dict[str, float]
    nodes: int
    local: bool


def settings(hang_seconds: float) -> dict[str, str]:
    """Environment of every Ray process: quick fault detection, one thread per worker, no usage reports."""
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        # The pool finds hung workers itself and ends them faster; this is for the case that the pool is gone.
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": str(int(hang_seconds + 60)),
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
        "RAY_TRAIN_METRICS_ENABLED": "0",
        # Both would let a parquet file run code while it is read.
        "RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA": "0",
        "RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Lanes hold few CPUs and several processes; by default the raylet warns of that on the terminal.
        "RAY_worker_maximum_startup_concurrency": "8",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


@contextmanager
def connect(address: str, accelerator: str, hang_seconds: float) -> Iterator[Session]:
    """Start a local Ray (`address` local) or join a cluster (auto, HOST:PORT); leave it at the end.

    Raises ClusterError when Ray cannot be started or reached.
    """
    local = address == "local"
    for name in ("ray", "ray.data", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Also with log_to_driver=False Ray prints on stdout that a worker died; the run's events say it, with the reason.
    ray_worker.print_to_stdstream = lambda *told, **how: None
    ours_alone: AbstractContextManager[dict[str, str]] = reaping() if local else nullcontext({})
    with ours_alone as mark:
        # Without .pyc files every Ray process would compile its imports anew, at 2.6 times the cost.
        ours: dict[str, str | None] = (
            {**settings(hang_seconds), **mark, "PYTHONDONTWRITEBYTECODE": None} if local else {}
        )
        with environment(ours):
            try:
                with _undisturbed():
                    session = _start(accelerator) if local else _join(address, accelerator, hang_seconds)
                yield session
            except BaseException:
                # Tune's thread may still call Ray while this process ends; that must not start another Ray. The
                # variable RAY_ENABLE_AUTO_CONNECT would be read at import only.
                auto_init_hook.enable_auto_connect = False
                raise
            finally:
                with deferred():
                    ray.shutdown()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals wait until `ray.init` has ended: interrupted it leaves processes behind, or crashes at exit."""
    takes = ray_utils.set_sigterm_handler
    ray_utils.set_sigterm_handler = lambda handler: None  # else Ray's own would stand in place of the user's
    try:
        with deferred():
            yield
    finally:
        ray_utils.set_sigterm_handler = takes
        if came():
            signal.alarm(0)  # Ray's C++ handler has set a clock that aborts the process in 3 s
    check()


@contextmanager
def environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables (None takes one away) and put back what was there."""
    before = {name: os.environ.get(name) for name in values}
    _put(values)
    try:
        yield
    finally:
        _put(before)


def _put(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _start(accelerator: str) -> Session:
    machine = this_machine(accelerator)
    gpu = machine.device == "cuda"
    try:
        ray.init(
            address="local",
            num_cpus=max(2, os.cpu_count() or 1),
            num_gpus=machine.slots if gpu else 0,
            resources={} if gpu else {SLOT: machine.slots},
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            namespace="rayscale",
        )
    except (RuntimeError, OSError, ValueError, TimeoutError) as error:
        raise ClusterError(f"Ray could not start on this machine: {error}", code="ray_start") from error
    return Session(machine, {"CPU": 0, "GPU": 1} if gpu else {"CPU": 0, SLOT: 1}, 1, True)


def _knock(address: str) -> None:
    """Raise ClusterError if nobody listens at HOST:PORT: Ray itself would try for minutes, and then abort."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise _unreachable(address, error) from None


def _unreachable(address: str, error: Exception) -> ClusterError:
    reason = str(error).splitlines()[0]
    text = f"no Ray cluster at {address}: {reason}; check `ray status` there, and RAY_AUTH_TOKEN if it wants a token"
    return ClusterError(text, code="cluster_unreachable")


def _join(address: str, accelerator: str, hang_seconds: float) -> Session:
    _knock(address)
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            namespace="rayscale",
            runtime_env={"env_vars": settings(hang_seconds), **_code()},
        )
    except (RuntimeError, OSError, ValueError, TimeoutError, ConnectionError, ray.exceptions.RayError) as error:
        raise _unreachable(address, error) from error
    resources = ray.cluster_resources()
    nodes = sum(1 for node in ray.nodes() if node["Alive"])
    gpus = int(resources.get("GPU", 0))
    if accelerator != "cpu" and (gpus or accelerator == "gpu"):
        name = next((key.split(":", 1)[1] for key in resources if key.startswith("accelerator_type:")), "GPU")
        return Session(Machine("cuda", gpus, name, f"the cluster at {address}"), {"CPU": 0, "GPU": 1}, nodes, False)
    if SLOT in resources:
        slots, worker = int(resources[SLOT]), {"CPU": 0.0, SLOT: 1.0}
    else:
        slots, per_slot = _measure_slots()
        worker = {"CPU": 0.9 * per_slot}  # a little stays for Tune's own actors; the pool counts the slots
    return Session(Machine("cpu", slots, cpu_name(), f"the cluster at {address}"), worker, nodes, False)


def _code() -> dict[str, list[str]]:
    """The rayscale that runs here, for the cluster's workers; a submitted job has brought its own."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return {}
    return {"py_modules": [str(Path(rayscale.__file__).parent)]}


def _measure_slots() -> tuple[int, float]:
    """Slots of a cluster whose nodes declare none: physical cores, each worth its share of the node's CPUs."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    ask = ray.remote(num_cpus=0)(physical_cores)
    found = ray.get(
        [
            ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
            for node in nodes
        ]
    )
    per_slot = max((max(1.0, node["Resources"]["CPU"] / cores) for node, cores in zip(nodes, found, strict=True)),
                   default=1.0)  # fmt: skip
    return sum(int(node["Resources"]["CPU"] // per_slot) for node in nodes), per_slot
