"""Ray itself: start it here or join a cluster, with settings that suit many short trials, and say what it offers."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray._private import auto_init_hook, services
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker
from ray.util import get_node_ip_address

import rayscale
from rayscale.errors import ClusterError, InputError, first_line
from rayscale.on_ray.cluster import living_nodes
from rayscale.on_ray.session.capacity import SLOT, Capacity, find_capacity, local_capacity
from rayscale.on_ray.session.cleanup import Cleanup, cleaning_up
from rayscale.on_ray.session.cleanup_process import KEEP
from rayscale.on_ray.session.server_watch import Guard, guarding
from rayscale.system.machine import Machine, check_address, this_machine
from rayscale.system.overrides import overridden
from rayscale.system.signals import came, check, deferred, last_words

START_ATTEMPTS = 3
_OPTIONS: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": "rayscale"}
RAYLET = "rayscale-node"  # the raylet of a run's own Ray: see _unfindable


@dataclass(frozen=True)
class Session:
    """A connection to Ray."""

    machine: Machine
    capacity: Capacity
    nodes: int
    local: bool
    guard: Guard = field(default_factory=Guard)
    missing: Mapping[str, str] = field(default_factory=dict)  # variables that this Ray's processes do not have yet

    @property
    def worker_resources(self) -> dict[str, float]:
        """What one training worker asks Ray for."""
        return self.capacity.worker


def settings(hang_seconds: float) -> dict[str, str]:
    """Environment of every Ray process: quick fault detection, one thread per worker, no usage reports."""
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        # The pool finds hung workers itself and ends them faster; this is for the case that the pool is gone.
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": str(int(hang_seconds + 60)),
        # The pool watches over starting lanes; waiting for slots that another job holds is no fault of theirs.
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(10**9),
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
def connect(address: str, accelerator: str, hang_seconds: float, trials_per_gpu: int = 1) -> Iterator[Session]:
    """Start a local Ray (`address` local) or join a cluster (auto, HOST:PORT); leave it at the end.

    Where this process has joined a Ray before, that one is used, and left as it is. Raises InputError for what is no
    address, ClusterError when Ray cannot be started or reached.
    """
    check_address(address)
    for name in ("ray", "ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what goes wrong there reaches the driver as an error
    join = _callers if ray.is_initialized() else _local if address == "local" else _joined
    # Also with log_to_driver=False Ray prints on stdout that a worker died; the run's events say it, with the reason.
    silent = overridden(ray_worker, print_to_stdstream=lambda *_, **__: None)
    with silent, join(address, (accelerator, trials_per_gpu), hang_seconds) as session:
        yield session


@contextmanager
def _local(address: str, wanted: tuple[str, int], hang_seconds: float) -> Iterator[Session]:
    with cleaning_up(last_words()) as cleanup:
        folder = cleanup.folder
        # Without .pyc files every Ray process would compile its imports anew, at 2.6 times the cost.
        ours = {**settings(hang_seconds), **cleanup.environment, "PYTHONDONTWRITEBYTECODE": None}
        try:
            with environment(ours), _shut_down():
                with _undisturbed(), _unfindable(folder):
                    session = _start(wanted, cleanup)
                with guarding(_dead_server, cleanup) as guard:
                    yield replace(session, guard=guard)
        except ClusterError as error:
            if error.code in ("ray_start", "ray_died"):
                Path(folder, KEEP).touch()
                error.message += f"; Ray's logs are in {folder}/session_latest/logs"
            raise


def _unfindable(folder: str) -> AbstractContextManager[None]:
    """Within, Ray starts its raylet under another name: whoever asks for address="auto" on this machine looks for
    processes named raylet, and would join a Ray that is this run's alone."""
    alias = Path(folder, RAYLET)
    if not alias.is_symlink():
        alias.symlink_to(services.RAYLET_EXECUTABLE)
    return overridden(services, RAYLET_EXECUTABLE=str(alias))


