"""Check the lock files: pinned, hashed, from no named host, and of no version known to be bad. Standard library only.

The list of bad versions is scripts/advisories.toml, so this works without a network. `--online` asks pip-audit too,
where it is installed. Exit code 1 if anything is found.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock", "requirements-cpu.lock")
_PIN = re.compile(r"([A-Za-z0-9][\w.-]*)(\[[\w,-]+\])?==([\w.+!-]+)( ; .+)?")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def requirements(text: str) -> list[str]:
    """The requirements of a lock file, each with its hashes on one line; comments are left out."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [" ".join(each.split()) for each in "\n".join(lines).replace("\\\n", " ").splitlines()]


def faults(name: str, text: str, advisories: Iterable[dict[str, str]]) -> list[str]:
    """A line for each thing that is wrong with a lock file of this name."""
    found = [f"{name}: it names a host: {line.strip()}" for line in text.splitlines() if "://" in line]
    pinned = []
    for requirement in requirements(text):
        head = requirement.split(" --hash", 1)[0]
        pin = _PIN.fullmatch(head)
        if pin is None:
            found.append(f"{name}: '{head[:80]}' is not a pinned version; run make lock")
            continue
        pinned.append((pin[1].lower().replace("_", "-"), pin[3]))
        if not _HASH.search(requirement) or _HASH.sub("", requirement).strip() != head:
            found.append(f"{name}: {head} has no SHA-256 hash, or something next to it; run make lock")
    if not pinned:
        found.append(f"{name}: it pins nothing; run make lock")
    for advisory in advisories:
        for package, version in pinned:
            if package == advisory["package"] and numbers(version) < numbers(advisory["fixed"]):
                found.append(
                    f"{name}: {package} {version}: {advisory['what']} ({advisory['id']}); "
                    f"take {advisory['fixed']} or later and run make lock"
                )
    return found


def numbers(version: str) -> tuple[int, ...]:
    """The release of a version as numbers, trailing zeros cut: 2.55 and 2.55.0 are the same."""
    release = [int(part) for part in re.sub(r"[^\d.].*", "", version).split(".") if part]
    while release and release[-1] == 0:
        release.pop()
    return tuple(release)


def ask(lock: Path) -> tuple[list[str], str]:
    """What pip-audit's service knows of a lock file, and what is to be said where it could not be asked."""
    command = shutil.which("pip-audit")
    if command is None:
        return [], "pip-audit is not installed: only the committed list was checked"
    asked = [command, "--requirement", str(lock), "--require-hashes", "--disable-pip", "--format", "json"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=300)
        told = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return [], "pip-audit had no answer (no network?): only the committed list was checked"
    found = [
        f"{lock.name}: {each['name']} {each['version']}: {fault['id']}; fixed in {', '.join(fault['fix_versions'])}"
        for each in told
        for fault in each.get("vulns", [])
    ]
    return found, f"pip-audit knows of {len(found)} advisories"


def main(arguments: list[str]) -> int:
    """Check all lock files; print what is wrong."""
    advisories = tomllib.loads((ROOT / "scripts" / "advisories.toml").read_text(encoding="utf-8"))["advisory"]
    found = [fault for name in LOCKS for fault in faults(name, (ROOT / name).read_text(encoding="utf-8"), advisories)]
    said = f"{len(advisories)} known advisories checked"
    if "--online" in arguments:
        more, answer = ask(ROOT / LOCKS[0])
        found, said = found + more, f"{said}; {answer}"
    for fault in found:
        print(fault, file=sys.stderr)
    print(f"audit of {', '.join(LOCKS)}: {len(found)} found ({said})")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
