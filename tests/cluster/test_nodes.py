"""Several nodes on one machine, each with a root of its own: nothing is read across."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from rayscale.errors import StudyError
from rayscale.on_ray import parcels, run_study
from tests.ray.conftest import STUDY, write_study


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A head without slots, where the driver runs, and a node with two: each with a cache of its own."""
    head = {"num_cpus": 2, "env_vars": {"RAYSCALE_CACHE": str(tmp_path / "head")}, "include_dashboard": False}
    found = Cluster(initialize_head=True, head_node_args=head)
    found.add_node(num_cpus=2, resources={"slot": 2}, env_vars={"RAYSCALE_CACHE": str(tmp_path / "node")})
    found.wait_for_nodes()
    yield found
    found.shutdown()


def test_data_and_checkpoints_reach_a_node_that_shares_no_disk(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "head"))
    offered: list[Path] = []
    whole = parcels.wrap

    def wrap_and_take_away(folder: Path, several_nodes: bool) -> Any:
        parcel = whole(folder, several_nodes)
        offered.append(folder)
        shutil.move(folder, folder.with_name(f"{folder.name}-gone"))  # whoever reads across finds nothing here
        return parcel

    monkeypatch.setattr(parcels, "wrap", wrap_and_take_away)
    study = write_study(tmp_path, STUDY.replace("[40, 80, 160]", "[40, 80]").replace("[1x32, 2x32]", "[1x32]"))
    run = run_study(study, out=str(tmp_path / "head" / "run"), address=cluster.address)
    assert run is not None
    assert set(run.trials.status) == {"ok"}, run.trials.error.tolist()
    assert len(run.trials) == 4
    assert offered
    received = [path.name for path in (tmp_path / "node" / "parcels").iterdir()]
    assert len(received) == len(offered)
    assert not (tmp_path / "node" / "prepared").exists()


def test_more_gpus_than_the_cluster_has_is_refused_after_connecting_and_before_scheduling(
    tmp_path: Path, cluster: Cluster
) -> None:
    study = write_study(tmp_path, STUDY.replace("gpus: [1, 2]", "gpus: [4]"))
    with pytest.raises(StudyError, match=r"asks for 4 GPUs a trial; the cluster at .* has 2 worker slots"):
        run_study(study, out=str(tmp_path / "run"), address=cluster.address)
    assert not (tmp_path / "run" / "plan.json").exists()
