"""Write the golden record anew: `python -m tests.golden.make`. Do so only where a change is meant, and read the diff.

trial_ids.json   ids of the tests' small study: they change only with what a trial is
fit.json         fits and verdict of that study, simulated: numbers without words
report.txt       what its report says, word for word
losses.json      test losses of a tiny trial of every family: a change raises TRAINING_VERSION
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from html import unescape
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent
ROOT = GOLDEN.parents[1]
PLANTED = "chinchilla:A=20,B=30,E=0.8,alpha=0.3,beta=0.35"


def small_study(folder: Path) -> Path:
    """The study of tests/unit beside its rows."""
    from tests.unit.conftest import STUDY, write_rows

    write_rows(folder)
    (folder / "study.yaml").write_text(STUDY)
    return folder / "study.yaml"


def trial_ids(folder: Path) -> list[str]:
    """The ids that `plan --json` gives, in its order. Those of the demo depend on the packages that are installed."""
    plan = json.loads(_rayscale("plan", str(small_study(folder)), "--json", cwd=folder))
    return [trial["trial_id"] for trial in plan["trials"]]


def simulated(folder: Path) -> tuple[dict[str, Any], str]:
    """Facts of fit.json, and the words of report.html, of the small study under a planted law."""
    study = small_study(folder)
    _rayscale("run", str(study), "--simulate", PLANTED, "--yes", "--out", "run", cwd=folder)
    fit = json.loads((folder / "run" / "fit.json").read_text())
    kept = ("law", "target", "outcome", "params", "objective", "rows_used")
    facts = {
        "fits": [{name: each.get(name) for name in kept} for each in fit["fits"]],
        "doubling": fit["verdict"]["doubling"],
    }
    return facts, report_words((folder / "run" / "report.html").read_text(), folder)


def report_words(page: str, folder: Path) -> str:
    """What a page says, a line for each piece of text; times, places and unrounded numbers are left out."""
    page = re.sub(r"<(script|style|svg)\b.*?</\1>", "", page, flags=re.DOTALL)
    page = page.split('<section id="plan"')[0]  # what follows depends on the machine
    words = unescape(re.sub(r"<[^>]+>", "\n", page)).replace(str(folder), "FOLDER")
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    timed = re.compile(r"^\d[\d.,]*( |\u202f|\xa0)(s|ms|min|h)$")
    unrounded = re.compile(r"^-?[\d.]{9,}(e[-+]\d+)?$|^-?\d\.\d+e[-+]\d+$")
    return "\n".join("TIME" if timed.match(line) else unrounded.sub("NUMBER", line) for line in lines) + "\n"


def _rayscale(*words: str, cwd: Path) -> str:
    command = [sys.executable, "-m", "rayscale", *words]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # ids name the device
    done = subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True, text=True, timeout=300)
    return done.stdout


def write(name: str, value: Any) -> None:
    """Write one file of the record."""
    text = value if isinstance(value, str) else json.dumps(value, indent=1, sort_keys=True) + "\n"
    (GOLDEN / name).write_text(text)


def main() -> None:
    """Write every file."""
    sys.path.append(str(ROOT / "tests" / "nn"))
    from golden_losses import losses

    with tempfile.TemporaryDirectory() as folder:
        write("trial_ids.json", trial_ids(Path(folder)))
        facts, words = simulated(Path(folder))
        write("fit.json", facts)
        write("report.txt", words)
        write("losses.json", losses(Path(folder)))


if __name__ == "__main__":
    main()
