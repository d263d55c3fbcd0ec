"""Findings about devices and storage: GPUs, cores, memory, the folder that runs are written to, room on its disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rayscale.errors import InputError
from rayscale.system import disk
from rayscale.system.doctor import Finding
from rayscale.system.machine import GIGA, cpu_name, memory_bytes, nearest_folder, nvidia_gpus, physical_cores
from rayscale.system.storage import Store

# It is looked at; nothing is written there.
SHARED = Path("/dev/shm")  # nosec B108
LEAST_MEMORY = 4e9
#: Ray's object store takes 30% of memory but no more than /dev/shm; below this it falls back to files.
LEAST_SHARED = 1e9
SLOW_WRITE_SECONDS = 0.5
LEAST_FILES = 4096
#: Filesystems in memory, which a restart empties, and those over a network, whose renames and clocks are another's.
IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")
NETWORKED = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "afs", "lustre", "glusterfs", "ceph", "beegfs")


def judge_gpus(gpus: list[str], visible: str | None, device_files: bool) -> Finding:
    """`visible` is CUDA_VISIBLE_DEVICES; `device_files` whether /dev shows NVIDIA devices that no driver names."""
    if gpus and visible is not None and visible.strip() in ("", "-1"):
        return Finding("GPUs", "warn", f"{len(gpus)}, hidden by CUDA_VISIBLE_DEVICES={visible!r}",
                       "unset CUDA_VISIBLE_DEVICES to use them")  # fmt: skip
    if gpus:
        return Finding("GPUs", "ok", f"{len(gpus)} ({', '.join(sorted(set(gpus)))})")
    if device_files:
        fix = "run nvidia-smi: driver and kernel module may differ, or the container lacks NVIDIA's toolkit"
        return Finding("GPUs", "fail", "/dev has NVIDIA devices, but nvidia-smi names none", fix)
    return Finding("GPUs", "ok", "none: trials run on CPU, a worker for each physical core")


def judge_memory(total: float, shared: float | None) -> Iterator[Finding]:
    """`total` is what this process may use, `shared` the size of /dev/shm (None: there is none), in bytes."""
    fix = "Ray and one worker of torch take about 3 GB; use --executor inline" if total < LEAST_MEMORY else ""
    yield Finding("memory", "warn" if fix else "ok", f"{total / GIGA:.1f} GB", fix)
    if shared is not None and shared < min(LEAST_SHARED, 0.3 * total):
        yield Finding("shared memory", "warn", f"{SHARED} has {shared / GIGA:.2f} GB: Ray's object store falls back to "
                      "files", "start the container with --shm-size=2gb or more")  # fmt: skip
    elif shared is not None:
        yield Finding("shared memory", "ok", f"{SHARED} has {shared / GIGA:.1f} GB")


def judge_files(limit: int) -> Finding:
    """`limit` is how many files a process may hold open."""
    if limit < LEAST_FILES:
        return Finding("open files", "warn", f"at most {limit}", f"ulimit -n {LEAST_FILES} or more, for several lanes")
    return Finding("open files", "ok", f"at most {limit}")


def examine_devices() -> Iterator[Finding]:
    """The devices of this machine."""
    files = any(Path("/dev").glob("nvidia[0-9]*"))
    yield judge_gpus(nvidia_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"), files)
    whole = os.cpu_count() or 1
    yield Finding("cores", "ok", f"{physical_cores()} physical of {whole} seen ({cpu_name()})")
    yield from judge_memory(memory_bytes(), shutil.disk_usage(SHARED).total if SHARED.is_dir() else None)
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        yield judge_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


# ---- storage


@dataclass(frozen=True)
class Probe:
    """What became of a file that was written, synced, renamed, read and removed; `clock_seconds` is how much later the
    filesystem's clock is than ours."""

    seconds: float
    clock_seconds: float
    error: str | None = None


