"""The same trial on one and on two ranks: the same losses, weights and metrics, within floating-point order."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rank_worker
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from rayscale.errors import TrialError
from rayscale.nn.group import Group

CASES = ["classify-49", "classify-53", "tag", "continue"]
CLOCKED = {"train_seconds", "eval_seconds", "examples_per_second", "tokens_per_second", "peak_memory_bytes"}


Results = dict[str, Any]


@pytest.fixture(scope="module")
def both(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results, list[Results]]:
    """(folder, results of one rank, results of each of two ranks)."""
    folder = tmp_path_factory.mktemp("ranks")
    shutil.copytree(tiny_bert, folder / "bert")
    (folder / "tokenizer").mkdir()
    paths = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
    script = Path(__file__).with_name("rank_worker.py")
    workers = [
        subprocess.Popen([sys.executable, script, str(rank), "2", folder], env={**os.environ, "PYTHONPATH": paths})
        for rank in range(2)
    ]
    try:
        alone = rank_worker.run(0, 1, folder)
        assert [worker.wait(timeout=400) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    return folder, alone, [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


def _without_key_bias(name: str, value: torch.Tensor) -> torch.Tensor:
    """The softmax of attention does not feel the bias of keys: its gradient is rounding, which Adam scales up."""
    if name.endswith("attention.self.key.bias"):
        return value[:0]
    if name.endswith("c_attn.bias"):
        query, _, values = value.chunk(3)
        return torch.cat([query, values])
    return value


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_learn_what_one_learns(both: tuple, case: str) -> None:
    folder, alone, (first, second) = both
    one, two = alone[case], first[case]
    assert two == second[case], "all ranks report the same"
    for key in one.keys() - CLOCKED - {"micro_batch"} - {"curve"}:
        if key == "classes":
            assert two[key] == [pytest.approx(row) for row in one[key]]
            continue
        assert two[key] == (pytest.approx(one[key], rel=2e-5) if isinstance(one[key], float) else one[key]), key
    for here, there in zip(one["curve"], two["curve"], strict=True):
        assert there == {k: pytest.approx(v, rel=2e-5) if v is not None else None for k, v in here.items()}
    weights, halves = (load_file(folder / f"{case}-{n}" / "model.safetensors") for n in (1, 2))
    for name, value in weights.items():
        compared = _without_key_bias(name, value), _without_key_bias(name, halves[name])
        assert_close(*compared, rtol=1e-3, atol=2e-5, msg=name)


def test_all_ranks_agree_that_it_diverged(both: tuple) -> None:
    _, alone, (first, second) = both
    assert {r["diverge"]["status"] for r in (alone, first, second)} == {"diverged"}
    assert first["diverge"]["error"] == second["diverge"]["error"]


def test_missing_process_group() -> None:
    with pytest.raises(TrialError, match="2 workers"):
        Group.join(0, 2, "cpu")
