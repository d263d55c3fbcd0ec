"""What chaos_real.py kills, and where it finds it: processes by a mark in their environment, nodes by their cluster."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import psutil

from rayscale.on_ray.session import cleanup

MARK = "RAYSCALE_CHAOS_MARK"
END_SECONDS = 60  # for a driver whose Ray has died, or that is asked to stop
LOOK_SECONDS = 0.05
DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG
QUICK = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_failure_threshold": 3}


class Nodes:
    """A cluster on this machine: a head without slots, where the driver runs, and two nodes with one slot each."""

    def __init__(self, folder: str, environment: Mapping[str, str]) -> None:
        from ray.cluster_utils import Cluster

        self._shared = {"num_cpus": 2, "temp_dir": folder, "env_vars": dict(environment)}
        head = {**self._shared, "include_dashboard": False, "_system_config": QUICK}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self._add(), self._add()]
        self.cluster.wait_for_nodes()

    def _add(self) -> Any:
        return self.cluster.add_node(**self._shared, resources={"slot": 1})

    def lose(self, number: int) -> None:
        """Kill all processes of a node at once, and let a new one join in its place."""
        self.cluster.remove_node(self.nodes[number], allow_graceful=False)
        self.nodes[number] = self._add()


class Driver:
    """A command from its start to its end; what it prints is added to the file `told`."""

    def __init__(self, words: list[str], told: Path) -> None:
        self.told = told
        self._printed = told.stat().st_size if told.exists() else 0
        with told.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rayscale", *words],
                start_new_session=True, preexec_fn=_die_with_parent,
                stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            )  # fmt: skip

    @property
    def ended(self) -> bool:
        """Whether it has ended; it may have been waited for or not."""
        return self.process.poll() is not None

    def check(self, *codes: int) -> None:
        """Raise RuntimeError unless it has ended with one of these exit codes."""
        if self.process.returncode not in codes:
            text = self.told.read_bytes()[self._printed :].decode(errors="replace")[-4000:]
            raise RuntimeError(f"a driver ended with {self.process.returncode}, not {codes}; it told:\n{text}")

    def stop(self) -> None:
        """Ask it to end, and see that it does."""
        if not self.ended:
            self.process.terminate()
            try:
                self.process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def forget_logs(self) -> None:
        """Delete what Ray's death left for people to read."""
        text = self.told.read_bytes()[self._printed :].decode(errors="replace")
        for folder in set(re.findall(r"Ray's logs are in (\S+)/session_latest", text.replace("\n", ""))):
            shutil.rmtree(folder, ignore_errors=True)


def processes() -> dict[int, str]:
    """The processes that inherited this one's mark: their command lines by number."""
    running = psutil.process_iter(["environ", "cmdline"])
    ours = (process for process in running if (process.info["environ"] or {}).get(MARK) == os.environ[MARK])
    return {process.pid: " ".join(process.info["cmdline"] or ()) for process in ours}


def strike(fault: str, driver: Driver, nodes: Nodes | None, chance: Random) -> dict[str, Any] | None:
    """Kill what `fault` names, as soon as it is there; `at` (Unix time) and what it was. None if the driver ended."""
    if fault == "driver":
        at = time.time()
        driver.process.kill()
        driver.process.wait()
        return {"at": at} if driver.process.returncode == -signal.SIGKILL else None
    if fault == "node":
        assert nodes is not None
        number, at = chance.randrange(len(nodes.nodes)), time.time()
        nodes.lose(number)
        return {"at": at, "node": number}
    wanted = {"rank": _workers, "lane": _lane, "gcs": _gcs}[fault]
    while not driver.ended:
        if victims := wanted(processes(), chance):
            at = time.time()
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            return {"at": at, "processes": len(victims)}
        time.sleep(LOOK_SECONDS)
    return None


def _named(found: Mapping[int, str], name: str) -> list[int]:
    return sorted(pid for pid, words in found.items() if words.startswith(name))


def _workers(found: Mapping[int, str], chance: Random) -> list[int]:
    ranks = _named(found, "ray::RayTrainWorker")
    return [chance.choice(ranks)] if ranks else []


def _lane(found: Mapping[int, str], chance: Random) -> list[int]:
    """The trainer of a lane; its workers too, where it is known that they are its own: there is no other lane."""
    trainers = _named(found, "ray::TrainController")
    if len(trainers) == 1:
        return [*_named(found, "ray::RayTrainWorker"), *trainers]
    return [chance.choice(trainers)] if trainers else []


def _gcs(found: Mapping[int, str], chance: Random) -> list[int]:
    return [pid for pid, words in found.items() if words.split(" ")[0].endswith("/gcs_server")]


@contextmanager
def cluster() -> Iterator[Nodes]:
    """A cluster whose processes go at the end, however this process ends."""
    with cleanup.cleaning_up("the cluster of chaos.py has gone with it") as its:
        found = Nodes(its.folder, its.environment)
        try:
            yield found
        finally:
            found.cluster.shutdown()


def until(reached: Callable[[], bool], driver: Driver, seconds: float) -> bool:
    """Wait for something; False if the driver ends first. Raises RuntimeError if it takes too long."""
    give_up = time.monotonic() + seconds
    while not reached():
        if driver.ended:
            return False
        if time.monotonic() > give_up:
            raise RuntimeError(f"nothing new in {seconds:.0f} s; what the driver told is in {driver.told}")
        time.sleep(LOOK_SECONDS)
    return True


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(DIES_WITH_PARENT, signal.SIGKILL)
