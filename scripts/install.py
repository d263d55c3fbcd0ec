"""Create .venv from the lock file; standard library only. Run by `make`.

Every package is pinned and hashed in requirements.lock. Without an NVIDIA GPU the CPU build of torch is taken
(requirements-cpu.lock) where pip is offered one, and the CUDA packages are left out. A torch already in .venv stays.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts" if os.name == "nt" else "bin") / "python"
CUDA = re.compile(r"^(nvidia-|cuda-|triton==)")
PIP = ["-m", "pip", "--disable-pip-version-check", "--no-input"]


def main() -> None:
    """Install and mark .venv as ready."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this script is the first to meet an old Python
        sys.exit(f"rayscale needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. "
                 "Name another with `make PYTHON=python3.12 ...`.")  # fmt: skip
    if not PYTHON.exists():
        venv.EnvBuilder(with_pip=True).create(VENV)
    present = torch_requirements()
    cpu = present is None and not shutil.which("nvidia-smi") and offered(ROOT / "requirements-cpu.lock")
    announce(present, cpu)
    if present is None:
        pip_install(lock_blocks(ROOT / "requirements-cpu.lock") if cpu else
                    [b for b in lock_blocks(ROOT / "requirements.lock") if b.startswith("torch==")])  # fmt: skip
    needs_cuda = any("nvidia" in line or "cuda" in line for line in torch_requirements() or [])
    rest = [block for block in lock_blocks(ROOT / "requirements.lock") if not block.startswith("torch==")]
    pip_install([block for block in rest if needs_cuda or not CUDA.match(block)])
    run([*PIP, "install", "--quiet", "--no-deps", "--editable", str(ROOT)])
    (VENV / "ready").touch()
    print("Ready.", flush=True)


def announce(present: list[str] | None, cpu: bool) -> None:
    """Say what will be downloaded before anything is."""
    if present is not None:
        text = "about 0.4 GB (torch is there already)"
    elif cpu:
        text = "about 0.6 GB, with the CPU build of torch"
    elif sys.platform == "linux":
        text = "about 3.5 GB, since pip is offered only the CUDA build of torch (docs/gpus.md says how to get 0.6 GB)"
    else:
        text = "about 0.5 GB"
    print(f"Installing into {VENV}: downloads {text}, unpacks to two to three times that. "
          "Nothing else changes except pip's cache.", flush=True)  # fmt: skip


def torch_requirements() -> list[str] | None:
    """What the torch in .venv requires; None if there is none."""
    code = "import importlib.metadata as m\nprint('\\n'.join(m.requires('torch') or []))"
    found = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True)
    return found.stdout.split("\n") if found.returncode == 0 else None


def offered(lock: Path) -> bool:
    """Whether pip finds everything in this lock file."""
    command = [PYTHON, *PIP, "install", "--quiet", "--dry-run", "--no-deps", "--require-hashes", "-r", lock]
    return subprocess.run(command, capture_output=True).returncode == 0


def lock_blocks(lock: Path) -> list[str]:
    """The pins of a lock file, each with its hashes."""
    lines = [line for line in lock.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return re.split(r"\n(?=\S)", "\n".join(lines))


def pip_install(blocks: list[str]) -> None:
    """Install exactly these pins."""
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "pins.txt"
        pins.write_text("\n".join(blocks) + "\n")
        run([*PIP, "install", "--quiet", "--no-deps", "--require-hashes", "-r", str(pins)])


def run(arguments: list[str]) -> None:
    """Run .venv's Python or end with its exit code."""
    done = subprocess.run([PYTHON, *arguments])
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
