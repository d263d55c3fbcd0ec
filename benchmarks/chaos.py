"""Kill drivers, and what they work with, at random, and compare what comes out with a run without faults.

Each kill is one line in the results file. Started again with the same file and seed it goes on; the same seed draws the
same kills: kind and delay, while what a delay meets depends on the machine. Exits 1 where anything was lost, was
there twice, differs, or was run again.

    python benchmarks/chaos.py --seed 1 [--planted 200] [--real 40] [--results chaos.jsonl]
"""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path
from typing import Any

import chaos_planted
import chaos_real
from chaos_log import Log

PARTS = {"planted": chaos_planted, "real": chaos_real}  # see chaos_log


def main() -> int:
    """Run the parts and print their sums."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of all kills (default: drawn)")
    parser.add_argument("--results", type=Path, default=Path("chaos.jsonl"), help="a line per kill (chaos.jsonl)")
    parser.add_argument("--planted", type=int, default=200, help="kills of the driver of planted studies (200)")
    parser.add_argument("--real", type=int, default=40, help="faults of real runs: driver, rank, lane, node, GCS (40)")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    log, failed = Log(asked.results.absolute()), False
    for part, module in PARTS.items():
        count = getattr(asked, part)
        if not count:
            continue
        module.run(asked.seed, count, log, log.path.with_suffix(f".{part}"))
        lines = log.of(part, asked.seed)
        sums = add_up(lines) | module.figures(lines)
        print(f"{part}: " + ", ".join(f"{name} {value}" for name, value in sums.items()))
        for miss in module.misses(sums):
            print(f"{part}: missed: {miss}")
            failed = True
        bad = ("lost", "duplicated", "finished_trials_run_again", "records_changed", "damaged", "studies_that_differ")
        failed |= any(sums[name] for name in bad) or sums["kills"] < count
    return int(failed)


def add_up(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures that all parts have in common."""
    studies = [line for line in lines if line["kind"] == "study"]
    return {
        "kills": sum(line["kind"] == "kill" for line in lines),
        "studies": len(studies),
        "trials": sum(line["trials"] for line in studies),
        "begun_trials": sum(line["begun_trials"] for line in lines),
        "lost": sum(line["lost"] for line in studies) + sum(line["vanished"] for line in lines),
        "duplicated": sum(line["duplicated"] for line in studies),
        "finished_trials_run_again": sum(line["run_again"] for line in lines),
        "records_changed": sum(line["changed"] for line in lines),
        "damaged": sum(line["damaged"] for line in studies),
        "studies_that_differ": sum(not line["equal"] for line in studies),
        "seconds_of_drivers": round(sum(line["seconds"] for line in lines), 1),
    }


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        print("stopped; the same command goes on", flush=True)
        raise SystemExit(130) from None
