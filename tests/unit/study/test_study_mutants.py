"""Three hundred broken study files: each refused in one pass, by file, line and field, and nothing is written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rayscale.errors import StudyError
from rayscale.plan.draft import draft_plan, run_store
from rayscale.plan.plan import Plan
from rayscale.study.study import load_study
from rayscale.system.machine import Machine
from tests.unit.mutants import GOOD, Mutant, mutants, render

SEED, NUMBER = 20261125, 300
MUTANTS = mutants(SEED, NUMBER)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data of the studies and nothing else."""
    made = tmp_path_factory.mktemp("mutants")
    rows = "".join(f"row number {i} about pets,{'cat' if i % 2 else 'dog'}\n" for i in range(200))
    (made / "rows.csv").write_text("text,label\n" + rows)
    return made


def check(mutant: Mutant, message: str, path: str) -> None:
    """One line for each field, named with the line it stands on; no other; nothing that a terminal would obey."""
    assert message.isprintable() or set(filter(lambda c: not c.isprintable(), message)) == {"\n"}
    assert "Traceback" not in message
    assert len(message) < 20_000
    found: dict[str, int] = {}
    for line in message.splitlines():
        placed = re.match(re.escape(path) + r":(\d+): (?:([\w.]+): )?.", line)
        assert placed, line
        found[placed[2] or ""] = int(placed[1])
    if mutant.fields is not None:
        assert found == mutant.fields, message
    assert all(word in message for word in mutant.said), message


@pytest.mark.row
@pytest.mark.parametrize("mutant", MUTANTS, ids=[f"{n}-{m.name[:40]}" for n, m in enumerate(MUTANTS)])
def test_rows_1_to_6_a_broken_study_is_refused_by_file_line_and_field(mutant: Mutant, folder: Path) -> None:
    path = folder / "study.yaml"
    path.write_bytes(mutant.content)
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert caught.value.exit_code == 2
    check(mutant, str(caught.value), str(path))


@pytest.mark.row
def test_the_study_that_is_mutated_is_a_good_one(folder: Path) -> None:
    path = folder / "good.yaml"
    path.write_text(render(GOOD)[0])
    assert load_study(path).grid.sizes == (20, 40, 80)
    assert len(MUTANTS) == len({mutant.content for mutant in MUTANTS}) == NUMBER


#: A file of each kind, for the command line: what takes a process each.
BY_HAND = ("misspelt", "mixed", "an alias bomb", "deeper lists", "no UTF-8", "tag !!python/object/apply")


@pytest.mark.row
@pytest.mark.parametrize("kind", BY_HAND)
def test_rows_1_to_6_the_command_line_answers_with_one_object_and_code_2(kind: str, folder: Path) -> None:
    mutant = next(each for each in MUTANTS if each.name.startswith(kind))
    here = folder / "home"
    here.mkdir(exist_ok=True)
    path = folder / "study.yaml"
    path.write_bytes(mutant.content)
    # This is `rayscale run study.yaml --json --yes`, and at its end it tells the most memory it held.
    code = (
        "import atexit, sys; sys.argv = ['rayscale', 'run', '../study.yaml', '--json', '--yes']\n"
        "peak = lambda: print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr)\n"
        "atexit.register(peak)\n"
        "from rayscale.cli.verbs import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=here, capture_output=True, text=True, timeout=60,
        env={**os.environ, "HOME": str(here), "TMPDIR": str(here), "RAYSCALE_CACHE": str(here / "cache")},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    error = json.loads(done.stdout)["error"]
    check(mutant, error["message"], "../study.yaml")
    *said, peak = done.stderr.splitlines()
    assert said == f"rayscale: {error['message']}".splitlines()
    assert int(peak) < 100_000  # kB
    assert list(here.iterdir()) == []


@pytest.mark.row
def test_row_1_a_file_too_large_for_a_study_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(b"#" * 1_000_001)
    with pytest.raises(StudyError, match=r"study.yaml: has 1000001 bytes; a study file has at most 1000000"):
        load_study(path)


@pytest.mark.row
def test_row_3_a_grid_of_a_million_trials_is_refused_with_both_figures(study_file: Path) -> None:
    study_file.write_text(study_file.read_text().replace("{20: 2}", "400000"))
    with pytest.raises(
        StudyError, match=r"study.yaml:7: grid: asks for 2,400,000 trials; a study has at most 1,000,000"
    ):
        load_study(study_file)


@pytest.mark.row
def test_row_4_cells_that_stand_twice_are_merged_and_said(study_file: Path) -> None:
    text = study_file.read_text()
    plain = planned(study_file)
    text = text.replace("[20, 40, 80]", "[20, 40, 80, 40, 40]").replace("gpus: [1]", "gpus: [1, 1]")
    study_file.write_text(text.replace("[1x32, 2x64]", "[1x32, 2x64, 1x32]"))
    merged = planned(study_file)
    assert [p.trial.trial_id for p in merged.trials] == [p.trial.trial_id for p in plain.trials]
    said = [message for code, message in merged.lint if code == "duplicate_cells"]
    assert said == [
        "40 is given 3 times in grid.examples: its cells run once",
        "1 is given 2 times in grid.gpus: its cells run once",
        "1x32 is given 2 times in models.0.sizes: its cells run once",
    ]
    assert not [code for code, _ in plain.lint if code == "duplicate_cells"]


def planned(study_file: Path) -> Plan:
    study = load_study(study_file)
    return draft_plan(study, Machine("cpu", 2, "a processor", "this machine"), run_store(study, None))
