"""Findings about this machine as a place for studies, each with its fix: versions, settings, clock, auth, the hub.

Standard library only: torch and Ray are not imported, for a broken one is what a doctor is called for.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import socket
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from rayscale.system.redaction import redact

#: Years that a clock may show.
YEARS = range(2025, 2101)
#: The driver that a CUDA build of torch needs at least, by CUDA's major version (NVIDIA's table of minor-version
#: compatibility).
DRIVERS = {11: "450.80", 12: "525.60", 13: "580.65"}
TOKEN_PATH = "~/.ray/auth_token"
PORTS = {8265: "the dashboard and job API", 6379: "the cluster's address", 10001: "the client server"}


@dataclass(frozen=True)
class Finding:
    """The result of one check: `ok`, `warn` (studies run, with a drawback) or `fail`; `mend` says how to fix it."""

    name: str
    level: Literal["ok", "warn", "fail"]
    found: str
    mend: str = ""

    def to_json(self) -> dict[str, Any]:
        """An entry of `doctor --json`, without secrets."""
        return {"name": self.name, "level": self.level, "found": redact(self.found), "mend": redact(self.mend)}


# ---- versions


def numbers(version: str) -> tuple[int, ...]:
    """The release of a version as numbers, without trailing zeros: 2.13.0+cpu is (2, 13)."""
    release = re.sub(r"(\.0*)+$", "", re.sub(r"[^\d.].*", "", version))
    return tuple(int(part) for part in release.split(".") if part)


def wanted() -> dict[str, str]:
    """The least version of every package that rayscale needs, as its own metadata says; Python among them."""
    least = {"python": importlib.metadata.metadata("rayscale")["Requires-Python"].lstrip(">=")}
    for line in importlib.metadata.requires("rayscale") or ():
        needed = re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*>=\s*([\d.]+)", line)
        if needed and "extra ==" not in line:
            least[needed[1].lower()] = needed[2]
    return least


def judge_versions(least: Mapping[str, str], there: Mapping[str, str | None]) -> Iterator[Finding]:
    """One finding for each package that is missing or too old, and one for all others together."""
    good = []
    for name, version in there.items():
        if version is None:
            yield Finding(name, "fail", "not installed", f"pip install '{name}>={least[name]}'")
        elif numbers(version) < numbers(least[name]):
            how = "use a newer Python" if name == "python" else f"pip install -U '{name}>={least[name]}'"
            yield Finding(name, "fail", f"{version}; {least[name]} or later is needed", how)
        else:
            good.append(f"{name} {version}")
    if good:
        yield Finding("versions", "ok", ", ".join(good))


def cuda_of_torch() -> str | None:
    """The CUDA version that torch was built for, None for a CPU build or none; read from its file, not by import."""
    package = importlib.util.find_spec("torch")
    if package is None or package.origin is None:
        return None
    try:
        text = Path(package.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    built = re.search(r"^cuda(?:: [^=]+)? = ['\"]([\d.]+)['\"]", text, flags=re.M)
    return built and built[1]


def judge_torch(cuda: str | None, gpus: int, driver: str | None) -> Finding:
    """Whether torch's build suits the GPUs and their driver."""
    if cuda is None and gpus:
        return Finding("torch build", "fail", f"for CPUs only, and there are {gpus} GPUs",
                       "install the CUDA build: pip install torch, without the CPU index")  # fmt: skip
    if cuda is None or not gpus:
        return Finding("torch build", "ok", f"for CUDA {cuda}, unused here" if cuda else "for CPUs")
    least = DRIVERS.get(int(cuda.split(".")[0]))
    if driver and least and numbers(driver) < numbers(least):
        return Finding("torch build", "fail", f"for CUDA {cuda}, which needs driver {least} or later; this is {driver}",
                       "update the NVIDIA driver, or install torch for an older CUDA")  # fmt: skip
    return Finding("torch build", "ok", f"for CUDA {cuda}, driver {driver or 'unknown'}")


# ---- settings of the environment


def judge_settings(environment: Mapping[str, str], cores: int) -> Iterator[Finding]:
    """Threads, compiled imports, and variables that let data run code."""
    threads = environment.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > 1:
        yield Finding("threads", "warn", f"OMP_NUM_THREADS={threads}",
                      "unset it: lanes use one thread a worker; another number changes last digits")  # fmt: skip
    else:
        setting = f"OMP_NUM_THREADS={threads}" if threads else "OMP_NUM_THREADS is not set; lanes set it to 1"
        yield Finding("threads", "ok", f"{setting}; {cores} physical cores")
    if environment.get("PYTHONDONTWRITEBYTECODE"):
        yield Finding("compiled imports", "warn", "PYTHONDONTWRITEBYTECODE is set: every Ray process compiles again",
                      "unset it, or set PYTHONPYCACHEPREFIX: imports are then 2.6 times as fast")  # fmt: skip
    for name in ("RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA", "RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR"):
        if environment.get(name, "0").lower() not in ("0", "", "false"):
            fix = f"unset {name}: parquet files could run code"
            yield Finding("data that runs code", "fail", f"{name} is set", fix)


# ---- clock


