"""The doctor asks every node of a real cluster."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from rayscale.cli.doctor import check_up
from tests.ray.conftest import write_study


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two nodes, the head without slots."""
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    found.add_node(num_cpus=2, resources={"slot": 2})
    found.wait_for_nodes()
    yield found
    found.shutdown()


def test_every_node_is_asked_and_the_plan_is_held_against_the_cluster(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = {tmp_path / "rows.csv", write_study(tmp_path)}
    found = {each.name: each for each in check_up(tmp_path / "study.yaml", cluster.address)}
    assert found["cluster"].level == "ok"
    assert "2 slots" in found["cluster"].found
    nodes = [each for name, each in found.items() if name.startswith("node ")]
    assert len(nodes) == 2, [each.name for each in nodes]
    assert {each.level for each in nodes} == {"ok"}
    assert any("2 slot" in each.found for each in nodes)
    assert found["plan"].found == f"12 trials of toy fit the cluster at {cluster.address}"
    assert set(tmp_path.iterdir()) == before


def test_a_cluster_that_does_not_answer_is_a_finding_with_exit_code_1(tmp_path: Path) -> None:
    asked = [sys.executable, "-m", "rayscale", "doctor", "--address", "127.0.0.1:1"]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 1
    assert "fail cluster: no Ray cluster at 127.0.0.1:1" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
