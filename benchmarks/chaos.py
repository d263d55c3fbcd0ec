"""Kill drivers at random, give the same command again, and compare what comes out with a run without faults.

Each kill is one line in the results file. Started again with the same file and seed it goes on; the same seed draws the
same kills: kind and delay, while what a delay meets depends on the machine. Exits 1 where anything was lost, was
there twice, differs, or was run again.

    python benchmarks/chaos.py --seed 1 [--planted 200] [--results chaos.jsonl]
"""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path
from typing import Any

import chaos_planted
from chaos_log import Log

PARTS = {"planted": chaos_planted}  # further ones join here: see chaos_log


def main() -> int:
    """Run the parts and print their sums."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of all kills (default: drawn)")
    parser.add_argument("--results", type=Path, default=Path("chaos.jsonl"), help="a line per kill (chaos.jsonl)")
    parser.add_argument("--planted", type=int, default=200, help="kills of the driver of planted studies (200)")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    log, failed = Log(asked.results.absolute()), False
    for part, module in PARTS.items():
        count = getattr(asked, part)
        module.run(asked.seed, count, log, log.path.with_suffix(f".{part}"))
        sums = add_up(log.of(part, asked.seed))
        print(f"{part}: " + ", ".join(f"{name} {value}" for name, value in sums.items()))
        bad = ("lost", "duplicated", "finished_trials_run_again", "records_changed", "damaged", "studies_that_differ")
        failed |= any(sums[name] for name in bad) or sums["kills"] < count
    return int(failed)


def add_up(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of a part. The effective-training-time ratio is that of trials that count to trials that were begun,
    where all take as long; the time that drivers take to start is not in it, and is told beside it."""
    studies = [line for line in lines if line["kind"] == "study"]
    begun, counted = sum(line["begun_trials"] for line in lines), sum(line["trials"] for line in studies)
    return {
        "kills": sum(line["kind"] == "kill" for line in lines),
        "studies": len(studies),
        "trials": counted,
        "lost": sum(line["lost"] for line in studies) + sum(line["vanished"] for line in lines),
        "duplicated": sum(line["duplicated"] for line in studies),
        "finished_trials_run_again": sum(line["run_again"] for line in lines),
        "records_changed": sum(line["changed"] for line in lines),
        "damaged": sum(line["damaged"] for line in studies),
        "studies_that_differ": sum(not line["equal"] for line in studies),
        "effective_training_time_ratio": round(counted / begun, 4) if begun else 1.0,
        "seconds_of_drivers": round(sum(line["seconds"] for line in lines), 1),
    }


if __name__ == "__main__":
    raise SystemExit(main())
