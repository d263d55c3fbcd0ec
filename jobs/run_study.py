"""What `ray job submit` runs: one study on the cluster that the job belongs to.

    ray job submit --working-dir . -- python jobs/run_study.py jobs/corpus.yaml [further options of `rayscale run`]

The run folder is where the study's storage says, by default below rayscale-runs in the home of the head node's user, so
that a second submission resumes it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rayscale.cli.verbs import main
from rayscale.errors import InputError
from rayscale.on_ray.submission import remote_place
from rayscale.study.study import load_study


def command(arguments: Sequence[str]) -> list[str]:
    """The `rayscale` command line for a study and options: on the job's own cluster, without a question."""
    # Only options that differ here are parsed; abbreviations would match options of `rayscale run`.
    parser = argparse.ArgumentParser(usage="%(prog)s STUDY [options of `rayscale run`]", allow_abbrev=False)
    parser.add_argument("study")
    parser.add_argument("--out")
    parser.add_argument("--address", default="auto")
    study = parser.parse_known_args(arguments[:1])[0].study
    asked, others = parser.parse_known_args([study, *arguments[1:]])
    place = asked.out or _usual_place(study)
    out = ["--out", place] if place else []
    return ["rayscale", "run", study, "--address", asked.address, "--yes", *out, *others]


def _usual_place(study: str) -> str | None:
    """The run folder of `rayscale submit`; None where `rayscale run` finds it itself, or refuses the study."""
    try:
        place = remote_place(load_study(study))
    except InputError:
        return None
    return None if "://" in place else str(Path.home() / place)


if __name__ == "__main__":
    sys.argv = command(sys.argv[1:])
    main()
