"""Several nodes on one machine, each with a root of its own: nothing is read across."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ray.cluster_utils import Cluster

from rayscale.errors import InputError, StudyError
from rayscale.on_ray import driver_savepoints, run_study
from rayscale.on_ray.data import parcels
from rayscale.on_ray.driver_savepoints import blind_nodes
from rayscale.on_ray.session.session import connect
from rayscale.runs.savepoints import Saving, mark
from rayscale.system.storage import Store
from tests.ray.conftest import STUDY, write_study

SHORT = (
    STUDY.replace("[40, 80, 160]", "[200, 300]").replace("[1x32, 2x32]", "[1x32]").replace("[1, 2]", "[1], seeds: 2")
    .replace("epochs: 1", "epochs: 60")
)  # fmt: skip


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the nodes' caches, `head` and `node`."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(scope="module")
def cluster(caches: Path) -> Iterator[Cluster]:
    """A head without slots, where the driver runs, and a node with two: each with a cache of its own."""
    head = {"num_cpus": 2, "env_vars": {"RAYSCALE_CACHE": str(caches / "head")}, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    nodes.add_node(num_cpus=2, resources={"slot": 2}, env_vars={"RAYSCALE_CACHE": str(caches / "node")})
    nodes.wait_for_nodes()
    yield nodes
    nodes.shutdown()


def test_data_and_checkpoints_reach_a_node_that_shares_no_disk(
    tmp_path: Path, caches: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSCALE_CACHE", str(caches / "head"))
    offered: list[Path] = []
    whole = parcels.wrap

    def wrap_and_take_away(folder: Path, several_nodes: bool) -> Any:
        parcel = whole(folder, several_nodes)
        offered.append(folder)
        shutil.move(folder, folder.with_name(f"{folder.name}-gone"))  # whoever reads across finds nothing here
        return parcel

    monkeypatch.setattr(parcels, "wrap", wrap_and_take_away)
    study = write_study(tmp_path, STUDY.replace("[40, 80, 160]", "[40, 80]").replace("[1x32, 2x32]", "[1x32]"))
    run = run_study(study, out=str(tmp_path / "run"), address=cluster.address)
    assert run is not None
    assert set(run.trials.status) == {"ok"}, run.trials.error.tolist()
    assert len(run.trials) == 4
    assert offered
    received = [path.name for path in (caches / "node" / "parcels").iterdir()]
    assert len(received) == len(offered)
    assert not (caches / "node" / "prepared").exists()


@pytest.mark.row
def test_row_7_more_gpus_than_the_cluster_has_is_refused_after_connecting_and_before_scheduling(
    tmp_path: Path, cluster: Cluster
) -> None:
    study = write_study(tmp_path, STUDY.replace("gpus: [1, 2]", "gpus: [4]"))
    with pytest.raises(StudyError, match=r"asks for 4 GPUs a trial; the cluster at .* has 2 worker slots"):
        run_study(study, out=str(tmp_path / "run"), address=cluster.address)
    assert not (tmp_path / "run" / "plan.json").exists()


@pytest.mark.row
def test_row_7_more_gpus_than_the_autoscaler_may_start_is_refused_and_as_many_are_not(
    tmp_path: Path, cluster: Cluster
) -> None:
    import ray
    from ray.core.generated import autoscaler_pb2
    from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_put

    node = autoscaler_pb2.NodeGroupConfig(name="workers", resources={"CPU": 8, "slot": 3}, max_count=2)
    may_start = autoscaler_pb2.ClusterConfig(node_group_configs=[node], max_resources={"slot": 5})
    key = ray._raylet.GCS_AUTOSCALER_CLUSTER_CONFIG_KEY.encode()
    namespace = ray._raylet.GCS_AUTOSCALER_STATE_NAMESPACE.encode()
    ray.init(cluster.address, log_to_driver=False)
    _internal_kv_put(key, may_start.SerializeToString(), namespace=namespace)
    ray.shutdown()
    study = write_study(tmp_path, STUDY.replace("gpus: [1, 2]", "gpus: [6]"))
    with pytest.raises(StudyError, match=r"asks for 6 GPUs a trial; .* all 5 that its autoscaler may start has 5"):
        run_study(study, out=str(tmp_path / "run"), address=cluster.address)
    with connect(cluster.address, "auto", 60) as session:
        assert session.machine.slots == 5
        _internal_kv_del(key, namespace=namespace)  # other tests use this cluster


@pytest.mark.faults
def test_row_22_a_node_is_lost_and_its_trial_goes_on_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "head"))
    head = {"num_cpus": 2, "include_dashboard": False}
    quick = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_failure_threshold": 3}
    cluster = Cluster(initialize_head=True, head_node_args={**head, "_system_config": quick})
    nodes = [
        cluster.add_node(num_cpus=1, resources={"slot": 1}, env_vars={"RAYSCALE_CACHE": str(tmp_path / name)})
        for name in ("first", "second")
    ]
    study = write_study(tmp_path, SHORT)
    clean = run_study(study, out=str(tmp_path / "clean"), address=cluster.address)
    events = tmp_path / "run" / "events.jsonl"

    def lose_a_node() -> None:
        give_up = time.monotonic() + 200
        while time.monotonic() < give_up and not (events.exists() and events.read_text().count("trial_started") == 2):
            time.sleep(0.1)
        time.sleep(1)
        cluster.remove_node(nodes[1], allow_graceful=False)

    killer = threading.Thread(target=lose_a_node)
    killer.start()
    try:
        run = run_study(study, out=str(tmp_path / "run"), address=cluster.address)
    finally:
        killer.join()
        cluster.shutdown()
    assert clean is not None
    assert run is not None
    assert set(run.trials.status) == {"ok"}, run.trials.error.tolist()
    told = [event for event in run.events if event["event"] in ("trial_retried", "slots_changed")]
    assert {event["event"] for event in told} == {"trial_retried", "slots_changed"}
    (lost,) = [event for event in told if event["event"] == "trial_retried"]
    assert lost["code"] in ("node_died", "worker_died")
    same = ["trial_id", "train_loss", "validation_loss", "eval_loss", "accuracy", "steps"]
    pd.testing.assert_frame_equal(run.trials[same], clean.trials[same])
    assert sorted(run.trials.attempts) == [1, 1, 1, 2]


def test_a_run_folder_that_a_node_does_not_see_is_refused_before_anything_is_prepared(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "head"))
    # These nodes share a disk, so what one does not see is played: the driver marks its folder with another token.
    study = write_study(tmp_path, SHORT.replace("{accelerator: cpu}", "{accelerator: cpu, checkpoint_seconds: 0.001}"))
    store = Store.open(tmp_path / "run")
    with connect(cluster.address, "cpu", 60) as session:
        saving = Saving(store, mark(store), 300.0, 15.0)
        assert blind_nodes(saving, session.worker_resources) == []
        assert len(blind_nodes(replace(saving, token="another"), session.worker_resources)) == 1  # the head takes none
    monkeypatch.setattr(driver_savepoints, "mark", lambda store: "another")
    with pytest.raises(InputError, match=r"run is not seen by 1 node \(.*\); 4 of the trials") as told:
        run_study(study, out=str(tmp_path / "run"), address=cluster.address)
    assert (told.value.code, told.value.exit_code) == ("storage_not_shared", 2)
    assert not (tmp_path / "head" / "prepared").exists()
