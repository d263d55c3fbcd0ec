"""What `ray job submit` runs: one study on the cluster that the job belongs to.

    ray job submit --working-dir . -- python jobs/run_study.py jobs/intents.yaml [further options of `rayscale run`]

The run folder lies in the home of the head node's user, so that a second submission resumes it.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rayscale.cli import main
from rayscale.study import load_study

if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python jobs/run_study.py STUDY [options of `rayscale run`]")
    study, *options = sys.argv[1:]
    if "--out" not in options and "://" not in load_study(study).run.storage:
        options += ["--out", str(Path.home() / "rayscale-runs" / load_study(study).name)]
    sys.argv = ["rayscale", "run", study, "--address", "auto", "--yes", *options]
    main()