@contextmanager
def _callers(address: str, wanted: tuple[str, int], hang_seconds: float) -> Iterator[Session]:
    """The Ray that the caller's process has joined before, such as by `ray.init()` in a notebook: used, and left up."""
    there = ray.get_runtime_context().gcs_address
    if address not in ("local", "auto") and not is_same(address, there):
        text = f"this process has joined the Ray at {there}; call ray.shutdown() first, or leave the address out"
        raise InputError(text, code="usage", where="address")
    yield Session(*find_capacity(there, *wanted), len(living_nodes()), False, missing=settings(hang_seconds))


def is_same(address: str, there: str) -> bool:
    """Whether HOST:PORT is the address of the Ray at `there`, by whatever name of its host."""
    (host, _, port), (other, _, other_port) = address.removeprefix("ray://").rpartition(":"), there.rpartition(":")
    if host == other or port != other_port:
        return port == other_port
    try:
        names = {str(entry[4][0]) for entry in socket.getaddrinfo(host.strip("[]"), None)}
    except OSError:
        return False
    loopback = {"localhost", "127.0.0.1", "::1"}
    return other in names or bool(names & loopback and other in {*loopback, get_node_ip_address()})


@contextmanager
def _joined(address: str, wanted: tuple[str, int], hang_seconds: float) -> Iterator[Session]:
    with _shut_down():
        with _undisturbed():
            _knock(address)
            workers: dict[str, Any] = {"env_vars": settings(hang_seconds)}
            if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:  # a submitted job has brought a rayscale of its own
                workers["py_modules"] = [str(Path(rayscale.__file__).parent)]
            try:
                ray.init(address=address, runtime_env=workers, **_OPTIONS)
            except (RuntimeError, OSError, ValueError, TimeoutError, ConnectionError, ray.exceptions.RayError) as error:
                raise _unreachable(address, error) from error
            session = Session(*find_capacity(address, *wanted), len(living_nodes()), False)
        yield session


def _dead_server() -> str | None:
    """What this process started as Ray's servers and has ended, and how."""
    node: Any = ray_worker._global_node
    for kind, process in node.dead_processes():
        code = process.returncode
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"Ray's {kind} on this machine died ({how}); if memory ran out (see `dmesg`), use smaller models"
    return None


@contextmanager
def _shut_down() -> Iterator[None]:
    try:
        yield
    except BaseException:
        # Tune's thread may still call Ray while this process ends; that must not start another Ray. The variable
        # RAY_ENABLE_AUTO_CONNECT would be read at import only.
        auto_init_hook.enable_auto_connect = False
        raise
    finally:
        with deferred():
            ray.shutdown()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals wait until `ray.init` has ended: interrupted it leaves processes behind, or crashes at exit."""
    # Ray's own handler of SIGTERM would take the place of the user's.
    with overridden(ray_utils, set_sigterm_handler=lambda handler: None), deferred():
        yield
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


def _start(wanted: tuple[str, int], cleanup: Cleanup) -> Session:
    machine = this_machine(*wanted)
    slots = {} if machine.device == "cuda" else {SLOT: machine.slots}
    offered: dict[str, Any] = {"num_cpus": max(2, os.cpu_count() or 1), "num_gpus": machine.gpus, "resources": slots}
    for attempt in range(START_ATTEMPTS):
        try:
            ray.init(address="local", **offered, include_dashboard=False, _temp_dir=cleanup.folder, **_OPTIONS)
            break
        except Exception as error:  # Ray raises Exception itself too, such as for a machine so busy that 30 s pass
            if attempt + 1 < START_ATTEMPTS and "timed out" in str(error) and not came():
                ray.shutdown()
                cleanup.kill()
                continue
            text = f"Ray could not start on this machine: {first_line(error)}"
            raise ClusterError(text, code="ray_start") from error
    return Session(machine, local_capacity(machine), 1, True)


def _knock(address: str) -> None:
    """Raise ClusterError if nobody listens at HOST:PORT: Ray itself would try for minutes, and then abort."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise _unreachable(address, error) from None


def _unreachable(address: str, error: Exception) -> ClusterError:
    fix = "check `ray status` there, and RAY_AUTH_TOKEN if it wants a token"
    return ClusterError(f"no Ray cluster at {address}: {first_line(error)}", fix=fix, code="cluster_unreachable")
