"""The same shards, bit for bit, whatever the number of nodes and workers; files are read on the driver's node alone."""

from __future__ import annotations

import hashlib
import time
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
import ray
from ray.cluster_utils import Cluster

from rayscale.on_ray.data.prepare import RayWorkers
from rayscale.on_ray.session.session import connect
from rayscale.study.study import Data, Grid, Ladder, Study, Task
from rayscale.text import shards
from rayscale.text.preparation import Here, prepare
from rayscale.text.shards import Blocks
from rayscale.text.sources import digests
from rayscale.text.tokens.encode import TokenizerSpec

BERT = TokenizerSpec("trained", "bert", 512)
STEPS = {"name": "mixed", "swap": {"share": 0.3}}


def node() -> str:
    return str(ray.get_runtime_context().get_node_id())


def read(number: int) -> pa.Table:
    return pa.table({"row": [number], "read": [node()]})


def work(table: pa.Table, seconds: float) -> pa.Table:
    time.sleep(seconds)
    return table.append_column("worked", [[node()]])


@pytest.mark.parametrize("cpus", [(1,), (2, 2)], ids=["one node and one worker", "two nodes and four workers"])
def test_one_worker_and_four_on_two_nodes_prepare_the_same_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpus: tuple[int, ...]
) -> None:
    words = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(900)]
    text = "".join(f'{{"text": "{word[:20]} {word[20:50]}", "label": "{i % 3}"}}\n' for i, word in enumerate(words))
    (tmp_path / "rows.jsonl").write_text(text + "".join(text.splitlines(keepends=True)[:50]))
    study = Study(
        name="study",
        task=Task(type="sequence-classification", max_length=16),
        data=Data(train=str(tmp_path / "rows.jsonl"), augment=("none", STEPS)),
        models=(Ladder(family="bert", sizes=("1x64",)),),
        grid=Grid(examples=(100,)),
    )
    monkeypatch.setattr(digests, "BLOCK_BYTES", 9000)
    monkeypatch.setattr(shards, "BATCH_ROWS", 100)
    folders = {}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus[0], "include_dashboard": False})
    try:
        for more in cpus[1:]:
            cluster.add_node(num_cpus=more)
        cluster.wait_for_nodes()
        with connect(cluster.address, "cpu", 60):
            driver = node()
            for name, workers in (("here", Here()), ("ray", RayWorkers())):
                monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / name))
                made = prepare(study, [BERT], [0], workers)[f"{BERT.name}+mixed"].path.parent
                folders[name] = {
                    str(path.relative_to(made)): path.read_bytes() for path in made.rglob("*") if path.is_file()
                }
            tables = list(RayWorkers().transform(partial(work, seconds=0.5), Blocks(read, tuple(range(12)))))
    finally:
        cluster.shutdown()
    assert folders["ray"] == folders["here"]
    assert sum(name.endswith("train.arrow") for name in folders["here"]) == 4
    found = pa.concat_tables(tables).sort_by("row").to_pydict()
    assert found["row"] == list(range(12))
    assert set(found["read"]) == {driver}
    assert len(set(found["worked"])) == len(cpus)