def judge_clock(wall: float, drift_seconds: float, zone: str) -> Finding:
    """`drift_seconds` is how much more the wall clock moved than the monotonic one while this was measured."""
    try:
        moment = datetime.fromtimestamp(wall).astimezone()
        shown, sane = moment.isoformat(timespec="seconds"), moment.year in YEARS
    except (ValueError, OverflowError, OSError):
        shown, sane = f"{wall} s", False
    if not sane:
        fix = "set the clock (timedatectl set-ntp true): certificates and leases depend on it"
        return Finding("clock", "fail", shown, fix)
    if abs(drift_seconds) > 0.05:
        return Finding("clock", "warn", f"{shown}; it jumped by {drift_seconds:+.2f} s while it was watched",
                       "let NTP slew the clock instead of stepping it")  # fmt: skip
    return Finding("clock", "ok", f"{shown} ({zone})")


def watch_clock(seconds: float = 0.2) -> Finding:
    """The clock, looked at for a moment."""
    wall, steady = time.time(), time.monotonic()
    time.sleep(seconds)
    return judge_clock(time.time(), (time.time() - wall) - (time.monotonic() - steady), "/".join(time.tzname))


# ---- who may reach Ray here


def token_file(environment: Mapping[str, str]) -> Path:
    """Where Ray looks for a token that no variable holds."""
    return Path(environment.get("RAY_AUTH_TOKEN_PATH") or TOKEN_PATH).expanduser()


def judge_token(environment: Mapping[str, str], mode: int | None) -> Finding:
    """Token auth of Ray: `mode` are the rights of the token's file, None if there is none."""
    mode_of_ray = environment.get("RAY_AUTH_MODE", "")
    has_token = bool(environment.get("RAY_AUTH_TOKEN")) or mode is not None
    if mode_of_ray == "disabled":
        return Finding("auth", "warn", "RAY_AUTH_MODE=disabled",
                       "unset it: whoever reaches a Ray without token auth runs code there")  # fmt: skip
    if mode is not None and mode & 0o077:
        path = token_file(environment)
        return Finding("auth", "warn", f"others may read {path} (rights {mode & 0o777:o})", f"chmod 600 {path}")
    if mode_of_ray == "token" and not has_token:
        return Finding("auth", "fail", "RAY_AUTH_MODE=token, and there is no token",
                       "ray get-auth-token --generate, or set RAY_AUTH_TOKEN")  # fmt: skip
    return Finding("auth", "ok", "a token is there" if has_token else "no token yet; a Ray started here makes one")


def find_token(environment: Mapping[str, str]) -> Finding:
    """As `judge_token`, of the file that is there."""
    path = token_file(environment)
    return judge_token(environment, stat.S_IMODE(path.stat().st_mode) if path.is_file() else None)


def has_token_auth(environment: Mapping[str, str]) -> bool:
    """Whether a Ray of this environment asks for a token (whoever may read its file)."""
    token = bool(environment.get("RAY_AUTH_TOKEN")) or token_file(environment).is_file()
    return environment.get("RAY_AUTH_MODE") != "disabled" and token


def judge_listening(open_ports: Iterable[int], token: bool) -> Iterator[Finding]:
    """`open_ports` are Ray's ports that listen here beyond loopback; `token` whether token auth is on."""
    of_ray = [port for port in open_ports if port in PORTS]
    for port in of_ray:
        text = f"port {port} ({PORTS[port]}) listens beyond this machine"
        if token:
            yield Finding("listening", "ok", f"{text}; token auth is on")
        else:
            yield Finding("listening", "fail", f"{text} without token auth",
                          "restart Ray with RAY_AUTH_MODE=token, or with --dashboard-host 127.0.0.1")  # fmt: skip
    if not of_ray:
        yield Finding("listening", "ok", "no port of Ray is open beyond this machine")


def open_ports(tables: Iterable[str] | None = None) -> list[int]:
    """Ports that listen on other addresses than loopback, from the kernel's tables (/proc/net/tcp, tcp6)."""
    if tables is None:
        names = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
        tables = [path.read_text() for path in names if path.exists()]
    ports = set()
    for row in (line.split() for table in tables for line in table.splitlines()[1:]):
        if len(row) > 3 and row[3] == "0A":  # listening
            address, port = row[1].split(":")
            if not _LOOPBACK.fullmatch(address):
                ports.add(int(port, 16))
    return sorted(ports)


#: Words of 4 bytes in the machine's order: 0100007F is 127.0.0.1, then its like within IPv6, and ::1.
_LOOPBACK = re.compile("(0{16}FFFF0{4})?.{6}7F|0{24}01000000")


# ---- the hub


def judge_hub(missing: Iterable[str], offline: bool, endpoint: str, reachable: bool) -> Finding:
    """`missing` are hub ids of the study that are not in this machine's cache."""
    names = ", ".join(missing)
    if not names:
        return Finding("hub", "ok", "all checkpoints of the study are on this machine")
    if offline:
        return Finding("hub", "fail", f"{names} not in the cache, and HF_HUB_OFFLINE is set",
                       "unset HF_HUB_OFFLINE once, or give the folders of downloaded checkpoints")  # fmt: skip
    if not reachable:
        return Finding("hub", "fail", f"{names} not in the cache, and {endpoint} cannot be reached",
                       "check the network and HTTPS_PROXY, or give the folders of downloaded checkpoints")  # fmt: skip
    return Finding("hub", "ok", f"{names} will be downloaded from {endpoint}")


def reaches(endpoint: str, seconds: float = 5.0) -> bool:
    """Whether a connection to the endpoint's host is accepted; through a proxy, to the proxy's."""
    parts = urlsplit(os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy") or endpoint)
    try:
        with socket.create_connection((parts.hostname, parts.port or 443), timeout=seconds):
            return True
    except (OSError, ValueError):
        return False