def examine_storage(location: str, name: str = "storage") -> Iterator[Finding]:
    """The place that runs are written to: a path (which need not exist yet) or a URI."""
    try:
        store = Store.open(location)
    except InputError as error:
        yield Finding(name, "fail", error.message, "give a path, or a URI that pyarrow.fs can open")
        return
    if store.local is not None:
        folder = nearest_folder(store.local)
        yield judge_probe(name, str(folder), probe(folder))
        yield judge_filesystem(name, str(folder), filesystem_of(folder))
        return
    began = time.perf_counter()
    try:
        store.check_writable()
    except InputError as error:
        yield Finding(name, "fail", error.message, "check the bucket's name, its rights and the credentials")
        return
    seconds = time.perf_counter() - began
    yield Finding(name, "ok", f"{store.location}: an object was written and deleted in {seconds:.2f} s")


def probe(folder: Path) -> Probe:
    """Write, sync, rename, read and remove a small file as the ledger does."""
    path = folder / f".rayscale-probe-{uuid.uuid4().hex}"
    began = time.perf_counter()
    try:
        folder.stat()  # what is not there is not made
        disk.write_file(path, b"probe")
        seconds = time.perf_counter() - began
        if path.read_bytes() != b"probe":
            return Probe(seconds, 0.0, "the file that was written could not be read back")
        return Probe(seconds, path.stat().st_mtime - time.time())
    except OSError as error:
        return Probe(time.perf_counter() - began, 0.0, error.strerror or str(error))
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def judge_probe(name: str, place: str, done: Probe) -> Finding:
    """Whether records can be made durable here, and how long one takes."""
    if done.error:
        return Finding(name, "fail", f"{place}: {done.error}", "make it writable, or give another run.storage or --out")
    if abs(done.clock_seconds) > 5:
        return Finding(name, "warn", f"{place}: its clock is {done.clock_seconds:+.0f} s from this machine's",
                       "synchronise both clocks by NTP")  # fmt: skip
    text = f"{place}: written, synced and renamed in {done.seconds * 1000:.1f} ms"
    if done.seconds > SLOW_WRITE_SECONDS:
        return Finding(name, "warn", text, "every trial makes one such write; use a faster or local disk")
    return Finding(name, "ok", text)


def filesystem_of(folder: Path, mounts: str | None = None) -> str:
    """Type of the filesystem that a folder lies on, from /proc/mounts; "unknown" where that cannot be read."""
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return "unknown"
    kind, longest = "unknown", -1
    for line in mounts.splitlines():
        _, point, filesystem, *_ = [*line.split(" "), "", ""]
        point = point.replace("\\040", " ")
        if Path(point) in (folder, *folder.parents) and len(point) >= longest:
            kind, longest = filesystem, len(point)
    return kind


def judge_filesystem(name: str, place: str, kind: str) -> Finding:
    """Whether what is written there stays, and is renamed as on a disk."""
    if kind in IN_MEMORY:
        return Finding(f"{name} filesystem", "warn", f"{kind}: {place} is in memory, a restart empties it",
                       "keep runs on a disk: run.storage, or --out")  # fmt: skip
    if kind in NETWORKED:
        return Finding(f"{name} filesystem", "warn", f"{kind}: {place} is on a network",
                       "run one driver at a time from one host, and keep its clock synchronised")  # fmt: skip
    return Finding(f"{name} filesystem", "ok", kind)


def judge_room(name: str, place: str, free: float, needed: float | None) -> Finding:
    """Free bytes against those that the plan will take; None where there is no study to plan."""
    text = f"{free / GIGA:.1f} GB free at {place}"
    if needed is None:
        return Finding(name, "warn" if free < GIGA else "ok", text, "free some space" if free < GIGA else "")
    text += f", the plan takes {needed / GIGA:.2f} GB"
    if free < needed:
        fix = "free some space, keep fewer models (run.keep: none) or use another run.storage"
        return Finding(name, "fail", text, fix)
    if free < 2 * needed:
        return Finding(name, "warn", text, "free some space: little will be left")
    return Finding(name, "ok", text)
