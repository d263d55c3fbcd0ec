"""What this machine offers: cores, GPUs, packages, the cache folder. Standard library only, so `plan` stays fast."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rayscale.errors import InputError

GIGA = 1e9  # bytes of a GB


@dataclass(frozen=True)
class Machine:
    """Where trials would run.

    `slots` is the number of workers that may train at once: GPUs where there are any, `trials_per_gpu` times as many
    where trials share them, else physical cores. `gpu_bytes` is the memory of the smallest GPU, None where unknown.
    """

    device: str  # "cuda" or "cpu"
    slots: int
    device_name: str
    origin: str  # "this machine" or the cluster's address
    trials_per_gpu: int = 1
    gpu_bytes: int | None = None

    @property
    def share(self) -> float:
        """What one worker takes of a GPU."""
        return 1 / self.trials_per_gpu

    @property
    def gpus(self) -> int:
        """How many there are; 0 where trials run on CPUs."""
        return self.slots // self.trials_per_gpu if self.device == "cuda" else 0


def cache_root() -> Path:
    """Folder of everything that can be made again: $RAYSCALE_CACHE, else rayscale/ below the user's cache folder."""
    if given := os.environ.get("RAYSCALE_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rayscale"


def physical_cores() -> int:
    """Physical cores this process may use: affinity and the cgroup quota respected, hyper-threads counted once."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = set()
    for cpu in allowed:
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        try:
            cores.add(tuple((topology / name).read_text() for name in ("physical_package_id", "core_id")))
        except OSError:
            cores.add((str(cpu),))
    return max(1, min(len(cores), _cgroup_cores() or len(cores)))


def _cgroup_cores() -> int | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, int(quota) // int(period))


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or less where its cgroup has a limit."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such file, or "max"
            most = min(most, int(Path("/sys/fs/cgroup", name).read_text(encoding="utf-8")))
    return most


def nearest_folder(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next((folder for folder in (path, *path.absolute().parents) if folder.is_dir()), Path("/"))


def free_bytes(folder: Path) -> int:
    """Bytes that this user may still write to the disk of a folder, which need not be there yet."""
    return shutil.disk_usage(nearest_folder(folder)).free


def nvidia_gpus() -> list[str]:
    """Names of the NVIDIA GPUs that the driver shows; empty without a driver."""
    return _ask_driver("name")


def gpu_bytes() -> int | None:
    """Memory of the smallest GPU that this process sees; None where the driver does not tell.

    GPUs that CUDA_VISIBLE_DEVICES names otherwise than by number are not told apart: the smallest of all counts.
    """
    sizes = _ask_driver("memory.total")  # in MiB; "[N/A]" where GPU and processor share one memory
    visible = [gpu.strip() for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    if all(gpu.isdigit() and int(gpu) < len(sizes) for gpu in visible):
        sizes = [sizes[int(gpu)] for gpu in visible]
    return min((int(size) * 2**20 for size in sizes if size.isdigit()), default=None)


def driver_version() -> str | None:
    """Version of the NVIDIA driver; None without one."""
    return next(iter(_ask_driver("driver_version")), None)


def _ask_driver(what: str) -> list[str]:
    """What nvidia-smi says of each GPU; empty without a driver."""
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.splitlines() if line.strip()]


def this_machine(accelerator: str = "auto", trials_per_gpu: int = 1) -> Machine:
    """The local machine as a place for trials; `accelerator` is auto, gpu or cpu."""
    gpus = nvidia_gpus() if accelerator in ("auto", "gpu") else []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:  # empty means: none
        gpus = gpus[: len([v for v in visible.split(",") if v.strip() not in ("", "-1")])]
    if gpus:
        return Machine("cuda", len(gpus) * trials_per_gpu, gpus[0], "this machine", trials_per_gpu, gpu_bytes())
    if accelerator == "gpu":
        return Machine("cuda", 0, "no GPU", "this machine", trials_per_gpu)
    return Machine("cpu", physical_cores(), cpu_name(), "this machine")


def installed(names: Iterable[str]) -> dict[str, str | None]:
    """Versions by name; None for what is not installed."""
    versions: dict[str, str | None] = {}
    for name in names:
        try:
            versions[name] = platform.python_version() if name == "python" else version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def torch_without_cuda() -> str | None:
    """The version of the installed torch if it was built for CPUs alone, as its metadata say; else None."""
    torch = installed(["torch"])["torch"]
    return torch if torch and torch.endswith("+cpu") else None


def check_address(address: str) -> None:
    """Raise InputError for what is no address of a cluster: local, auto, HOST:PORT or ray://HOST:PORT."""
    if address not in ("local", "auto") and not re.fullmatch(r"(ray://)?(\[[0-9A-Fa-f:]+\]|[^\s:/]+):\d{1,5}", address):
        text = f"found '{address}'; give local, auto or HOST:PORT, such as 10.0.0.1:6379"
        raise InputError(text, code="usage", where="--address")


def cpu_name() -> str:
    """The processor's model name as the system tells it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
